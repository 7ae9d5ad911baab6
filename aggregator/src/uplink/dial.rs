//! How a way to the server is opened. The simulation opens another one.

use futures::future::BoxFuture;
use kestrel_runtime::tls::client::Target;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{Config, life::Keepalive, problem::Problem};

/// Bytes that TLS, and again the kernel, take without having sent them: what is
/// urgent waits behind them, and a link of 10 kB/s sends them well within the
/// time in the resend window.
const UNSENT: usize = 8 * 1024;

/// What HTTP/2 is spoken over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Opens ways to the server.
pub(crate) trait Dial: Send + Sync {
    /// One attempt. The error is a sentence for whoever can mend it.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Transport>, Problem>>;

    /// Resolves when [`Self::dial`] would show or trust something else than it did last.
    fn changed(&self) -> BoxFuture<'_, ()>;
}

impl Dial for Config {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Transport>, Problem>> {
        Box::pin(async {
            let target = Target {
                host: self.host.clone(),
                port: self.port,
                server_name: self.server_name.clone(),
                config: self.credentials.tls().await?,
                proxy: self.proxy.clone(),
            };
            let mut stream =
                target.connect().await.map_err(|error| Problem::Connect { server: self.server(), error })?;
            let (socket, tls) = stream.get_mut();
            tls.set_buffer_limit(Some(UNSENT));
            bound_by_the_kernel(socket, self.keepalive);
            Ok(Box::new(stream) as _)
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.credentials.changed())
    }
}

impl Config {
    /// Host and port, for people.
    pub(crate) fn server(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What gRPC calls the authority: the name that the certificate carries.
    pub(crate) fn authority(&self) -> String {
        let Self { server_name, port, .. } = self;
        if server_name.contains(':') {
            format!("[{server_name}]:{port}")
        } else {
            format!("{server_name}:{port}")
        }
    }
}

/// Makes the kernel give up on bytes that the peer does not take, even if the
/// peer goes on talking, and keep few that it has not sent; see `window`. A
/// kernel that knows no such option is only slower to notice.
fn bound_by_the_kernel(stream: &TcpStream, keepalive: Keepalive) {
    let socket = SockRef::from(stream);
    let _best_effort = socket.set_tcp_user_timeout(Some(keepalive.timeout));
    let _best_effort = socket.set_tcp_notsent_lowat(UNSENT as u32);
}
