//! When to tell that there is no connection: once for each reason, and rarely
//! again while it lasts.

use std::time::{Duration, Instant};

/// A lasting outage is told again after this time.
const REMINDER: Duration = Duration::from_secs(600);

/// More reasons are not told in that time: they hold a number that is another one each time.
const MOST: usize = 8;

/// What was told of the present outage, and when.
#[derive(Debug, Default)]
pub struct Outage(Vec<(String, Instant)>);

impl Outage {
    /// The link is down for `reason`; true if that is to be told.
    pub fn down(&mut self, reason: &str, now: Instant) -> bool {
        self.0.retain(|(_, told)| now.saturating_duration_since(*told) < REMINDER);
        let is_new = self.0.len() < MOST && self.0.iter().all(|(before, _)| before != reason);
        if is_new {
            self.0.push((reason.to_owned(), now));
        }
        is_new
    }

    /// The link is up.
    pub fn up(&mut self) {
        self.0.clear();
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
        assert!(!outage.down("refused", start + REMINDER * 3 / 4), "the two by turns");
        assert!(outage.down("no route", start + REMINDER * 2));
        outage.up();
        assert!(outage.down("no route", start + REMINDER * 2));
    }

    #[test]
    fn reasons_that_never_are_the_same_have_a_bound() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let told = (0..100).filter(|number| outage.down(&format!("stream {number}"), start)).count();
        assert_eq!(told, MOST);
    }
}
