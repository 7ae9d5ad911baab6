//! Log lines by container, within one byte budget, and the numbered series in them.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{LogEntry, PodLogs};
use serde::Serialize;

use super::{
    sequence::Sequences,
    source::{Selector, Source},
};

/// Bytes of text that are kept over all containers.
const TEXT_BUDGET: usize = 64 << 20;
/// What a line costs beside its text.
const LINE_OVERHEAD: usize = 96;
/// Containers whose lines are kept or counted.
const MAX_CONTAINERS: usize = 20_000;

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

/// What is known of a container's lines.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerCount {
    /// The container.
    #[serde(flatten)]
    pub container: Source,
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
    containers: BTreeMap<Source, Kept>,
    bytes: usize,
    total: u64,
    uncounted: u64,
    /// The numbered series in them.
    pub sequences: Sequences,
}

impl Default for Logs {
    /// Tracks the series `line 1`, `line 2`, ….
    fn default() -> Self {
        Self {
            containers: BTreeMap::new(),
            bytes: 0,
            total: 0,
            uncounted: 0,
            sequences: Sequences::new("line "),
        }
    }
}

impl Logs {
    /// Takes a batch in.
    pub fn insert(&mut self, batch: PodLogs, arrived: Timestamp) {
        let container =
            Source { namespace: batch.namespace, pod: batch.pod_name, container: batch.container_name };
        self.total += batch.log_entries.len() as u64;
        for entry in &batch.log_entries {
            self.sequences.insert(&container, &entry.message);
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
    pub fn lines(&self, selector: &Selector, contains: &str, limit: usize) -> Vec<(Source, Line)> {
        let mut found: Vec<(&Source, &Line)> = self
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

    fn selected<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = (&'a Source, &'a Kept)> {
        self.containers.iter().filter(|(container, _)| selector.matches(container))
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
        let report = logs.sequences.report("line ", &pods("web-"), 10).unwrap();
        assert_eq!((report.min, report.max, report.distinct), (Some(1), Some(100), 100));
        assert_eq!((report.total, report.duplicates, report.missing_count), (106, 6, 0));
        assert_eq!(logs.sequences.report("line ", &pods("nobody"), 10).unwrap().total, 0);
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
        let report = logs.sequences.report("line ", &Selector::default(), 1).unwrap();
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
