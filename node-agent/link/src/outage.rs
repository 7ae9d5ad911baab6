//! When to tell that there is no connection: once for each reason, and rarely
//! again while it lasts.

use std::time::{Duration, Instant};

/// A lasting outage is told again after this time.
const REMINDER: Duration = Duration::from_secs(600);

/// What was told of the present outage.
#[derive(Debug, Default)]
pub struct Outage(Option<(String, Instant)>);

impl Outage {
    /// The link is down for `reason`; true if that is to be told.
    pub fn down(&mut self, reason: &str, now: Instant) -> bool {
        let known = self.0.as_ref().is_some_and(|(before, told)| {
            before == reason && now.saturating_duration_since(*told) < REMINDER
        });
        if !known {
            self.0 = Some((reason.to_owned(), now));
        }
        !known
    }

    /// The link is up.
    pub fn up(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_for_each_reason_and_rarely_again() {
        let mut outage = Outage::default();
        let start = Instant::now();
        assert!(outage.down("refused", start));
        assert!(!outage.down("refused", start + REMINDER / 2));
        assert!(outage.down("no route", start + REMINDER / 2));
        assert!(outage.down("no route", start + REMINDER * 2));
        outage.up();
        assert!(outage.down("no route", start + REMINDER * 2));
    }
}
