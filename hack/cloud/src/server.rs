//! A running cloud.

mod accept;
mod certificates;
mod door;
mod http2;
mod streams;
mod tokens;
mod upload;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use kestrel_proto::{
    cloud::v1::stream_service_server::StreamServiceServer,
    server::v1::autonp_server_service_server::AutonpServerServiceServer,
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::info;

use crate::{
    api,
    credentials::Authority,
    faults::Faults,
    hub::{Hub, SendError, Sent},
    record::Record,
    wire::Stream,
};

/// The largest message either way (the contract's limit).
pub const MAX_MESSAGE_BYTES: usize = 10 << 20;
/// The flow control window of a connection: larger than those of its streams
/// (1 MiB) together, so that a stream that is not read stops no other.
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long connections may take to end before they are cut.
const GRACE: Duration = Duration::from_secs(3);

/// How a cloud is started.
pub struct Config {
    /// Where operators connect.
    pub listen: SocketAddr,
    /// Where the query API listens.
    pub api: SocketAddr,
    /// Names and addresses in the server certificate, beside the local ones.
    pub names: Vec<String>,
    /// Signs the certificates and tokens.
    pub authority: Authority,
    /// The tenant of clusters that are onboarded.
    pub tenant: String,
    /// Lifetime of renewed tokens.
    pub token_lifetime: Duration,
    /// From one heartbeat on a stream to the next.
    pub heartbeat: Duration,
    /// The flow control window of a connection in bytes; 1 MiB is the default
    /// of a tonic server, with which one stalled stream stops all.
    pub connection_window: u32,
    /// An inventory commit ends what its stream did not name. Without that, only
    /// a DELETE ends anything.
    pub prunes: bool,
}

impl Config {
    /// Free ports on the loopback, tenant `development`, tokens of a day,
    /// a heartbeat every 30 s, [`CONNECTION_WINDOW`].
    pub fn new(authority: Authority) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            names: Vec::new(),
            authority,
            tenant: "development".to_owned(),
            token_lifetime: Duration::from_secs(24 * 3600),
            heartbeat: Duration::from_secs(30),
            connection_window: CONNECTION_WINDOW,
            prunes: true,
        }
    }
}

/// Starts a cloud and returns once both ports are bound.
///
/// # Errors
/// A port that can't be bound, or a name that can't be in a certificate.
pub async fn serve(config: Config) -> anyhow::Result<Cloud> {
    let Config {
        listen,
        api,
        names,
        authority,
        tenant,
        token_lifetime,
        heartbeat,
        connection_window,
        prunes,
    } = config;
    let hub = Arc::new(Hub::new(authority, tenant, token_lifetime, heartbeat, prunes));
    let config = accept::config(&hub, &names)?;
    let bind = async |address| {
        TcpListener::bind(address).await.with_context(|| format!("{address} cannot be bound"))
    };
    let (listener, api_listener) = (bind(listen).await?, bind(api).await?);
    let (address, api_address) = (listener.local_addr()?, api_listener.local_addr()?);
    let streams = StreamServiceServer::new(streams::Streams(Arc::clone(&hub)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let tokens = AutonpServerServiceServer::new(tokens::TokenService(Arc::clone(&hub)));
    let routes = Routes::new(streams).add_service(tokens).prepare();

    let mut tasks = JoinSet::new();
    let (accepted, mut connections) = mpsc::channel(1);
    tasks.spawn(door::keep(listener, config, Arc::clone(&hub), accepted));
    tasks.spawn({
        let hub = Arc::clone(&hub);
        async move {
            while let Some((io, peer)) = connections.recv().await {
                let connection = accept::Connection::new(io, peer, Arc::clone(&hub));
                let served = http2::serve(Arc::clone(&hub), routes.clone(), connection, connection_window);
                hub.readers.spawn(served);
            }
            Ok(())
        }
    });
    tasks.spawn(api::serve(api_listener, Arc::clone(&hub)));
    info!("Operators connect to {address}; the query API is at http://{api_address}");
    Ok(Cloud { address, api_address, hub, tasks })
}

/// A cloud that runs until it is stopped or dropped.
pub struct Cloud {
    address: SocketAddr,
    api_address: SocketAddr,
    hub: Arc<Hub>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Cloud {
    /// Where operators connect. The server certificate is good for `localhost`
    /// and `127.0.0.1`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the query API listens.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Makes more certificates and tokens.
    pub fn authority(&self) -> &Authority {
        &self.hub.authority
    }

    /// Looks at what arrived so far. `read` must be short: the streams wait for it.
    pub fn read<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        self.hub.read(read)
    }

    /// Waits until `found` finds something in the record; `None` if `limit` passes first.
    pub async fn wait_for<T>(&self, limit: Duration, found: impl FnMut(&Record) -> Option<T>) -> Option<T> {
        self.hub.wait_for(limit, found).await
    }

    /// Sends a server message, written as JSON like
    /// `{"kubernetes_api_request": {"api_paths": ["version"]}}`, to the operator
    /// that connected last, and waits for its answer. `stream` is chosen when
    /// it is `None`, and a `request_id` is made when there is none.
    ///
    /// # Errors
    /// The message is not in the contract, nobody is connected, or no answer came.
    pub async fn send(
        &self,
        message: &Value,
        stream: Option<Stream>,
        limit: Duration,
    ) -> Result<Sent, SendError> {
        self.hub.send(message, stream, limit).await
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.hub.set_faults(faults);
    }

    /// What is broken now; resets that were asked for a number of times go
    /// from it when they are used up.
    pub fn faults(&self) -> Faults {
        self.hub.faults().clone()
    }

    /// Cuts every connection that is open now.
    pub fn cut_connections(&self) {
        self.hub.cut_all();
    }

    /// Serves until `drain` is cancelled, then ends all streams with `UNAVAILABLE`.
    ///
    /// # Errors
    /// A part of the server failed.
    pub async fn run(mut self, drain: CancellationToken) -> anyhow::Result<()> {
        let early = tokio::select! {
            () = drain.cancelled() => None,
            ended = self.tasks.join_next() => ended,
        };
        self.hub.stop.cancel();
        self.hub.readers.close();
        let orderly = async {
            self.hub.readers.wait().await;
            while let Some(ended) = self.tasks.join_next().await {
                ended.map_err(io::Error::other)??;
            }
            anyhow::Ok(())
        };
        // Clients have no reason to end by themselves.
        match timeout(GRACE, orderly).await {
            Ok(result) => result?,
            Err(_) => self.hub.cut_all(),
        }
        early.map_or(Ok(()), |ended| ended.map_err(io::Error::other)?)
    }

    /// Ends the cloud and waits for its end.
    ///
    /// # Errors
    /// A part of the server had failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        let drain = CancellationToken::new();
        drain.cancel();
        self.run(drain).await
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.hub.stop.cancel();
        self.hub.cut_all();
    }
}
