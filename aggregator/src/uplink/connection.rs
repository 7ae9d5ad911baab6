//! One connection with HTTP/2 on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use h2::client::{Builder, SendRequest};
use http::{Uri, uri::PathAndQuery};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    chunk::Chunk,
    dial::Transport,
    life::{Keepalive, Life, Watched},
    problem::Problem,
};

/// A server that has shaken hands gets this long to say its first HTTP/2 word.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// A closing connection gets this long to say so.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Bytes of a stream that HTTP/2 takes before they can be sent. A message that
/// is more urgent waits behind no more than this, beside what is under way.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;
/// Bytes that the server may send ahead of our reading, on a stream …
const STREAM_WINDOW: u32 = 1024 * 1024;
/// … and on all of them: more than five streams can hold, so that none of them
/// can stop another.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// What the server may say in headers.
const HEADERS: u32 = 64 * 1024;

/// An open connection. Its drop closes it at once, with everything on it.
pub(crate) struct Connection {
    requests: Mutex<Option<SendRequest<Chunk>>>,
    /// Scheme and authority of every request.
    origin: Uri,
    /// What is known of the peer.
    pub life: Arc<Life>,
    /// Host and port, for people.
    pub server: String,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Begins HTTP/2 and waits for the server's first frame: a server that does
    /// not like our certificate says so only after the handshake (TLS 1.3).
    ///
    /// # Errors
    /// A sentence for whoever can mend it.
    pub(crate) async fn open(
        transport: Box<dyn Transport>,
        server: String,
        authority: String,
        keepalive: Keepalive,
    ) -> Result<Self, Problem> {
        let not_http2 = || Problem::NotHttp2(server.clone());
        let origin = Uri::builder().scheme("https").authority(authority).path_and_query("/").build();
        let origin = origin.map_err(|_| not_http2())?;
        let life = Arc::new(Life::new());
        let (requests, mut driver) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(Watched::new(transport, &life))
            .await
            .map_err(|_| life.problem(&server))?;
        let pings = driver.ping_pong();
        let driver = tokio::spawn({
            let life = Arc::clone(&life);
            async move {
                let keep = async {
                    match pings {
                        Some(pings) => life.keep(pings, keepalive).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    // Why it ended is in `life`.
                    _ended = driver => {}
                    () = keep => {}
                }
            }
        });
        let driver = AbortOnDropHandle::new(driver);
        tokio::select! {
            biased;
            () = life.dead.cancelled() => {
                return Err(match life.problem(&server) {
                    Problem::ConnectionLost { server, .. } => Problem::NotHttp2(server),
                    problem => problem,
                });
            }
            spoke = timeout(FIRST_WORD, life.first_word()) => spoke.map_err(|_| not_http2())?,
        }
        Ok(Self { requests: Mutex::new(Some(requests)), origin, life, server, _driver: driver })
    }

    /// A handle to open a stream with; `None` once the connection is closed.
    pub(crate) fn requests(&self) -> Option<SendRequest<Chunk>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a request for `path` goes.
    pub(crate) fn uri(&self, path: &'static str) -> Uri {
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        // Scheme and authority are there, and the path is a constant.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Says goodbye, when no stream is in use any more.
    pub(crate) async fn close(&self) {
        // Without handles HTTP/2 ends by itself.
        drop(self.requests.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _in_time = timeout(LAST_WORD, self.life.dead.cancelled()).await;
    }
}
