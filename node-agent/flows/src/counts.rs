//! What is counted of flows, for `/metrics`.

use std::ops::Deref;

use kestrel_proto::hubble::flow::LostEventSource;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{
    flow::{Line, Source},
    window::Window,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LeftOutLabel {
    source: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LostLabel {
    by: &'static str,
}

/// Where Hubble loses events, in the order of [`LostEventSource`].
const LOST_BY: [&str; 4] = ["unknown", "perf_ring", "queue", "ring"];

/// Why something is not among the flows that are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Too many different flows in too short a time.
    TooMany,
    /// From before the look-back.
    Old,
    /// It can't be read.
    Unreadable,
}

/// Counters of flows; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    seen: Family<SourceLabel, Counter>,
    left_out: Family<LeftOutLabel, Counter>,
    lost: Family<LostLabel, Counter>,
    gone: Counter,
}

/// What is counted of many flows before the counters are told, which costs more than a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    seen: u64,
    too_many: u64,
    unreadable: u64,
}

impl Tally {
    /// Has `window` count a line, if it is a flow.
    pub fn count(&mut self, line: Line<'_>, window: &mut Window) {
        match line {
            Line::Flow(flow) if window.add(&flow) => self.seen += 1,
            Line::NameFailure(failure) if window.add_failure(&failure) => {}
            Line::Flow(_) | Line::NameFailure(_) => self.too_many += 1,
            Line::Unreadable => self.unreadable += 1,
            Line::Told | Line::Other => {}
        }
    }
}

impl LeftOut {
    const ALL: [Self; 3] = [Self::TooMany, Self::Old, Self::Unreadable];

    fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Old => "old",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Counts {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("flows_seen", "Packets and connections that a source showed", self.seen.clone());
        let help = "Packets and connections that are not told: too many different ones at a time, from before the look-back, or unreadable";
        registry.register("flows_left_out", help, self.left_out.clone());
        let help = "Events that Hubble lost before anybody could read them, by where: perf_ring (of the kernel), queue (of its observer), ring (of its server)";
        registry.register("hubble_events_lost", help, self.lost.clone());
        let help = "Bytes of logs with flows that were gone before they were read";
        registry.register("flow_log_bytes_lost", help, self.gone.clone());
    }

    /// Has `window` count what a source said, if it is a flow.
    pub fn count(&self, source: Source, line: Line<'_>, window: &mut Window) {
        let mut tally = Tally::default();
        tally.count(line, window);
        self.add(source, tally);
    }

    /// Adds what was counted of `source` apart.
    pub fn add(&self, source: Source, tally: Tally) {
        let Tally { seen, too_many, unreadable } = tally;
        if seen > 0 {
            self.seen.get_or_create(&SourceLabel { source: name(source) }).inc_by(seen);
        }
        for (reason, count) in [(LeftOut::TooMany, too_many), (LeftOut::Unreadable, unreadable)] {
            if count > 0 {
                self.left_out_of(source, reason).inc_by(count);
            }
        }
    }

    /// Hubble lost so many events; where, in a word.
    pub fn lost(&self, by: LostEventSource, events: u64) -> &'static str {
        let by = LOST_BY[by as usize];
        self.lost.get_or_create(&LostLabel { by }).inc_by(events);
        by
    }

    /// So many bytes of logs, since the start, were gone before they were read.
    pub fn gone(&self, bytes: u64) {
        self.gone.inc_by(bytes.saturating_sub(self.gone.get()));
    }

    /// How many there were so far.
    pub fn count_gone(&self) -> u64 {
        self.gone.get()
    }

    /// One is left out.
    pub fn left_out(&self, source: Source, reason: LeftOut) {
        self.left_out_of(source, reason).inc();
    }

    fn left_out_of(&self, source: Source, reason: LeftOut) -> impl Deref<Target = Counter> {
        self.left_out.get_or_create(&LeftOutLabel { source: name(source), reason: reason.as_str() })
    }

    /// How many of `source` were left out so far.
    pub fn count_left_out(&self, source: Source, reason: LeftOut) -> u64 {
        let label = LeftOutLabel { source: name(source), reason: reason.as_str() };
        self.left_out.get(&label).map_or(0, |count| count.get())
    }

    /// What was counted so far, in words.
    pub fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        for source in [Source::AwsPolicyAgent, Source::Ztunnel, Source::Hubble, Source::HubbleRelay].map(name)
        {
            told.extend(
                self.seen.get(&SourceLabel { source }).map(|seen| format!("{} of {source}", seen.get())),
            );
            for reason in LeftOut::ALL.map(LeftOut::as_str) {
                let left_out = self.left_out.get(&LeftOutLabel { source, reason });
                told.extend(left_out.map(|count| format!("{} of {source} left out ({reason})", count.get())));
            }
        }
        for by in LOST_BY {
            let lost = self.lost.get(&LostLabel { by });
            told.extend(lost.map(|lost| format!("{} lost by hubble ({by})", lost.get())));
        }
        if self.gone.get() > 0 {
            told.push(format!("{} bytes of their logs gone unread", self.gone.get()));
        }
        told
    }
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Unspecified => "unknown",
        Source::AwsPolicyAgent => "aws",
        Source::Ztunnel => "ztunnel",
        Source::Hubble => "hubble",
        Source::HubbleRelay => "relay",
    }
}
