//! Envoy's access log service: streams of the cluster's proxies in.
//!
//! Nothing is ever asked of a proxy, and none is kept waiting: what can't be kept in detail is counted.

mod certificate;
mod codec;
mod metrics;
pub(crate) mod proxies;
mod rate;
mod server;
mod stream;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use kestrel_runtime::listen::listen;
use kube::Client;
use tokio::sync::{Semaphore, watch};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    link::{self, body::Room, publish},
    traffic::requests::Requests,
};
pub use metrics::Metrics;

/// Name of the Service and its EndpointSlice.
pub(crate) const ALS: &str = "kestrel-operator-als";

/// Connections that may be open at once. A proxy has one or a few for each of its threads.
const MOST_CONNECTIONS: usize = 8192;
/// Streams that may be open at once.
const MOST_STREAMS: usize = 16_384;
/// Bytes of large messages that may be on their way into memory.
const RECEIVED_BYTES: u32 = 16 * 1024 * 1024;

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

struct Shared {
    config: Config,
    requests: Requests,
    metrics: Metrics,
    received: Room,
    connections: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    readers: TaskTracker,
    drain: CancellationToken,
}

/// Receives entries until the drain, then tells what was counted; for the leader alone. `place` says where this is served,
/// which is written to the Service's EndpointSlice; `None`: nobody is told.
///
/// # Errors
/// The port can't be bound.
pub async fn serve(
    config: Config,
    place: Option<(Client, link::Config)>,
    requests: Requests,
    metrics: Metrics,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let listener = listen(config.port).with_context(|| {
        format!("the access log service's port {} (ISTIO_ALS_PORT) can't be bound", config.port)
    })?;
    let port = listener.local_addr()?.port();
    let (offered, mut certificate) = watch::channel(None);
    let mut tls = None;
    let _keeping = config.tls_dir.clone().map(|folder| {
        tls = Some(certificate.clone());
        AbortOnDropHandle::new(tokio::spawn(certificate::keep(folder, config.namespace.clone(), offered)))
    });
    if tls.is_some() {
        // Its sender lives as long as the task above.
        let shown = certificate.wait_for(Option::is_some);
        let Some(Ok(_)) = drain.run_until_cancelled(shown).await else { return Ok(()) };
    }
    metrics.listens(port);
    let shared = Arc::new(Shared {
        config,
        requests: requests.clone(),
        metrics,
        received: Room::new(RECEIVED_BYTES),
        connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        readers: TaskTracker::new(),
        drain: drain.clone(),
    });
    let over = CancellationToken::new();
    let serving = async {
        let published = async {
            match &place {
                Some((client, place)) => publish::keep_endpoint(client, place, ALS, "grpc-als", port).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = server::run(listener, tls, shared) => {}
            () = published => {}
        }
        over.cancel();
    };
    // Not before the last stream has ended.
    tokio::join!(serving, requests.run(over.clone()));
    Ok(())
}

#[cfg(test)]
mod tests;
