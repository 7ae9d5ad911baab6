//! The serving end: a listener whose handshakes cost others nothing, and a
//! certificate that can be replaced under it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// A client has this long for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Pause after an accept error such as EMFILE, which would else spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The certificate that a server shows now. Connections that exist keep the
/// one they began with.
#[derive(Debug, Default)]
pub struct ServingCertificate(ArcSwapOption<CertifiedKey>);

impl ServingCertificate {
    /// Shows `certificate` from the next handshake on.
    pub fn replace(&self, certificate: CertifiedKey) {
        self.0.store(Some(Arc::new(certificate)));
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// A configuration without client certificates that shows `certificate` and
/// offers `protocols` (ALPN names such as `h2`).
pub fn config(certificate: Arc<ServingCertificate>, protocols: &[&str]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Connections whose handshake has succeeded.
pub type Accepted = mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>;

/// Accepts on `listener` until the drain; handshakes run beside each other, so
/// that a slow client delays nobody. What can't complete a handshake is
/// handed to `refused` with a sentence.
pub async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    drain: CancellationToken,
    accepted: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    refused: impl Fn(SocketAddr, String) + Clone + Send + 'static,
) {
    let handshakes = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    let acceptor = TlsAcceptor::from(config);
    loop {
        let next = async {
            // Never closed, so this only waits.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, connection) = tokio::select! {
            () = drain.cancelled() => break,
            next = next => next,
        };
        let (stream, peer) = match connection {
            Ok(connection) => connection,
            Err(error) => {
                warn!("a connection can't be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, accepted, refused) = (acceptor.clone(), accepted.clone(), refused.clone());
        handshakes.spawn(async move {
            let _permit = permit;
            let _best_effort = stream.set_nodelay(true);
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // The receiver is gone only while the server ends.
                    let _ended = accepted.send((stream, peer)).await;
                }
                Ok(Err(error)) => refused(peer, handshake_problem(&error)),
                Err(_) => refused(peer, "did not complete the TLS handshake in 10 s".to_owned()),
            }
        });
    }
    drop(accepted);
    handshakes.close();
    handshakes.wait().await;
    debug!("listener closed");
}

fn handshake_problem(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => "does not speak TLS (plain text?)".to_owned(),
        Some(other) => format!("failed the TLS handshake: {other}"),
        None => format!("failed the TLS handshake: {error}"),
    }
}
