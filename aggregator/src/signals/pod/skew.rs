//! A node's clock against ours.
//!
//! What counts after a time must not count early or late because the node's clock is wrong,
//! so that time is taken by the node's clock, as far as it is known how wrong that is.

use jiff::{SignedDuration, Timestamp};

use crate::signals::incident::Judgement;

/// Times have whole seconds, and news needs a moment.
const EXACT: SignedDuration = SignedDuration::from_secs(5);

/// How far the clock is ahead of ours from which an object's times are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skew {
    ahead: SignedDuration,
    /// The newest time that the object shows.
    newest: Timestamp,
    /// When it showed it last.
    seen: Timestamp,
}

impl Skew {
    /// Nothing has happened after now.
    pub(super) fn seen(newest: Timestamp, now: Timestamp) -> Self {
        Self { ahead: newest.duration_since(now).max(SignedDuration::ZERO), newest, seen: now }
    }

    /// The newest thing has happened just now.
    pub(super) fn begins(&mut self) {
        self.ahead = self.newest.duration_since(self.seen);
    }

    /// What is new has happened since the object was seen before.
    pub(super) fn follows(&mut self, earlier: &Self) {
        self.ahead = if self.newest > earlier.newest {
            let least = self.newest.duration_since(self.seen);
            earlier.ahead.min(self.newest.duration_since(earlier.seen)).max(least)
        } else {
            earlier.ahead
        };
    }

    /// What `judge` says at that time by the other clock, by ours.
    pub(super) fn judge(
        &self,
        now: Timestamp,
        judge: impl FnOnce(Timestamp, SignedDuration) -> Judgement,
    ) -> Judgement {
        let ahead = if self.ahead.abs() < EXACT { SignedDuration::ZERO } else { self.ahead };
        let theirs = |time: Timestamp| time.checked_add(ahead).unwrap_or(time);
        let ours = |time: Timestamp| time.checked_sub(ahead).unwrap_or(time);
        let mut judgement = judge(theirs(now), ahead);
        judgement.due = judgement.due.map(ours);
        for finding in &mut judgement.findings {
            finding.since = ours(finding.since);
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    proptest! {
        /// However wrong the clock is, after something that was watched it is known to a few
        /// seconds; what only others changed, and what was not watched, does not unsettle that.
        #[test]
        fn what_is_watched_shows_it(
            wrong in -600..600_i64,
            steps in prop::collection::vec((any::<bool>(), 10..900_i64, 0..3_i64), 1..20),
        ) {
            let mut now = 0;
            let mut skew = Skew::seen(at(wrong), at(0));
            skew.begins();
            for (is_event, pause, delay) in steps {
                now += pause;
                let newest = if is_event { at(now - delay + wrong) } else { skew.newest };
                let mut next = Skew::seen(newest, at(now));
                next.follows(&skew);
                skew = next;
                prop_assert!((skew.ahead.as_secs() - wrong).abs() < 3, "{:?}", skew);
            }
        }

        /// Who lists a pod knows that nothing has happened after now, and what comes after it
        /// happened since.
        #[test]
        fn what_was_listed_is_not_later_than_now(wrong in -600..600_i64, age in 0..600_i64, pause in 1..600_i64) {
            let mut skew = Skew::seen(at(wrong - age), at(0));
            prop_assert_eq!(skew.ahead.as_secs(), (wrong - age).max(0));
            let mut next = Skew::seen(at(wrong + pause), at(pause));
            next.follows(&skew);
            skew = next;
            prop_assert!(skew.ahead.as_secs() >= wrong);
            prop_assert!(skew.ahead.as_secs() <= (wrong + pause).max(0).max(wrong));
        }
    }
}
