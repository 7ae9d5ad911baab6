//! What was gone before it was delivered: counted, and told until somebody
//! has taken note.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::AddAssign,
};

use crate::{discover::Origin, position::Ledger};

/// The most gaps that wait to be told; of more, only the counters know.
const MOST_OPEN: usize = 1_000;

/// Why bytes were gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The file was emptied and begun again.
    Emptied,
    /// The file was removed, and unread bytes of removed files took more room
    /// on the disk than [`super::PINNED_BYTES`].
    Removed,
    /// The file is damaged, or nobody can make it readable any more.
    Damaged,
    /// The file was removed after a process that had not read it to its end was killed: what of it is not known to have
    /// arrived, as far as that process had seen it.
    Unattended,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Emptied, Self::Removed, Self::Damaged, Self::Unattended];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emptied => "emptied",
            Self::Removed => "removed",
            Self::Damaged => "damaged",
            Self::Unattended => "unattended",
        }
    }
}

/// How much was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Bytes of files.
    pub bytes: u64,
    /// Lines of files among them, where they could still be counted.
    pub lines: u64,
    /// Bytes whose lines could not be counted.
    pub uncounted: u64,
}

impl AddAssign for Lost {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.lines += more.lines;
        self.uncounted += more.uncounted;
    }
}

/// Bytes of a container's files that were gone before they were delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose lines are missing.
    pub origin: Origin,
    /// Why.
    pub reason: Reason,
    /// How much.
    pub lost: Lost,
}

/// Bytes lost since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostBytes([u64; Reason::ALL.len()]);

impl From<[u64; Reason::ALL.len()]> for LostBytes {
    /// In the order of [`Reason::ALL`].
    fn from(bytes: [u64; Reason::ALL.len()]) -> Self {
        Self(bytes)
    }
}

impl LostBytes {
    /// Those that were lost for `reason`.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

type Key = (Origin, Reason);

/// The gaps of an engine.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// Not told yet.
    open: BTreeMap<Key, Lost>,
    /// Told in a batch, whose id is first, that has no answer yet.
    told: VecDeque<(u64, Key, Lost)>,
    /// Was read and is under way, but can't be read again.
    under_way: Vec<(Key, Ledger)>,
    total: LostBytes,
    count: u64,
}

impl Gaps {
    /// Bytes are lost; `lines` of them if those could be counted.
    pub(super) fn add(&mut self, origin: &Origin, reason: Reason, bytes: u64, lines: Option<u64>) {
        if bytes == 0 {
            return;
        }
        self.total.0[reason as usize] += bytes;
        self.count += 1;
        let lost = match lines {
            Some(lines) => Lost { bytes, lines, uncounted: 0 },
            None => Lost { bytes, lines: 0, uncounted: bytes },
        };
        self.reopen((origin.clone(), reason), lost);
    }

    /// The bytes in flight of `ledger` can't be read again: they are lost if
    /// they do not arrive.
    pub(super) fn watch(&mut self, origin: &Origin, reason: Reason, ledger: Ledger) {
        if ledger.in_flight() > 0 {
            self.under_way.push(((origin.clone(), reason), ledger));
        }
    }

    fn reopen(&mut self, key: Key, lost: Lost) {
        if self.open.len() < MOST_OPEN || self.open.contains_key(&key) {
            *self.open.entry(key).or_default() += lost;
        }
    }

    /// What is to be told in `batch`.
    pub(super) fn tell(&mut self, batch: u64) -> Vec<Gap> {
        let open = std::mem::take(&mut self.open);
        self.told.extend(open.iter().map(|(key, lost)| (batch, key.clone(), *lost)));
        open.into_iter().map(|((origin, reason), lost)| Gap { origin, reason, lost }).collect()
    }

    /// Whether there is something to tell.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Batches up to `up_to` arrived.
    pub(super) fn ack(&mut self, up_to: u64) {
        while self.told.pop_front_if(|(batch, ..)| *batch <= up_to).is_some() {}
        self.under_way.retain_mut(|(_, ledger)| {
            ledger.ack(up_to);
            ledger.in_flight() > 0
        });
    }

    /// What has no answer did not arrive.
    pub(super) fn rewind(&mut self) {
        for (_, key, lost) in std::mem::take(&mut self.told) {
            self.reopen(key, lost);
        }
        for ((origin, reason), ledger) in std::mem::take(&mut self.under_way) {
            self.add(&origin, reason, ledger.settled() - ledger.acked(), None);
        }
    }

    /// Ranges that wait for an answer.
    pub(super) fn in_flight(&self) -> usize {
        self.told.len() + self.under_way.iter().map(|(_, ledger)| ledger.in_flight()).sum::<usize>()
    }

    pub(super) fn total(&self) -> LostBytes {
        self.total
    }

    /// How often bytes were lost.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Owed, Reached};

    #[test]
    fn a_gap_is_told_until_it_has_an_answer() {
        let mut gaps = Gaps::default();
        let origin = Origin { pod: "a".into(), ..Origin::default() };
        gaps.add(&origin, Reason::Emptied, 0, None);
        assert!(!gaps.is_open());
        gaps.add(&origin, Reason::Removed, 100, Some(3));
        gaps.add(&origin, Reason::Removed, 10, None);
        let told = gaps.tell(1);
        let lost = Lost { bytes: 110, lines: 3, uncounted: 10 };
        assert_eq!(told, [Gap { origin: origin.clone(), reason: Reason::Removed, lost }]);
        assert!(gaps.tell(2).is_empty());
        gaps.rewind();
        gaps.add(&origin, Reason::Emptied, 1, None);
        assert_eq!(gaps.tell(3).len(), 2);
        gaps.ack(2);
        assert_eq!(gaps.in_flight(), 2);
        gaps.ack(3);
        gaps.rewind();
        assert!(!gaps.is_open() && gaps.in_flight() == 0);
        assert_eq!((gaps.total().of(Reason::Removed), gaps.total().total()), (110, 111));
    }

    #[test]
    fn what_is_under_way_is_lost_only_if_it_does_not_arrive() {
        let mut gaps = Gaps::default();
        let mut ledger = Ledger::default();
        for (batch, end) in [(1, 10), (2, 30)] {
            ledger.claim(batch, Reached { settled: end, read: end, owed: Owed::default() });
        }
        gaps.watch(&Origin::default(), Reason::Emptied, ledger.clone());
        assert_eq!(gaps.in_flight(), 2);
        gaps.ack(1);
        gaps.rewind();
        assert_eq!(gaps.total().of(Reason::Emptied), 20);
        gaps.watch(&Origin::default(), Reason::Emptied, ledger);
        gaps.ack(2);
        gaps.rewind();
        assert_eq!(gaps.total().of(Reason::Emptied), 20);
    }

    #[test]
    fn what_waits_to_be_told_is_bounded() {
        let mut gaps = Gaps::default();
        for pod in 0..2 * MOST_OPEN {
            let origin = Origin { pod: pod.to_string(), ..Origin::default() };
            gaps.add(&origin, Reason::Damaged, 1, None);
        }
        assert_eq!(gaps.tell(1).len(), MOST_OPEN);
        assert_eq!(gaps.total().total(), 2 * MOST_OPEN as u64);
    }
}
