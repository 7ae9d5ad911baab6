//! Whether a stream's heartbeats still come.

use std::time::Duration;

use tokio::time::Instant;

/// A server whose heartbeats stay away for this many times the longest gap that
/// it ever left does not serve the stream any more.
const PATIENCE: u32 = 3;

/// What came on a stream.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beat: Option<Instant>,
    heard: Option<Instant>,
    longest: Option<Duration>,
}

impl Pulse {
    /// A message came.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// A heartbeat came.
    pub(crate) fn beat(&mut self, now: Instant) {
        self.heard(now);
        if let Some(before) = self.beat.replace(now) {
            self.longest = self.longest.max(Some(now - before));
        }
    }

    /// For how long nothing has come, if that is too long: longer than `least`
    /// and than the heartbeats let expect. A server that sends none is never too silent.
    pub(crate) fn missing(&self, now: Instant, least: Duration) -> Option<Duration> {
        let silence = now - self.heard?;
        (silence > least.max(self.longest? * PATIENCE)).then_some(silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_heartbeats_that_came_can_be_missed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (least, mut pulse) = (Duration::from_secs(30), Pulse::default());
        assert_eq!(pulse.missing(at(1000), least), None, "nothing ever came");
        pulse.beat(at(0));
        pulse.heard(at(1));
        assert_eq!(pulse.missing(at(1000), least), None, "one is no rhythm");
        pulse.beat(at(5));
        assert_eq!(pulse.missing(at(35), least), None, "not before the least");
        assert_eq!(pulse.missing(at(36), least), Some(Duration::from_secs(31)));
        pulse.beat(at(35));
        assert_eq!(pulse.missing(at(125), least), None);
        assert_eq!(pulse.missing(at(126), least), Some(Duration::from_secs(91)));
        pulse.heard(at(126));
        assert_eq!(pulse.missing(at(216), least), None, "a request is a sign of life");
    }
}
