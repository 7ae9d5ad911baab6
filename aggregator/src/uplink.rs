//! The one connection to Kestrel Cloud and its five streams.
//!
//! Each stream is opened again alone when it ends; when the connection dies, all
//! of them are, on a new one. What waits is in [`lanes`] and in the inventory's
//! mirror, which live as long as the process, so nothing waits for anything
//! that a connection would have to fetch first.

mod chunk;
mod connection;
pub mod credentials;
pub mod lanes;
mod message;
pub mod metrics;
mod outbound;
pub mod problem;
mod queue;
pub mod receipt;
mod renewal;
pub mod report;
mod request;
mod stream;
pub mod trial;
mod window;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kestrel_runtime::{backoff::Backoff, tls::client::Target};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use connection::Keepalive;
pub use message::Answer;
pub use request::Request;
pub use stream::Retry;

use crate::inventory::Mirror;
use connection::Connection;
use credentials::Credentials;
use lanes::{Lanes, Over};
use metrics::Metrics;
use outbound::Absent;
use problem::Problem;
use report::Report;
use stream::{Stream, supervise};

/// At the end of the process the server gets this long to take what waits and
/// to end the streams.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// DNS name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name in its certificate.
    pub server_name: String,
    /// What to show and what to trust.
    pub credentials: Credentials,
    /// How its life is watched.
    pub keepalive: Keepalive,
    /// How soon to try again.
    pub retry: Retry,
}

/// Gets every request of the server; must not block.
pub type Requests = Arc<dyn Fn(Over, Request) + Send + Sync>;

/// The connection to the cloud.
pub struct Uplink {
    config: Config,
    lanes: Lanes,
    mirror: Mirror,
    requests: Requests,
    metrics: Metrics,
    report: Report,
    absent: Arc<Absent>,
}

impl Uplink {
    /// An uplink that is not connected yet.
    pub fn new(config: Config, lanes: Lanes, mirror: Mirror, requests: Requests, metrics: Metrics) -> Self {
        let (report, absent) = (Report::default(), Arc::default());
        Self { config, lanes, mirror, requests, metrics, report, absent }
    }

    /// What it says of itself.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Keeps the connection up until the drain. Only a leader does, so its signals
    /// are due from now on.
    pub async fn run(&self, drain: &CancellationToken) {
        self.lanes.lead();
        let mut backoff = Backoff::new(self.config.retry.first, self.config.retry.most);
        while !drain.is_cancelled() {
            let lived = tokio::select! {
                () = drain.cancelled() => return,
                opened = self.connect() => match opened {
                    Ok(connection) => self.serve(connection, drain).await,
                    Err(problem) => {
                        self.report.problem(&problem);
                        Duration::ZERO
                    }
                },
            };
            tokio::select! {
                () = drain.cancelled() => {}
                () = sleep(backoff.next(lived)) => {}
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Problem> {
        let Config { host, port, server_name, credentials, keepalive, .. } = &self.config;
        // A token that can't be used makes every stream fail: said before the effort.
        credentials.token().await?;
        let config = credentials.tls().await?;
        let target = Target { host: host.clone(), port: *port, server_name: server_name.clone(), config };
        let connection = Connection::open(&target, *keepalive).await.inspect_err(|problem| {
            if problem.is_of_our_certificate() {
                credentials.certificate_refused();
            }
        })?;
        self.metrics.connections.inc();
        self.metrics.connected.set(1);
        self.report.solved();
        self.report.news(&format!("connected to {}", connection.server));
        Ok(connection)
    }

    /// Keeps the streams of a connection open; returns how long it lived.
    async fn serve(&self, connection: Connection, drain: &CancellationToken) -> Duration {
        let begun = Instant::now();
        let streams = join_all(Stream::ALL.map(|stream| supervise(self, &connection, stream, drain)));
        tokio::select! {
            _ = streams => {}
            () = async {
                drain.cancelled().await;
                sleep(FAREWELL).await;
            } => {}
        }
        self.metrics.connected.set(0);
        if !drain.is_cancelled() {
            self.report.problem(&connection.life.problem(&connection.server));
        }
        begun.elapsed()
    }
}
