//! One TLS connection with HTTP/2 on it, and the signs of its life.
//!
//! Below tonic's channel on purpose: that one would reconnect by itself with
//! the credentials of yesterday, and hides when a connection died, why, and
//! whether the peer answers PINGs.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::Uri;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use kestrel_runtime::tls::client::Target;
use rustls::AlertDescription;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    outbound::RequestBody,
    problem::{Problem, is_about_the_certificate},
};

/// A server that has shaken hands gets this long to say its first HTTP/2 word.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Bytes of a stream that HTTP/2 takes before they can be sent. A message that
/// is more urgent waits behind no more than this, beside what is under way.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes that the kernel takes without having sent them: a link of 10 kB/s
/// sends them well within the time in the resend window.
const UNSENT: u32 = 64 * 1024;

/// How the peer's life is watched.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// A PING is sent when nothing came for this long. A grpc-go server with
    /// default settings takes more than two PINGs within five minutes for an
    /// attack, unless it sent something in between, which its heartbeats are.
    pub interval: Duration,
    /// Its answer must come within this.
    pub timeout: Duration,
}

impl Keepalive {
    /// How long a message stays in the resend window at least: a peer that did
    /// not take it has by then cost the connection.
    pub fn hold(self) -> Duration {
        self.interval + self.timeout
    }
}

/// An open connection. Its drop closes it at once, with everything on it.
pub(crate) struct Connection {
    /// Opens streams.
    pub requests: SendRequest<RequestBody>,
    /// Scheme and authority of every request.
    pub origin: Uri,
    /// What is known of the peer.
    pub life: Arc<Life>,
    /// Host and port, for people.
    pub server: String,
    tasks: Tasks,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.lock().abort_all();
    }
}

impl Connection {
    /// Connects, shakes hands and waits for the server's first HTTP/2 frame: a
    /// server that does not like our certificate says so only after the
    /// handshake (TLS 1.3).
    ///
    /// # Errors
    /// A sentence for whoever can mend it.
    pub(crate) async fn open(target: &Target, keepalive: Keepalive) -> Result<Self, Problem> {
        let server = format!("{}:{}", target.host, target.port);
        let connect = |error| Problem::Connect { server: server.clone(), error };
        let stream = target.connect().await.map_err(connect)?;
        bound_by_the_kernel(stream.get_ref().0, keepalive);
        let dead = CancellationToken::new();
        let life = Arc::new(Life::new(keepalive.timeout, dead.clone()));
        let watched = Watched { stream, life: Arc::clone(&life), _dead: dead.drop_guard() };
        let tasks = Tasks::default();
        let (requests, driver) = Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(keepalive.interval)
            .keep_alive_timeout(keepalive.timeout)
            .keep_alive_while_idle(true)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(watched))
            .await
            .map_err(|_| life.problem(&server))?;
        hyper::rt::Executor::execute(&tasks, async {
            // Why it ended is in `life`.
            let _ended = driver.await;
        });
        let origin = Uri::builder().scheme("https").authority(authority(target)).path_and_query("/").build();
        let origin = origin.map_err(|_| Problem::NotHttp2(server.clone()))?;
        let connection = Self { requests, origin, life, server, tasks };
        tokio::select! {
            spoke = timeout(FIRST_WORD, connection.life.first_word()) => {
                spoke.map_err(|_| Problem::NotHttp2(connection.server.clone()))?;
            }
            () = connection.life.dead.cancelled() => {
                return Err(match connection.life.problem(&connection.server) {
                    Problem::ConnectionLost { server, .. } => Problem::NotHttp2(server),
                    problem => problem,
                });
            }
        }
        Ok(connection)
    }
}

/// Makes the kernel give up on bytes that the peer does not take, even if the
/// peer goes on talking, and keep few that it has not sent; see `window`. A
/// kernel that knows no such option is only slower to notice.
fn bound_by_the_kernel(stream: &TcpStream, keepalive: Keepalive) {
    let socket = SockRef::from(stream);
    let _best_effort = socket.set_tcp_user_timeout(Some(keepalive.timeout));
    let _best_effort = socket.set_tcp_notsent_lowat(UNSENT);
}

/// What gRPC calls the authority: the name that the certificate carries.
fn authority(target: &Target) -> String {
    let Target { server_name, port, .. } = target;
    if server_name.contains(':') {
        format!("[{server_name}]:{port}")
    } else {
        format!("{server_name}:{port}")
    }
}

/// The tasks in which hyper drives a connection, ended with it.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let mut tasks = self.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// What is known of a connection's peer.
#[derive(Debug)]
pub(crate) struct Life {
    state: Mutex<State>,
    spoke: Notify,
    /// How long a PING may wait for its answer.
    patience: Duration,
    /// Cancelled when the connection is closed, or should be.
    pub dead: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    last_read: Option<Instant>,
    fault: Option<Fault>,
}

/// Why reading or writing ended.
#[derive(Debug)]
enum Fault {
    Alert(AlertDescription),
    Io(String),
    TooManyPings,
}

impl Life {
    fn new(patience: Duration, dead: CancellationToken) -> Self {
        Self { state: Mutex::default(), spoke: Notify::new(), patience, dead }
    }

    /// When the peer's last byte came.
    pub(crate) fn last_read(&self) -> Option<Instant> {
        self.state().last_read
    }

    fn spoke(&self) -> bool {
        self.last_read().is_some()
    }

    /// Resolves once a byte has come. For one waiter.
    async fn first_word(&self) {
        if !self.spoke() {
            self.spoke.notified().await;
        }
    }

    fn read(&self, count: usize) {
        if count > 0 && self.state().last_read.replace(Instant::now()).is_none() {
            self.spoke.notify_one();
        }
    }

    fn failed(&self, error: &io::Error) {
        let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let mut state = self.state();
        match rustls {
            // The server's own word explains more than what followed from it.
            Some(rustls::Error::AlertReceived(alert)) => state.fault = Some(Fault::Alert(*alert)),
            _ => {
                state.fault.get_or_insert_with(|| Fault::Io(error.to_string()));
            }
        }
    }

    /// The server said so when it ended the connection.
    pub(crate) fn pings_too_many(&self) {
        self.state().fault = Some(Fault::TooManyPings);
    }

    /// The peer answers PINGs, but takes nothing on a stream.
    pub(crate) fn takes_nothing(&self, stream: &str) {
        let reason = format!("the server takes nothing on the {stream} stream any more");
        self.state().fault = Some(Fault::Io(reason));
    }

    /// Why the connection ended.
    pub(crate) fn problem(&self, server: &str) -> Problem {
        let server = server.to_owned();
        let state = self.state();
        let silent = state.last_read.is_none_or(|last| last.elapsed() >= self.patience);
        let reason = match &state.fault {
            Some(Fault::Alert(alert)) if is_about_the_certificate(*alert) => {
                return Problem::CertificateRefused { server, alert: *alert };
            }
            Some(Fault::Alert(alert)) => format!("the server broke TLS off ({alert:?})"),
            Some(Fault::Io(error)) => error.clone(),
            Some(Fault::TooManyPings) => return Problem::TooManyPings(server),
            None if silent => "the server answers no PING any more".to_owned(),
            None => "the server closed it".to_owned(),
        };
        Problem::ConnectionLost { server, reason }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that notes what passes through it.
struct Watched<S> {
    stream: S,
    life: Arc<Life>,
    /// Says that the connection is gone when hyper drops it.
    _dead: DropGuard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match &result {
            Ok(()) => self.life.read(buffer.filled().len() - before),
            Err(error) => self.life.failed(error),
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.life.failed(error);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
