//! The node's story: what a person reads in this agent's log. One sentence per
//! change, never one per record; what stays as it is, is not said again.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
    time::{Duration, Instant},
};

use kestrel_link::outage::Outage;
use kestrel_tail::{
    discover::Origin,
    engine::{LostBytes, News, Policy, Reason},
};

use crate::host::{
    condition::{Condition, Status},
    event::Event,
};

/// Pods come and go in waves: they are told together, this often at most.
const WAVE: Duration = Duration::from_secs(5);

/// What happens again and again is told this often.
const REPEATS: Duration = Duration::from_hours(1);

/// Names told one by one; of more only the number is told.
const NAMES: usize = 5;

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
    pods_told: Option<Instant>,
    outage: Outage,
    conditions: BTreeMap<&'static str, Condition>,
    positions: Option<String>,
    lost: LostBytes,
    lost_told: Option<Instant>,
    /// By kind and pod, what happened in the last hour.
    happened: BTreeMap<(&'static str, Option<String>), Repeats>,
    summary: Option<String>,
}

/// How often something happened again.
#[derive(Debug)]
struct Repeats {
    told: Instant,
    more: u64,
    /// A sentence of the last one.
    last: String,
}

impl Story {
    /// The containers whose files there are, and what is wanted of them.
    pub fn pods<'a>(
        &mut self,
        origins: impl Iterator<Item = (&'a Origin, Option<Policy>)>,
        directory: &Path,
        now: Instant,
    ) -> Option<Sentence> {
        if self.pods_told.is_some_and(|told| now.saturating_duration_since(told) < WAVE) {
            return None;
        }
        let mut pods = BTreeMap::new();
        let mut containers = 0;
        for (origin, policy) in origins.filter(|(_, policy)| *policy != Some(Policy::Off)) {
            let pod = format!("{}/{}", origin.namespace, origin.pod);
            *pods.entry(pod).or_insert(false) |= policy.is_some();
            containers += 1;
        }
        if self.pods == pods && self.containers == containers && self.pods_told.is_some() {
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
        if self.pods_told.is_some() {
            text += &named("; new", &came);
            text += &named("; gone", &went);
        }
        self.pods = pods;
        self.containers = containers;
        self.pods_told = Some(now);
        Some(Sentence::Note(text))
    }

    /// What cannot be followed any more, or can again.
    pub fn problem(&self, News { path, problem }: &News) -> Sentence {
        match problem {
            Some(problem) => Sentence::Warning(format!("{}: {problem}", path.display())),
            None => Sentence::Note(format!("{}: no problem any more", path.display())),
        }
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
    pub fn conditions(&mut self, conditions: &[Condition]) -> Vec<Sentence> {
        let mut told: Vec<(Vec<&str>, &Condition)> = Vec::new();
        for condition in conditions {
            let finding = &condition.finding;
            let before = self.conditions.insert(finding.kind, condition.clone());
            if before.is_some_and(|before| before.finding.state() == finding.state()) {
                continue;
            }
            let is_same = |other: &Condition| {
                finding.status == Status::Unknown && other.finding.message == finding.message
            };
            match told.iter_mut().find(|(_, other)| is_same(other)) {
                Some((kinds, _)) => kinds.push(finding.kind),
                None => told.push((vec![finding.kind], condition)),
            }
        }
        let sentence = |(kinds, condition): (Vec<&str>, &Condition)| {
            let is = if kinds.len() > 1 { "are" } else { "is" };
            let finding = &condition.finding;
            let text = format!("{} {is} {}: {}", kinds.join(", "), finding.status.as_str(), finding.message);
            if finding.is_good() { Sentence::Note(text) } else { Sentence::Warning(text) }
        };
        told.into_iter().map(sentence).collect()
    }

    /// What happened on the host, unless it happened to the same pod a short time before.
    pub fn happened(&mut self, event: &Event, now: Instant) -> Option<Sentence> {
        let repeats = match self.happened.entry((event.kind, event.pod.clone())) {
            Entry::Occupied(repeats) => repeats.into_mut(),
            Entry::Vacant(room) => {
                room.insert(Repeats { told: now, more: 0, last: String::new() });
                return Some(Sentence::Warning(event.message.clone()));
            }
        };
        repeats.more += 1;
        repeats.last.clone_from(&event.message);
        None
    }

    /// What happened again and again since it was told.
    pub fn repeated(&mut self, now: Instant) -> Vec<Sentence> {
        let mut told = Vec::new();
        self.happened.retain(|_, repeats| {
            if now.saturating_duration_since(repeats.told) < REPEATS {
                return true;
            }
            let is_over = repeats.more == 0;
            if !is_over {
                let Repeats { more, last, .. } = &repeats;
                told.push(Sentence::Warning(format!("{more} more of this in an hour, the last: {last}")));
                *repeats = Repeats { told: now, more: 0, last: String::new() };
            }
            !is_over
        });
        told
    }

    /// All of it in a sentence, unless it says what it said before.
    pub fn summary(&mut self, text: String) -> Option<Sentence> {
        let is_new = self.summary.as_ref() != Some(&text);
        self.summary = Some(text.clone());
        is_new.then_some(Sentence::Note(text))
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
        if self.lost == *lost || self.lost_told.is_some_and(|told| now.saturating_duration_since(told) < WAVE)
        {
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
        self.lost_told = Some(now);
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
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::host::condition::Finding;

    fn text(sentence: Option<Sentence>) -> String {
        match sentence {
            Some(Sentence::Note(text) | Sentence::Warning(text)) => text,
            None => String::new(),
        }
    }

    #[test]
    fn pods_are_told_in_waves() {
        let origin = |pod: &str, container: &str| Origin {
            namespace: "ns".into(),
            pod: pod.into(),
            uid: "1".into(),
            container: container.into(),
        };
        let mut story = Story::default();
        let start = Instant::now();
        let tell = |story: &mut Story, origins: &[(Origin, Option<Policy>)], after: u64| {
            let origins = origins.iter().map(|(origin, policy)| (origin, *policy));
            text(story.pods(origins, Path::new("/var/log/pods"), start + Duration::from_secs(after)))
        };
        assert_eq!(tell(&mut story, &[], 0), "following 0 containers of 0 pods in /var/log/pods");
        let two = [(origin("a", "x"), Some(Policy::All)), (origin("a", "y"), Some(Policy::All))];
        assert_eq!(tell(&mut story, &two, 1), "");
        assert_eq!(tell(&mut story, &two, 6), "following 2 containers of 1 pod in /var/log/pods; new: ns/a");
        assert_eq!(tell(&mut story, &two, 60), "");
        let other = [(origin("b", "x"), None), (origin("off", "x"), Some(Policy::Off))];
        assert_eq!(
            tell(&mut story, &other, 70),
            "following 1 container of 1 pod in /var/log/pods; 1 pod to be decided by the aggregator; new: ns/b; gone: ns/a"
        );
    }

    #[test]
    fn what_cannot_be_seen_for_one_reason_is_told_once() {
        let condition = |kind, status, message: &str| {
            let (reason, message) = ("R".into(), message.to_owned());
            Condition { finding: Finding { kind, status, reason, message }, since: SystemTime::now() }
        };
        let mut story = Story::default();
        let unseen = [
            condition("kestrel.ai/A", Status::Unknown, "no right"),
            condition("kestrel.ai/B", Status::False, "fine"),
            condition("kestrel.ai/C", Status::Unknown, "no right"),
        ];
        let together = Sentence::Warning("kestrel.ai/A, kestrel.ai/C are Unknown: no right".into());
        let fine = Sentence::Note("kestrel.ai/B is False: fine".into());
        assert_eq!(story.conditions(&unseen), [together, fine]);
        assert_eq!(story.conditions(&unseen), []);
        let trouble = [condition("kestrel.ai/B", Status::True, "no")];
        assert_eq!(story.conditions(&trouble), [Sentence::Warning("kestrel.ai/B is True: no".into())]);
    }

    #[test]
    fn what_happens_every_minute_is_told_every_hour() {
        let event = |pod: &str, number: u64| Event {
            kind: "OOMKilled",
            id: number.to_string(),
            time: SystemTime::now(),
            message: format!("kill {number} in {pod}"),
            pod: Some(pod.to_owned()),
        };
        let (mut story, start) = (Story::default(), Instant::now());
        let mut told = Vec::new();
        for minute in 0..180 {
            let now = start + Duration::from_mins(minute);
            told.extend(story.repeated(now));
            if minute <= 100 {
                told.extend(story.happened(&event("a", minute), now));
            }
            if minute == 30 {
                told.extend(story.happened(&event("b", minute), now));
            }
        }
        let told: Vec<_> = told.into_iter().map(|sentence| text(Some(sentence))).collect();
        let expected = [
            "kill 0 in a",
            "kill 30 in b",
            "59 more of this in an hour, the last: kill 59 in a",
            "41 more of this in an hour, the last: kill 100 in a",
        ];
        assert_eq!(told, expected);
        assert!(story.repeated(start + 5 * REPEATS).is_empty() && story.happened.is_empty());
    }

    #[test]
    fn a_state_is_told_once() {
        let mut story = Story::default();
        let start = Instant::now();
        let down = |story: &mut Story| story.disconnected("refused", Duration::from_secs(1), start).is_some();
        assert!(down(&mut story));
        assert!(!down(&mut story));
        story.connected(&http::Uri::from_static("https://x:1"));
        assert!(down(&mut story));

        assert!(story.summary("all is well".into()).is_some());
        assert!(story.summary("all is well".into()).is_none());
        assert!(story.summary("it is not".into()).is_some());

        assert!(story.positions(None).is_none());
        assert!(story.positions(Some("disk full".into())).is_some());
        assert!(story.positions(Some("disk full".into())).is_none());
        assert_eq!(story.positions(None), Some(Sentence::Note("positions are kept again".into())));

        let lost = |damaged| LostBytes::from([0, 5, damaged, 0]);
        assert_eq!(story.lost(&LostBytes::default(), start), None);
        assert!(text(story.lost(&lost(0), start)).starts_with("logs are missing: 5 bytes of removed files"));
        assert!(story.lost(&lost(20), start).is_none(), "waves");
        assert_eq!(
            text(story.lost(&lost(20), start + WAVE)),
            "logs are missing: 20 bytes of files that are damaged"
        );
    }
}
