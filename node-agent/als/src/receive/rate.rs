//! How much a stream may send.

use tokio::time::Instant;

/// Lets through as many bytes a second as it was made for, and those of one second at once.
#[derive(Debug)]
pub(super) struct Rate {
    /// A second; 0: no limit.
    bytes: u64,
    left: u64,
    at: Instant,
}

impl Rate {
    pub(super) fn new(bytes: u64, now: Instant) -> Self {
        Self { bytes, left: bytes, at: now }
    }

    /// Whether a message of this size may pass now.
    pub(super) fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let passed = now.saturating_duration_since(self.at).as_micros();
        let earned = u64::try_from(passed * u128::from(self.bytes) / 1_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            (self.left, self.at) = (self.left.saturating_add(earned).min(self.bytes), now);
        }
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_may_be_sent_at_once_and_then_as_much_as_time_brings() {
        let start = Instant::now();
        let mut rate = Rate::new(1000, start);
        assert!(rate.admits(600, start) && rate.admits(400, start) && !rate.admits(1, start));
        let later = start + Duration::from_millis(500);
        assert!(!rate.admits(501, later) && rate.admits(500, later));
        assert!(!rate.admits(1001, start + Duration::from_secs(3600)));
        assert!(Rate::new(0, start).admits(usize::MAX, start));
    }
}
