//! Steps of the clock: the one that can be set, seen against the one that cannot.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::event::Event;

/// A difference of this much between two looks is a step. What keeps clocks right by their
/// speed moves them by at most half a millisecond a second.
const STEP: Duration = Duration::from_secs(1);

/// The clocks, as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<(SystemTime, Instant)>,
}

impl Clock {
    /// Whether the clock was set since.
    pub(super) fn judge(&mut self, wall: SystemTime, steady: Instant) -> Option<Event> {
        let (last_wall, last_steady) = self.last.replace((wall, steady))?;
        let expected = last_wall + steady.saturating_duration_since(last_steady);
        let (step, way) = match wall.duration_since(expected) {
            Ok(step) => (step, "forward"),
            Err(back) => (back.duration(), "back"),
        };
        if step < STEP {
            return None;
        }
        let seconds = step.as_secs_f64();
        let or = if way == "forward" { ", or the machine stood still for as long" } else { "" };
        let id = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Some(Event {
            kind: "ClockStepped",
            id: id.to_string(),
            time: wall,
            message: format!(
                "the clock of the node was set {way} by {seconds:.1} s{or}: times of logs and certificates may seem wrong"
            ),
            pod: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_once_and_one_that_is_slewed_is_not() {
        let (mut clock, wall, steady) = (Clock::default(), SystemTime::now(), Instant::now());
        let mut look = |wall_second: f64, second| {
            let wall = wall + Duration::from_secs_f64(wall_second);
            clock.judge(wall, steady + Duration::from_secs(second)).map(|event| event.message)
        };
        assert_eq!(look(0.0, 0), None);
        assert_eq!(look(10.005, 10), None, "slewed");
        let forward = look(25.5, 20).unwrap();
        assert!(forward.starts_with("the clock of the node was set forward by 5.5 s, or"), "{forward}");
        assert_eq!(look(35.5, 30), None);
        let back = look(40.0, 40).unwrap();
        assert!(back.starts_with("the clock of the node was set back by 5.5 s:"), "{back}");
    }
}
