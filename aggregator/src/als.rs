//! Envoy's access log service for the cluster's proxies.

pub(crate) mod proxies;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use kestrel_als::receive::{self, Limits, Tls};
pub use kestrel_als::receive::{Metrics, STREAM_AGE};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    link::{self, publish},
    traffic::requests::Requests,
};

/// Name of the Service and its EndpointSlice.
pub(crate) const ALS: &str = "kestrel-operator-als";

/// Where and how entries are received.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port to listen on; 0: any.
    pub port: u16,
    /// Bytes that a stream may send a second; 0: no limit. Entries beyond are counted and not read.
    pub stream_bytes_per_second: u64,
    /// A stream is ended after about this time, so that proxies spread over who serves them.
    pub stream_age: Duration,
    /// The operator's namespace: where its Service is.
    pub namespace: String,
    /// Folder with `tls.crt`, `tls.key` and `ca.crt`, the authority of the clients; `None`: plain text.
    pub tls_dir: Option<PathBuf>,
    /// Port of proxies at which they are asked what they logged themselves; `None`: they are not.
    pub stats_port: Option<u16>,
}

/// Receives entries until the drain, when the last stream has ended; for the leader alone. `place` says where this is served,
/// which is written to the Service's EndpointSlice; `None`: nobody is told.
///
/// # Errors
/// The port can't be bound.
pub async fn receive(
    config: Config,
    place: Option<(Client, link::Config)>,
    requests: &Requests,
    metrics: Metrics,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let Config { port, stream_bytes_per_second, stream_age, namespace, tls_dir, stats_port: _ } = config;
    let tls = tls_dir.map(|folder| Tls { folder, name: format!("{ALS}.{namespace}.svc") });
    let config = receive::Config {
        port,
        is_loopback: false,
        pod_address: None,
        stream_bytes_per_second,
        stream_age,
        tls,
        limits: Limits::CLUSTER,
    };
    let listener = receive::bind(&config)
        .await
        .with_context(|| format!("the access log service's port {port} (ISTIO_ALS_PORT) can't be bound"))?;
    let published = async {
        match &place {
            Some((client, place)) => {
                publish::keep_endpoint(client, place, ALS, "grpc-als", metrics.port().await).await;
            }
            None => std::future::pending().await,
        }
    };
    let receiving = receive::serve(listener, config, requests.counter().clone(), metrics.clone(), drain);
    tokio::select! {
        served = receiving => served.context("the access log service's port was lost"),
        () = published => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
