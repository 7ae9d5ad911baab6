//! The admin port: `/livez`, `/readyz`, `/metrics`, and the paths that users
//! of the operator's predecessor have in their probes.

mod ask;

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, USER_AGENT},
    },
    middleware::map_request,
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::listen::listen;
pub use ask::ask;

/// Probes and scrapers need a handful.
const MOST_CONNECTIONS: usize = 64;
/// A connection on which nothing is asked for so long ends.
const SILENCE: Duration = Duration::from_secs(90);
/// Pause after an accept error such as EMFILE, which would else spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What must be true before the process is ready, by name.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<Condition>>>);

struct Condition {
    name: &'static str,
    met: Arc<AtomicBool>,
}

/// The handle of one condition; not met until [`Ready::set`] says so.
#[derive(Clone)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Says whether the condition is met now.
    pub fn set(&self, met: bool) {
        self.0.store(met, Ordering::Relaxed);
    }
}

impl Readiness {
    /// Adds a condition; `name` completes the sentence "not ready: …".
    pub fn require(&self, name: &'static str) -> Ready {
        let met = Arc::new(AtomicBool::new(false));
        self.conditions().push(Condition { name, met: Arc::clone(&met) });
        Ready(met)
    }

    /// Names of the conditions that are not met.
    pub fn missing(&self) -> Vec<&'static str> {
        self.conditions().iter().filter(|c| !c.met.load(Ordering::Relaxed)).map(|c| c.name).collect()
    }

    fn conditions(&self) -> std::sync::MutexGuard<'_, Vec<Condition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    drain: CancellationToken,
}

/// A bound admin port that does not serve yet.
pub struct AdminPort {
    listener: TcpListener,
    router: Router,
    /// With what is for nobody outside of the pod.
    local: Router,
    drain: CancellationToken,
}

impl AdminPort {
    /// Binds `port` on all addresses (0: any free port).
    ///
    /// # Errors
    /// The port is taken or not allowed.
    pub async fn bind(
        port: u16,
        readiness: Readiness,
        registry: Registry,
        drain: CancellationToken,
    ) -> anyhow::Result<Self> {
        let listener =
            listen(port).with_context(|| format!("the admin port {port} (HEALTH_PORT) cannot be bound"))?;
        let state = Admin { readiness, registry: Arc::new(registry), drain: drain.clone() };
        let router = Router::new()
            .route("/livez", get(async || "ok"))
            .route("/health/live", get(async || "ok"))
            .route("/readyz", get(ready))
            .route("/health/status", get(ready))
            .route("/metrics", get(metrics))
            .with_state(state);
        Ok(Self { listener, local: router.clone(), router, drain })
    }

    /// Serves what `text` makes at `path` too, to who asks over the loopback.
    #[must_use]
    pub fn with_text<T: Future<Output = String> + Send + 'static>(
        mut self,
        path: &str,
        text: impl Fn() -> T + Clone + Send + Sync + 'static,
    ) -> Self {
        self.local = self.local.route(path, get(text));
        self
    }

    /// Calls `heard` whenever the kubelet asks for anything.
    #[must_use]
    pub fn with_probes(mut self, heard: impl Fn() + Clone + Send + Sync + 'static) -> Self {
        self.router = self.router.layer(map_request(move |request: Request| {
            let agent = request.headers().get(USER_AGENT).map(|agent| agent.as_bytes());
            if agent.is_some_and(|agent| agent.starts_with(b"kube-probe/")) {
                heard();
            }
            std::future::ready(request)
        }));
        self
    }

    /// What a peer is served. Names of pods and what is wrong with their node are no business of other pods.
    fn of(&self, peer: IpAddr) -> Router {
        if peer.to_canonical().is_loopback() { self.local.clone() } else { self.router.clone() }
    }

    /// The bound address.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves HTTP/1.1 until the drain.
    ///
    /// # Errors
    /// None; the form is that of a daemon's task.
    pub async fn serve(self) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.drain.cancelled() => break,
                Some(_ended) = connections.join_next() => {}
                connection = self.listener.accept(), if connections.len() < MOST_CONNECTIONS => match connection {
                    Ok((stream, peer)) => {
                        connections.spawn(converse(stream, self.of(peer.ip()), self.drain.clone()));
                    }
                    Err(error) => {
                        warn!("a connection to the admin port can't be accepted: {error}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

async fn converse(stream: TcpStream, router: Router, drain: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(SILENCE);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        // An error is the client's: it went away or does not speak HTTP.
        _ended = connection.as_mut() => return,
        () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    _ = connection.await;
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let missing = admin.readiness.missing();
    if admin.drain.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n".to_owned())
    } else if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(CONTENT_TYPE, format)], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn ready_only_when_every_condition_is_met_and_not_while_draining() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.require("first list of pods"), readiness.require("certificate"));
        let drain = CancellationToken::new();
        let port = AdminPort::bind(0, readiness, Registry::default(), drain.clone()).await.unwrap();
        let port = port.with_text("/status", || std::future::ready("all is well\n".to_owned()));
        let address = SocketAddr::from(([127, 0, 0, 1], port.address().unwrap().port()));
        // What another pod is served, from here.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = listener.local_addr().unwrap();
        let (router, ended) = (port.of([10, 0, 0, 7].into()), drain.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                converse(stream, router.clone(), ended.clone()).await;
            }
        });
        let server = tokio::spawn(port.serve());
        first.set(true);
        let answer = fetch(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.0 503") && answer.ends_with("not ready: certificate\n"),
            "{answer}"
        );
        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.0 200"));
        assert!(fetch(address, "/status").await.ends_with("all is well\n"));
        assert!(fetch(other, "/status").await.starts_with("HTTP/1.0 404"));
        assert!(fetch(other, "/livez").await.starts_with("HTTP/1.0 200"));
        second.set(true);
        assert!(fetch(address, "/health/status").await.starts_with("HTTP/1.0 200"));
        assert!(fetch(address, "/metrics").await.contains("# EOF"));
        drain.cancel();
        server.await.unwrap().unwrap();
    }
}
