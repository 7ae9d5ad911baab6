//! What is counted of flows, for `/metrics`.

use kestrel_proto::hubble::flow::LostEventSource;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{
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
    }

    /// Counts what a source said, and has `window` count it if it is a flow.
    pub(super) fn count(&self, source: Source, line: Line<'_>, window: &mut Window) {
        match line {
            Line::Flow(flow) if window.add(&flow) => self.seen(source),
            Line::Flow(_) => self.left_out(source, LeftOut::TooMany),
            Line::Unreadable => self.left_out(source, LeftOut::Unreadable),
            Line::Told | Line::Other => {}
        }
    }

    /// Hubble lost so many events; where, in a word.
    pub(super) fn lost(&self, by: LostEventSource, events: u64) -> &'static str {
        let by = LOST_BY[by as usize];
        self.lost.get_or_create(&LostLabel { by }).inc_by(events);
        by
    }

    fn seen(&self, source: Source) {
        self.seen.get_or_create(&SourceLabel { source: name(source) }).inc();
    }

    /// One is left out.
    pub(super) fn left_out(&self, source: Source, reason: LeftOut) {
        self.left_out.get_or_create(&LeftOutLabel { source: name(source), reason: reason.as_str() }).inc();
    }

    /// How many of `source` were left out so far.
    pub(super) fn count_left_out(&self, source: Source, reason: LeftOut) -> u64 {
        let label = LeftOutLabel { source: name(source), reason: reason.as_str() };
        self.left_out.get(&label).map_or(0, |count| count.get())
    }

    /// What was counted so far, in words.
    pub fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        for source in [Source::AwsPolicyAgent, Source::Ztunnel, Source::Hubble].map(name) {
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
        told
    }
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Unspecified => "unknown",
        Source::AwsPolicyAgent => "aws",
        Source::Ztunnel => "ztunnel",
        Source::Hubble => "hubble",
    }
}
