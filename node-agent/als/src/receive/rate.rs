//! How much a stream may send.

use tokio::time::Instant;

use crate::entry;

/// An entry counts as so many bytes at least: with fewer it costs no less.
const LEAST_ENTRY: u64 = 64;

/// Lets through as many bytes a second as it was made for, and those of one second at once. The last message may have more: what it has too
/// much comes off what follows, so that no message is too large for a rate.
#[derive(Debug)]
pub(super) struct Rate {
    /// A second; 0: no limit.
    bytes: u64,
    left: i64,
    at: Instant,
}

impl Rate {
    pub(super) fn new(bytes: u64, now: Instant) -> Self {
        Self { bytes, left: i64::try_from(bytes).unwrap_or(i64::MAX), at: now }
    }

    /// Whether a message may pass now.
    pub(super) fn admits(&mut self, message: &[u8], now: Instant) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let bytes = (message.len() as u64).max(entry::count(message).saturating_mul(LEAST_ENTRY));
        let passed = now.saturating_duration_since(self.at).as_micros();
        let earned = i64::try_from(passed * u128::from(self.bytes) / 1_000_000).unwrap_or(i64::MAX);
        if earned > 0 {
            let most = i64::try_from(self.bytes).unwrap_or(i64::MAX);
            (self.left, self.at) = (self.left.saturating_add(earned).min(most), now);
        }
        let is_admitted = self.left > 0;
        if is_admitted {
            self.left = self.left.saturating_sub_unsigned(bytes);
        }
        is_admitted
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
        assert!(rate.admits(&bytes(500), later) && !rate.admits(&bytes(2), later));
        assert!(rate.admits(&bytes(1000), start + Duration::from_secs(3600)));
        assert!(!rate.admits(&bytes(2), start + Duration::from_secs(3600)));
        assert!(Rate::new(0, start).admits(&bytes(100_000), start));
    }

    /// Scenario: a proxy sends messages of 16 KiB, of which a second's bytes are less.
    /// Guarantee: as many bytes pass as the rate has, message by message.
    #[test]
    fn no_message_is_too_large_for_a_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(10_000, start);
        let admitted =
            (0..100).filter(|second| rate.admits(&bytes(16_384), start + Duration::from_secs(*second)));
        let sent = admitted.count() * 16_384;
        assert!((970_000..1_030_000).contains(&sent), "{sent} bytes in 100 s");
    }

    #[test]
    fn entries_of_few_bytes_count_as_larger_ones() {
        let start = Instant::now();
        let entries = |count: u8| [vec![0x12, 2 * count], [0x0a, 0].repeat(count.into())].concat();
        for (count, is_more) in [(9, true), (10, false)] {
            let mut rate = Rate::new(640, start);
            assert!(rate.admits(&entries(count), start));
            assert_eq!(rate.admits(&bytes(2), start), is_more, "{count}");
        }
    }
}
