//! Which flows were read, so that after a reconnect none is read twice and as few as can be are missing.

use std::{
    collections::{HashSet, VecDeque},
    hash::BuildHasher as _,
};

use foldhash::fast::RandomState;

/// Relay asks its nodes by itself and puts their flows into order over a second: what is late by more than this is
/// counted as what it is, and not asked for again.
const OVERLAP: u64 = 5_000_000_000;

/// Flows of the overlap that are remembered, each with about 40 bytes. With more it is shorter.
const MOST: usize = 32 * 1024;

/// Where reading stands: nanoseconds since 1970, all of them.
pub(super) struct Resume {
    latest: u64,
    overlap: u64,
    /// What was before is not asked for, as it is not remembered.
    forgotten: u64,
    /// Times and hashes, in the order in which they came.
    recent: VecDeque<(u64, u64)>,
    known: HashSet<u64, RandomState>,
    hasher: RandomState,
}

impl Resume {
    /// Flows come in the order of their times: what comes is later than what came.
    pub(super) fn exactly(since: u64) -> Self {
        let (recent, known) = (VecDeque::new(), HashSet::default());
        Self { latest: since, overlap: 0, forgotten: since, recent, known, hasher: RandomState::default() }
    }

    /// They come in about that order: of the last seconds each is known again by its bytes.
    pub(super) fn about(since: u64) -> Self {
        Self { overlap: OVERLAP, ..Self::exactly(since) }
    }

    /// From when on flows are to be asked for.
    pub(super) fn since(&self) -> u64 {
        self.latest.saturating_sub(self.overlap).max(self.forgotten)
    }

    /// Notes a flow of `time` that lies in `message`; false if it was read before.
    pub(super) fn is_new(&mut self, time: u64, message: &[u8]) -> bool {
        if self.overlap == 0 {
            self.latest = self.latest.max(time);
            self.forgotten = self.latest.saturating_add(1);
            return true;
        }
        let hash = self.hasher.hash_one(message);
        if !self.known.insert(hash) {
            return false;
        }
        self.latest = self.latest.max(time);
        self.recent.push_back((time, hash));
        let horizon = self.latest.saturating_sub(self.overlap);
        while let Some((time, hash)) =
            self.recent.pop_front_if(|(time, _)| *time < horizon).or_else(|| self.surplus())
        {
            self.forgotten = self.forgotten.max(time.saturating_add(1));
            self.known.remove(&hash);
        }
        true
    }

    /// What there is no room for.
    fn surplus(&mut self) -> Option<(u64, u64)> {
        if self.recent.len() > MOST { self.recent.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_comes_in_order_is_asked_for_from_the_last_on() {
        let mut resume = Resume::exactly(100);
        assert_eq!(resume.since(), 100);
        assert!(resume.is_new(105, b"x") && resume.is_new(103, b"x"));
        assert_eq!(resume.since(), 106);
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_nothing_else_is_asked_for() {
        let mut resume = Resume::about(0);
        for time in 0..MOST as u64 + 10 {
            assert!(resume.is_new(time, &time.to_be_bytes()));
        }
        assert_eq!((resume.recent.len(), resume.known.len(), resume.since()), (MOST, MOST, 10));
        assert!(resume.is_new(OVERLAP * 2, b"later"));
        assert_eq!((resume.recent.len(), resume.since()), (1, OVERLAP));
    }

    proptest! {
        /// However often the connection breaks, every flow that comes within the overlap is counted once.
        #[test]
        fn none_is_counted_twice_and_none_is_missed(
            delays in prop::collection::vec(0..OVERLAP, 1..100), breaks in prop::collection::vec(0..100_usize, 0..6),
        ) {
            // Of the time that it is in the list, each comes this much later.
            let step = OVERLAP / 20;
            let mut flows: Vec<_> = delays.iter().enumerate().map(|(at, delay)| (at as u64 * step, *delay)).collect();
            flows.sort_by_key(|(time, delay)| time + delay);
            let mut resume = Resume::about(0);
            let mut counted = Vec::new();
            let mut take = |resume: &mut Resume, (time, _): &(u64, u64)| {
                if resume.is_new(*time, &time.to_be_bytes()) {
                    counted.push(*time);
                }
            };
            for (at, flow) in flows.iter().enumerate() {
                if breaks.contains(&at) {
                    // The server has what has come so far, and gives what is asked for in the order of times.
                    let mut again: Vec<_> = flows[..at].iter().filter(|(time, _)| *time >= resume.since()).collect();
                    again.sort();
                    again.into_iter().for_each(|flow| take(&mut resume, flow));
                }
                take(&mut resume, flow);
            }
            let mut expected: Vec<_> = flows.iter().map(|(time, _)| *time).collect();
            expected.sort_unstable();
            counted.sort_unstable();
            prop_assert_eq!(counted, expected);
        }
    }
}
