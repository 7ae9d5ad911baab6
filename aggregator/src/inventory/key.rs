//! What a record is known by.

use std::fmt;

use super::Kind;

/// UID within a kind: an ownerless pod is two records with one UID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key(pub(super) Kind, pub(super) Uid);

/// A UID, which is a UUID but for those that a kubelet makes for static pods.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Uid {
    /// Written in lower case with hyphens. This form needs no allocation.
    Uuid([u8; 16]),
    /// Any other text.
    Other(Box<str>),
}

/// Places of the hyphens in a UUID's text.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl Uid {
    /// No other one is before it.
    pub(super) const FIRST: Self = Self::Uuid([0; 16]);
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        uuid(text).map_or_else(|| Self::Other(text.into()), Self::Uuid)
    }
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let (mut bytes, mut digits) = ([0; 16], 0);
    for (place, character) in text.bytes().enumerate() {
        let digit = match character {
            b'-' if HYPHENS.contains(&place) => continue,
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => return None,
        };
        let byte: &mut u8 = bytes.get_mut(digits / 2)?;
        *byte = *byte << 4 | digit;
        digits += 1;
    }
    (digits == 32).then_some(bytes)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text) => f.write_str(text),
            Self::Uuid(bytes) => bytes.iter().enumerate().try_for_each(|(place, byte)| {
                let hyphen = if [4, 6, 8, 10].contains(&place) { "-" } else { "" };
                write!(f, "{hyphen}{byte:02x}")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_uid_keeps_its_text(
            text in prop_oneof![
                "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                "[0-9a-fA-F-]{36}",
                "[0-9a-f]{36}",
                "[0-9a-f]{32}",
                ".{0,40}",
            ],
        ) {
            prop_assert_eq!(Uid::from(text.as_str()).to_string(), text);
        }
    }

    #[test]
    fn a_uuid_is_sixteen_bytes() {
        let uid = Uid::from("01234567-89ab-cdef-0123-456789abcdef");
        assert!(matches!(uid, Uid::Uuid([0x01, 0x23, .., 0xef])) && uid > Uid::FIRST);
    }
}
