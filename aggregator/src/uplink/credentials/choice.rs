//! Which of several credentials is used: the newest, unless the server refused it.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

/// What tells one credential from another inside this process, without holding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// Of some bytes, piece by piece.
    pub(super) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        pieces.into_iter().for_each(|piece| piece.hash(&mut hasher));
        Self(hasher.finish())
    }
}

/// What the server did not take.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeSet<Fingerprint>);

impl Refused {
    pub(super) fn add(&mut self, fingerprint: Fingerprint) {
        self.0.insert(fingerprint);
    }

    pub(super) fn has(&self, fingerprint: Fingerprint) -> bool {
        self.0.contains(&fingerprint)
    }

    /// Takes out what was refused, and forgets what is no candidate any more.
    /// When nothing is left, a new round begins with all of them: the server
    /// may have been wrong.
    pub(super) fn sift<T>(&mut self, candidates: Vec<T>, fingerprint: impl Fn(&T) -> Fingerprint) -> Vec<T> {
        self.0.retain(|refused| candidates.iter().any(|candidate| fingerprint(candidate) == *refused));
        if candidates.iter().all(|candidate| self.has(fingerprint(candidate))) {
            self.0.clear();
        }
        candidates.into_iter().filter(|candidate| !self.has(fingerprint(candidate))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_left_out_until_everything_was() {
        let fingerprint = |name: &&str| Fingerprint::of([name.as_bytes()]);
        let mut refused = Refused::default();
        let mut sift = |new: Option<&str>, candidates: &[&'static str]| {
            new.iter().for_each(|name| refused.add(fingerprint(name)));
            refused.sift(candidates.to_vec(), fingerprint)
        };
        assert_eq!(sift(None, &["a", "b"]), ["a", "b"]);
        assert_eq!(sift(Some("b"), &["a", "b"]), ["a"]);
        assert_eq!(sift(None, &["a", "b", "c"]), ["a", "c"]);
        assert_eq!(sift(Some("a"), &["a", "b"]), ["a", "b"], "a new round");
        assert_eq!(sift(Some("b"), &["a"]), ["a"]);
        assert_eq!(sift(None, &["a", "b"]), ["a", "b"], "forgotten while it was away");
        assert!(sift(None, &[]).is_empty());
    }
}
