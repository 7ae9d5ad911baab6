//! What the agent link counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Counters and gauges of the agent link; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Streams that are attached now.
    pub attached: Family<RoleLabel, Gauge>,
    /// Connections and streams that were refused.
    pub refused: Family<RefusedLabel, Counter>,
    /// Batches that were answered.
    pub batches: Family<OutcomeLabel, Counter>,
    /// Bytes of payload that were received.
    pub payload_bytes: Counter,
    /// Lines that were handed to the logs lane.
    pub lines: Counter,
    /// Lines that agents left out because policy says so.
    pub lines_left_out: Counter,
    /// Lines that came again although they were taken, and were not sent twice.
    pub repeated_lines: Counter,
    /// Lines of namespaces whose logs stay in the cluster, dropped here.
    pub kept_lines: Counter,
    /// Lines of pods for which their sender may not speak.
    pub foreign_lines: Counter,
    /// Pods with a collector that ended without its farewell.
    pub ended_unheard: Counter,
}

/// Who is attached.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RoleLabel {
    /// The role.
    pub role: Role,
}

/// Who is attached.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Role {
    Agent,
    Sidecar,
}

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusedLabel {
    /// The reason.
    pub reason: Refused,
}

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Refused {
    /// No TLS handshake.
    Tls,
    /// No token, or one that proves nothing or can't be reviewed.
    Token,
    /// It claimed to be somebody else.
    Claim,
    /// There was no place.
    Full,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// The outcome.
    pub outcome: Answered,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Answered {
    /// It left the resend window.
    Acked,
    /// It has to be read again.
    Nacked,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("attached", "Streams that are attached now", self.attached.clone());
        registry.register("refused", "Connections and streams that were refused", self.refused.clone());
        registry.register("batches", "Batches that were answered", self.batches.clone());
        registry.register("payload_bytes", "Bytes of payload received", self.payload_bytes.clone());
        registry.register("lines", "Lines handed to the logs lane", self.lines.clone());
        registry.register(
            "lines_left_out",
            "Lines that agents left out by policy",
            self.lines_left_out.clone(),
        );
        registry.register(
            "repeated_lines",
            "Lines that came again although they were taken, and were not sent twice",
            self.repeated_lines.clone(),
        );
        registry.register(
            "kept_lines",
            "Lines dropped because their namespace's logs stay in the cluster",
            self.kept_lines.clone(),
        );
        registry.register(
            "foreign_lines",
            "Lines dropped because their sender may not speak for the pod",
            self.foreign_lines.clone(),
        );
        registry.register(
            "ended_unheard",
            "Pods with a collector that ended without its farewell: what they wrote last may be missing",
            self.ended_unheard.clone(),
        );
    }
}
