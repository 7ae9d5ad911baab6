//! Flows from log files: those of the AWS network policy agent and of ztunnel.
//!
//! The engine that follows the logs of pods follows these too, as an instance of its own: here every line
//! is read and none is sent. What was read is behind us when the reports that count it have arrived.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use kestrel_flows::{
    counts::{Counts, LeftOut},
    flow::{self, Flow, Line},
    window::Window,
};
use kestrel_tail::{
    cri,
    discover::{Layout, Origin, Source, glob::Pattern},
    engine::{Engine, Policy, Reason, Record},
    position::store::Store,
    redact::{Expressions, Redactor},
    time::{Clock, Timestamp},
};

use super::{aws_policy, sources::Sources, ztunnel};
use crate::{config::Config, story::Sentence};

/// Turns of reading, of 256 KiB at most, before others get theirs.
const TURNS: usize = 16;

/// The files and where reading them stands.
pub(super) struct Files {
    engine: Engine,
    /// Directories, which may not be there.
    roots: Vec<PathBuf>,
    /// Whose logs are looked for.
    names: Vec<String>,
    reader: Reader,
    sources: Sources,
    /// Whose logs there are.
    found: Option<BTreeSet<String>>,
    problem: Option<String>,
}

/// Makes flows of records.
struct Reader {
    counts: Counts,
    clock: Clock,
    /// What was before is left out: nanoseconds since 1970.
    since: u64,
}

impl Files {
    /// Files as `config` says, read on from the stored positions.
    pub(super) fn new(config: &Config, counts: Counts, sources: Sources, now: SystemTime) -> Self {
        let positions = config.state.join("flow-positions");
        let store = Store::load(&positions).unwrap_or_else(|problem| {
            Sentence::Warning(format!("{problem}; flows of the look-back may be counted again")).tell();
            Store::empty(&positions)
        });
        let since = now.checked_sub(config.look_back).unwrap_or(SystemTime::UNIX_EPOCH);
        let since = store.saved().map_or(since, |saved| saved.min(since));
        let aws = config.aws_policy_log.as_deref().and_then(of_aws);
        let ztunnel = config.ztunnel_namespace.as_deref();
        let ztunnel = ztunnel.and_then(|namespace| of_ztunnel(&config.pod_logs, namespace));
        let logs: Vec<_> = aws.into_iter().chain(ztunnel).collect();
        let roots = logs.iter().map(|source| source.directory.clone()).collect();
        let names = logs.iter().filter_map(|source| match &source.layout {
            Layout::Files { origin, .. } => Some(origin.container.clone()),
            Layout::Pods { .. } => None,
        });
        let names = names.collect();
        // Of a line nothing is sent but addresses, names and numbers.
        let engine = Engine::new(logs, store, Redactor::new(Expressions::default()));
        let reader = Reader { counts, clock: Clock::default(), since: nanoseconds(since.into()) };
        Self { engine, roots, names, reader, sources, found: None, problem: None }
    }

    /// Looks for files that came or went.
    pub(super) fn scan(&mut self, now: Instant) {
        self.engine.scan(now);
        self.engine.assign(|_| Some(Policy::All));
        for news in self.engine.news() {
            match news.problem {
                // Where there is no such source, there is no such directory.
                Some(_) if self.roots.contains(&news.path) && !news.path.exists() => {}
                Some(problem) => {
                    Sentence::Warning(format!("flows: {}: {problem}", news.path.display())).tell();
                }
                None => {}
            }
        }
        self.tell_sources();
        let lost = self.engine.stats().bytes_lost;
        self.reader.counts.gone(Reason::ALL.iter().map(|reason| lost.of(*reason)).sum());
    }

    /// Says which logs came or went; once, which there are none of.
    fn tell_sources(&mut self) {
        let found: BTreeSet<_> = self.engine.origins().map(|(origin, _)| origin.container.clone()).collect();
        let before = self.found.as_ref();
        if before.is_none() && !self.names.is_empty() {
            let absent: Vec<_> = self.names.iter().filter(|name| !found.contains(*name)).cloned().collect();
            let is_any = !absent.is_empty();
            self.sources.looked(is_any.then(|| format!("log of {}", absent.join(", no log of "))));
        }
        for name in found.iter().filter(|name| before.is_none_or(|before| !before.contains(*name))) {
            self.sources.came(&format!("the log of {name}"));
        }
        for name in before.into_iter().flatten().filter(|name| !found.contains(*name)) {
            self.sources.went(&format!("the log of {name}"));
        }
        self.found = Some(found);
    }

    /// Counts some of what was written into the window with this number; whether there is more.
    pub(super) fn read(&mut self, number: u64, window: &mut Window, now: Instant) -> bool {
        self.engine.poll(now);
        for _ in 0..TURNS {
            let reader = &mut self.reader;
            let take = |record: Record<'_>| {
                record.text.lines().for_each(|line| reader.take(line, window));
                ControlFlow::Continue(())
            };
            if self.engine.read(number, now, take).is_none() {
                return false;
            }
        }
        true
    }

    /// The reports of all windows up to this one have arrived.
    pub(super) fn ack(&mut self, number: u64) {
        self.engine.ack(number);
    }

    /// Writes positions that changed.
    pub(super) fn save(&mut self, now: SystemTime) {
        let problem = self.engine.save(now).err().map(|problem| problem.to_string());
        if self.problem != problem {
            self.problem = problem;
            let sentence = match &self.problem {
                Some(problem) => Sentence::Warning(format!(
                    "positions in logs with network flows cannot be kept: {problem}; flows are counted again after a restart (KESTREL_STATE_DIR)"
                )),
                None => Sentence::Note("positions in logs with network flows are kept again".to_owned()),
            };
            sentence.tell();
        }
    }
}

impl Reader {
    /// The lines of a container have the runtime's form, the other log's have their own.
    fn take(&mut self, line: &str, window: &mut Window) {
        match cri::parse(line.as_bytes(), &mut self.clock) {
            Some(piece) => {
                let Ok(text) = str::from_utf8(piece.content) else {
                    return self.counts.left_out(flow::Source::Ztunnel, LeftOut::Unreadable);
                };
                let time = nanoseconds(piece.timestamp);
                ztunnel::read(text, time, |line| self.count(flow::Source::Ztunnel, line, window));
            }
            None => {
                let line = aws_policy::read(line, &mut self.clock);
                self.count(flow::Source::AwsPolicyAgent, line, window);
            }
        }
    }

    fn count(&self, source: flow::Source, line: Line<'_>, window: &mut Window) {
        match line {
            Line::Flow(Flow { time, .. }) if time < self.since => self.counts.left_out(source, LeftOut::Old),
            line => self.counts.count(source, line, window),
        }
    }
}

/// The log is one of others in its directory.
fn of_aws(log: &Path) -> Option<Source> {
    let pattern = log.file_name()?.to_str()?.parse::<Pattern>().ok()?;
    source(log.parent()?, "the AWS network policy agent", pattern)
}

/// The containers of pods whose name begins like that of the DaemonSet's pods, in its namespace alone:
/// whoever could take the name elsewhere could tell of flows that never were.
fn of_ztunnel(pod_logs: &Path, namespace: &str) -> Option<Source> {
    let pattern = format!("{namespace}_ztunnel-*_*/*/*.log").parse().ok()?;
    source(pod_logs, "ztunnel", pattern)
}

fn source(directory: &Path, name: &str, pattern: Pattern) -> Option<Source> {
    let origin = Origin { container: name.to_owned(), ..Origin::default() };
    let layout = Layout::Files { origin, patterns: vec![pattern] };
    Some(Source { directory: directory.to_owned(), layout })
}

/// A time as flows have it; one before 1970 counts as 1970.
pub(super) fn nanoseconds(time: Timestamp) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())
}
