//! What is the same in messages that differ by numbers and names only.

/// How much of a message is looked at.
const REACH: usize = 512;

/// The longest quoted text that counts as a name.
const QUOTED: usize = 128;

/// A number for the pattern of `line`: what holds a digit (numbers, times, addresses, UUIDs, most hexadecimal
/// ones) and, in a plain line, what stands in quotes counts as equal whatever it is.
pub fn fingerprint(line: &[u8]) -> u64 {
    let line = &line[..line.len().min(REACH)];
    let is_object = line.first() == Some(&b'{');
    let mut hash = Hash::default();
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        let rest = &line[at..];
        if is_part(*byte) {
            let word = &rest[..rest.iter().take_while(|byte| is_part(**byte)).count()];
            if word.iter().any(u8::is_ascii_digit) {
                hash.add(b'#');
            } else {
                word.iter().for_each(|byte| hash.add(*byte));
            }
            at += word.len();
        } else if !is_object && matches!(byte, b'"' | b'\'') {
            // An apostrophe has no other near it, or a part of a word in between.
            let end = rest[1..].iter().take(QUOTED).position(|other| other == byte);
            hash.add(*byte);
            at += end.map_or(1, |end| end + 2);
        } else {
            hash.add(*byte);
            at += 1;
        }
    }
    hash.0
}

/// A part of a word, a number, a path or an address.
fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'-' | b'.' | b':' | b'/' | b'+' | b'%')
        || byte >= 0x80
}

/// FNV-1a.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_of_one_pattern_are_equal_and_others_are_not() {
        for (one, other, equal) in [
            (
                "2026-11-21 13:50:00,123 ERROR order 8812 failed",
                "2026-11-22 01:02:03,4 ERROR order 7 failed",
                true,
            ),
            ("ERROR order 8812 failed", "ERROR order 8812 was lost", false),
            ("ERROR user 'ann' is unknown", "ERROR user 'bob' is unknown", true),
            ("ERROR 10.1.2.3:5432 refused", "ERROR 10.1.2.44:6000 refused", true),
            (
                "ERROR 6ba7b810-9dad-11d1-80b4-00c04fd430c8 x",
                "ERROR 7ca7b810-9dad-11d1-80b4-00c04fd430c8 x",
                true,
            ),
            ("ERROR at 0xdeadbeef1", "ERROR at 0xcafe", true),
            ("ERROR can't open", "ERROR can't close", false),
            (
                r#"{"level":"error","msg":"timeout","n":1}"#,
                r#"{"level":"error","msg":"timeout","n":22}"#,
                true,
            ),
            (r#"{"level":"error","msg":"timeout"}"#, r#"{"level":"error","msg":"refused"}"#, false),
        ] {
            assert_eq!(
                fingerprint(one.as_bytes()) == fingerprint(other.as_bytes()),
                equal,
                "{one} / {other}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(line in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = fingerprint(&line);
        }

        #[test]
        fn numbers_do_not_count(a in any::<u64>(), b in any::<u64>(), before in "[a-z ]{0,20}", after in "[a-z ]{0,20}") {
            let line = |number| format!("{before} {number} {after}");
            prop_assert_eq!(fingerprint(line(a).as_bytes()), fingerprint(line(b).as_bytes()));
        }
    }
}
