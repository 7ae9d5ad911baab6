//! When a batch that is not full is sent.

use std::time::{Duration, Instant};

/// Shortest and longest time between two batches that are not full.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// A batch of this size compresses about as well as a larger one, and costs little beside its lines.
const ENOUGH: usize = 64 * 1024;

/// With fewer bytes a second than this, small batches cost nothing worth a delay.
const QUIET: f64 = 64.0 * 1024.0;

/// The earliest time of the next batch.
///
/// A line that comes after silence is sent at once. The more comes after it, the longer the next
/// batch waits, until it is worth being sent.
#[derive(Debug)]
pub(crate) struct Flush {
    /// When the last batch was sent.
    last: Instant,
    interval: Duration,
}

impl Flush {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now, interval: INTERVAL.0 }
    }

    /// How long the present batch still waits for more.
    pub(crate) fn due_in(&self, now: Instant) -> Duration {
        self.interval.saturating_sub(now.saturating_duration_since(self.last))
    }

    /// A batch of `bytes` is sent.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        let quiet = QUIET * now.saturating_duration_since(self.last).as_secs_f64();
        self.interval = match bytes {
            _ if (bytes as f64) < quiet => self.interval / 2,
            0..ENOUGH => self.interval * 2,
            _ if bytes > 2 * ENOUGH => self.interval / 2,
            _ => self.interval,
        };
        self.interval = self.interval.clamp(INTERVAL.0, INTERVAL.1);
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `lines` of 250 bytes that come every `gap`; how long the first of the last batch
    /// waited, and the bytes of that batch.
    fn send(flush: &mut Flush, now: &mut Instant, lines: usize, gap: Duration) -> (Duration, usize) {
        let (mut waiting, mut last) = (Vec::new(), (Duration::ZERO, 0));
        for _ in 0..lines {
            let next = *now + gap;
            waiting.push(*now);
            let due = *now + flush.due_in(*now);
            if due < next {
                last = (due - waiting[0], waiting.len() * 250);
                flush.sent(last.1, due);
                waiting.clear();
            }
            *now = next;
        }
        last
    }

    #[test]
    fn what_is_rare_is_sent_at_once_and_what_is_not_is_sent_together() {
        let mut now = Instant::now();
        let mut flush = Flush::new(now);
        let rare = Duration::from_millis(37);
        assert_eq!(send(&mut flush, &mut now, 100, rare).0, Duration::ZERO);
        let (wait, _) = send(&mut flush, &mut now, 2000, Duration::from_millis(1));
        assert!(wait > INTERVAL.1 / 2 && wait <= INTERVAL.1, "{wait:?}");
        assert_eq!(send(&mut flush, &mut now, 100, rare).0, Duration::ZERO);
        let (wait, bytes) = send(&mut flush, &mut now, 200_000, Duration::from_micros(25));
        assert!((ENOUGH..=2 * ENOUGH).contains(&bytes), "{bytes}");
        assert!(wait < Duration::from_millis(20), "{wait:?}");
        assert_eq!(send(&mut flush, &mut now, 100, rare).0, Duration::ZERO);
    }
}
