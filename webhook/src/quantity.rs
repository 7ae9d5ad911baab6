//! Kubernetes quantities (`100m`, `64Mi`, `1e3`): equal amounts may be written
//! differently.

use std::{borrow::Cow, fmt};

use serde_json::Value;

const UNIT: i128 = 1_000_000_000;

/// An amount, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quantity {
    text: Cow<'static, str>,
    billionths: i128,
}

impl Quantity {
    /// The amount of one.
    pub(crate) const ONE: i128 = UNIT;

    /// `None` for what is no quantity, too large to be one, or not above 0.
    pub(crate) fn positive(text: &str) -> Option<Self> {
        let billionths = parse(text).filter(|&amount| amount > 0)?;
        Some(Self { text: Cow::Owned(text.to_owned()), billionths })
    }

    /// One above 0, as JSON.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::positive(text),
            Value::Number(number) => Self::positive(&number.to_string()),
            _ => None,
        }
    }

    /// This divided by a number, rounded up to what can be asked for of a
    /// resource: thousandths of a core, or bytes.
    pub(crate) fn divided_by(&self, number: &Self, resource: &str) -> Option<Self> {
        let billionths =
            self.billionths.checked_mul(UNIT)?.checked_add(number.billionths - 1)? / number.billionths;
        let (step, unit) = if resource == "cpu" { (UNIT / 1000, "m") } else { (UNIT, "") };
        let steps = billionths.checked_add(step - 1)? / step;
        Self::positive(&format!("{steps}{unit}"))
    }

    /// One that is written in the program.
    pub(crate) fn known(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), billionths: parse(text).unwrap_or_default() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// In billionths, which is the smallest part that Kubernetes keeps.
    pub(crate) fn amount(&self) -> i128 {
        self.billionths
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The amount in billionths. `None` for what is no quantity or too large to be one.
pub(crate) fn billionths(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = digits.checked_mul(scale(suffix)?)?;
    let divisor = 10_i128.checked_pow(fraction.len().try_into().ok()?)?;
    (scaled % divisor == 0).then_some(scaled / divisor)
}

/// What a suffix stands for, in billionths.
fn scale(suffix: &str) -> Option<i128> {
    let binary = |power| 1024_i128.checked_pow(power)?.checked_mul(UNIT);
    let decimal = |power| 10_i128.checked_pow(power);
    match suffix {
        "n" => decimal(0),
        "u" => decimal(3),
        "m" => decimal(6),
        "" => decimal(9),
        "k" => decimal(12),
        "M" => decimal(15),
        "G" => decimal(18),
        "T" => decimal(21),
        "P" => decimal(24),
        "E" => decimal(27),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            decimal(power.checked_add(9)?.try_into().ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        for (one, other) in [
            ("1", "1000m"),
            ("0.1", "100m"),
            ("+.5", "500m"),
            ("1Gi", "1073741824"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("5E-3", "5m"),
            ("2E", "2000P"),
        ] {
            assert!(parse(one).is_some(), "{one}");
            assert_eq!(parse(one), parse(other), "{one} {other}");
        }
        assert_ne!(parse("1M"), parse("1Mi"));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "x", "1X", "1.2.3", "--1", "1e", "1e99", "0.1n", "99999999999999999999999999999E"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
