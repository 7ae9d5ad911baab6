//! When to tell that there is no connection: once for each reason, and ever more rarely again while it lasts.

use std::time::{Duration, Instant};

/// A lasting outage is told again after this time, then after twice as long, and so on up to the second.
const REMINDER: (Duration, Duration) = (Duration::from_mins(10), Duration::from_hours(2));

/// More reasons are not told in the longest of these times: they hold a number that is another one each time.
const MOST: usize = 8;

/// What was told of the present outage.
#[derive(Debug, Default)]
pub struct Outage(Vec<Told>);

/// A reason, when it was told, and after which time it is again.
#[derive(Debug)]
struct Told {
    reason: String,
    at: Instant,
    again: Duration,
}

impl Outage {
    /// The link is down for `reason`; true if that is to be told.
    pub fn down(&mut self, reason: &str, now: Instant) -> bool {
        self.0.retain(|told| now.saturating_duration_since(told.at) < 2 * REMINDER.1);
        if let Some(told) = self.0.iter_mut().find(|told| told.reason == reason) {
            let is_due = now.saturating_duration_since(told.at) >= told.again;
            if is_due {
                (told.at, told.again) = (now, (told.again * 2).min(REMINDER.1));
            }
            return is_due;
        }
        let is_new = self.0.len() < MOST;
        if is_new {
            self.0.push(Told { reason: reason.to_owned(), at: now, again: REMINDER.0 });
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
    fn an_outage_is_told_once_for_each_reason_and_ever_more_rarely_again() {
        let (mut outage, start, first) = (Outage::default(), Instant::now(), REMINDER.0);
        assert!(outage.down("refused", start));
        assert!(!outage.down("refused", start + first / 2));
        assert!(outage.down("no route", start + first / 2));
        assert!(!outage.down("refused", start + first * 3 / 4), "the two by turns");
        assert!(outage.down("no route", start + first * 2));
        outage.up();
        assert!(outage.down("no route", start + first * 2));
        outage.up();
        let told: Vec<_> = (0..24 * 60)
            .filter(|minute| outage.down("refused", start + Duration::from_mins(*minute)))
            .collect();
        assert_eq!(told[..6], [0, 10, 30, 70, 150, 270]);
        assert!(told.len() < 16, "{told:?}");
    }

    #[test]
    fn reasons_that_never_are_the_same_have_a_bound() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let told = (0..100).filter(|number| outage.down(&format!("stream {number}"), start)).count();
        assert_eq!(told, MOST);
    }
}
