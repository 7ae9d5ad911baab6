//! What the log says about the uplink: every change once, a problem that
//! stays at growing intervals.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::problem::Problem;

/// A sentence is said again after this long, then after twice as long …
const FIRST_INTERVAL: Duration = Duration::from_secs(60);
/// … up to this.
const LAST_INTERVAL: Duration = Duration::from_secs(3600);
/// A sentence that nobody had to say for this long is news again.
const NEWS_AGAIN: Duration = Duration::from_secs(600);
/// Sentences remembered; beyond it the one said longest ago is forgotten.
const REMEMBERED: usize = 64;

/// Decides when a sentence that may come again and again is said.
#[derive(Debug, Default)]
struct Repeats(BTreeMap<String, Repeat>);

#[derive(Debug)]
struct Repeat {
    said: Instant,
    came: Instant,
    interval: Duration,
    unsaid: u64,
}

/// How often a sentence came since it was said last, as its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Again(u64);

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            times => write!(f, " ({times} times since this was said last)"),
        }
    }
}

impl Repeats {
    /// `Some` if it is time to say the sentence.
    fn came(&mut self, sentence: &str, now: Instant) -> Option<Again> {
        if let Some(known) = self.0.get_mut(sentence)
            && now.duration_since(known.came) < NEWS_AGAIN.max(known.interval)
        {
            known.came = now;
            known.unsaid += 1;
            if now.duration_since(known.said) < known.interval {
                return None;
            }
            known.said = now;
            known.interval = (known.interval * 2).min(LAST_INTERVAL);
            return Some(Again(std::mem::take(&mut known.unsaid)));
        }
        if self.0.len() >= REMEMBERED
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, known)| known.came).map(|(name, _)| name.clone())
        {
            self.0.remove(&oldest);
        }
        let first = Repeat { said: now, came: now, interval: FIRST_INTERVAL, unsaid: 0 };
        self.0.insert(sentence.to_owned(), first);
        Some(Again::default())
    }
}

/// The voice of the uplink; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Report(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    repeats: Repeats,
    problem: Option<String>,
    /// A problem was said since the last good news, so the next must be said too.
    news_wanted: bool,
}

impl Report {
    /// Something does not work; the sentence names what must be changed.
    pub(crate) fn problem(&self, problem: &Problem) {
        let sentence = problem.to_string();
        let mut state = self.state();
        if let Some(again) = state.repeats.came(&problem.subject(), Instant::now()) {
            state.news_wanted = true;
            warn!("{sentence}{again}");
        }
        state.problem = Some(sentence);
    }

    /// Something works, but not as it should.
    pub(crate) fn caution(&self, sentence: &str) {
        if let Some(again) = self.state().repeats.came(sentence, Instant::now()) {
            warn!("{sentence}{again}");
        }
    }

    /// Something changed for the better, or otherwise.
    pub(crate) fn news(&self, sentence: &str) {
        let mut state = self.state();
        let again = state.repeats.came(sentence, Instant::now());
        if std::mem::take(&mut state.news_wanted) || again.is_some() {
            info!("{sentence}{}", again.unwrap_or_default());
        }
    }

    /// The last problem is over.
    pub(crate) fn solved(&self) {
        self.state().problem = None;
    }

    /// The problem that is not known to be over.
    pub fn last_problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_stays_is_said_at_growing_intervals_with_its_count() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        let said: Vec<_> = (0..1000)
            .filter_map(|second| {
                repeats.came("no", start + Duration::from_secs(second)).map(|again| (second, again.0))
            })
            .collect();
        assert_eq!(said, [(0, 0), (60, 60), (180, 120), (420, 240), (900, 480)]);
        assert_eq!(repeats.came("another", start), Some(Again(0)));
    }

    #[test]
    fn a_problem_that_was_over_for_long_is_news() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.came("no", start), Some(Again(0)));
        assert_eq!(repeats.came("no", start + Duration::from_secs(1)), None);
        assert_eq!(repeats.came("no", start + Duration::from_secs(700)), Some(Again(0)));
    }

    #[test]
    fn ever_new_sentences_cost_no_memory() {
        let mut repeats = Repeats::default();
        for name in 0..1000 {
            repeats.came(&name.to_string(), Instant::now());
        }
        assert_eq!(repeats.0.len(), REMEMBERED);
    }
}
