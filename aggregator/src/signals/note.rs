//! Which objects have an open incident, for whoever leads when all replicas have been
//! away: what ended meanwhile is told as over.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::incident::after;
use crate::uplink::lanes::SignalLane;

/// Names that are noted at most, as they travel with every renewal of the Lease.
const MOST: usize = 500;

/// What others know of an object, such as the Jobs of a CronJob, has come by then.
const SETTLES: Duration = Duration::from_mins(1);

/// An object that has not been seen by then is gone.
const LISTED: Duration = Duration::from_mins(10);

/// Where signals go, and where it is noted what they leave open.
#[derive(Clone)]
pub struct Voice {
    pub(super) lane: SignalLane,
    pub(super) note: Note,
}

/// One that nobody reads the note of.
impl From<SignalLane> for Voice {
    fn from(lane: SignalLane) -> Self {
        Self { lane, note: Note::default() }
    }
}

/// The objects with an open incident, by the names by which they are registered.
/// Clones share them.
#[derive(Clone, Default)]
pub struct Note(Arc<Mutex<BTreeMap<Arc<str>, Incident>>>);

/// How it stands with the last incident of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incident {
    /// An earlier leader left it open; this replica began to watch then.
    Left(Timestamp),
    Open,
    /// It ended then.
    Ended(Timestamp),
}

impl Note {
    /// An earlier leader left these open, and this replica begins to watch `now`.
    pub fn left(&self, names: &str, now: Timestamp) {
        let mut incidents = self.incidents();
        for name in names.split_ascii_whitespace().take(MOST) {
            incidents.entry(name.into()).or_insert(Incident::Left(now));
        }
    }

    /// From when on it has to be told that nothing is wrong with an object any more, if nothing is.
    pub(super) fn owes(&self, name: &str) -> Option<Timestamp> {
        match self.incidents().get(name)? {
            Incident::Left(since) => since.checked_add(SETTLES).ok(),
            _ => None,
        }
    }

    /// The names of those of which it has to be told that they are over, if nobody has seen anything of them for
    /// `wait` longer than what is known otherwise takes to come.
    pub(super) fn owed(&self, now: Timestamp, wait: Duration) -> Vec<String> {
        let is_owed = |incident: &Incident| match incident {
            Incident::Left(since) => after(*since, SETTLES + wait) <= now,
            _ => false,
        };
        let incidents = self.incidents();
        incidents.iter().filter(|(_, incident)| is_owed(incident)).map(|(name, _)| name.to_string()).collect()
    }

    /// The signal is in its lane that an incident of the object is open, or over. So an end
    /// is not older here than there.
    pub(super) fn turned(&self, name: &str, is_open: bool) {
        let mut incidents = self.incidents();
        if let Some(incident) = incidents.get_mut(name) {
            *incident = if is_open { Incident::Open } else { Incident::Ended(Timestamp::now()) };
        } else if is_open {
            if incidents.len() >= MOST {
                let over = incidents.iter().find(|(_, incident)| matches!(incident, Incident::Ended(_)));
                let Some(over) = over.map(|(name, _)| Arc::clone(name)) else { return };
                incidents.remove(&over);
            }
            incidents.insert(name.into(), Incident::Open);
        }
    }

    /// The names of those of which somebody has to hear after the next start, if everything
    /// that came before `until` has been told. An end that nobody may have heard of is none.
    pub fn names(&self, until: Timestamp) -> String {
        self.forget_told(until);
        self.incidents().keys().map(|name| &**name).collect::<Vec<_>>().join(" ")
    }

    /// Everything that came before `until` has been told.
    pub fn forget_told(&self, until: Timestamp) {
        self.incidents().retain(|_, incident| match incident {
            Incident::Open => true,
            Incident::Left(since) => since.checked_add(LISTED).is_ok_and(|listed| listed >= until),
            Incident::Ended(at) => *at >= until,
        });
    }

    /// The state is whole after each of its operations.
    fn incidents(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Incident>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_open_is_noted_until_its_end_has_been_told() {
        let note = Note::default();
        let before = Timestamp::now();
        note.turned("a", true);
        note.turned("b", true);
        note.turned("a", false);
        note.turned("c", false);
        assert_eq!(note.names(before), "a b", "the end of a may not have arrived");
        assert_eq!(note.names(Timestamp::MAX), "b");
    }

    #[test]
    fn what_was_left_open_is_owed_until_it_turns_or_never_comes() {
        let note = Note::default();
        note.left("a b c", at(0));
        note.turned("a", true);
        note.turned("b", false);
        note.left("a b c", at(6));
        assert_eq!(["a", "b", "c", "d"].map(|name| note.owes(name)), [None, None, Some(at(60)), None]);
        assert_eq!(note.names(at(600)), "a b c");
        note.forget_told(at(601));
        assert_eq!((note.names(at(0)), note.owes("c")), ("a b".to_owned(), None), "it is gone");
    }

    #[test]
    fn there_is_room_for_what_is_open_rather_than_for_what_has_ended() {
        let note = Note::default();
        for number in 0..=MOST {
            note.turned(&format!("{number:03}"), true);
        }
        assert_eq!(note.names(Timestamp::MIN).split(' ').count(), MOST);
        note.turned("007", false);
        note.turned("new", true);
        let names = note.names(Timestamp::MIN);
        assert!(!names.contains("007") && names.contains("new"));
    }
}
