//! What is counted of flows.

use kestrel_proto::node::v1::{Flow, FlowSource};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Counters of flows; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    seen: Family<SourceLabel, Counter>,
    bytes: Family<BytesLabel, Counter>,
    left_out: Family<LeftOutLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BytesLabel {
    source: &'static str,
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LeftOutLabel {
    reason: LeftOut,
}

/// Why flows of a node are not told.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum LeftOut {
    /// They came before.
    Repeated,
    /// One of their ends is in a namespace whose flows stay in the cluster.
    Kept,
    /// They are between two other nodes.
    Foreign,
    /// No flow: a policy that let one pass, beyond so many.
    Policy,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Packets and connections that the agents of the nodes counted";
        registry.register("seen", help, self.seen.clone());
        let help =
            "Their bytes, from source to destination (sent) and back (received); not every source knows them";
        registry.register("bytes", help, self.bytes.clone());
        let help = "Flows that agents told and the cloud is not told: they came before, their namespace's flows stay in the cluster, or they are between two other nodes; and policies (Policy) beyond 64 of one flow";
        registry.register("left_out", help, self.left_out.clone());
    }

    pub(super) fn received(&self, flow: &Flow) {
        let source = match flow.seen_by() {
            FlowSource::Unspecified => "unknown",
            FlowSource::AwsPolicyAgent => "aws",
            FlowSource::Ztunnel => "ztunnel",
            FlowSource::Hubble => "hubble",
            FlowSource::HubbleRelay => "relay",
        };
        self.seen.get_or_create(&SourceLabel { source }).inc_by(flow.count);
        for (direction, bytes) in [("sent", flow.bytes_sent), ("received", flow.bytes_received)] {
            if bytes > 0 {
                self.bytes.get_or_create(&BytesLabel { source, direction }).inc_by(bytes);
            }
        }
    }

    pub(super) fn left_out(&self, reason: LeftOut, flows: usize) {
        self.left_out.get_or_create(&LeftOutLabel { reason }).inc_by(flows as u64);
    }
}
