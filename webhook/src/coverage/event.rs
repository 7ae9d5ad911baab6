//! Events that are to be written: one for each owner and reason, as many of
//! its pods as it may be about.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use jiff::{SignedDuration, Timestamp};

use crate::cluster::Owner;

/// The API server keeps an Event for an hour. Until then nothing is told
/// again, and what is older than that is news to nobody.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// Events that wait to be written, about 600 bytes each.
const MOST_WAITING: usize = 256;
/// Events of the last hour that are remembered, about 100 bytes each.
const MOST_REMEMBERED: usize = 4096;
/// Of the subject's name in an Event's, which has room for 253 characters.
const LONGEST_NAME: usize = 200;
/// What the API server takes as a note.
const LONGEST_NOTE: usize = 1024;

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// What it is about: what makes the pod, or the pod.
    pub subject: Owner,
    /// Where that is.
    pub namespace: String,
    /// One word for programs.
    pub reason: &'static str,
    /// Which kind of that reason; an owner hears of each once an hour.
    pub label: String,
    /// A sentence for people.
    pub note: String,
}

/// What nobody has been told yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    waiting: VecDeque<Telling>,
    told: BTreeMap<u64, Timestamp>,
    pub(super) dropped: u64,
}

impl Telling {
    /// The Event's name. Replicas give the same Event the same name, so that the API server keeps one.
    pub fn name(&self) -> String {
        let name: String = self.subject.name.chars().take(LONGEST_NAME).collect();
        // Cut, it may end as no part of a name may.
        format!("{}.{:016x}", name.trim_end_matches(['-', '.']), self.identity())
    }

    fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.subject.uid, self.reason, &self.label).hash(&mut hasher);
        hasher.finish()
    }
}

impl Untold {
    /// `since` is when the pod was created; `now` if that is not what matters.
    pub(super) fn add(&mut self, mut telling: Telling, since: Option<Timestamp>, now: Timestamp) {
        self.told.retain(|_, told| now.duration_since(*told) < KEPT);
        let is_old = since.is_some_and(|since| now.duration_since(since) >= KEPT);
        let identity = telling.identity();
        if is_old || self.told.contains_key(&identity) {
            return;
        }
        if self.waiting.len() >= MOST_WAITING || self.told.len() >= MOST_REMEMBERED {
            self.dropped += 1;
            return;
        }
        self.told.insert(identity, now);
        telling.note = telling.note.chars().take(LONGEST_NOTE).collect();
        while telling.note.len() > LONGEST_NOTE {
            telling.note.pop();
        }
        self.waiting.push_back(telling);
    }

    pub(super) fn forget(&mut self, telling: &Telling) {
        self.told.remove(&telling.identity());
    }

    pub(super) fn take(&mut self, most: usize) -> Vec<Telling> {
        self.waiting.drain(..most.min(self.waiting.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling(uid: &str, label: &str) -> Telling {
        Telling {
            subject: Owner { name: "shop-5d8f".to_owned(), uid: uid.to_owned(), ..Owner::default() },
            namespace: "shop".to_owned(),
            reason: "CollectorSkipped",
            label: label.to_owned(),
            note: "ä".repeat(2000),
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    #[test]
    fn an_owner_hears_of_a_reason_once_an_hour_and_never_of_what_is_old() {
        let mut untold = Untold::default();
        for (uid, label, since, now, told) in [
            ("1", "quota", Some(0), 0, 1),
            ("1", "quota", Some(1), 1, 0),
            ("1", "windows", Some(1), 1, 1),
            ("2", "quota", Some(1), 1, 1),
            ("3", "quota", Some(0), 60, 0),
            ("3", "quota", None, 60, 1),
            ("1", "quota", Some(60), 60, 1),
        ] {
            untold.add(telling(uid, label), since.map(at), at(now));
            assert_eq!(untold.take(10).len(), told, "{uid} {label} {now}");
        }
        assert_eq!(untold.dropped, 0);
    }

    #[test]
    fn what_waits_and_what_is_remembered_is_bounded_and_drops_are_counted() {
        let mut untold = Untold::default();
        for number in 0..MOST_WAITING + 5 {
            untold.add(telling(&number.to_string(), "quota"), None, at(0));
        }
        assert_eq!((untold.take(usize::MAX).len(), untold.dropped), (MOST_WAITING, 5));
        for number in 0..=MOST_REMEMBERED {
            untold.add(telling(&number.to_string(), "quota"), None, at(0));
            untold.take(1);
        }
        assert_eq!((untold.told.len(), untold.dropped), (MOST_REMEMBERED, 6));
    }

    #[test]
    fn names_are_the_same_everywhere_and_notes_fit() {
        let mut untold = Untold::default();
        untold.add(telling("1", "quota"), None, at(0));
        let found = untold.take(1).remove(0);
        assert_eq!(found.name(), telling("1", "quota").name());
        assert_ne!(found.name(), telling("1", "windows").name());
        assert_eq!(found.note.len(), LONGEST_NOTE);
        let mut long = telling("1", "quota");
        long.subject.name = format!("{}-{}", "x".repeat(LONGEST_NAME - 1), "y".repeat(50));
        let name = long.name();
        assert!(name.starts_with(&format!("{}.", "x".repeat(LONGEST_NAME - 1))), "{name}");
    }

    #[test]
    fn what_could_not_be_told_is_told_of_the_next_pod() {
        let mut untold = Untold::default();
        untold.add(telling("1", "quota"), None, at(0));
        untold.forget(&untold.waiting[0].clone());
        untold.take(1);
        untold.add(telling("1", "quota"), None, at(1));
        assert_eq!(untold.take(1).len(), 1);
    }
}
