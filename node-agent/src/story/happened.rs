//! What happens on the host: each thing once, what happens again and again with how often.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use super::{Sentence, pace::Pace};
use crate::host::event::Event;

/// What happens again to the same pod is told after this time at first.
const AGAIN: Duration = Duration::from_mins(10);

/// Pods to which something happened lately, each by itself; of more only the number is told.
const MOST: usize = 1000;

/// What happened lately, by kind and pod.
#[derive(Debug, Default)]
pub(super) struct Happened {
    pods: BTreeMap<(&'static str, Option<String>), Repeats>,
    /// Of pods that are told of for the first time: each of a Job may be killed once.
    first: BTreeMap<&'static str, Repeats>,
}

/// How often something happened since it was told.
#[derive(Debug, Default)]
struct Repeats {
    pace: Pace,
    more: u64,
    /// A sentence of the last one, and when it was.
    last: String,
    at: Option<Instant>,
}

impl Repeats {
    fn add(&mut self, message: &str, now: Instant) {
        self.more += 1;
        self.at = Some(now);
        message.clone_into(&mut self.last);
    }

    fn due(&mut self, of: &str, now: Instant) -> Option<Sentence> {
        if self.more == 0 || !self.pace.take(now) {
            return None;
        }
        let Self { more, last, at, .. } =
            std::mem::replace(self, Self { pace: self.pace, ..Self::default() });
        let age = at.map_or(0, |at| now.saturating_duration_since(at).as_secs() / 60);
        let ago = if age == 0 { String::new() } else { format!(" {age} min ago") };
        Some(Sentence::Warning(format!("{more} more of this{of}, the last{ago}: {last}")))
    }
}

impl Happened {
    /// Something happened: what is to be said of it at once.
    pub(super) fn add(&mut self, event: &Event, now: Instant) -> Option<Sentence> {
        let is_full = self.pods.len() >= MOST;
        match self.pods.entry((event.kind, event.pod.clone())) {
            Entry::Occupied(repeats) => {
                repeats.into_mut().add(&event.message, now);
                None
            }
            Entry::Vacant(room) => {
                let first = self.first.entry(event.kind).or_default();
                if is_full || !first.pace.take(now) {
                    first.add(&event.message, now);
                    return None;
                }
                let mut repeats = Repeats { pace: Pace::beginning_with(AGAIN), ..Repeats::default() };
                // A fresh one may.
                let _may = repeats.pace.take(now);
                room.insert(repeats);
                Some(Sentence::Warning(event.message.clone()))
            }
        }
    }

    /// What happened again and again since it was told.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Sentence> {
        let mut due = Vec::new();
        self.pods.retain(|_, repeats| {
            due.extend(repeats.due("", now));
            repeats.more > 0 || !repeats.pace.is_over(now)
        });
        self.first.retain(|_, repeats| {
            due.extend(repeats.due(" in other pods", now));
            repeats.more > 0 || !repeats.pace.is_over(now)
        });
        due
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.first.is_empty()
    }
}
