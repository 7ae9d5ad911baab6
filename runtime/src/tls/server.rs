//! The serving end: a listener whose handshakes cost others nothing, and a
//! certificate that can be replaced under it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rustls::{
    RootCertStore, ServerConfig,
    server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier},
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

use super::provider;

/// A client has this long for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Handshakes of one address under way at once when half of all places are
/// taken, so that nobody's silent connections keep everybody out.
const HANDSHAKES_OF_ONE: usize = 16;
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

/// A configuration that shows `certificate` and wants one of the client, by one of the authorities `clients`; it offers
/// `protocols`.
///
/// # Errors
/// There are no authorities.
pub fn mutual(
    certificate: CertifiedKey,
    clients: RootCertStore,
    protocols: &[&str],
) -> Result<Arc<ServerConfig>, VerifierBuilderError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider()).build()?;
    let shown = Arc::new(ServingCertificate::default());
    shown.replace(certificate);
    let mut config = ServerConfig::builder().with_client_cert_verifier(verifier).with_cert_resolver(shown);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
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
    let mut peers = Peers::default();
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
        let scarce = permits.available_permits() < HANDSHAKES / 2;
        let Some(place) = peers.place(peer.ip().to_canonical(), scarce) else {
            refused(peer, format!("has {HANDSHAKES_OF_ONE} TLS handshakes under way already"));
            continue;
        };
        let (acceptor, accepted, refused, drain) =
            (acceptor.clone(), accepted.clone(), refused.clone(), drain.clone());
        handshakes.spawn(async move {
            let _places = (permit, place);
            let _best_effort = stream.set_nodelay(true);
            let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            match drain.run_until_cancelled(handshake).await {
                // Nobody is served any more.
                None => {}
                Some(Ok(Ok(stream))) => {
                    // The receiver is gone only while the server ends.
                    let _ended = accepted.send((stream, peer)).await;
                }
                Some(Ok(Err(error))) => refused(peer, handshake_problem(&error)),
                Some(Err(_)) => refused(peer, "did not complete the TLS handshake in 10 s".to_owned()),
            }
        });
    }
    drop(accepted);
    handshakes.close();
    handshakes.wait().await;
    debug!("listener closed");
}

/// Handshakes under way, by the address they come from.
#[derive(Default)]
struct Peers(HashMap<IpAddr, Arc<()>>);

impl Peers {
    /// A place for a handshake of `address`, held until it is dropped; `None`
    /// if places are `scarce` and `address` has its share.
    fn place(&mut self, address: IpAddr, scarce: bool) -> Option<Arc<()>> {
        if self.0.len() >= HANDSHAKES {
            self.0.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = self.0.entry(address).or_default();
        // One count is the map's own.
        (!scarce || Arc::strong_count(places) <= HANDSHAKES_OF_ONE).then(|| Arc::clone(places))
    }
}

fn handshake_problem(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => "does not speak TLS (plain text?)".to_owned(),
        Some(other) => format!("failed the TLS handshake: {other}"),
        None => format!("failed the TLS handshake: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn when_places_are_scarce_an_address_has_no_more_than_its_share() {
        let mut peers = Peers::default();
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut held: Vec<_> = (0..2 * HANDSHAKES_OF_ONE).map(|_| peers.place(one, false).unwrap()).collect();
        assert!(peers.place(one, true).is_none());
        assert!(peers.place(other, true).is_some());
        held.truncate(HANDSHAKES_OF_ONE - 1);
        held.extend(peers.place(one, true));
        assert_eq!(held.len(), HANDSHAKES_OF_ONE);
        assert!(peers.place(one, true).is_none());
        for number in 0..2 * HANDSHAKES as u32 {
            peers.place(IpAddr::from(number.to_be_bytes()), true);
        }
        assert!(
            peers.0.len() <= HANDSHAKES && peers.place(one, true).is_none(),
            "who holds places is remembered"
        );
    }

    #[tokio::test]
    async fn silent_connections_keep_nobody_out_and_do_not_delay_the_drain() {
        crate::tls::install_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = CancellationToken::new();
        let (sender, _accepted) = mpsc::channel(1);
        let (problems, mut refused) = mpsc::unbounded_channel();
        let refuse = move |_peer, why| problems.send(why).unwrap();
        let config = config(Arc::default(), &[]);
        let server = tokio::spawn(accept(listener, config, drain.clone(), sender, refuse));
        let mut silent = Vec::new();
        for _ in 0..HANDSHAKES / 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut one_more = TcpStream::connect(address).await.unwrap();
        assert_eq!(one_more.read(&mut [0]).await.unwrap(), 0, "closed at once");
        assert!(refused.recv().await.unwrap().contains("under way already"));
        drain.cancel();
        server.await.unwrap();
        assert!(refused.recv().await.is_none(), "no handshake ran into its timeout");
    }
}
