//! How long to wait before the next attempt.

use std::time::Duration;

/// Exponential back-off with full jitter: each wait is drawn evenly from zero
/// to a ceiling that doubles with every failure, so that many clients which
/// lost the same server do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

/// A connection that lived this long counts as a success.
pub const STABLE: Duration = Duration::from_secs(60);

impl Backoff {
    /// Ceilings run from `first` to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The next wait. `lived` is how long the attempt that just ended had worked.
    pub fn next(&mut self, lived: Duration) -> Duration {
        if lived >= STABLE {
            self.failures = 0;
        }
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(fastrand::f64())
    }

    fn ceiling(&self) -> Duration {
        self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_to_the_most_and_start_anew_after_a_stable_connection() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let ceilings: Vec<_> = (0..40)
            .map(|_| {
                let ceiling = backoff.ceiling();
                assert!(backoff.next(Duration::ZERO) <= ceiling);
                ceiling.as_secs()
            })
            .collect();
        assert_eq!(ceilings[..6], [1, 2, 4, 8, 10, 10]);
        assert_eq!(ceilings[39], 10);
        assert!(backoff.next(STABLE) <= Duration::from_secs(1));
    }
}
