//! What is counted of flows, for `/metrics`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::flow::Source;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LeftOutLabel {
    source: &'static str,
    reason: &'static str,
}

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
}

impl Counts {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("flows_seen", "Packets and connections that a source showed", self.seen.clone());
        let help = "Packets and connections that are not told: too many different ones at a time, from before the look-back, or unreadable";
        registry.register("flows_left_out", help, self.left_out.clone());
    }

    /// One was seen.
    pub(super) fn seen(&self, source: Source) {
        self.seen.get_or_create(&SourceLabel { source: name(source) }).inc();
    }

    /// One is left out.
    pub(super) fn left_out(&self, source: Source, reason: LeftOut) {
        let reason = match reason {
            LeftOut::TooMany => "too_many",
            LeftOut::Old => "old",
            LeftOut::Unreadable => "unreadable",
        };
        self.left_out.get_or_create(&LeftOutLabel { source: name(source), reason }).inc();
    }
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Unspecified => "unknown",
        Source::AwsPolicyAgent => "aws",
        Source::Ztunnel => "ztunnel",
    }
}
