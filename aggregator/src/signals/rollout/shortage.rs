//! How long an object has had fewer pods than it should, and why.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::signals::incident::after;

/// Fewer pods are ready, or more are outdated, than there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    /// When it was seen first.
    pub(super) since: Timestamp,
    /// When it was seen last.
    seen: Timestamp,
    /// How many pods are missing, and how many are to be updated.
    missing: i32,
    /// A roll-out that began since is the reason, or will mend it.
    rollout: Option<Progress>,
}

/// How a roll-out gets on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    began: Timestamp,
    /// when it came further last
    last: Timestamp,
    /// the longest time without, before `last`
    longest: SignedDuration,
    /// the fewest pods that were missing
    missing: i32,
    /// Kubernetes itself watches it, and will say so if it stalls
    is_watched: bool,
}

/// What was changed about an object.
pub(super) struct Change {
    /// More pods than before are asked for.
    pub(super) asks_for_more: bool,
    /// Anything else than before is asked for.
    pub(super) asks_for_other: bool,
}

impl Shortage {
    /// `missing` pods are not ready although they should be.
    pub(super) fn of_pods(missing: i32, since: Timestamp, seen: Timestamp) -> Self {
        Self { since, seen, missing, rollout: None }
    }

    /// A roll-out has `missing` pods to go.
    pub(super) fn of_rollout(missing: i32, seen: Timestamp, is_watched: bool) -> Self {
        let progress =
            Progress { began: seen, last: seen, longest: SignedDuration::ZERO, missing, is_watched };
        Self { since: seen, seen, missing, rollout: Some(progress) }
    }

    /// Takes over what was known, and what it means together with this.
    pub(super) fn follows(&mut self, earlier: Option<&Self>, change: Change) {
        let before = earlier.and_then(|earlier| earlier.rollout.as_ref());
        if let Some(before) = before {
            let is_watched = self.rollout.as_ref().is_some_and(|rollout| rollout.is_watched);
            let mut rollout = Progress { is_watched, ..before.clone() };
            if change.asks_for_other || self.missing < rollout.missing {
                rollout.longest = rollout.longest.max(self.seen.duration_since(rollout.last));
                rollout.last = self.seen;
                rollout.missing = self.missing;
            }
            self.rollout = Some(rollout);
        } else if change.asks_for_more && self.rollout.is_none() {
            self.rollout = Self::of_rollout(self.missing, self.seen, false).rollout;
        }
        if let Some(earlier) = earlier {
            self.since = earlier.since;
        } else if let Some(rollout) = &self.rollout {
            self.since = rollout.began;
        }
    }

    /// From when on it is an incident of pods that died, if they may be unready
    /// for `patience`; `None` if a roll-out began before.
    pub(super) fn degraded_from(&self, patience: Duration) -> Option<Timestamp> {
        let from = after(self.since, patience);
        self.rollout.as_ref().is_none_or(|rollout| rollout.began >= from).then_some(from)
    }

    /// From when on it is an incident of a roll-out that may make no progress for
    /// `patience`, and since when that one makes none.
    pub(super) fn stalled_from(&self, patience: Duration) -> Option<(Timestamp, Timestamp)> {
        let rollout = self.rollout.as_ref().filter(|rollout| !rollout.is_watched)?;
        // It stays one until all pods are there: one step more is no recovery.
        let has_stalled = rollout.longest.unsigned_abs() >= patience;
        let from = if has_stalled { rollout.last } else { after(rollout.last, patience) };
        Some((from, rollout.began))
    }
}
