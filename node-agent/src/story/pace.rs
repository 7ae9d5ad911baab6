//! How often something that keeps changing is told.

use std::time::{Duration, Instant};

/// Between the first two tellings.
pub(super) const FIRST: Duration = Duration::from_secs(5);

/// Between two tellings of what never stands still; and how long there has to be nothing to tell, after it might have been
/// told, for the next changes to be told soon again. A pod that comes every minute would be the whole log otherwise.
pub(super) const LONGEST: Duration = Duration::from_hours(2);

/// Ever more rarely: each wait is twice the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The first of the waits.
    first: Duration,
    /// When it was told last, and how long it is not told after that.
    told: Option<(Instant, Duration)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self::beginning_with(FIRST)
    }
}

impl Pace {
    /// One whose first wait is this.
    pub(super) fn beginning_with(first: Duration) -> Self {
        Self { first, told: None }
    }

    /// Whether it may be told now; the answer is acted on.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let wait = match self.told {
            None => self.first,
            Some((told, wait)) => match now.saturating_duration_since(told) {
                early if early < wait => return false,
                late if late >= wait + LONGEST => self.first,
                _ => (wait * 2).min(LONGEST),
            },
        };
        self.told = Some((now, wait));
        true
    }

    /// Whether it may be told now.
    pub(super) fn may(&self, now: Instant) -> bool {
        self.told.is_none_or(|(told, wait)| now.saturating_duration_since(told) >= wait)
    }

    /// Whether nothing was told for so long that nothing is remembered.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.told.is_none_or(|(told, wait)| now.saturating_duration_since(told) >= wait + LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_stands_still_is_told_ever_more_rarely_and_what_did_at_once() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut told = Vec::new();
        for minute in 0..24 * 60 {
            if pace.take(start + Duration::from_mins(minute)) {
                told.push(minute);
            }
        }
        assert_eq!(told[..8], [0, 1, 2, 3, 4, 6, 9, 15]);
        assert!(told.len() <= 24, "{told:?}");
        let later = start + Duration::from_hours(30);
        assert!(pace.is_over(later) && pace.take(later));
        assert!(!pace.may(later + FIRST / 2) && pace.may(later + FIRST));
    }
}
