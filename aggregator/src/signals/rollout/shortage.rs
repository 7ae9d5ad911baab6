//! How long an object has had fewer pods than it should, and why.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::signals::incident::after;

/// Fewer pods are ready, or more are outdated, than there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    /// When it was seen last.
    seen: Timestamp,
    /// How many pods are not ready.
    unready: i32,
    /// And how many are to be updated.
    outdated: i32,
    /// The pods that no roll-out took away: since when how many, the oldest
    /// first. No more of them than pods are unready.
    dead: VecDeque<(Timestamp, i32)>,
    /// Since when Kubernetes says that there are fewer than the owner allows.
    unavailable: Option<Timestamp>,
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
    /// As many as before are asked for, but others.
    pub(super) asks_for_other: bool,
    /// Kubernetes has said since the same time that pods are missing.
    pub(super) stays_unavailable: bool,
}

impl Shortage {
    /// `unready` pods are not ready although they should be, and Kubernetes says
    /// since when, if these are more than the owner allows.
    pub(super) fn of_pods(unready: i32, unavailable: Option<Timestamp>, seen: Timestamp) -> Self {
        let dead = VecDeque::from([(unavailable.unwrap_or(seen), unready)]);
        Self { seen, unready, outdated: 0, dead, unavailable, rollout: None }
    }

    /// A roll-out has these pods to go.
    pub(super) fn of_rollout(
        [unready, outdated]: [i32; 2],
        unavailable: Option<Timestamp>,
        seen: Timestamp,
        is_watched: bool,
    ) -> Self {
        let mut shortage =
            Self { seen, unready, outdated, dead: VecDeque::new(), unavailable, rollout: None };
        shortage.begins(is_watched);
        shortage
    }

    fn begins(&mut self, is_watched: bool) {
        let (began, missing) = (self.seen, self.missing());
        let longest = SignedDuration::ZERO;
        self.rollout = Some(Progress { began, last: began, longest, missing, is_watched });
    }

    /// It was none before it was seen.
    pub(super) fn is_new(&mut self) {
        self.unavailable = self.unavailable.map(|_| self.seen);
        for (since, _) in &mut self.dead {
            *since = self.seen;
        }
    }

    fn missing(&self) -> i32 {
        self.unready + self.outdated
    }

    /// Takes over what was known, and what it means together with this.
    pub(super) fn follows(&mut self, earlier: Option<&Self>, change: Change) {
        let before = earlier.and_then(|earlier| earlier.rollout.as_ref());
        if let Some(before) = before {
            let is_watched = self.rollout.as_ref().is_some_and(|rollout| rollout.is_watched);
            let mut rollout = Progress { is_watched, ..before.clone() };
            if change.asks_for_more || change.asks_for_other || self.missing() < rollout.missing {
                rollout.longest = rollout.longest.max(self.seen.duration_since(rollout.last));
                rollout.last = self.seen;
                rollout.missing = self.missing();
            }
            self.rollout = Some(rollout);
        } else if change.asks_for_more && self.rollout.is_none() {
            self.begins(false);
        }
        if let Some(earlier) = earlier {
            let before = earlier.unavailable.filter(|_| change.stays_unavailable);
            // If it has turned, that was since it was seen before.
            self.unavailable = self.unavailable.map(|at| before.unwrap_or(at.max(earlier.seen)));
            self.dead.clone_from(&earlier.dead);
            self.counts(earlier.unready);
        } else if self.rollout.is_some() {
            self.dead.clear();
        }
    }

    /// Which pods are dead, if `before` were unready.
    ///
    /// A pod that becomes ready is taken for the one that has been missing for
    /// longest: so a drain, in which one pod after another is replaced, is none
    /// that lasts.
    fn counts(&mut self, before: i32) {
        if self.unready > before && self.rollout.is_none() {
            self.dead.push_back((self.seen, self.unready - before));
        }
        let mut replaced = before - self.unready;
        while replaced > 0
            && let Some((_, pods)) = self.dead.front_mut()
        {
            let those = replaced.min(*pods);
            *pods -= those;
            replaced -= those;
            if *pods == 0 {
                self.dead.pop_front();
            }
        }
    }

    /// From when on it is an incident of pods that died, if they may be unready
    /// for `patience`, and since when they are; `None` if a roll-out took all of them.
    pub(super) fn degraded_from(&self, patience: Duration) -> Option<(Timestamp, Timestamp)> {
        let (oldest, _) = *self.dead.front()?;
        let began = self.rollout.as_ref().map_or(Timestamp::MAX, |rollout| rollout.began);
        let unavailable = self.unavailable.filter(|since| *since < began);
        let since = unavailable.map_or(oldest, |unavailable| unavailable.min(oldest));
        Some((after(since, patience), since))
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
