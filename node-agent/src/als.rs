//! What the proxies of the node's pods log: counted here, told to the aggregator.

use std::path::PathBuf;

use kestrel_als::{
    counter::{Counter, Limits},
    metrics::Metrics,
    receive::{self, STREAM_AGE, Tls},
};
use kestrel_proto::node::v1::RequestReport;
use kestrel_runtime::config::Settings;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The Service that leads a proxy to its own node's agent.
const SERVICE: &str = "kestrel-operator-als-node";

/// Where and how entries are received.
#[derive(Clone, Debug)]
pub struct Config {
    /// `KESTREL_ALS_PORT`.
    pub port: u16,
    /// `KESTREL_ALS_STREAM_BYTES`: bytes that a stream may send a second; 0: no limit.
    pub stream_bytes_per_second: u64,
    /// `KESTREL_ALS_TLS_DIR`, and the name that its certificate has to have.
    pub tls: Option<(PathBuf, String)>,
}

impl Config {
    /// `None`: nothing is received.
    pub(crate) fn read(settings: &mut Settings<'_>) -> Option<Self> {
        let namespace = settings.text("POD_NAMESPACE", "kestrel-ai");
        let tls = settings.optional("KESTREL_ALS_TLS_DIR").map(PathBuf::from);
        let config = Self {
            port: settings.parse("KESTREL_ALS_PORT", 0),
            stream_bytes_per_second: settings.parse("KESTREL_ALS_STREAM_BYTES", 16 * 1024 * 1024),
            tls: tls.map(|folder| (folder, format!("{SERVICE}.{namespace}.svc"))),
        };
        (config.port != 0).then_some(config)
    }
}

/// Receives until the drain, and then hands over to the end what was counted.
pub fn receive(
    config: Config,
    registry: &mut Registry,
    drain: CancellationToken,
) -> (impl Future<Output = ()> + use<>, mpsc::Receiver<RequestReport>) {
    let (streams, entries) = (receive::Metrics::default(), Metrics::default());
    streams.register(registry.sub_registry_with_prefix("kestrel_agent_als"));
    entries.register(registry.sub_registry_with_prefix("kestrel_agent_requests"));
    let config = receive::Config {
        port: config.port,
        is_loopback: false,
        pod_address: None,
        stream_bytes_per_second: config.stream_bytes_per_second,
        stream_age: STREAM_AGE,
        tls: config.tls.map(|(folder, name)| Tls { folder, name }),
        limits: receive::Limits::NODE,
    };
    receive::beside_the_link(config, Counter::of_proxies(Limits::NODE, entries), streams, drain)
}
