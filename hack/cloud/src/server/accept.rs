//! TLS connections: who may open one, and how all of them are cut at once.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use kestrel_runtime::tls;
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
};
use rustls_pki_types::CertificateDer;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info};
use x509_parser::parse_x509_certificate;

use super::certificates::Certificates;
use crate::{hub::Hub, record::connections::ClientCertificate};

/// Names that are always in the server certificate.
const LOCAL_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "kestrel-cloud"];

/// What the kernel may take in ahead of a connection that is read slowly.
const SLOW_BUFFER: usize = 32 * 1024;
/// How far it may fall behind its rate and still catch up.
const SLOW_LAG: Duration = Duration::from_millis(10);
/// What is read of such a connection at once, at most.
const SLOW_PIECE: usize = 16 * 1024;

/// A TLS configuration with a fresh server certificate for `names`, which
/// lets in only who has a certificate of the hub's authority.
pub(super) fn config(hub: &Arc<Hub>, names: &[String]) -> anyhow::Result<Arc<ServerConfig>> {
    let names: Vec<String> =
        LOCAL_NAMES.iter().map(ToString::to_string).chain(names.iter().cloned()).collect();
    let certificate = hub.authority.server(&names).context("the server certificate cannot be made")?;
    let roots = Arc::new(tls::roots(hub.authority.certificate().as_bytes())?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots, tls::provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Certificates::new(clients, Arc::clone(hub))))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not show its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A connection that ends when the cloud cuts it.
pub(super) struct Connection {
    io: TlsStream<TcpStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    info: Info,
    hub: Arc<Hub>,
    /// Before the next piece of a connection that is read slowly.
    pause: Pin<Box<Sleep>>,
}

/// What an RPC knows of its connection.
#[derive(Clone, Debug)]
pub(super) struct Info {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    /// Cancelled when the connection is cut.
    pub(super) cut: CancellationToken,
}

impl Connection {
    pub(super) fn new(io: TlsStream<TcpStream>, peer: SocketAddr, hub: Arc<Hub>) -> Self {
        let certificate = io.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map(client_certificate).unwrap_or_default();
        info!("Connected: {peer} with the certificate {}", certificate.subject);
        hub.note("connection", format!("{peer} connected with the certificate {}", certificate.subject));
        let id = hub.change(|record| record.connections.open(peer, certificate, Timestamp::now()));
        let cut = hub.cut();
        let pause = Box::pin(sleep(Duration::ZERO));
        Self { io, cut: Box::pin(cut.clone().cancelled_owned()), info: Info { id, peer, cut }, hub, pause }
    }

    pub(super) fn info(&self) -> Info {
        self.info.clone()
    }

    /// Reads a tenth of a second's bytes or fewer, and waits for as long as they are worth.
    fn poll_read_slowly(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        rate: u32,
    ) -> Poll<io::Result<()>> {
        ready!(self.pause.as_mut().poll(context));
        // The kernel would take megabytes ahead.
        SockRef::from(self.io.get_ref().0).set_recv_buffer_size(SLOW_BUFFER)?;
        let rate = rate.max(1);
        let tenth = usize::try_from(rate.div_ceil(10)).unwrap_or(SLOW_PIECE);
        let most = tenth.min(SLOW_PIECE).min(buffer.remaining());
        let mut bytes = vec![0; most];
        let mut piece = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut piece))?;
        let count = u32::try_from(piece.filled().len()).unwrap_or(u32::MAX);
        buffer.put_slice(piece.filled());
        // From when it should have been read: the clock is coarse.
        let due = self.pause.deadline().max(Instant::now() - SLOW_LAG);
        self.pause.as_mut().reset(due + Duration::from_secs(1) * count / rate);
        Poll::Ready(Ok(()))
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
        let Info { id, peer, .. } = self.info;
        info!("Disconnected: {peer}");
        self.hub.note("connection", format!("{peer} disconnected"));
        self.hub.change(|record| record.connections.close(id, Timestamp::now()));
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        let rate = self.hub.faults().read_rate;
        match rate {
            Some(rate) => self.poll_read_slowly(context, buffer, rate),
            None => Pin::new(&mut self.io).poll_read(context, buffer),
        }
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
