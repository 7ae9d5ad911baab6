//! Stands in the place of a secret: a keyed hash, by which equal secrets are seen to be equal and
//! nothing else is seen.

use std::fmt::Write as _;

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256, Key},
    rand::{SecureRandom as _, SystemRandom},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::secret;

/// The key of this process. It is made at the start, never leaves the memory and ends with the process: there
/// is no object from which it could be read, and what was hashed under another cannot be compared.
pub(crate) struct Hashes {
    key: Key,
    /// Tells hashes of one key from those of another.
    id: String,
}

/// Bytes of a hash that are shown: two secrets of a cluster have not the same by chance.
const SHOWN: usize = 8;

impl Hashes {
    /// Under a new key.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut secret = [0; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| anyhow::anyhow!("the kernel gives no random bytes for the key of hashes"))?;
        let key = Key::new(HMAC_SHA256, &secret);
        let id = hex(&hmac::sign(&key, b"id of the key").as_ref()[..2]);
        Ok(Self { key, id })
    }

    /// What is shown for a value: `[hidden:KEY:HASH]`.
    pub(crate) fn of(&self, value: &[u8]) -> String {
        let hash = hmac::sign(&self.key, value);
        format!("[hidden:{}:{}]", self.id, hex(&hash.as_ref()[..SHOWN]))
    }

    /// The same for a value in base64, so that it equals that of the plain one.
    pub(crate) fn of_base64(&self, value: &str) -> String {
        match BASE64_STANDARD.decode(value) {
            Ok(bytes) => self.of(&bytes),
            Err(_) => self.of(value.as_bytes()),
        }
    }

    /// The text with hashes in the place of the secrets that are found in it; `None` if there are none.
    pub(crate) fn within(&self, text: &str) -> Option<String> {
        let secrets = secret::find(text);
        if secrets.is_empty() {
            return None;
        }
        let (mut shown, mut kept) = (String::with_capacity(text.len()), 0);
        for secret in secrets {
            shown.push_str(&text[kept..secret.start]);
            shown.push_str(&self.of(&text.as_bytes()[secret.clone()]));
            kept = secret.end;
        }
        shown.push_str(&text[kept..]);
        Some(shown)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _writing_to_a_string_works = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_secrets_have_equal_hashes_and_only_under_one_key() {
        let (one, other) = (Hashes::new().unwrap(), Hashes::new().unwrap());
        assert_eq!(one.of(b"hunter2"), one.of_base64("aHVudGVyMg=="));
        assert_ne!(one.of(b"hunter2"), one.of(b"hunter3"));
        assert_ne!(one.of(b"hunter2"), other.of(b"hunter2"));
        let text = one.within("user=me password=hunter2").unwrap();
        assert_eq!(text, format!("user=me password={}", one.of(b"hunter2")));
        assert_eq!(one.within(&text), None, "once hidden, nothing is left to hide");
        assert_eq!(one.within("user=me"), None);
    }
}
