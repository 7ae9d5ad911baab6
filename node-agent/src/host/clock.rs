//! The clock: its steps, seen against the one that cannot be set, and how far it is off the aggregator's.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{
    condition::{Edge, Finding},
    event::Event,
};

/// A difference of this much between two looks is a step. What keeps clocks right by their
/// speed moves them by at most half a millisecond a second.
const STEP: Duration = Duration::from_secs(1);

/// A clock that is off by so many milliseconds mixes up what happened before what.
const SKEWED: u64 = 2000;

/// An answer that took longer says too little.
const LONGEST: Duration = Duration::from_secs(1);

/// The clocks, as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<Moment>,
    /// How many milliseconds it is ahead of the aggregator's.
    ahead: Option<i64>,
    /// When they were compared, until a later look.
    compared: Option<Moment>,
    skewed: Edge,
}

/// What the clocks of this machine show at one moment: the one that can be set, and the one that cannot.
pub(super) type Moment = (SystemTime, Instant);

impl Clock {
    /// The aggregator's clock showed `theirs` within a `round_trip` that ended `now`, when this one showed `ours`.
    pub(super) fn compare(
        &mut self,
        theirs: SystemTime,
        ours: SystemTime,
        round_trip: Duration,
        now: Moment,
    ) {
        if round_trip <= LONGEST {
            self.ahead = Some(milliseconds(theirs, ours).saturating_sub(whole(round_trip / 2)));
            self.compared = Some(now);
        }
    }

    /// Whether the clock was set since the last look.
    pub(super) fn step(&mut self, wall: SystemTime, steady: Instant) -> Option<Event> {
        let now = (wall, steady);
        let step = set_between(self.last.replace(now)?, now);
        // What was set before they were compared is in what is known; a look may be older than its judgement.
        let known = self.compared.take_if(|compared| compared.1 <= steady);
        let set = match (known, self.compared) {
            (Some(compared), _) => set_between(compared, now),
            (None, Some(_)) => 0,
            (None, None) => step,
        };
        self.ahead = self.ahead.map(|ahead| ahead.saturating_add(set));
        if step.unsigned_abs() < whole(STEP).unsigned_abs() {
            return None;
        }
        let (way, or) =
            if step > 0 { ("forward", ", or the machine stood still for as long") } else { ("back", "") };
        let by = seconds(step);
        let id = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Some(Event {
            kind: "ClockStepped",
            id: id.to_string(),
            time: wall,
            message: format!(
                "the clock of the node was set {way} by {by} s{or}: times of logs and certificates may seem wrong"
            ),
            pod: None,
        })
    }

    /// Whether it is off; `None` before it could be compared.
    pub(super) fn judge(&mut self) -> Option<Finding> {
        let ahead = self.ahead?;
        let reason = self.skewed.is_over(ahead.unsigned_abs(), SKEWED).then_some("ClockSkewed");
        let way = if ahead < 0 { "behind" } else { "ahead of" };
        let (by, limit) = (seconds(ahead), SKEWED / 1000);
        let message = format!(
            "the node's clock is {by} s {way} the leading aggregator's, which is trouble from {limit} s on: see to the time \
             service of this node, or if many nodes say so, of the aggregator's"
        );
        Some(Finding::trouble("kestrel.ai/ClockSkewed", reason, "ClockRight", message))
    }
}

/// By how many milliseconds the clock was set from one moment to the next.
fn set_between((last_wall, last_steady): Moment, (wall, steady): Moment) -> i64 {
    milliseconds(last_wall + steady.saturating_duration_since(last_steady), wall)
}

/// From `from` to `to`, negative if that is earlier.
fn milliseconds(from: SystemTime, to: SystemTime) -> i64 {
    match to.duration_since(from) {
        Ok(later) => whole(later),
        Err(earlier) => -whole(earlier.duration()),
    }
}

fn whole(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn seconds(milliseconds: i64) -> String {
    let milliseconds = milliseconds.unsigned_abs();
    format!("{}.{}", milliseconds / 1000, milliseconds % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::condition::Status;

    #[test]
    fn a_clock_that_is_set_is_told_once_and_one_that_is_slewed_is_not() {
        let (mut clock, wall, steady) = (Clock::default(), SystemTime::now(), Instant::now());
        let mut look = |wall_second: f64, second| {
            let wall = wall + Duration::from_secs_f64(wall_second);
            clock.step(wall, steady + Duration::from_secs(second)).map(|event| event.message)
        };
        assert_eq!(look(0.0, 0), None);
        assert_eq!(look(10.005, 10), None, "slewed");
        let forward = look(25.55, 20).unwrap();
        assert!(forward.starts_with("the clock of the node was set forward by 5.5 s, or"), "{forward}");
        assert_eq!(look(35.55, 30), None);
        let back = look(40.0, 40).unwrap();
        assert!(back.starts_with("the clock of the node was set back by 5.5 s:"), "{back}");
    }

    #[test]
    fn an_offset_is_known_by_an_answer_that_came_soon_and_follows_steps() {
        let (mut clock, wall, steady) = (Clock::default(), SystemTime::now(), Instant::now());
        let at = |millis| wall + Duration::from_millis(millis);
        assert_eq!(clock.judge(), None);
        clock.compare(at(0), at(9000), Duration::from_secs(2), (wall, steady));
        assert_eq!(clock.judge(), None, "the answer took too long");
        clock.step(at(2300), steady);
        clock.compare(at(0), at(2300), Duration::from_millis(600), (at(2300), steady));
        let finding = clock.judge().unwrap();
        assert_eq!(finding.status, Status::True);
        assert!(finding.message.starts_with("the node's clock is 2.0 s ahead of the leading"), "{finding:?}");
        clock.compare(at(0), at(1900), Duration::ZERO, (at(2300), steady));
        assert_eq!(clock.judge().unwrap().status, Status::True, "still nearly as much");
        clock.step(at(300), steady + Duration::from_secs(1)).unwrap();
        let finding = clock.judge().unwrap();
        assert_eq!(finding.status, Status::False);
        assert!(finding.message.starts_with("the node's clock is 1.1 s behind the leading"), "{finding:?}");

        // Set right, compared, and only then looked at.
        let steady = steady + Duration::from_secs(2);
        clock.compare(at(2400), at(2400), Duration::ZERO, (at(2400), steady));
        assert!(clock.step(at(2400), steady).is_some());
        let finding = clock.judge().unwrap();
        assert!(finding.message.starts_with("the node's clock is 0.0 s"), "{finding:?}");
        // Looked at, set right, compared, and only then judged.
        let (looked, steady) = ((at(3400), steady + Duration::from_secs(1)), steady + Duration::from_secs(2));
        clock.compare(at(9000), at(9000), Duration::ZERO, (at(9000), steady));
        assert_eq!(clock.step(looked.0, looked.1), None);
        assert!(clock.step(at(10_000), steady + Duration::from_secs(1)).is_some());
        let finding = clock.judge().unwrap();
        assert!(finding.message.starts_with("the node's clock is 0.0 s"), "{finding:?}");
    }
}
