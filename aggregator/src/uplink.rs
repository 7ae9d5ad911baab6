//! The one connection to Kestrel Cloud and its five streams.
//!
//! Each stream is opened again alone when it ends; when the connection dies, all
//! of them are, on a new one. A connection that the server wants to end (GOAWAY)
//! is left for a new one that is open already. What waits is in [`lanes`] and in the inventory's
//! mirror, which live as long as the process, so nothing waits for anything
//! that a connection would have to fetch first.

mod call;
mod chunk;
mod connection;
pub mod credentials;
pub(crate) mod dial;
pub mod drops;
mod frames;
pub mod lanes;
mod life;
mod message;
pub mod metrics;
mod outbound;
pub mod problem;
mod pulse;
mod queue;
pub mod receipt;
mod renewal;
pub mod report;
mod request;
mod session;
#[cfg(test)]
mod simulation;
pub mod spool;
pub mod state;
mod stream;
pub mod trial;
mod window;

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt as _,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use kestrel_runtime::{backoff::Backoff, tls::proxy::Proxy};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use life::Keepalive;
pub use message::Answer;
pub(crate) use message::Message;
pub use request::Request;
pub use stream::Retry;

use crate::inventory::Mirror;
use connection::Connection;
use credentials::Credentials;
use dial::Dial;
use lanes::{Lanes, Over};
use metrics::Metrics;
use outbound::Absent;
use problem::Problem;
use report::Report;
use session::Session;
use state::{Board, State};
use stream::{Stream, supervise};

/// At the end of the process, or of a connection that is left, the server gets
/// this long to take what is under way and to end the streams.
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
    /// Whom the way there leads over.
    pub proxy: Option<Proxy>,
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
    dial: Box<dyn Dial>,
    lanes: Lanes,
    mirror: Mirror,
    requests: Requests,
    metrics: Metrics,
    report: Report,
    board: Board,
    absent: Absent,
    /// Held by whoever has a stream open: one of each at a time.
    turns: [Mutex<()>; 5],
}

/// Shows what an uplink is at any moment; clones show the same one.
#[derive(Clone)]
pub struct View {
    server: String,
    board: Board,
    report: Report,
}

impl View {
    /// The uplink at this moment.
    pub fn state(&self) -> State {
        self.board.read(self.server.clone(), self.report.last_problem())
    }
}

/// A connection in use.
struct Serving<'a> {
    session: Arc<Session>,
    begun: Instant,
    /// Ends with the connection, or some time after it was left.
    work: BoxFuture<'a, ()>,
}

impl Uplink {
    /// An uplink that is not connected yet.
    pub fn new(config: Config, lanes: Lanes, mirror: Mirror, requests: Requests, metrics: Metrics) -> Self {
        let dial = Box::new(config.clone());
        Self::over(dial, config, lanes, mirror, requests, metrics)
    }

    /// An uplink over another way than TCP and TLS.
    fn over(
        dial: Box<dyn Dial>,
        config: Config,
        lanes: Lanes,
        mirror: Mirror,
        requests: Requests,
        metrics: Metrics,
    ) -> Self {
        let (report, board, absent) = (Report::default(), Board::default(), Absent::default());
        let turns = Default::default();
        Self { config, dial, lanes, mirror, requests, metrics, report, board, absent, turns }
    }

    /// What it says of itself.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// What it shows of itself.
    pub fn view(&self) -> View {
        View { server: self.config.server(), board: self.board.clone(), report: self.report.clone() }
    }

    /// Keeps the connection up until the drain. Only a leader does, so its signals
    /// are due from now on.
    pub async fn run(&self, drain: &CancellationToken) {
        self.lanes.lead();
        let mut backoff = Backoff::new(self.config.retry.first, self.config.retry.most);
        let mut opening = Some(self.open(Duration::ZERO));
        let mut serving: Option<Serving<'_>> = None;
        // Connections that were left and are not yet at their end.
        let mut left = FuturesUnordered::new();
        while serving.is_some() || !drain.is_cancelled() {
            let session = serving.as_ref().map(|serving| Arc::clone(&serving.session));
            tokio::select! {
                biased;
                () = of(serving.as_mut().map(|serving| &mut serving.work)) => {
                    if let Some(ended) = serving.take() {
                        self.ended(&ended, drain);
                        opening.get_or_insert_with(|| self.open(backoff.next(ended.begun.elapsed())));
                    }
                }
                () = drain.cancelled(), if serving.is_none() => {}
                opened = of(opening.as_mut()), if !drain.is_cancelled() => {
                    opening = None;
                    match opened {
                        Ok(connection) => {
                            let next = self.serving(connection, drain);
                            if let Some(old) = serving.replace(next) {
                                old.session.leave(&self.lanes);
                                left.push(old.work);
                            }
                        }
                        Err(problem) => {
                            self.report.problem(&problem);
                            opening = Some(self.open(backoff.next(Duration::ZERO)));
                        }
                    }
                }
                () = of(session.as_deref().map(|session| self.unwanted(session))), if opening.is_none() => {
                    if let Some(serving) = &serving {
                        opening = Some(self.open(backoff.next(serving.begun.elapsed())));
                    }
                }
                Some(()) = left.next() => {}
            }
        }
        self.lanes.say_what_stays();
    }

    /// Opens a connection, after a while.
    fn open(&self, wait: Duration) -> BoxFuture<'_, Result<Connection, Problem>> {
        Box::pin(async move {
            sleep(wait).await;
            self.connect().await
        })
    }

    async fn connect(&self) -> Result<Connection, Problem> {
        let Config { credentials, keepalive, .. } = &self.config;
        // A token that can't be used makes every stream fail: said before the effort.
        credentials.token().await?;
        let connection = async {
            let transport = self.dial.dial().await?;
            Connection::open(transport, self.config.server(), self.config.authority(), *keepalive).await
        };
        connection.await.inspect_err(|problem| {
            if problem.is_of_our_certificate() {
                credentials.certificate_refused();
            }
        })
    }

    fn serving<'a>(&'a self, connection: Connection, drain: &'a CancellationToken) -> Serving<'a> {
        self.board.connected();
        self.report.solved();
        self.report.news(&format!("connected to {}", connection.server));
        let session = Arc::new(Session::new(connection));
        let work = Box::pin(self.serve(Arc::clone(&session), drain));
        Serving { session, begun: Instant::now(), work }
    }

    /// Keeps the streams of a connection open until it ends, or is left.
    async fn serve(&self, session: Arc<Session>, drain: &CancellationToken) {
        let streams = join_all(Stream::ALL.map(|stream| supervise(self, &session, stream, drain)));
        let farewell = async {
            tokio::select! {
                biased;
                () = drain.cancelled() => self.lanes.finish(),
                () = session.left.cancelled() => {}
            }
            sleep(FAREWELL).await;
        };
        let renewal = renewal::keep_renewed(&self.config.credentials, &session.connection);
        let look = async {
            // By then the server has said how much it takes.
            sleep(self.config.keepalive.hold()).await;
            if let Some(narrow) = session.connection.life.windows().narrow()
                && !session.is_over()
            {
                self.report.caution(&narrow);
                self.board.connection(|connection| connection.narrow = Some(narrow));
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            _ = streams => {}
            () = farewell => {}
            () = look => {}
            never = renewal => match never {},
        }
        session.connection.close().await;
    }

    /// Resolves when a connection should be replaced while it still works.
    async fn unwanted(&self, session: &Session) {
        let Connection { life, server, .. } = &session.connection;
        tokio::select! {
            biased;
            () = life.going_away.cancelled() => match life.problem(server) {
                Problem::ConnectionLost { reason, .. } => {
                    self.report.news(&format!("a new connection to {server} is made: {reason}"));
                }
                problem => self.report.problem(&problem),
            },
            () = self.dial.changed() => {
                self.report.news(&format!("a new connection to {server} is made: there are new credentials"));
            }
        }
        self.board.connection(|connection| connection.leaving = true);
    }

    fn ended(&self, Serving { session, .. }: &Serving<'_>, drain: &CancellationToken) {
        self.board.disconnected();
        if !drain.is_cancelled() {
            self.report.problem(&session.connection.life.problem(&session.connection.server));
        }
    }
}

/// The output of a future that may be missing, and then never comes.
async fn of<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
