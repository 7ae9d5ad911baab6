//! Any bytes as text that every store takes.

use std::borrow::Cow;

use memchr::memchr;
use simdutf8::compat::from_utf8;

/// What stands for a byte that is no UTF-8.
const REPLACEMENT: char = '\u{FFFD}';

/// What stands for NUL, which is valid UTF-8 but which databases refuse in text.
const NUL: char = '\u{2400}';

/// `bytes` as text: invalid UTF-8 becomes U+FFFD, NUL becomes U+2400, all else
/// stays. Clean input is borrowed, so it costs two scans and no allocation.
pub fn clean(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) if memchr(0, bytes).is_none() => Cow::Borrowed(text),
        _ => {
            let mut text = String::with_capacity(bytes.len() + 64);
            for chunk in bytes.utf8_chunks() {
                text.extend(chunk.valid().chars().map(|c| if c == '\0' { NUL } else { c }));
                if !chunk.invalid().is_empty() {
                    text.push(REPLACEMENT);
                }
            }
            Cow::Owned(text)
        }
    }
}

/// The beginning of `bytes` of which [`clean`] changes nothing.
pub fn fit(bytes: &[u8]) -> &str {
    let bytes = &bytes[..memchr(0, bytes).unwrap_or(bytes.len())];
    from_utf8(bytes).unwrap_or_else(|error| from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default())
}

/// The longest beginning of `bytes` of at most `limit` bytes that does not cut
/// a UTF-8 character in two.
pub fn whole_characters(bytes: &[u8], limit: usize) -> &[u8] {
    if bytes.len() <= limit {
        return bytes;
    }
    let is_boundary = |at: &usize| bytes[*at] & 0b1100_0000 != 0b1000_0000;
    // A character has at most four bytes; further back it was not UTF-8 anyway.
    let end = (limit.saturating_sub(3)..=limit).rev().find(is_boundary).unwrap_or(limit);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unfit_bytes_are_replaced() {
        assert!(matches!(clean("grüße".as_bytes()), Cow::Borrowed("grüße")));
        assert_eq!(clean(b"a\xFFb\0c\xE2\x82"), "a\u{FFFD}b\u{2400}c\u{FFFD}");
    }

    #[test]
    fn what_is_fit_is_not_cleaned() {
        for (bytes, expected) in
            [(&b"a\xFFb"[..], "a"), (b"a\0b", "a"), (b"\xE2\x82", ""), ("grüße".as_bytes(), "grüße")]
        {
            assert_eq!(fit(bytes), expected);
        }
    }

    #[test]
    fn a_cut_falls_between_characters() {
        let text = "aü€x".as_bytes();
        let lengths: Vec<_> = (0..=text.len()).map(|limit| whole_characters(text, limit).len()).collect();
        assert_eq!(lengths, [0, 1, 1, 3, 3, 3, 6, 7]);
        assert_eq!(whole_characters(&[0x80; 10], 5).len(), 5);
    }
}
