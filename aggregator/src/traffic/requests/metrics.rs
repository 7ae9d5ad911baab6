//! What is counted of requests.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Counters of requests; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    received: Family<OutcomeLabel, Counter>,
    refused: Family<RefusedLabel, Counter>,
    told: Counter,
    messages: Counter,
    left_out: Family<LeftOutLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabel {
    reason: Refused,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LeftOutLabel {
    reason: LeftOut,
}

/// What became of an entry. What was received is the sum of them.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum Outcome {
    /// It was counted with those that have all in common with it.
    Aggregated,
    /// It was counted, without its path or more.
    Folded,
    /// It was not counted.
    Refused,
}

/// Why an entry was not counted.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum Refused {
    /// Its bytes are no entry.
    Malformed,
    /// It is of something that goes on, whose last entry says all.
    Unfinished,
    /// Its sender sent too much.
    Rate,
}

/// Why entries that were counted are not told.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum LeftOut {
    /// The proxy of the other end told them.
    OtherEnd,
    /// One of their ends is in a namespace whose requests stay in the cluster.
    Kept,
    /// They are the operator's own.
    Own,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Entries of Envoy's access logs that came: counted (Aggregated), counted without their path or more, as there \
                    were too many different ones (Folded), or not counted (Refused)";
        registry.register("received", help, self.received.clone());
        let help = "Entries that were not counted: malformed, of something that goes on (Unfinished), or of a connection that \
                    sends too much (Rate)";
        registry.register("refused", help, self.refused.clone());
        registry.register("told", "Entries in what the cloud is told", self.told.clone());
        registry.register("messages", "Messages in which it is told", self.messages.clone());
        let help = "Entries that were counted and are not told: the proxy of the other end told them, their namespace's requests \
                    stay in the cluster, or they are the operator's own";
        registry.register("left_out", help, self.left_out.clone());
    }

    pub(super) fn received(&self, outcome: Outcome, entries: u64) {
        if entries > 0 {
            self.received.get_or_create(&OutcomeLabel { outcome }).inc_by(entries);
        }
    }

    pub(super) fn refused(&self, reason: Refused, entries: u64) {
        if entries > 0 {
            self.refused.get_or_create(&RefusedLabel { reason }).inc_by(entries);
            self.received(Outcome::Refused, entries);
        }
    }

    pub(super) fn told(&self, messages: usize, entries: u64) {
        self.messages.inc_by(messages as u64);
        self.told.inc_by(entries);
    }

    pub(super) fn left_out(&self, reason: LeftOut, entries: u64) {
        if entries > 0 {
            self.left_out.get_or_create(&LeftOutLabel { reason }).inc_by(entries);
        }
    }
}
