//! Quantities of Kubernetes, such as `250m` and `1.5Gi`.

use std::fmt;

/// The number that a text stands for.
pub(super) fn parse(text: &str) -> Option<f64> {
    let end = text
        .find(|char: char| !char.is_ascii_digit() && !matches!(char, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        suffix => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_f64.powi(exponent)
        }
    };
    Some(number * factor)
}

/// In what a quantity counts, which a sum has from what was first added up.
#[derive(Clone, Copy, Debug, Default)]
enum Form {
    #[default]
    Decimal,
    Binary,
    Exponent,
}

/// A quantity that can be added up and written again: exact to a thousandth, and to 2^53 where it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    thousandths: i128,
    form: Form,
}

impl Amount {
    /// Of a text that is none, nothing.
    pub(super) fn of(text: &str) -> Self {
        let number = parse(text).unwrap_or_default();
        let (whole, rest) = (number.trunc() as i128, (number.fract() * 1000.0).round() as i128);
        let form = match text.trim_start_matches(|char: char| !char.is_alphabetic()) {
            suffix if suffix.ends_with('i') => Form::Binary,
            suffix if suffix.len() > 1 => Form::Exponent,
            _ => Form::Decimal,
        };
        Self { thousandths: whole.saturating_mul(1000).saturating_add(rest), form }
    }

    pub(super) fn is_zero(self) -> bool {
        self.thousandths == 0
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let form = if self.is_zero() { other.form } else { self.form };
        Self { thousandths: self.thousandths.saturating_add(other.thousandths), form }
    }

    /// The larger one.
    pub(super) fn or_more(self, other: Self) -> Self {
        if other.thousandths > self.thousandths { other } else { self }
    }

    /// How many of another it is, or of ones, begun ones counted.
    pub(super) fn over(self, divisor: Option<Self>) -> i128 {
        let divisor = divisor.map_or(1000, |divisor| divisor.thousandths);
        self.thousandths / divisor + i128::from(self.thousandths % divisor > 0)
    }

    /// Whole percents of another, of which there may be none.
    pub(super) fn percent(self, of: Self) -> i64 {
        match of.is_zero() {
            true => 0,
            false => (self.thousandths as f64 / of.thousandths as f64 * 100.0) as i64,
        }
    }
}

impl fmt::Display for Amount {
    /// As short as it can be without a point.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.thousandths / 1000;
        let (step, mut number, mut power, units) = match self.form {
            Form::Binary if self.thousandths % 1000 == 0 && whole.abs() >= 1024 => {
                (1024, whole, 1, ["", "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
            }
            Form::Exponent => (1000, self.thousandths, 0, ["e-3", "", "e3", "e6", "e9", "e12", "e15", "e18"]),
            _ => (1000, self.thousandths, 0, ["m", "", "k", "M", "G", "T", "P", "E"]),
        };
        if number == 0 {
            return formatter.write_str("0");
        }
        while number % step == 0 && power + 1 < units.len() {
            number /= step;
            power += 1;
        }
        write!(formatter, "{number}{}", units[power])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        for (text, number) in [
            ("250m", 0.25),
            ("2", 2.0),
            ("1.5Gi", 1_610_612_736.0),
            ("3e2", 300.0),
            ("12345n", 0.000_012_345),
        ] {
            assert!((parse(text).unwrap() - number).abs() < 1e-9, "{text}");
        }
        for text in ["", "x", "Gi", "1Zi", "2024-01-01T00:00:00Z", "a1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_added_up_and_written_as_go_writes_them() {
        for (texts, written) in [
            (&["250m", "750m"][..], "1"),
            (&["100m", "0.25"], "350m"),
            (&["0", "64Mi", "128Mi"], "192Mi"),
            (&["1Gi", "1M"], "1074741824"),
            (&["512", "512Ki"], "524800"),
            (&["1Ki", "1Ki"], "2Ki"),
            (&["0.5Ki"], "512"),
            (&["1500k", "500k"], "2M"),
            (&["1e9", "1G"], "2e9"),
            (&["16Ei", "16Ei"], "32Ei"),
            (&["", "x"], "0"),
        ] {
            let sum = texts.iter().fold(Amount::default(), |sum, text| sum.plus(Amount::of(text)));
            assert_eq!(sum.to_string(), written, "{texts:?}");
        }
        let largest = Amount::of("1e300").plus(Amount::of("1e300"));
        assert_eq!(largest.percent(largest), 100, "there is a largest one");
        assert_eq!(Amount::of("1Gi").or_more(Amount::of("1G")).to_string(), "1Gi");
        let over = |text: &str, of: Option<&str>| Amount::of(text).over(of.map(Amount::of));
        assert_eq!([over("250m", None), over("250m", Some("1m")), over("128Mi", Some("1M"))], [1, 250, 135]);
        let percent = |part: &str, of: &str| Amount::of(part).percent(Amount::of(of));
        assert_eq!(
            [percent("350m", "4"), percent("1", "300m"), percent("64Mi", ""), percent("", "")],
            [8, 333, 0, 0]
        );
    }
}
