//! TLS connections: who may open one, and how all of them are cut at once.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;
use tracing::{debug, info};
use x509_parser::parse_x509_certificate;

use crate::{credentials::Authority, hub::Hub, record::connections::ClientCertificate};

/// Handshakes that are under way at once.
const MAX_HANDSHAKES: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Names that are always in the server certificate.
const LOCAL_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "kestrel-cloud"];

/// A TLS configuration with a fresh server certificate for `names`, which
/// lets in only who has a certificate of `authority`.
pub(super) fn tls(authority: &Authority, names: &[String]) -> anyhow::Result<TlsAcceptor> {
    let names: Vec<String> =
        LOCAL_NAMES.iter().map(ToString::to_string).chain(names.iter().cloned()).collect();
    let identity = authority.server(&names).context("the server certificate cannot be made")?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The way from the handshakes to the gRPC server.
pub(super) fn channel() -> (mpsc::Sender<io::Result<Connection>>, ReceiverStream<io::Result<Connection>>) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, ReceiverStream::new(receiver))
}

/// Accepts connections until the cloud stops.
pub(super) async fn run(
    listener: TcpListener,
    tls: TlsAcceptor,
    hub: Arc<Hub>,
    connections: mpsc::Sender<io::Result<Connection>>,
) -> anyhow::Result<()> {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return Ok(()),
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match accepted {
                Ok((socket, peer)) => {
                    let (tls, hub, connections) = (tls.clone(), Arc::clone(&hub), connections.clone());
                    handshakes.spawn(async move {
                        if let Some(connection) = handshake(tls, socket, peer, hub).await {
                            // An error means that the server has ended.
                            let _ = connections.send(Ok(connection)).await;
                        }
                    });
                }
                // A connection that died before it was accepted, or no file descriptors left for now.
                Err(error) => {
                    info!("A connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}

async fn handshake(
    tls: TlsAcceptor,
    socket: TcpStream,
    peer: SocketAddr,
    hub: Arc<Hub>,
) -> Option<Connection> {
    let mut first = [0];
    let arrived = async {
        // Whoever only looks whether the port is open is no refused client.
        if socket.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        socket.set_nodelay(true)?;
        tls.accept(socket).await.map(Some)
    };
    match timeout(HANDSHAKE_LIMIT, arrived).await {
        Ok(Ok(Some(io))) => Some(Connection::new(io, peer, hub)),
        Ok(Ok(None)) => None,
        Ok(Err(error)) => {
            hub.refuse(peer, "handshake", error.to_string());
            None
        }
        Err(_) => {
            hub.refuse(peer, "handshake", format!("not done within {} s", HANDSHAKE_LIMIT.as_secs()));
            None
        }
    }
}

/// A connection that ends when the cloud cuts it.
pub(super) struct Connection {
    io: TlsStream<TcpStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    info: Info,
    hub: Arc<Hub>,
}

/// What an RPC knows of its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
}

impl Connection {
    fn new(io: TlsStream<TcpStream>, peer: SocketAddr, hub: Arc<Hub>) -> Self {
        let certificate = io.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map(client_certificate).unwrap_or_default();
        info!("Connected: {peer} with the certificate {}", certificate.subject);
        hub.note("connection", format!("{peer} connected with the certificate {}", certificate.subject));
        let id = hub.change(|record| record.connections.open(peer, certificate, Timestamp::now()));
        Self { io, cut: Box::pin(hub.cut().cancelled_owned()), info: Info { id, peer }, hub }
    }

    fn check_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

fn client_certificate(certificate: &CertificateDer<'_>) -> ClientCertificate {
    match parse_x509_certificate(certificate) {
        Ok((_, parsed)) => ClientCertificate {
            subject: parsed.subject().to_string(),
            serial: parsed.serial.to_str_radix(16),
        },
        Err(error) => {
            debug!("A client certificate cannot be read: {error}");
            ClientCertificate::default()
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Info { id, peer } = self.info;
        info!("Disconnected: {peer}");
        self.hub.note("connection", format!("{peer} disconnected"));
        self.hub.change(|record| record.connections.close(id, Timestamp::now()));
    }
}

impl Connected for Connection {
    type ConnectInfo = Info;

    fn connect_info(&self) -> Info {
        self.info
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
