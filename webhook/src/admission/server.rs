//! The HTTPS server that the API server calls.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use hyper::{
    server::conn::{http1, http2},
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::graceful::GracefulConnection,
    service::TowerToHyperService,
};
use kestrel_runtime::{
    listen::listen,
    tls::server::{self as tls, ServingCertificate},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Metrics,
    places::{Place, Places},
};

/// How long requests are still taken after the drain began: kube-proxy on every
/// node needs about a second to stop sending them.
pub const LINGER: Duration = Duration::from_secs(5);
/// A connection ends after this time, between two requests, so that replicas share the load.
const LONGEST_CONNECTION: Duration = Duration::from_secs(600);
/// A connection without an answered review for this time at its beginning ends: an API server connects to ask at once.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// The same, later; at most twice as long. So strangers don't fill the places by silence.
const LONGEST_SILENCE: Duration = Duration::from_secs(90);
/// What a connection gets to finish its request.
const CLOSING: Duration = Duration::from_secs(5);
/// The same, if another one needs its place; an answer takes far less than a millisecond.
const GIVING_WAY: Duration = Duration::from_secs(1);

/// HTTP/2 by its name in a handshake.
const HTTP2: &str = "h2";

/// A bound port that does not serve yet.
pub struct Server {
    listener: TcpListener,
    certificate: Arc<ServingCertificate>,
    router: Router,
    metrics: Metrics,
}

impl Server {
    /// Binds `port` on all addresses (0: any free port).
    ///
    /// # Errors
    /// The port is taken or not allowed.
    pub async fn bind(
        port: u16,
        certificate: Arc<ServingCertificate>,
        router: Router,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let listener =
            listen(port).with_context(|| format!("port {port} (KESTREL_WEBHOOK_PORT) cannot be bound"))?;
        Ok(Self::on(listener, certificate, router, metrics))
    }

    /// Serves on `listener`.
    pub fn on(
        listener: TcpListener,
        certificate: Arc<ServingCertificate>,
        router: Router,
        metrics: Metrics,
    ) -> Self {
        Self { listener, certificate, router, metrics }
    }

    /// The bound address.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the drain, and `linger` longer.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self, linger: Duration, drain: CancellationToken) -> anyhow::Result<()> {
        let Self { listener, certificate, router, metrics } = self;
        let closing = CancellationToken::new();
        let (sender, mut accepted) = mpsc::channel(1);
        let listening = tokio::spawn(tls::accept(
            listener,
            tls::config(certificate, &[HTTP2, "http/1.1"]),
            closing.clone(),
            sender,
            {
                let metrics = metrics.clone();
                move |peer, problem| {
                    debug!("{peer} {problem}");
                    metrics.refused_connection();
                }
            },
        ));
        let service = TowerToHyperService::new(router);
        let mut places = Places::default();
        let mut end = pin!(async {
            drain.cancelled().await;
            sleep(linger).await;
        });
        loop {
            tokio::select! {
                () = &mut end, if !closing.is_cancelled() => closing.cancel(),
                connection = accepted.recv(), if places.have_room() => match connection {
                    Some((stream, _)) => {
                        if places.take(|place| serve(stream, service.clone(), place, closing.clone())) {
                            metrics.displaced_connection();
                        }
                    }
                    // The last handshake is over.
                    None => break,
                },
                Some(()) = places.ended() => {}
            }
        }
        while places.ended().await.is_some() {}
        listening.await.context("the HTTPS port stopped serving")
    }
}

/// Serves the protocol that was agreed on in the handshake.
async fn serve(
    stream: TlsStream<TcpStream>,
    service: TowerToHyperService<Router>,
    place: Arc<Place>,
    closing: CancellationToken,
) {
    let served = Arc::clone(&place);
    let service = service_fn(move |request| {
        let (answer, served) = (service.call(request), Arc::clone(&served));
        async move {
            let answer = answer.await;
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                served.was_used();
            }
            answer
        }
    });
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2.as_bytes());
    let stream = TokioIo::new(stream);
    if is_http2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        converse(builder.serve_connection(stream, service), &place, closing).await;
    } else {
        converse(http1::Builder::new().serve_connection(stream, service), &place, closing).await;
    }
}

async fn converse(connection: impl GracefulConnection, place: &Place, closing: CancellationToken) {
    let mut seen = place.last_use();
    let silent = async {
        sleep(FIRST_REQUEST).await;
        while place.last_use() > seen {
            seen = place.last_use();
            sleep(LONGEST_SILENCE).await;
        }
    };
    let mut connection = pin!(connection);
    let rest = tokio::select! {
        // An error is the client's: it went away or does not speak HTTP.
        _ended = connection.as_mut() => return,
        () = closing.cancelled() => CLOSING,
        () = sleep(LONGEST_CONNECTION) => CLOSING,
        () = silent => CLOSING,
        () = place.gives_way() => GIVING_WAY,
    };
    connection.as_mut().graceful_shutdown();
    let _late = timeout(rest, connection).await;
}
