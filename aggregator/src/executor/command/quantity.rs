//! Quantities of Kubernetes, such as `250m` and `1.5Gi`.

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
}
