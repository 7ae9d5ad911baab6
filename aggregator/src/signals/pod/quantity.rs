//! Kubernetes quantities, such as `100m`, `1.5Gi` or `2e3`, as numbers.

/// The quantity, rounded up to a whole number; `None` if it is none, or too large.
pub(super) fn whole(text: &str) -> Option<i64> {
    scaled(text, 1)
}

/// Thousandths of the quantity, rounded up.
pub(super) fn milli(text: &str) -> Option<i64> {
    scaled(text, 1000)
}

fn scaled(text: &str, scale: i128) -> Option<i64> {
    let end = text.find(|it: char| !(it.is_ascii_digit() || "+-.".contains(it))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (times, by) = factor(suffix)?;
    let numerator = digits.checked_mul(times)?.checked_mul(scale)?;
    let denominator = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(by)?;
    let (quotient, rest) = (numerator.div_euclid(denominator), numerator.rem_euclid(denominator));
    i64::try_from(quotient + i128::from(rest > 0)).ok()
}

/// What a suffix multiplies and divides by.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let ten = |exponent: u32| Some((10_i128.checked_pow(exponent)?, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => Some((1 << 10, 1)),
        "Mi" => Some((1 << 20, 1)),
        "Gi" => Some((1 << 30, 1)),
        "Ti" => Some((1 << 40, 1)),
        "Pi" => Some((1 << 50, 1)),
        "Ei" => Some((1 << 60, 1)),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("100m", Some(100)),
            ("1.5", Some(1500)),
            ("2", Some(2000)),
            ("1u", Some(1)),
            ("1e3", Some(1_000_000)),
            ("1E-3", Some(1)),
            ("-100m", Some(-100)),
            (".5", Some(500)),
            ("", None),
            ("m", None),
            ("1.2.3", None),
            ("1x", None),
            ("1e99", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(milli(text), expected, "{text:?}");
        }
        for (text, expected) in [
            ("128Mi", Some(128 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("1G", Some(1_000_000_000)),
            ("128974848000m", Some(128_974_848)),
            ("1500m", Some(2)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("100E", None),
        ] {
            assert_eq!(whole(text), expected, "{text:?}");
        }
    }
}
