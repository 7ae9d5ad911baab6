//! Percent-encoding: taken off once, put on once.

use super::reason::{Reason, Refused};

/// Decodes `%XX` once, and in a query `+` as a blank.
pub(crate) fn decode(text: &str, in_query: bool) -> Result<String, Refused> {
    let malformed =
        || Refused::new(Reason::Encoding, "a % must be followed by two hexadecimal digits of valid UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let byte =
                    digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(malformed)?;
                bytes.push(byte);
                rest = &after[2..];
            }
            b'+' if in_query => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// Encodes everything but RFC 3986's unreserved characters.
pub(crate) fn encode(text: &str, into: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _writing_to_a_string_works = write!(into, "%{byte:02X}");
        }
    }
}
