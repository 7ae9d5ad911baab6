//! Log lines by container, within one byte budget, and the numbered series in them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{LogEntry, PodLogs};
use serde::{Deserialize, Serialize};

use super::sequence::{Report, Sequence, number_after};

/// Bytes of text that are kept over all containers.
const TEXT_BUDGET: usize = 64 << 20;
/// What a line costs beside its text.
const LINE_OVERHEAD: usize = 96;
/// Containers whose lines are kept or counted.
const MAX_CONTAINERS: usize = 20_000;
/// Series that are tracked: one per prefix and container.
const MAX_SEQUENCES: usize = 4_096;
/// Prefixes that are tracked.
const MAX_PREFIXES: usize = 16;

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Container {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
}

/// One line that is still kept.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The writer's time, if it was known.
    pub time: Option<Timestamp>,
    /// When the line arrived here.
    pub arrived: Timestamp,
    /// Level as the operator read it; may be empty.
    pub level: String,
    /// The text.
    pub message: String,
    /// The number of the line in its stream.
    pub line_number: i64,
    /// The line is of the container's previous instance.
    pub previous: bool,
    /// The error that the operator read out of the line.
    pub error: Option<LineError>,
}

/// What [`Line`] says of an error.
#[derive(Clone, Debug, Serialize)]
pub struct LineError {
    /// Its class.
    pub kind: String,
    /// Its message.
    pub message: String,
    /// The stack trace.
    pub stack_trace: String,
}

/// The lines of one container.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    total: u64,
    node: String,
}

/// Which containers a question is about; an absent part matches all.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Selector {
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// Name of the pod.
    pub pod: Option<String>,
    /// What the pod's name begins with: the pods of one workload.
    pub pod_prefix: Option<String>,
    /// Name of the container.
    pub container: Option<String>,
}

impl Selector {
    fn matches(&self, container: &Container) -> bool {
        let is =
            |wanted: &Option<String>, value: &String| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&self.namespace, &container.namespace)
            && is(&self.pod, &container.pod)
            && is(&self.container, &container.container)
            && self.pod_prefix.as_ref().is_none_or(|prefix| container.pod.starts_with(prefix))
    }
}

/// What is known of a container's lines.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerCount {
    /// The container.
    #[serde(flatten)]
    pub container: Container,
    /// The node that sent them.
    pub node: String,
    /// Lines that arrived.
    pub total: u64,
    /// Lines that are still kept.
    pub kept: usize,
}

/// Everything that arrived as `PodLogs`.
#[derive(Debug)]
pub struct Logs {
    containers: BTreeMap<Container, Kept>,
    bytes: usize,
    total: u64,
    uncounted: u64,
    prefixes: BTreeSet<String>,
    sequences: BTreeMap<(String, Container), Sequence>,
    untracked: u64,
}

impl Default for Logs {
    /// Tracks the series `line 1`, `line 2`, ….
    fn default() -> Self {
        Self {
            containers: BTreeMap::new(),
            bytes: 0,
            total: 0,
            uncounted: 0,
            prefixes: BTreeSet::from(["line ".to_owned()]),
            sequences: BTreeMap::new(),
            untracked: 0,
        }
    }
}

impl Logs {
    /// Takes a batch in.
    pub fn insert(&mut self, batch: PodLogs, arrived: Timestamp) {
        let container =
            Container { namespace: batch.namespace, pod: batch.pod_name, container: batch.container_name };
        self.total += batch.log_entries.len() as u64;
        for entry in &batch.log_entries {
            self.count_in_sequences(&container, &entry.message);
        }
        if !self.containers.contains_key(&container) && self.containers.len() >= MAX_CONTAINERS {
            self.uncounted += batch.log_entries.len() as u64;
            return;
        }
        let kept = self.containers.entry(container).or_default();
        kept.node = batch.node_name;
        kept.total += batch.log_entries.len() as u64;
        for entry in batch.log_entries {
            let line = Line::new(entry, arrived, batch.previous_container);
            kept.bytes += line.cost();
            self.bytes += line.cost();
            kept.lines.push_back(line);
        }
        while self.bytes > TEXT_BUDGET {
            self.shrink_the_largest();
        }
    }

    /// Follows the series whose numbers stand behind `prefix`, from now on.
    ///
    /// # Errors
    /// Too many are followed already.
    pub fn track(&mut self, prefix: &str) -> Result<(), String> {
        if self.prefixes.len() >= MAX_PREFIXES && !self.prefixes.contains(prefix) {
            return Err(format!("{MAX_PREFIXES} prefixes are followed already: {:?}", self.prefixes));
        }
        self.prefixes.insert(prefix.to_owned());
        Ok(())
    }

    /// What arrived of the series behind `prefix` in all selected containers
    /// together, over every line ever received.
    ///
    /// # Errors
    /// The prefix is not followed, or not everywhere.
    pub fn sequence(&self, prefix: &str, selector: &Selector, limit: usize) -> Result<Report, String> {
        if !self.prefixes.contains(prefix) {
            return Err(format!(
                "no series {prefix:?} is followed, only {:?}: POST {{\"prefix\": {prefix:?}}} to \
                 /v1/logs/sequence before the lines are written",
                self.prefixes
            ));
        }
        if self.untracked > 0 {
            return Err(format!("more than {MAX_SEQUENCES} containers wrote numbered lines; start anew"));
        }
        let mut union = Sequence::default();
        for ((_, _), sequence) in
            self.sequences.iter().filter(|((of, container), _)| of == prefix && selector.matches(container))
        {
            union.merge(sequence);
        }
        Ok(union.report(limit))
    }

    /// The selected containers.
    pub fn containers(&self, selector: &Selector) -> Vec<ContainerCount> {
        self.selected(selector)
            .map(|(container, kept)| ContainerCount {
                container: container.clone(),
                node: kept.node.clone(),
                total: kept.total,
                kept: kept.lines.len(),
            })
            .collect()
    }

    /// The newest `limit` lines of the selected containers that contain
    /// `contains`, oldest first.
    pub fn lines(&self, selector: &Selector, contains: &str, limit: usize) -> Vec<(Container, Line)> {
        let mut found: Vec<(&Container, &Line)> = self
            .selected(selector)
            .flat_map(|(container, kept)| {
                let matching = kept.lines.iter().rev().filter(|line| line.message.contains(contains));
                let mut newest: Vec<_> = matching.take(limit).map(|line| (container, line)).collect();
                newest.reverse();
                newest
            })
            .collect();
        found.sort_by_key(|(_, line)| (line.time.unwrap_or(line.arrived), line.line_number));
        let surplus = found.len().saturating_sub(limit);
        found.into_iter().skip(surplus).map(|(container, line)| (container.clone(), line.clone())).collect()
    }

    /// Lines that arrived over all containers.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that the kept lines cost.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lines of containers for which there was no room.
    pub fn uncounted(&self) -> u64 {
        self.uncounted
    }

    fn selected<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = (&'a Container, &'a Kept)> {
        self.containers.iter().filter(|(container, _)| selector.matches(container))
    }

    fn count_in_sequences(&mut self, container: &Container, message: &str) {
        for prefix in &self.prefixes {
            let Some(number) = number_after(prefix, message) else { continue };
            let key = (prefix.clone(), container.clone());
            if self.sequences.len() < MAX_SEQUENCES || self.sequences.contains_key(&key) {
                self.sequences.entry(key).or_default().insert(number);
            } else {
                self.untracked += 1;
            }
        }
    }

    /// Gives up the older half of the container that keeps most, so that a
    /// flood in one does not push out the lines of the others.
    fn shrink_the_largest(&mut self) {
        let Some(kept) = self.containers.values_mut().max_by_key(|kept| kept.bytes) else { return };
        let half = kept.lines.len().div_ceil(2);
        let freed: usize = kept.lines.drain(..half).map(|line| line.cost()).sum();
        kept.bytes -= freed;
        self.bytes -= freed;
    }
}

impl Line {
    fn new(entry: LogEntry, arrived: Timestamp, previous: bool) -> Self {
        let time = entry.timestamp.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
        let error = entry.error_info.map(|error| LineError {
            kind: error.error_type,
            message: error.error_message,
            stack_trace: error.stack_trace,
        });
        let LogEntry { message, level, line_number, .. } = entry;
        Self { time, arrived, level, message, line_number, previous, error }
    }

    fn cost(&self) -> usize {
        let error = self.error.as_ref().map_or(0, |error| error.message.len() + error.stack_trace.len());
        LINE_OVERHEAD + self.message.len() + self.level.len() + error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(pod: &str, messages: impl IntoIterator<Item = String>) -> PodLogs {
        let log_entries =
            messages.into_iter().map(|message| LogEntry { message, ..LogEntry::default() }).collect();
        PodLogs {
            namespace: "shop".into(),
            pod_name: pod.into(),
            container_name: "app".into(),
            log_entries,
            ..PodLogs::default()
        }
    }

    fn numbered(numbers: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = String> {
        numbers.map(|n| format!("INFO line {n}"))
    }

    #[test]
    fn a_series_is_exact_across_batches_and_pods() {
        let mut logs = Logs::default();
        logs.insert(batch("web-1", numbered(1..=60)), Timestamp::UNIX_EPOCH);
        logs.insert(batch("web-2", numbered(55..=100)), Timestamp::UNIX_EPOCH);
        logs.insert(batch("db-0", numbered(300..=300)), Timestamp::UNIX_EPOCH);
        let pods = |prefix: &str| Selector { pod_prefix: Some(prefix.into()), ..Selector::default() };
        let report = logs.sequence("line ", &pods("web-"), 10).unwrap();
        assert_eq!((report.min, report.max, report.distinct), (Some(1), Some(100), 100));
        assert_eq!((report.total, report.duplicates, report.missing_count), (106, 6, 0));
        assert_eq!(logs.sequence("line ", &pods("nobody"), 10).unwrap().total, 0);
    }

    #[test]
    fn a_prefix_is_followed_from_when_it_was_asked_for() {
        let mut logs = Logs::default();
        assert!(logs.sequence("no. ", &Selector::default(), 1).unwrap_err().contains("POST"));
        logs.track("no. ").unwrap();
        logs.insert(batch("web-1", ["no. 7".to_owned()]), Timestamp::UNIX_EPOCH);
        assert_eq!(logs.sequence("no. ", &Selector::default(), 1).unwrap().min, Some(7));
        (0..MAX_PREFIXES - 2).for_each(|n| logs.track(&n.to_string()).unwrap());
        assert!(logs.track("one more").is_err());
    }

    #[test]
    fn a_flood_costs_its_own_container_and_the_series_stays_exact() {
        let mut logs = Logs::default();
        logs.insert(batch("quiet", ["precious".to_owned()]), Timestamp::UNIX_EPOCH);
        for block in 0..20_u32 {
            let lines = (1..=1000).map(|n| format!("line {} {}", block * 1000 + n, "x".repeat(5_000)));
            logs.insert(batch("loud", lines), Timestamp::UNIX_EPOCH);
        }
        assert!(logs.bytes() <= TEXT_BUDGET);
        let counts = logs.containers(&Selector::default());
        assert_eq!((counts[1].kept, counts[1].total), (1, 1));
        assert!(counts[0].kept < 20_000 && counts[0].total == 20_000);
        let report = logs.sequence("line ", &Selector::default(), 1).unwrap();
        assert_eq!((report.distinct, report.missing_count), (20_000, 0));
    }

    #[test]
    fn lines_are_found_by_text_newest_last() {
        let mut logs = Logs::default();
        logs.insert(batch("web-1", numbered(1..=30)), Timestamp::UNIX_EPOCH);
        let lines = logs.lines(&Selector::default(), "line 2", 3);
        let texts: Vec<&str> = lines.iter().map(|(_, line)| line.message.as_str()).collect();
        assert_eq!(texts, ["INFO line 27", "INFO line 28", "INFO line 29"]);
    }
}
