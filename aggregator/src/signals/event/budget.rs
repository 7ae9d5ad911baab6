//! How often one thing may be told.

use std::time::Duration;

use jiff::Timestamp;

/// Told at once, one after the other …
const BURST: i32 = 5;
/// … and from then on one in this time. Shorter than what a new leader looks back
/// ([`leader::Config::overlap`](crate::leader::Config)), so that what waits here
/// when a leader dies is not older than that.
const PERIOD: Duration = Duration::from_secs(30);

/// A burst, then one at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::signals) struct Budget {
    /// When everything that was told would have been told, one a period.
    paid: Option<Timestamp>,
}

impl Budget {
    /// Takes one if there is one.
    ///
    /// # Errors
    /// There is none; when there will be one.
    pub(in crate::signals) fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        // A clock that was set back does not delay anything for longer than a burst.
        let paid =
            self.paid.filter(|paid| *paid <= now + PERIOD * BURST as u32).map_or(now, |paid| paid.max(now));
        let due = paid - PERIOD * (BURST - 1) as u32;
        if due > now {
            return Err(due);
        }
        self.paid = Some(paid + PERIOD);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_at_a_time() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut budget = Budget::default();
        let told = (1000..1300).filter(|now| budget.take(second(*now)).is_ok()).collect::<Vec<_>>();
        assert_eq!(
            told,
            [1000, 1001, 1002, 1003, 1004, 1030, 1060, 1090, 1120, 1150, 1180, 1210, 1240, 1270]
        );
        assert_eq!(budget.take(second(1299)), Err(second(1300)));
        assert_eq!(budget.take(second(5)), Ok(()), "the clock was set back");
    }
}
