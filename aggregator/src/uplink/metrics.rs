//! What the uplink counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::lanes::Lane;

/// Counters and gauges of the uplink; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// 1 while there is a connection.
    pub connected: Gauge,
    /// Connections made since the start.
    pub connections: Counter,
    /// 1 while the server answers on a stream.
    pub stream_up: Family<StreamLabel, Gauge>,
    /// Times a stream was opened.
    pub stream_opens: Family<StreamLabel, Counter>,
    /// Messages handed to the connection.
    pub sent: Family<KindLabel, Counter>,
    /// Messages that will never arrive, or may not have.
    pub dropped: Family<DropLabel, Counter>,
    /// Messages in the resend window.
    pub window: Family<StreamLabel, Gauge>,
    /// Bytes that a lane keeps in memory.
    pub lane_bytes: Family<LaneLabel, Gauge>,
    /// Bytes that a lane keeps on disk.
    pub spool_bytes: Family<LaneLabel, Gauge>,
    /// Messages that an earlier process had left on disk.
    pub spool_recovered: Family<LaneLabel, Counter>,
}

/// A lane.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LaneLabel {
    /// The lane.
    pub lane: Lane,
}

/// One of the five streams.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StreamLabel {
    /// Its name.
    pub stream: &'static str,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind.
    pub kind: Kind,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Answer,
    Signal,
    Inventory,
    Logs,
    Stats,
    Flows,
}

/// A drop and its reason.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DropLabel {
    /// The lane that dropped it.
    pub lane: Lane,
    /// Why.
    pub reason: DropReason,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelValue)]
pub enum DropReason {
    /// Its lane was full, and it was the oldest.
    LaneFull,
    /// It was sent, but its lane was too full to keep it for sending it again.
    NotKept,
    /// A standby kept it for the case that it leads, and had no more room.
    Standby,
    /// The spool was full, and it was the oldest of the least urgent.
    SpoolFull,
    /// It waited for longer than the spool keeps anything.
    TooOld,
    /// It was damaged on disk.
    Corrupt,
    /// It is larger than the wire allows, and a part of it says nothing.
    TooLarge,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connected", "1 while there is a connection", self.connected.clone());
        registry.register("connections", "Connections made since the start", self.connections.clone());
        registry.register("stream_up", "1 while the server answers on a stream", self.stream_up.clone());
        registry.register("stream_opens", "Times a stream was opened", self.stream_opens.clone());
        registry.register("messages_sent", "Messages handed to the connection", self.sent.clone());
        registry.register(
            "messages_dropped",
            "Messages that will never arrive, or may not have",
            self.dropped.clone(),
        );
        registry.register("window_messages", "Messages in the resend window", self.window.clone());
        registry.register("lane_bytes", "Bytes that a lane keeps in memory", self.lane_bytes.clone());
        registry.register("spool_bytes", "Bytes that a lane keeps on disk", self.spool_bytes.clone());
        registry.register(
            "spool_recovered",
            "Messages that an earlier process had left on disk",
            self.spool_recovered.clone(),
        );
    }

    /// Counts `count` drops.
    pub(crate) fn drop(&self, lane: Lane, reason: DropReason, count: u64) {
        self.dropped.get_or_create(&DropLabel { lane, reason }).inc_by(count);
    }
}
