//! Who reports, and how much of it could be used.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kestrel_proto::node::v1::RequestProxy;

use crate::{Reporter, identity::Identity};

/// Workloads whose entries are counted apart; those of more are counted together.
const MOST_SOURCES: usize = 5_000;
/// Windows after which a workload of which nothing was heard is forgotten: a day.
const KEPT: u64 = 8640;
/// Number of the reporter that is told apart from nobody, and name of the sources for which there is no room.
const ANYBODY: u32 = 0;
const OTHERS: &str = "others";

/// What became of the entries of a source. What was received is the sum of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Counted in a row of their own.
    pub aggregated: u64,
    /// Counted, without their path or more.
    pub folded: u64,
    /// Not counted, as their bytes are none.
    pub malformed: u64,
    /// Not counted, as they are of something that goes on.
    pub unfinished: u64,
    /// Not counted, as another logger of the proxy logs the same.
    pub twins: u64,
    /// Not counted, as their stream sent too much.
    pub over_rate: u64,
}

impl Tally {
    /// What a receiver elsewhere says beside its rows.
    pub(crate) fn of(proxy: &RequestProxy) -> Self {
        let &RequestProxy { folded, malformed, unfinished, twins, over_rate, .. } = proxy;
        Self { aggregated: 0, folded, malformed, unfinished, twins, over_rate }
    }

    /// All that came.
    pub fn received(self) -> u64 {
        self.aggregated.saturating_add(self.folded).saturating_add(self.refused())
    }

    /// All that was not counted.
    pub fn refused(self) -> u64 {
        self.malformed.saturating_add(self.told_by_others()).saturating_add(self.over_rate)
    }

    /// What was not counted, and is no loss: another entry says it.
    pub fn told_by_others(self) -> u64 {
        self.unfinished.saturating_add(self.twins)
    }

    /// Adds what became of others.
    pub fn add(&mut self, other: Self) {
        for (known, more) in [
            (&mut self.aggregated, other.aggregated),
            (&mut self.folded, other.folded),
            (&mut self.malformed, other.malformed),
            (&mut self.unfinished, other.unfinished),
            (&mut self.twins, other.twins),
            (&mut self.over_rate, other.over_rate),
        ] {
            *known = known.saturating_add(more);
        }
    }
}

/// A proxy whose stream is open, or whose entries have not been told.
#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    streams: usize,
    /// The window in which it was last heard of.
    heard: u64,
    /// What became of its entries since that was last taken.
    tally: Tally,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Sources {
    numbers: HashMap<Arc<Identity>, u32>,
    known: HashMap<u32, Known>,
    next: u32,
    /// By workload, with the window in which it was last heard of.
    tallies: BTreeMap<String, (Tally, u64)>,
    /// Windows told so far.
    windows: u64,
    /// Proxies that are told apart. More are one that says nothing of itself. Each takes about 1 KiB.
    most: usize,
}

impl Sources {
    pub(crate) fn new(most: usize) -> Self {
        let identity = Arc::<Identity>::default();
        let anybody =
            Known { identity: Arc::clone(&identity), streams: 1, heard: 0, tally: Tally::default() };
        Self {
            most,
            numbers: HashMap::from([(identity, ANYBODY)]),
            known: HashMap::from([(ANYBODY, anybody)]),
            next: 1,
            tallies: BTreeMap::new(),
            windows: 0,
        }
    }

    /// A stream of this proxy begins.
    pub(crate) fn open(&mut self, identity: Identity) -> Reporter {
        let number = match self.numbers.get(&identity) {
            Some(number) => *number,
            None if self.known.len() >= self.most => ANYBODY,
            None => {
                let number = self.next;
                // In a century.
                self.next = self.next.wrapping_add(1).max(1);
                let identity = Arc::new(identity);
                self.numbers.insert(Arc::clone(&identity), number);
                let tally = Tally::default();
                self.known.insert(number, Known { identity, streams: 0, heard: self.windows, tally });
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
    pub(crate) fn close(&mut self, reporter: &Reporter) {
        if let Some(known) = self.known.get_mut(&reporter.number) {
            known.streams = known.streams.saturating_sub(1);
            known.heard = self.windows;
        }
    }

    /// Who they are, by their numbers.
    pub(crate) fn identities(&self) -> HashMap<u32, Arc<Identity>> {
        self.known.iter().map(|(number, known)| (*number, Arc::clone(&known.identity))).collect()
    }

    /// A window has been taken to be told: proxies of which nothing is in a later one are forgotten.
    pub(crate) fn forget(&mut self) {
        self.windows += 1;
        let windows = self.windows;
        let is_needed = |known: &Known| known.streams > 0 || known.heard + 4 > windows;
        self.known.retain(|number, known| *number == ANYBODY || is_needed(known));
        let known = &self.known;
        self.numbers.retain(|_, number| known.contains_key(number));
        self.tallies.retain(|_, (_, heard)| *heard + KEPT > windows);
    }

    /// What became of each proxy's entries since this was last asked, of those of whom anything came. `counted` is how many of
    /// each are told at the same time: of no more it is said that they were folded, and of the rest the next time.
    pub(crate) fn take_tallies(&mut self, counted: &HashMap<u32, u64>) -> Vec<(u32, Arc<Identity>, Tally)> {
        let mut taken = Vec::new();
        for (number, known) in &mut self.known {
            let all = std::mem::take(&mut known.tally);
            let counted = counted.get(number).copied().unwrap_or_default();
            let folded = all.folded.min(counted);
            known.tally.folded = all.folded - folded;
            if counted > 0 || all.refused() > 0 {
                let tally = Tally { aggregated: counted - folded, folded, ..all };
                taken.push((*number, Arc::clone(&known.identity), tally));
            }
        }
        taken
    }

    /// So many entries of this proxy that were told apart are so no longer.
    pub(crate) fn folded(&mut self, reporter: u32, entries: u64) {
        if let Some(known) = self.known.get_mut(&reporter) {
            known.tally.folded = known.tally.folded.saturating_add(entries);
        }
    }

    /// Something became of entries of this proxy, which is of this workload.
    pub(crate) fn count(&mut self, reporter: u32, source: &str, tally: Tally) {
        if let Some(known) = self.known.get_mut(&reporter) {
            known.tally.add(tally);
            known.heard = self.windows;
        }
        let name = if self.tallies.contains_key(source) || self.tallies.len() < MOST_SOURCES {
            source
        } else {
            OTHERS
        };
        match self.tallies.get_mut(name) {
            Some((known, heard)) => {
                known.add(tally);
                *heard = self.windows;
            }
            None => drop(self.tallies.insert(name.to_owned(), (tally, self.windows))),
        }
    }

    /// By workload.
    pub(crate) fn tallies(&self) -> BTreeMap<String, Tally> {
        self.tallies.iter().map(|(name, (tally, _))| (name.clone(), *tally)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 20;

    fn identity(id: usize) -> Identity {
        Identity { id: id.to_string(), address: "10.0.0.1".parse().ok(), ..Identity::default() }
    }

    #[test]
    fn a_proxy_is_known_until_its_entries_were_told_and_too_many_are_one() {
        let mut sources = Sources::new(MOST);
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
        let numbers: Vec<u32> = (0..MOST + 3).map(|id| sources.open(identity(id)).number).collect();
        assert_eq!(numbers.iter().filter(|number| **number == ANYBODY).count(), 4);
        assert_eq!(*sources.identities()[&ANYBODY], Identity::default());
    }

    #[test]
    fn a_workload_of_which_nothing_is_heard_for_a_day_is_forgotten() {
        let mut sources = Sources::new(MOST);
        let tally = Tally { aggregated: 1, ..Tally::default() };
        ["gone", "there"].into_iter().for_each(|name| sources.count(0, name, tally));
        (1..KEPT).for_each(|_| sources.forget());
        sources.count(0, "there", tally);
        assert_eq!(sources.tallies().len(), 2);
        sources.forget();
        assert_eq!(
            sources.tallies(),
            BTreeMap::from([("there".to_owned(), Tally { aggregated: 2, ..tally })])
        );
    }

    #[test]
    fn workloads_are_counted_apart_as_far_as_there_is_room() {
        let mut sources = Sources::new(MOST);
        let tally = Tally { aggregated: 1, folded: 2, malformed: 1, unfinished: 1, twins: 1, over_rate: 1 };
        for number in 0..MOST_SOURCES + 2 {
            sources.count(0, &number.to_string(), tally);
            sources.count(0, &number.to_string(), tally);
        }
        assert_eq!(sources.tallies().len(), MOST_SOURCES + 1);
        assert_eq!((sources.tallies()["7"].received(), sources.tallies()[OTHERS].received()), (14, 28));
        let mut take = |counted| {
            let taken = sources.take_tallies(&HashMap::from([(ANYBODY, counted)]));
            taken.first().map(|(_, _, tally)| (tally.aggregated, tally.folded, tally.refused()))
        };
        let times = 2 * (MOST_SOURCES as u64 + 2);
        assert_eq!(take(times), Some((0, times, 4 * times)), "the rest is folded too, but not told yet");
        assert_eq!([take(2 * times), take(0)], [Some((times, times, 0)), None]);
    }
}
