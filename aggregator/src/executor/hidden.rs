//! Stands in the place of a secret: a keyed hash, by which equal secrets are seen to be equal and
//! nothing else is seen, or where that would be too much, a mark that is always the same.

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
/// What begins a hash.
pub(crate) const HASH: &str = "[hidden:";
/// Stands for every secret in a text.
pub(crate) const MARK: &str = "[hidden]";

/// How a secret is hidden, which depends on who may have written it.
#[derive(Clone, Copy)]
pub(crate) enum Hide<'a> {
    /// It is the whole value of a field that the cluster keeps: who asks has neither written it nor says where it
    /// ends, so equal ones may be seen to be equal.
    Hashed(&'a Hashes),
    /// It stands in a text, which may hold what was asked and end where the asker says: its hash would be that of a
    /// guess, or of a first letter.
    Marked,
}

impl Hide<'_> {
    /// What is shown for a value.
    pub(crate) fn of(self, value: &[u8]) -> String {
        match self {
            Self::Hashed(hashes) => hashes.of(value),
            Self::Marked => MARK.to_owned(),
        }
    }

    /// The same for a value in base64, so that it equals that of the plain one.
    pub(crate) fn of_base64(self, value: &str) -> String {
        match BASE64_STANDARD.decode(value) {
            Ok(bytes) => self.of(&bytes),
            Err(_) => self.of(value.as_bytes()),
        }
    }
}

/// The length of the mark or hash with which a text begins.
pub(crate) fn hidden_length(text: &str) -> Option<usize> {
    if text.starts_with(MARK) {
        return Some(MARK.len());
    }
    let (inner, _) = text.strip_prefix(HASH)?.split_at_checked(4 + 1 + 2 * SHOWN)?;
    let (id, hash) = inner.split_once(':')?;
    let is_hex = id.len() == 4 && id.bytes().chain(hash.bytes()).all(|byte| byte.is_ascii_hexdigit());
    let end = HASH.len() + inner.len();
    (is_hex && text[end..].starts_with(']')).then_some(end + 1)
}

/// Whether a text is nothing but what stands for a secret.
pub(crate) fn is_hidden(text: &str) -> bool {
    hidden_length(text) == Some(text.len())
}

/// The text with marks in the place of the secrets that are found in it; `None` if there are none.
pub(crate) fn marked(text: &str) -> Option<String> {
    let mut secrets = secret::find(text);
    secrets.retain(|secret| !is_hidden(&text[secret.clone()]));
    if secrets.is_empty() {
        return None;
    }
    let (mut shown, mut kept) = (String::with_capacity(text.len()), 0);
    for secret in secrets {
        shown.push_str(&text[kept..secret.start]);
        shown.push_str(MARK);
        kept = secret.end;
    }
    shown.push_str(&text[kept..]);
    Some(shown)
}

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
    fn of(&self, value: &[u8]) -> String {
        let hash = hmac::sign(&self.key, value);
        format!("{HASH}{}:{}]", self.id, hex(&hash.as_ref()[..SHOWN]))
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
    fn equal_values_of_fields_have_equal_hashes_and_only_under_one_key() {
        let (one, other) = (Hashes::new().unwrap(), Hashes::new().unwrap());
        let (field, elsewhere) = (Hide::Hashed(&one), Hide::Hashed(&other));
        assert_eq!(field.of(b"hunter2"), field.of_base64("aHVudGVyMg=="));
        assert_ne!(field.of(b"hunter2"), field.of(b"hunter3"));
        assert_ne!(field.of(b"hunter2"), elsewhere.of(b"hunter2"));
        assert!(is_hidden(&field.of(b"hunter2")) && is_hidden(MARK));
        for text in ["[hidden:", "[hidden:ab12:hunter2]", "[hidden:ab12:0123456789abcdef", "[hidden]hunter2"]
        {
            assert!(!is_hidden(text), "{text}");
        }
    }

    #[test]
    fn every_secret_of_a_text_looks_like_every_other() {
        assert_eq!(Hide::Marked.of(b"hunter2"), Hide::Marked.of_base64("eA=="));
        let shown = marked("user=me password=hunter2 db://me:x@db").unwrap();
        assert_eq!(shown, "user=me password=[hidden] db://me:[hidden]@db");
        assert_eq!(marked(&shown), None, "once hidden, nothing is left to hide");
        assert_eq!(marked("user=me"), None);
    }
}
