//! Envoy's access log service: streams of proxies in.
//!
//! Nothing is ever asked of a proxy, and none is kept waiting: what can't be kept in detail is counted.

mod certificate;
mod metrics;
mod places;
mod rate;
mod server;
mod stream;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kestrel_proto::{body::Room, node::v1::RequestReport};
use kestrel_runtime::listen::listen;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::{error, info};

use crate::{counter::Counter, send};
pub use metrics::Metrics;
use places::Places;

/// How long a proxy's stream lives, about.
pub const STREAM_AGE: Duration = Duration::from_secs(600);

/// From one attempt to bind a port to the next.
const AGAIN: Duration = Duration::from_secs(30);

/// Bytes of a message: of a proxy whose buffer is 256 KiB, with an entry beyond it.
const MESSAGE: usize = 512 * 1024;
/// Bytes of a message that need no room of [`Limits::received`]: twice as many as an Envoy sends unless it is told to.
const SMALL: usize = 32 * 1024;
/// A message must be complete within this time.
const COMPLETE: Duration = Duration::from_secs(5);

/// Where and how entries are received.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port to listen on; 0: any.
    pub port: u16,
    /// Whether proxies of the own pod alone are received.
    pub is_loopback: bool,
    /// Address of that pod, which they have too, though they connect over the loopback; if it is known.
    pub pod_address: Option<IpAddr>,
    /// Bytes that a stream may send a second; 0: no limit. Entries beyond are counted and not read.
    pub stream_bytes_per_second: u64,
    /// A stream is ended after about this time, so that proxies spread over who serves them.
    pub stream_age: Duration,
    /// TLS, where it is spoken.
    pub tls: Option<Tls>,
    /// How much is received at a time.
    pub limits: Limits,
}

/// TLS that asks for a certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    /// With `tls.crt`, `tls.key` and `ca.crt`, the authority of the clients.
    pub folder: PathBuf,
    /// What `tls.crt` has to vouch for.
    pub name: String,
}

/// How much is received at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that may be open at once. A proxy has one or a few for each of its threads.
    pub connections: usize,
    /// Streams that may be open at once.
    pub streams: usize,
    /// One address may have one in so many of either.
    pub share: usize,
    /// Bytes of a message. Envoy sends what it has as soon as that is more than its buffer, which is 16 KiB unless it is set.
    pub message: usize,
    /// Bytes of large messages that may be on their way into memory.
    pub received: u32,
    /// What a stream may have sent before it was read.
    pub stream_window: u32,
    /// Likewise all of a connection.
    pub connection_window: u32,
    /// A client has this long for its TLS handshake, and then for the beginning of its first stream.
    pub handshake: Duration,
}

impl Limits {
    /// Of a receiver for all proxies of a cluster.
    pub const CLUSTER: Self = Self {
        connections: 8192,
        streams: 16_384,
        // All proxies of a node, where its network gives them its own address.
        share: 16,
        message: MESSAGE,
        received: 32 * 1024 * 1024,
        stream_window: 256 * 1024,
        connection_window: 1024 * 1024,
        handshake: Duration::from_secs(10),
    };
    /// Of a receiver for those of a node.
    pub const NODE: Self = Self {
        connections: 1024,
        streams: 2048,
        share: 4,
        received: 8 * 1024 * 1024,
        stream_window: 64 * 1024,
        connection_window: 256 * 1024,
        ..Self::CLUSTER
    };
    /// Of a receiver for that of a pod.
    pub const POD: Self = Self {
        connections: 64,
        streams: 128,
        // There is one address.
        share: 1,
        received: 1024 * 1024,
        ..Self::NODE
    };
}

struct Shared {
    config: Config,
    counter: Counter,
    metrics: Metrics,
    received: Room,
    connections: Arc<Places>,
    streams: Arc<Places>,
    readers: TaskTracker,
    drain: CancellationToken,
}

/// Binds the port.
///
/// # Errors
/// It is taken, or not allowed.
pub async fn bind(config: &Config) -> io::Result<TcpListener> {
    if config.is_loopback {
        TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await
    } else {
        listen(config.port)
    }
}

/// Has `counter` count what streams over `listener` carry, until the drain; then the last of them has ended.
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    counter: Counter,
    metrics: Metrics,
    drain: CancellationToken,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let (offered, mut certificate) = watch::channel(None);
    let mut tls = None;
    let _keeping = config.tls.clone().map(|files| {
        tls = Some(certificate.clone());
        AbortOnDropHandle::new(tokio::spawn(certificate::keep(files, offered)))
    });
    if tls.is_some() {
        // Its sender lives as long as the task above.
        let shown = certificate.wait_for(Option::is_some);
        let Some(Ok(_)) = drain.run_until_cancelled(shown).await else { return Ok(()) };
    }
    metrics.listens(port);
    let shared = Arc::new(Shared {
        counter,
        received: Room::new(config.limits.received).of_messages(SMALL, COMPLETE),
        connections: Places::new(config.limits.connections, config.limits.share),
        streams: Places::new(config.limits.streams, config.limits.share),
        metrics: metrics.clone(),
        config,
        readers: TaskTracker::new(),
        drain,
    });
    server::run(listener, tls, shared).await;
    metrics.listens(0);
    Ok(())
}

/// Receives beside the agent link: what it has counted comes as reports, until the drain and then to its end. They are to be sent
/// until the aggregator names them.
pub fn beside_the_link(
    config: Config,
    counter: Counter,
    metrics: Metrics,
    drain: CancellationToken,
) -> (impl Future<Output = ()>, mpsc::Receiver<RequestReport>) {
    let (reports, taken) = mpsc::channel(1);
    let over = CancellationToken::new();
    let sending = send::run(counter.clone(), reports, over.clone());
    let receiving = async move {
        loop {
            match bind(&config).await {
                Ok(listener) => {
                    info!("receiving access logs of proxies on port {}", config.port);
                    // A socket that was bound has an address.
                    let _served = serve(listener, config, counter, metrics, drain).await;
                    break;
                }
                Err(problem) => {
                    error!("no access logs are received, port {} can't be bound: {problem}", config.port);
                }
            }
            if drain.run_until_cancelled(sleep(AGAIN)).await.is_none() {
                break;
            }
        }
        over.cancel();
    };
    let both = async move {
        tokio::join!(receiving, sending);
    };
    (both, taken)
}
