//! Collectors that are not heard of although they should be: those that do not attach, and those whose
//! pod ended without a farewell.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::inventory::pods::Collected;

/// A collector that starts attaches at once, or something is in its way.
const SOON: Duration = Duration::from_mins(2);
/// One that lost its stream, or whose pod is older than our lead, may wait ten minutes between two attempts.
const LATE: Duration = Duration::from_mins(11);
/// What lasts is told again after this time: an Event is kept for an hour.
const AGAIN: Duration = Duration::from_mins(60);

/// What is to be told of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// It runs for so long and is not attached.
    Unattached {
        /// The pod.
        uid: String,
        /// Since when.
        time: Duration,
    },
    /// Its pod has ended without its farewell: what it did not send is not known.
    Ended {
        /// The pod.
        uid: String,
    },
}

/// What is known of all collectors, from the begin of our lead on.
#[derive(Debug, Default)]
pub(super) struct Silence {
    is_begun: bool,
    /// By UID.
    pods: HashMap<String, State>,
}

#[derive(Debug)]
struct State {
    streams: usize,
    /// It runs without a stream since then.
    silent: Option<Instant>,
    patience: Duration,
    told: Option<Instant>,
    /// A farewell is to be expected of it.
    parts: bool,
    /// The pod was seen to have ended.
    ends: bool,
    /// About its end nothing more is to be said.
    is_over: bool,
}

impl State {
    fn new(patience: Duration) -> Self {
        let parts = true;
        Self { streams: 0, silent: None, patience, told: None, parts, ends: false, is_over: false }
    }
}

impl Silence {
    /// The collector of a pod is attached; `parts`: at the end it says farewell.
    pub(super) fn attached(&mut self, uid: &str, parts: bool) {
        let state = self.pods.entry(uid.to_owned()).or_insert_with(|| State::new(LATE));
        state.streams += 1;
        (state.silent, state.told, state.patience, state.parts) = (None, None, LATE, parts);
        // A farewell was that of a container that was started again.
        (state.ends, state.is_over) = (false, false);
    }

    /// One of its streams has ended.
    pub(super) fn detached(&mut self, uid: &str) {
        if let Some(state) = self.pods.get_mut(uid) {
            state.streams = state.streams.saturating_sub(1);
        }
    }

    /// It has reached us, and was sent away for now.
    pub(super) fn refused(&mut self, uid: &str) {
        if let Some(state) = self.pods.get_mut(uid) {
            (state.silent, state.patience) = (None, LATE);
        }
    }

    /// It has said farewell.
    pub(super) fn parted(&mut self, uid: &str) {
        if let Some(state) = self.pods.get_mut(uid) {
            state.is_over = true;
        }
    }

    /// Compares with the pods that carry a collector; at most `most` that are not attached are told at once.
    pub(super) fn look(&mut self, pods: &[Collected], most: usize, now: Instant) -> Vec<Silent> {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        let mut found = Vec::new();
        let mut told = 0;
        for pod in pods {
            let patience = if is_first { LATE } else { SOON };
            let state = self.pods.entry(pod.uid.clone()).or_insert_with(|| State::new(patience));
            if pod.has_ended {
                // Of what was over before we could hear of it nothing is known.
                state.is_over |= is_first || !pod.has_run || !state.parts;
                // Its last words may be on their way.
                if state.ends && !state.is_over {
                    state.is_over = true;
                    found.push(Silent::Ended { uid: pod.uid.clone() });
                }
                state.ends = true;
                continue;
            }
            if !pod.is_running || state.streams > 0 {
                state.silent = None;
                continue;
            }
            let time = now.saturating_duration_since(*state.silent.get_or_insert(now));
            let is_news = state.told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN);
            if time >= state.patience && is_news && told < most {
                told += 1;
                state.told = Some(now);
                found.push(Silent::Unattached { uid: pod.uid.clone(), time });
            }
        }
        let known: HashSet<_> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.pods.retain(|uid, state| state.streams > 0 || known.contains(uid.as_str()));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(uid: &str) -> Collected {
        Collected { uid: uid.to_owned(), is_running: true, has_run: true, has_ended: false }
    }

    fn ended(uid: &str) -> Collected {
        Collected { is_running: false, has_ended: true, ..running(uid) }
    }

    fn end(uid: &str) -> Silent {
        Silent::Ended { uid: uid.to_owned() }
    }

    fn unattached(uid: &str, time: Duration) -> Silent {
        Silent::Unattached { uid: uid.to_owned(), time }
    }

    #[test]
    fn one_that_does_not_attach_is_told_once_an_hour() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.look(&[running("before")], 9, start);
        let pods = [running("before"), running("fresh")];
        let mut look = |after: Duration| silence.look(&pods, 9, start + after);
        assert_eq!(look(Duration::ZERO), []);
        assert_eq!(look(SOON), [unattached("fresh", SOON)]);
        assert_eq!(look(LATE), [unattached("before", LATE)]);
        assert_eq!(look(SOON + AGAIN), [unattached("fresh", SOON + AGAIN)]);
    }

    #[test]
    fn one_that_is_attached_or_was_sent_away_is_not_told_until_it_is_gone_for_long() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.look(&[], 9, start);
        let pods = [running("u1")];
        silence.attached("u1", true);
        silence.attached("u1", true);
        silence.detached("u1");
        assert_eq!(silence.look(&pods, 9, start + AGAIN), []);
        silence.detached("u1");
        let lost = start + AGAIN;
        assert_eq!(silence.look(&pods, 9, lost), []);
        silence.refused("u1");
        assert_eq!(silence.look(&pods, 9, lost + LATE), [], "it was heard of a moment ago");
        assert_eq!(silence.look(&pods, 9, lost + 2 * LATE), [unattached("u1", LATE)]);
    }

    #[test]
    fn an_end_without_farewell_is_told_once_and_not_at_once() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        silence.look(&[ended("long ago")], 9, now);
        for (uid, parts) in [("silent", true), ("polite", true), ("older version", false)] {
            silence.attached(uid, parts);
            silence.detached(uid);
        }
        let never_ran = Collected { has_run: false, ..ended("never ran") };
        let uids = ["long ago", "silent", "polite", "older version", "never attached"];
        let pods: Vec<_> = uids.iter().map(|uid| ended(uid)).chain([never_ran]).collect();
        assert_eq!(silence.look(&pods, 9, now), []);
        silence.parted("polite");
        assert_eq!(silence.look(&pods, 9, now), [end("silent"), end("never attached")]);
        assert_eq!(silence.look(&pods, 9, now), []);

        silence.attached("restarted", true);
        silence.parted("restarted");
        silence.attached("restarted", true);
        let pods = [ended("restarted")];
        assert_eq!(
            (silence.look(&pods, 9, now), silence.look(&pods, 9, now)),
            (vec![], vec![end("restarted")])
        );
    }

    #[test]
    fn only_so_many_are_told_at_once_and_who_is_gone_is_forgotten() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.look(&[], 9, start);
        let pods: Vec<_> = (0..5).map(|number| running(&number.to_string())).collect();
        silence.look(&pods, 2, start);
        let counts: Vec<_> = (0..4).map(|_| silence.look(&pods, 2, start + SOON).len()).collect();
        assert_eq!(counts, [2, 2, 1, 0]);
        silence.attached("0", true);
        silence.look(&[], 2, start + SOON);
        assert_eq!(silence.pods.len(), 1);
    }
}
