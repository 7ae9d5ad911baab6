//! Who reports, and how much of it could be used.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kestrel_als::{Reporter, identity::Identity};

/// Proxies that are told apart. More are one that says nothing of itself. Each takes about 1 KiB.
const MOST_REPORTERS: usize = 20_000;
/// Workloads whose entries are counted apart; those of more are counted together.
const MOST_SOURCES: usize = 5_000;
/// Number of the reporter that is told apart from nobody, and name of the sources for which there is no room.
const ANYBODY: u32 = 0;
const OTHERS: &str = "others";

/// What became of the entries of a source. What was received is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Counted in a row of their own.
    pub aggregated: u64,
    /// Counted, without their path or more.
    pub folded: u64,
    /// Not counted.
    pub refused: u64,
}

impl Tally {
    /// All that came.
    pub fn received(self) -> u64 {
        self.aggregated + self.folded + self.refused
    }

    /// Adds what became of others.
    pub fn add(&mut self, other: Self) {
        self.aggregated += other.aggregated;
        self.folded += other.folded;
        self.refused += other.refused;
    }
}

/// A proxy whose stream is open, or whose entries have not been told.
#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    streams: usize,
    /// The window in which it was last heard of.
    heard: u64,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sources {
    numbers: HashMap<Arc<Identity>, u32>,
    known: HashMap<u32, Known>,
    next: u32,
    tallies: BTreeMap<String, Tally>,
    /// Windows told so far.
    windows: u64,
}

impl Default for Sources {
    fn default() -> Self {
        let identity = Arc::<Identity>::default();
        let anybody = Known { identity: Arc::clone(&identity), streams: 1, heard: 0 };
        Self {
            numbers: HashMap::from([(identity, ANYBODY)]),
            known: HashMap::from([(ANYBODY, anybody)]),
            next: 1,
            tallies: BTreeMap::new(),
            windows: 0,
        }
    }
}

impl Sources {
    /// A stream of this proxy begins.
    pub(super) fn open(&mut self, identity: Identity) -> Reporter {
        let number = match self.numbers.get(&identity) {
            Some(number) => *number,
            None if self.known.len() >= MOST_REPORTERS => ANYBODY,
            None => {
                let number = self.next;
                // In a century.
                self.next = self.next.wrapping_add(1).max(1);
                let identity = Arc::new(identity);
                self.numbers.insert(Arc::clone(&identity), number);
                self.known.insert(number, Known { identity, streams: 0, heard: self.windows });
                number
            }
        };
        let Some(known) = self.known.get_mut(&number) else {
            return Reporter { number: ANYBODY, address: [].into() };
        };
        known.streams += 1;
        known.heard = self.windows;
        let address = known.identity.address.map(|address| address.to_string()).unwrap_or_default();
        Reporter { number, address: address.into_bytes().into() }
    }

    /// A stream of it has ended.
    pub(super) fn close(&mut self, reporter: &Reporter) {
        if let Some(known) = self.known.get_mut(&reporter.number) {
            known.streams = known.streams.saturating_sub(1);
            known.heard = self.windows;
        }
    }

    /// Who they are, by their numbers.
    pub(super) fn identities(&self) -> HashMap<u32, Arc<Identity>> {
        self.known.iter().map(|(number, known)| (*number, Arc::clone(&known.identity))).collect()
    }

    /// A window has been taken to be told: proxies of which nothing is in a later one are forgotten.
    pub(super) fn forget(&mut self) {
        self.windows += 1;
        let windows = self.windows;
        let is_needed = |known: &Known| known.streams > 0 || known.heard + 4 > windows;
        self.known.retain(|number, known| *number == ANYBODY || is_needed(known));
        let known = &self.known;
        self.numbers.retain(|_, number| known.contains_key(number));
    }

    /// Something became of entries of this workload.
    pub(super) fn count(&mut self, source: &str, tally: Tally) {
        let name = if self.tallies.contains_key(source) || self.tallies.len() < MOST_SOURCES {
            source
        } else {
            OTHERS
        };
        match self.tallies.get_mut(name) {
            Some(known) => known.add(tally),
            None => drop(self.tallies.insert(name.to_owned(), tally)),
        }
    }

    /// By workload.
    pub(super) fn tallies(&self) -> &BTreeMap<String, Tally> {
        &self.tallies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: usize) -> Identity {
        Identity { id: id.to_string(), address: "10.0.0.1".parse().ok(), ..Identity::default() }
    }

    #[test]
    fn a_proxy_is_known_until_its_entries_were_told_and_too_many_are_one() {
        let mut sources = Sources::default();
        let (one, again) = (sources.open(identity(1)), sources.open(identity(1)));
        assert_eq!((&one, &*one.address), (&again, &b"10.0.0.1"[..]));
        sources.close(&one);
        (0..9).for_each(|_| sources.forget());
        assert!(sources.identities().contains_key(&one.number), "a stream is open");
        sources.close(&one);
        (0..3).for_each(|_| sources.forget());
        assert!(sources.identities().contains_key(&one.number));
        sources.forget();
        assert!(!sources.identities().contains_key(&one.number));
        let numbers: Vec<u32> = (0..MOST_REPORTERS + 3).map(|id| sources.open(identity(id)).number).collect();
        assert_eq!(numbers.iter().filter(|number| **number == ANYBODY).count(), 4);
        assert_eq!(*sources.identities()[&ANYBODY], Identity::default());
    }

    #[test]
    fn workloads_are_counted_apart_as_far_as_there_is_room() {
        let mut sources = Sources::default();
        let tally = Tally { aggregated: 1, folded: 2, refused: 3 };
        for number in 0..MOST_SOURCES + 2 {
            sources.count(&number.to_string(), tally);
            sources.count(&number.to_string(), tally);
        }
        assert_eq!(sources.tallies().len(), MOST_SOURCES + 1);
        assert_eq!((sources.tallies()["7"].received(), sources.tallies()[OTHERS].received()), (12, 24));
    }
}
