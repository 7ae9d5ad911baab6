//! The node's story: what a person reads in this agent's log. One sentence per
//! change, never one per record; what stays as it is, is not said again, and what
//! never stands still ever more rarely, so that a day is a page.

mod happened;
mod pace;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kestrel_link::outage::Outage;
use kestrel_tail::{
    discover::Origin,
    engine::{LostBytes, News, Policy, Reason},
};

use crate::host::{
    condition::{Condition, PARTLY, Status},
    event::Event,
};
use happened::Happened;
use pace::Pace;

/// Names told one by one; of more only the number is told.
const NAMES: usize = 5;

/// Files that can't be followed and wait to be told.
const MOST_PROBLEMS: usize = 1000;

/// A sentence of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// Something changed.
    Note(String),
    /// Something changed that may need somebody; nothing is lost so far.
    Warning(String),
}

impl Sentence {
    /// Writes it to the log.
    pub fn tell(&self) {
        match self {
            Self::Note(text) => tracing::info!("{text}"),
            Self::Warning(text) => tracing::warn!("{text}"),
        }
    }
}

/// What was told last.
#[derive(Debug, Default)]
pub struct Story {
    pods: BTreeMap<String, bool>,
    containers: usize,
    pods_are_known: bool,
    pods_pace: Pace,
    /// Of many that come or go at a time, such as those of a roll-out.
    rush_pace: Pace,
    outage: Outage,
    conditions: BTreeMap<&'static str, Told>,
    positions: Option<String>,
    /// Of files, what was not told yet.
    problems: BTreeMap<PathBuf, Option<String>>,
    problems_pace: Pace,
    lost: LostBytes,
    lost_pace: Pace,
    happened: Happened,
    summary: Option<String>,
    summary_pace: Pace,
}

/// What is new of a condition.
struct Change {
    /// How often it changed since it was told.
    changes: u32,
    /// It could not be told when it changed.
    is_late: bool,
}

/// A condition as it was told.
#[derive(Debug)]
struct Told {
    status: Status,
    reason: String,
    /// As it was seen last, and how often that changed since it was told.
    seen: (Status, String),
    changes: u32,
    is_late: bool,
    pace: Pace,
}

impl Story {
    /// The containers whose files there are, and what is wanted of them.
    pub fn pods<'a>(
        &mut self,
        origins: impl Iterator<Item = (&'a Origin, Option<Policy>)>,
        directory: &Path,
        now: Instant,
    ) -> Option<Sentence> {
        let origins: Vec<_> = origins.filter(|(_, policy)| *policy != Some(Policy::Off)).collect();
        let containers = origins.len();
        let is_rush = containers.abs_diff(self.containers) > NAMES && self.rush_pace.may(now);
        if !is_rush && !self.pods_pace.may(now) {
            return None;
        }
        let mut pods = BTreeMap::new();
        for (origin, policy) in origins {
            let pod = format!("{}/{}", origin.namespace, origin.pod);
            *pods.entry(pod).or_insert(false) |= policy.is_some();
        }
        if self.pods == pods && self.containers == containers && self.pods_are_known {
            return None;
        }
        let came: Vec<_> = pods.keys().filter(|pod| !self.pods.contains_key(*pod)).collect();
        let went: Vec<_> = self.pods.keys().filter(|pod| !pods.contains_key(*pod)).collect();
        let undecided = pods.values().filter(|decided| !**decided).count();
        let mut text = format!(
            "following {} of {} in {}",
            count(containers, "container"),
            count(pods.len(), "pod"),
            directory.display()
        );
        if undecided > 0 {
            text += &format!("; {} to be decided by the aggregator", count(undecided, "pod"));
        }
        if self.pods_are_known {
            text += &named("; new", &came);
            text += &named("; gone", &went);
        }
        self.pods = pods;
        self.containers = containers;
        self.pods_are_known = true;
        // One of them may, as was asked above.
        let _may = self.pods_pace.take(now) || self.rush_pace.take(now);
        Some(Sentence::Note(text))
    }

    /// What cannot be followed any more, or can again.
    pub fn problems(&mut self, news: Vec<News>, now: Instant) -> Vec<Sentence> {
        for News { path, problem } in news {
            if self.problems.len() < MOST_PROBLEMS || self.problems.contains_key(&path) {
                self.problems.insert(path, problem);
            }
        }
        if self.problems.is_empty() || !self.problems_pace.take(now) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.problems);
        let more = all.len().saturating_sub(NAMES);
        let sentence = |(path, problem): (PathBuf, Option<String>)| match problem {
            Some(problem) => Sentence::Warning(format!("{}: {problem}", path.display())),
            None => Sentence::Note(format!("{}: no problem any more", path.display())),
        };
        let mut told: Vec<_> = all.into_iter().take(NAMES).map(sentence).collect();
        if more > 0 {
            let text = format!(
                "likewise {}; kestrel-node-agent status says how they stand",
                count(more, "other file")
            );
            told.push(Sentence::Note(text));
        }
        told
    }

    /// The link is up.
    pub fn connected(&mut self, endpoint: &http::Uri) -> Sentence {
        self.outage.up();
        Sentence::Note(format!("connected to the aggregator at {endpoint}"))
    }

    /// The link is down, or still is.
    pub fn disconnected(&mut self, reason: &str, retry_in: Duration, now: Instant) -> Option<Sentence> {
        if !self.outage.down(reason, now) {
            return None;
        }
        Some(Sentence::Warning(format!(
            "no connection to the aggregator: {reason}; the next attempt is in {:.1} s, until then the log files are the buffer",
            retry_in.as_secs_f32()
        )))
    }

    /// The node's conditions. Those that cannot be seen for the same reason are told together.
    pub fn conditions(&mut self, conditions: &[Condition], now: Instant) -> Vec<Sentence> {
        let mut told: Vec<(Vec<&str>, &Condition, Change)> = Vec::new();
        let mut well = Vec::new();
        for condition in conditions {
            let finding = &condition.finding;
            let is_new = !self.conditions.contains_key(finding.kind);
            let Some(news) = self.changed(condition, now) else { continue };
            if is_new && finding.is_good() && finding.reason != PARTLY {
                well.push(finding.kind);
                continue;
            }
            let is_same = |other: &Condition| {
                finding.status == Status::Unknown && other.finding.message == finding.message
            };
            match told.iter_mut().find(|(_, other, _)| is_same(other)) {
                Some((kinds, ..)) => kinds.push(finding.kind),
                None => told.push((vec![finding.kind], condition, news)),
            }
        }
        let sentence = |(kinds, condition, Change { changes, is_late }): (Vec<&str>, &Condition, Change)| {
            let is = if kinds.len() > 1 { "are" } else { "is" };
            let finding = &condition.finding;
            let mut text =
                format!("{} {is} {}: {}", kinds.join(", "), finding.status.as_str(), finding.message);
            let changed = (changes > 1).then(|| format!("it changed {changes} times since it was told"));
            let since = is_late.then(|| format!("so since {}", condition.since()));
            let aside: Vec<_> = changed.into_iter().chain(since).collect();
            if !aside.is_empty() {
                text += &format!(" ({})", aside.join(", "));
            }
            if finding.is_good() { Sentence::Note(text) } else { Sentence::Warning(text) }
        };
        let well = (!well.is_empty())
            .then(|| Sentence::Note(format!("watched and as it should be: {}", well.join(", "))));
        well.into_iter().chain(told.into_iter().map(sentence)).collect()
    }

    /// What changed of a condition since it was told, if that is to be told.
    fn changed(&mut self, condition: &Condition, now: Instant) -> Option<Change> {
        let finding = &condition.finding;
        let (status, reason) = finding.state();
        let told = self.conditions.entry(finding.kind).or_insert_with(|| Told {
            status: Status::Unknown,
            reason: String::new(),
            seen: (Status::Unknown, String::new()),
            changes: 0,
            is_late: false,
            pace: Pace::default(),
        });
        if (told.seen.0, told.seen.1.as_str()) != (status, reason) {
            told.changes = told.changes.saturating_add(1);
            told.seen = (status, reason.to_owned());
        }
        let is_news = (told.status, told.reason.as_str()) != (status, reason);
        told.is_late &= is_news;
        if !is_news {
            return None;
        }
        if !told.pace.take(now) {
            told.is_late = true;
            return None;
        }
        (told.status, told.reason) = told.seen.clone();
        Some(Change {
            changes: std::mem::take(&mut told.changes),
            is_late: std::mem::take(&mut told.is_late),
        })
    }

    /// What happened on the host, unless it happened to the same pod a short time before.
    pub fn happened(&mut self, event: &Event, now: Instant) -> Option<Sentence> {
        self.happened.add(event, now)
    }

    /// What happened again and again since it was told.
    pub fn repeated(&mut self, now: Instant) -> Vec<Sentence> {
        self.happened.due(now)
    }

    /// All of it in a sentence, unless `state`, what of it matters, is as it was.
    pub fn summary(&mut self, state: String, text: String, now: Instant) -> Option<Sentence> {
        if self.summary.as_ref() == Some(&state) || !self.summary_pace.take(now) {
            return None;
        }
        self.summary = Some(state);
        Some(Sentence::Note(text))
    }

    /// Whether positions can be written.
    pub fn positions(&mut self, problem: Option<String>) -> Option<Sentence> {
        if self.positions == problem {
            return None;
        }
        let sentence = match &problem {
            Some(problem) => Sentence::Warning(format!(
                "positions cannot be kept: {problem}; lines will be read again after a restart (KESTREL_STATE_DIR)"
            )),
            None => Sentence::Note("positions are kept again".to_owned()),
        };
        self.positions = problem;
        Some(sentence)
    }

    /// Bytes that were gone before they were delivered.
    pub fn lost(&mut self, lost: &LostBytes, now: Instant) -> Option<Sentence> {
        if self.lost == *lost || !self.lost_pace.take(now) {
            return None;
        }
        let since = Reason::ALL.map(|reason| (reason, lost.of(reason) - self.lost.of(reason)));
        let since = since.iter().filter(|(_, bytes)| *bytes > 0).map(|(reason, bytes)| {
            let why = match reason {
                Reason::Emptied => "of files that were emptied (copy and truncate loses what was not read yet; renaming does not)",
                Reason::Removed => "of removed files, as rotation was faster than the link (a larger containerLogMaxSize or containerLogMaxFiles of the kubelet gives more time)",
                Reason::Damaged => "of files that are damaged",
                Reason::Unattended => "of files that were removed between the agent before this one, which ended without reading them, and this one",
            };
            format!("{bytes} bytes {why}")
        });
        let text = format!("logs are missing: {}", since.collect::<Vec<_>>().join("; "));
        self.lost = *lost;
        Some(Sentence::Warning(text))
    }
}

/// So many of something.
pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn named(what: &str, names: &[&String]) -> String {
    match names {
        [] => String::new(),
        few if few.len() <= NAMES => {
            format!("{what}: {}", few.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "))
        }
        many => format!("{what}: {} pods", many.len()),
    }
}

#[cfg(test)]
mod day;
#[cfg(test)]
mod tests;
