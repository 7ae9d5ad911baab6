//! The kubelet, which probes this agent every few seconds as long as it works: a
//! sign of life that needs no way to it and no right.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::condition::Finding;

/// It is silent after so many probes that did not come, and not before the next.
const MISSED: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// When a probe came last. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Probes(Arc<Mutex<Option<Instant>>>);

impl Probes {
    /// One came.
    pub fn heard(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// How long ago the last one came; `None`: none ever did.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|last| now.saturating_duration_since(last))
    }
}

/// Whether it shows life.
#[derive(Debug, Default)]
pub struct Kubelet {
    /// Time between two probes; zero: nothing is known of it.
    period: Duration,
    silent: u32,
}

impl Kubelet {
    /// A kubelet that probes this often.
    pub fn new(period: Duration) -> Self {
        Self { period, silent: 0 }
    }

    /// It was silent for so long. An agent that stood still itself finds a silence once.
    pub(super) fn judge(&mut self, silence: Duration) -> Option<Finding> {
        if self.period.is_zero() {
            return None;
        }
        let patience = (self.period * MISSED).max(PATIENCE);
        self.silent = if silence < patience { 0 } else { self.silent.saturating_add(1) };
        let reason = (self.silent > 1).then_some("NoProbes");
        let message = format!(
            "the kubelet probed this agent {} s ago, as it does every {} s; it is silent after {} s",
            silence.as_secs(),
            self.period.as_secs(),
            patience.as_secs()
        );
        Some(Finding::trouble("kestrel.ai/KubeletSilent", reason, "Probes", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::condition::Status;

    #[test]
    fn a_kubelet_that_probes_no_more_is_silent() {
        let mut kubelet = Kubelet::new(Duration::from_secs(10));
        let mut judge = |seconds| kubelet.judge(Duration::from_secs(seconds)).unwrap().status;
        assert_eq!(judge(9), Status::False);
        assert_eq!(judge(600), Status::False, "the agent itself may have stood still");
        assert_eq!(judge(3), Status::False);
        assert_eq!([59, 69, 79, 2].map(judge), [Status::False, Status::False, Status::True, Status::False]);
        let mut slow = Kubelet::new(Duration::from_secs(60));
        let statuses = [61, 230, 241, 251].map(|age| slow.judge(Duration::from_secs(age)).unwrap().status);
        assert_eq!(statuses, [Status::False, Status::False, Status::False, Status::True]);
        assert_eq!(Kubelet::default().judge(Duration::from_secs(600)), None);
    }

    #[test]
    fn silence_begins_with_the_last_probe() {
        let (probes, start) = (Probes::default(), Instant::now());
        assert_eq!(probes.silence(start), None);
        probes.clone().heard(start);
        assert_eq!(probes.silence(start + PATIENCE), Some(PATIENCE));
    }
}
