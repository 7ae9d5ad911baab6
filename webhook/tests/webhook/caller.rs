//! The API server as a client: TLS with the bundle of the configuration, and a review.

use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, client::conn, header::HOST};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kestrel_runtime::tls::{
    client::{ConnectError, Target},
    roots,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Whom to call, and whom to trust for it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) port: u16,
    pub(crate) bundle: String,
    pub(crate) protocol: Protocol,
}

impl Caller {
    /// A connection that is past the TLS handshake.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots(self.bundle.as_bytes()).unwrap())
            .with_no_client_auth();
        config.alpn_protocols = match self.protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        let target = Target {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            server_name: "localhost".to_owned(),
            config: Arc::new(config),
            proxy: None,
        };
        target.connect().await
    }

    /// One request on a connection of its own.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &str) -> Result<Reply, ConnectError> {
        let stream = TokioIo::new(self.connect().await?);
        let body = Full::new(Bytes::from(body.to_owned()));
        let request = Request::builder().method(method);
        let response = match self.protocol {
            Protocol::Http1 => {
                let request = request.uri(path).header(HOST, "localhost").body(body).unwrap();
                let (mut sender, connection) = conn::http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
            Protocol::Http2 => {
                let request = request.uri(format!("https://localhost{path}")).body(body).unwrap();
                let (mut sender, connection) =
                    conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}
