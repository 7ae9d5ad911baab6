//! How much a stream may send.

use tokio::time::Instant;

use crate::entry;

/// An entry counts as so many bytes at least: with fewer it costs no less.
const LEAST_ENTRY: u64 = 64;

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

    /// Whether a message may pass now.
    pub(super) fn admits(&mut self, message: &[u8], now: Instant) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let bytes = (message.len() as u64).max(entry::count(message).saturating_mul(LEAST_ENTRY));
        let passed = now.saturating_duration_since(self.at).as_micros();
        let earned = u64::try_from(passed * u128::from(self.bytes) / 1_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            (self.left, self.at) = (self.left.saturating_add(earned).min(self.bytes), now);
        }
        match self.left.checked_sub(bytes) {
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

    /// A message of so many bytes that are no entry.
    fn bytes(count: usize) -> Vec<u8> {
        [8, 0].repeat(count / 2)
    }

    #[test]
    fn a_second_may_be_sent_at_once_and_then_as_much_as_time_brings() {
        let start = Instant::now();
        let mut rate = Rate::new(1000, start);
        assert!(rate.admits(&bytes(600), start) && rate.admits(&bytes(400), start));
        assert!(!rate.admits(&bytes(2), start));
        let later = start + Duration::from_millis(500);
        assert!(!rate.admits(&bytes(502), later) && rate.admits(&bytes(500), later));
        assert!(!rate.admits(&bytes(1002), start + Duration::from_secs(3600)));
        assert!(Rate::new(0, start).admits(&bytes(100_000), start));
    }

    #[test]
    fn entries_of_few_bytes_count_as_larger_ones() {
        let start = Instant::now();
        let entries = |count: u8| [vec![0x12, 2 * count], [0x0a, 0].repeat(count.into())].concat();
        assert!(Rate::new(640, start).admits(&entries(10), start));
        assert!(!Rate::new(640, start).admits(&entries(11), start));
    }
}
