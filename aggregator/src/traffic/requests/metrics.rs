//! What is counted of requests.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Counters of requests; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// What came.
    pub entries: kestrel_als::metrics::Metrics,
    told: Counter,
    folded: Counter,
    messages: Counter,
    left_out: Family<LeftOutLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LeftOutLabel {
    reason: LeftOut,
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
    /// Their agent or collector sent them twice.
    Repeated,
    /// Their agent or collector sends them to the next leader.
    SentAgain,
    /// Their agent speaks of a pod of another node.
    Foreign,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        self.entries.register(registry);
        registry.register("told", "Entries in what the cloud is told", self.told.clone());
        let help =
            "Those of them that are told without their path, as too many different ones are of the same ends";
        registry.register("told_folded", help, self.folded.clone());
        registry.register("messages", "Messages in which it is told", self.messages.clone());
        let help = "Entries that were counted and are not told: the proxy of the other end told them, their namespace's requests \
                    stay in the cluster, they are the operator's own, their agent or collector sent them twice or sends them to \
                    the next leader (SentAgain), or they are of another node than their agent";
        registry.register("left_out", help, self.left_out.clone());
    }

    pub(super) fn told(&self, messages: u64, entries: u64, folded: u64) {
        self.folded.inc_by(folded);
        self.messages.inc_by(messages);
        self.told.inc_by(entries);
    }

    pub(super) fn left_out(&self, reason: LeftOut, entries: u64) {
        if entries > 0 {
            self.left_out.get_or_create(&LeftOutLabel { reason }).inc_by(entries);
        }
    }
}
