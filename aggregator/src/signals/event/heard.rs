//! What was told and then forgotten for want of room.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
};

/// UIDs after which the earlier ones make room.
const MOST: usize = 50_000;

/// The last 50,000 to 100,000 UIDs under which something was told that is not remembered.
/// Of a UID eight bytes are kept.
#[derive(Default)]
pub(super) struct Heard {
    hasher: RandomState,
    last: HashSet<u64>,
    earlier: HashSet<u64>,
}

impl Heard {
    pub(super) fn add(&mut self, uid: &str) {
        if self.last.len() >= MOST {
            self.earlier = std::mem::take(&mut self.last);
        }
        self.last.insert(self.hasher.hash_one(uid));
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        let hash = self.hasher.hash_one(uid);
        self.last.contains(&hash) || self.earlier.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_no_more_than_there_is_room_for() {
        let mut heard = Heard::default();
        for number in 0..5 * MOST {
            heard.add(&number.to_string());
            assert!(heard.last.len() + heard.earlier.len() <= 2 * MOST);
        }
        assert!((4 * MOST..5 * MOST).all(|number| heard.contains(&number.to_string())));
        assert!(!heard.contains("0") && !heard.contains("another"));
    }
}
