//! How admission goes, in numbers.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The webhook's metrics; clones count together.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Labels, Counter>,
    duration: Histogram,
    refused_connections: Counter,
    displaced_connections: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
    reason: &'static str,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The pod gets a collector.
    Injected,
    /// The pod is left as it is, for this reason.
    Skipped(&'static str),
    /// The request is not one that can be answered.
    Refused(&'static str),
    /// We could not answer.
    Failed,
}

impl Metrics {
    /// Registers the metrics under `kestrel_webhook_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            // 25 µs to 1.6 s; the API server gives up after 3 s.
            duration: Histogram::new(exponential_buckets(25e-6, 2.0, 17)),
            refused_connections: Counter::default(),
            displaced_connections: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("kestrel_webhook");
        registry.register(
            "requests",
            "Requests by outcome (injected, skipped, refused, failed) and reason",
            metrics.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time from a request's head to its answer",
            metrics.duration.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections that failed the TLS handshake",
            metrics.refused_connections.clone(),
        );
        registry.register(
            "displaced_connections",
            "Connections that gave their place to a new one, as all places were taken",
            metrics.displaced_connections.clone(),
        );
        metrics
    }

    pub(super) fn answered(&self, outcome: Outcome, took: Duration) {
        let (outcome, reason) = match outcome {
            Outcome::Injected => ("injected", ""),
            Outcome::Skipped(reason) => ("skipped", reason),
            Outcome::Refused(reason) => ("refused", reason),
            Outcome::Failed => ("failed", ""),
        };
        self.requests.get_or_create(&Labels { outcome, reason }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn refused_connection(&self) {
        self.refused_connections.inc();
    }

    pub(super) fn displaced_connection(&self) {
        self.displaced_connections.inc();
    }
}
