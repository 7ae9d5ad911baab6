//! What is counted of streams.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::watch;

/// Counters of streams; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) streams: Gauge,
    pub(super) messages: Counter,
    pub(super) bytes: Counter,
    refused: Family<RefusedLabel, Counter>,
    port: Arc<watch::Sender<u16>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabel {
    reason: Refused,
}

/// Why something did not get as far as its entries.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum Refused {
    /// There are as many connections as there may be, or as one address may have.
    Connection,
    /// Likewise of streams.
    Stream,
    /// A message is too large, compressed in an unknown way, or was not sent to its end in time.
    Message,
    /// The TLS handshake failed.
    Tls,
    /// No stream was begun in time.
    Silent,
}

impl Default for Metrics {
    fn default() -> Self {
        let port = Arc::new(watch::Sender::new(0));
        Self {
            streams: Gauge::default(),
            messages: Counter::default(),
            bytes: Counter::default(),
            refused: Family::default(),
            port,
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("streams", "Streams of proxies that are open", self.streams.clone());
        registry.register("messages", "Messages with entries that came", self.messages.clone());
        registry.register("message_bytes", "Their bytes", self.bytes.clone());
        let help = "What did not get as far as its entries: connections and streams beyond as many as there, or of one address, may be, streams \
                    whose message is too large or can't be read, failed TLS handshakes, connections without a stream (Silent)";
        registry.register("refused", help, self.refused.clone());
    }

    pub(super) fn refused(&self, reason: Refused) {
        self.refused.get_or_create(&RefusedLabel { reason }).inc();
    }

    pub(super) fn listens(&self, port: u16) {
        self.port.send_replace(port);
    }

    /// The port on which entries are received, as soon as they are.
    pub async fn port(&self) -> u16 {
        let mut port = self.port.subscribe();
        // Its sender is here.
        port.wait_for(|port| *port != 0).await.map_or(0, |port| *port)
    }
}
