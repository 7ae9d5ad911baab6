//! The calling end: one connection attempt, and why it failed in words.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::proxy::{self, Proxy};

/// One address gets this long to accept a connection and shake hands, and a
/// proxy to make a tunnel.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What a proxy says before the tunnel begins is no longer.
const HEAD_BYTES: usize = 16 * 1024;

/// Where to connect and whom to expect there.
#[derive(Clone)]
pub struct Target {
    /// DNS name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name that the server's certificate must carry.
    pub server_name: String,
    /// Trust roots, and our own certificate if the server asks for one.
    pub config: Arc<ClientConfig>,
    /// Whom the way there leads over.
    pub proxy: Option<Proxy>,
}

/// Why a connection attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("the name {host} can't be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nothing answered at the address.
    #[error("{host}:{port} can't be reached: {source}")]
    Reach {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// The last address's failure.
        source: io::Error,
    },
    /// The proxy can't be reached or makes no tunnel.
    #[error("the proxy {proxy} {reason}")]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// What it did.
        reason: String,
        /// The HTTP status of its answer, if it gave one.
        status: Option<u16>,
    },
    /// The server's certificate is signed by nobody whom we trust.
    #[error("the server's certificate is signed by an authority that we do not trust")]
    Untrusted,
    /// The server's certificate is good for nobody, such as one that has expired.
    #[error("the server's certificate is not good: {0}")]
    BadCertificate(String),
    /// The server's certificate is for other names.
    #[error("the server's certificate is for another name: {0}")]
    WrongName(String),
    /// The server broke the handshake off, saying why.
    #[error("the server refused the TLS handshake: {0:?}")]
    Refused(AlertDescription),
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The expected name is no DNS name or address.
    #[error("{0:?} is not a usable server name")]
    ServerName(String),
}

impl Target {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let name = ServerName::try_from(self.server_name.clone())
            .map_err(|_| ConnectError::ServerName(self.server_name.clone()))?;
        let stream = match &self.proxy {
            None => reach(&self.host, self.port).await?,
            Some(proxy) => self.tunnel(proxy).await?,
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        match timeout(TIMEOUT, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(handshake_error(&error)),
            Err(_) => Err(ConnectError::Handshake("no answer in 10 s".to_owned())),
        }
    }

    /// A connection that the proxy has made to the server.
    async fn tunnel(&self, proxy: &Proxy) -> Result<TcpStream, ConnectError> {
        let failed = |reason, status| ConnectError::Proxy { proxy: proxy.to_string(), reason, status };
        let mut stream = reach(&proxy.host, proxy.port).await.map_err(|error| match error {
            ConnectError::Resolve { source, .. } => failed(format!("can't be resolved: {source}"), None),
            ConnectError::Reach { source, .. } => failed(format!("can't be reached: {source}"), None),
            other => other,
        })?;
        let request = proxy.request(&self.host, self.port);
        let head = async {
            stream.write_all(request.as_bytes()).await?;
            let mut head = Vec::new();
            // Byte by byte: what comes after the head belongs to the server.
            while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(head)
        };
        let head = match timeout(TIMEOUT, head).await {
            Ok(head) => head.map_err(|error| failed(format!("broke off: {error}"), None))?,
            Err(_) => return Err(failed("does not answer within 10 s".to_owned(), None)),
        };
        match proxy::status(&head) {
            Some((200..300, _)) => Ok(stream),
            Some((status, line)) => {
                let server = format!("{}:{}", self.host, self.port);
                Err(failed(format!("makes no tunnel to {server}: it answers {line:?}"), Some(status)))
            }
            None => Err(failed("does not speak HTTP".to_owned(), None)),
        }
    }
}

/// A TCP connection to the first address that accepts one.
///
/// # Errors
/// [`ConnectError::Resolve`] and [`ConnectError::Reach`].
pub async fn reach(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let resolve = |source| ConnectError::Resolve { host: host.to_owned(), source };
    let addresses = timeout(TIMEOUT, lookup_host((host, port)))
        .await
        .map_err(|_| resolve(io::Error::new(io::ErrorKind::TimedOut, "no answer in 10 s")))?
        .map_err(resolve)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _best_effort = stream.set_nodelay(true);
                let _best_effort = SockRef::from(&stream).set_tcp_keepalive(&keepalive());
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer in 10 s"),
        }
    }
    Err(ConnectError::Reach { host: host.to_owned(), port, source: last })
}

/// Whoever only reads hears of a peer that is gone without a word, after a minute and a half.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3)
}

fn handshake_error(error: &io::Error) -> ConnectError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => ConnectError::Untrusted,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ConnectError::WrongName(problem.to_string())
            }
            other => ConnectError::BadCertificate(other.to_string()),
        },
        Some(rustls::Error::AlertReceived(alert)) => ConnectError::Refused(*alert),
        Some(other) => ConnectError::Handshake(other.to_string()),
        None => ConnectError::Handshake(error.to_string()),
    }
}

/// A [`Target`] in the form that HTTP clients take: every call is one
/// connection attempt, whatever URI it is given.
#[derive(Clone)]
pub struct Connector(pub Target);

impl<U> tower::Service<U> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: U) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move { target.connect().await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use tokio::{net::TcpListener, sync::mpsc};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::tls::{authority::Authority, roots, server};

    struct Server {
        port: u16,
        certificate: Arc<server::ServingCertificate>,
        refusals: mpsc::UnboundedReceiver<String>,
        drain: CancellationToken,
    }

    /// A server that greets everyone who completes the handshake.
    async fn server(authority: &Authority) -> Server {
        let certificate = Arc::new(server::ServingCertificate::default());
        certificate.replace(leaf(authority));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, mut connections) = mpsc::channel(1);
        let (refused, refusals) = mpsc::unbounded_channel();
        let drain = CancellationToken::new();
        tokio::spawn(server::accept(
            listener,
            server::config(Arc::clone(&certificate), &["h2"]),
            drain.clone(),
            accepted,
            move |_, why| refused.send(why).unwrap(),
        ));
        tokio::spawn(async move {
            while let Some((mut stream, _)) = connections.recv().await {
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Server { port, certificate, refusals, drain }
    }

    fn leaf(authority: &Authority) -> rustls::sign::CertifiedKey {
        authority.server_certificate(&["localhost".to_owned()], Duration::from_secs(60)).unwrap()
    }

    fn target(port: u16, roots: RootCertStore, server_name: &str) -> Target {
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let config = Arc::new(config);
        Target { host: "127.0.0.1".into(), port, server_name: server_name.into(), config, proxy: None }
    }

    fn trusting(authority: &Authority) -> RootCertStore {
        roots(authority.certificate_pem().as_bytes()).unwrap()
    }

    async fn greeting(target: &Target) -> Result<String, ConnectError> {
        let mut text = String::new();
        target.connect().await?.read_to_string(&mut text).await.unwrap();
        Ok(text)
    }

    #[tokio::test]
    async fn a_replaced_certificate_is_shown_from_the_next_handshake_on() {
        crate::tls::install_provider();
        let (old, new) = (Authority::generate("old").unwrap(), Authority::generate("new").unwrap());
        let server = server(&old).await;
        // A fresh client each time: a resumed session shows no certificate.
        let trusts_old = || target(server.port, trusting(&old), "localhost");
        let trusts_new = || target(server.port, trusting(&new), "localhost");
        assert_eq!(greeting(&trusts_old()).await.unwrap(), "hello");
        let error = greeting(&trusts_new()).await.unwrap_err();
        assert!(error.to_string().contains("authority that we do not trust"), "{error}");
        server.certificate.replace(leaf(&new));
        assert_eq!(greeting(&trusts_new()).await.unwrap(), "hello");
        assert!(greeting(&trusts_old()).await.is_err());
        server.drain.cancel();
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_without_a_word_is_noticed() {
        crate::tls::install_provider();
        let authority = Authority::generate("test").unwrap();
        let server = server(&authority).await;
        let stream = target(server.port, trusting(&authority), "localhost").connect().await.unwrap();
        let socket = SockRef::from(stream.get_ref().0);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        server.drain.cancel();
    }

    #[tokio::test]
    async fn every_failure_says_which_side_has_to_change() {
        crate::tls::install_provider();
        let authority = Authority::generate("test").unwrap();
        let mut server = server(&authority).await;
        let wrong_name = greeting(&target(server.port, trusting(&authority), "cloud.example")).await;
        assert!(matches!(wrong_name, Err(ConnectError::WrongName(_))), "{wrong_name:?}");
        let mut plain = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let refusal = loop {
            let refusal = server.refusals.recv().await.unwrap();
            if refusal.contains("plain text") {
                break refusal;
            }
        };
        assert_eq!(refusal, "does not speak TLS (plain text?)");
        server.drain.cancel();

        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let nobody = greeting(&target(closed, trusting(&authority), "localhost")).await;
        assert!(matches!(nobody, Err(ConnectError::Reach { .. })), "{nobody:?}");
        let mut nameless = target(closed, trusting(&authority), "localhost");
        nameless.host = "no-such-host.invalid".into();
        assert!(matches!(greeting(&nameless).await, Err(ConnectError::Resolve { .. })));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (Authority::generate("one").unwrap(), Authority::generate("other").unwrap());
        let mixed = crate::tls::certified_key(one.certificate_pem().as_bytes(), other.key_pem().as_bytes());
        assert!(matches!(mixed, Err(crate::tls::Invalid::Mismatch)), "{mixed:?}");
        assert!(Authority::from_pem(one.certificate_pem(), other.key_pem()).is_err());
        assert!(crate::tls::roots(b"nothing").is_err());
    }
}
