//! The signs of a connection's life, taken from the bytes that pass.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong, Reason};
use rustls::AlertDescription;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    frames::{Frames, GoingAway, Windows},
    problem::{Problem, is_about_the_certificate},
};

/// Parts of [`Keepalive::hold`] after which another PING may ask whether what was
/// sent has arrived.
const QUESTIONS: u32 = 8;

/// What grpc-go says to whoever sends more PINGs than it likes.
const TOO_MANY_PINGS: &[u8] = b"too_many_pings";

/// How the peer's life is watched.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// A PING is sent when nothing came for this long, or no message for this long
    /// since bytes were sent. A grpc-go server with default settings takes more
    /// than two PINGs within five minutes for an attack, unless it sent messages
    /// in between, which its heartbeats are: after one of them a PING costs nothing.
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

/// What is known of a connection's peer.
#[derive(Debug)]
pub(crate) struct Life {
    state: Mutex<State>,
    spoke: Notify,
    /// Cancelled when the peer wants no new streams here (GOAWAY).
    pub going_away: CancellationToken,
    /// Cancelled when the connection is closed.
    pub dead: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    last_read: Option<Instant>,
    frames: Frames,
    /// Bytes of DATA that have left.
    sent: u64,
    /// When the last of them did.
    sent_at: Option<Instant>,
    /// When the last PING was sent that has been answered.
    proven: Option<Instant>,
    fault: Option<Fault>,
}

/// Why reading or writing ended.
#[derive(Debug)]
enum Fault {
    Alert(AlertDescription),
    Io(String),
    Silent,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            spoke: Notify::new(),
            going_away: CancellationToken::new(),
            dead: CancellationToken::new(),
        }
    }

    /// Whatever had left by then was read by the peer's HTTP/2, for it answered a
    /// PING that came behind it.
    pub(crate) fn proven(&self) -> Option<Instant> {
        self.state().proven
    }

    /// When the peer's last byte came.
    fn last_read(&self) -> Option<Instant> {
        self.state().last_read
    }

    /// The peer's windows as far as they are known.
    pub(crate) fn windows(&self) -> Windows {
        self.state().frames.windows()
    }

    /// Resolves once a byte has come. For one waiter.
    pub(crate) async fn first_word(&self) {
        if self.last_read().is_none() {
            self.spoke.notified().await;
        }
    }

    /// Bytes of DATA have left.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut state = self.state();
        state.sent += bytes as u64;
        state.sent_at = Some(Instant::now());
    }

    /// Sends a PING whenever nothing came for the interval, and now and then while
    /// it is not known whether what was sent has arrived; returns when nothing
    /// came after one, neither its answer nor anything else.
    pub(crate) async fn keep(&self, mut pings: PingPong, keepalive: Keepalive) {
        let begun = Instant::now();
        let last_sign = || self.last_read().unwrap_or(begun);
        // When the last PING was sent, and the frames of DATA that had come by then.
        let mut asked = (begun, 0);
        loop {
            let (now, due) = (Instant::now(), last_sign() + keepalive.interval);
            let due = self.open_question(asked, keepalive).map_or(due, |question| question.min(due));
            if now < due {
                sleep_until(due.min(now + keepalive.hold() / QUESTIONS)).await;
                continue;
            }
            asked = (now, self.state().frames.data());
            let mut answer = std::pin::pin!(pings.ping(Ping::opaque()));
            loop {
                let patience = last_sign().max(asked.0) + keepalive.timeout;
                tokio::select! {
                    biased;
                    answered = &mut answer => match answered {
                        Ok(_) => break,
                        // The connection is closed already.
                        Err(_) => return,
                    },
                    () = sleep_until(patience) => {}
                }
                if last_sign().max(asked.0) + keepalive.timeout <= Instant::now() {
                    self.state().fault.get_or_insert(Fault::Silent);
                    return;
                }
            }
            self.state().proven = Some(asked.0);
        }
    }

    /// When a PING is to ask whether something arrived, if that is not known of all
    /// that has left.
    fn open_question(&self, (at, heard): (Instant, u64), keepalive: Keepalive) -> Option<Instant> {
        let state = self.state();
        let pause =
            if state.frames.data() > heard { keepalive.hold() / QUESTIONS } else { keepalive.interval };
        (at < state.sent_at? + keepalive.hold()).then_some(at + pause)
    }

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        let sent = state.sent;
        state.frames.read(bytes, sent);
        if state.frames.going_away().is_some() {
            self.going_away.cancel();
        }
        if state.last_read.replace(Instant::now()).is_none() {
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

    /// Why the connection ended.
    pub(crate) fn problem(&self, server: &str) -> Problem {
        let server = server.to_owned();
        let state = self.state();
        let reason = match (&state.fault, state.frames.going_away()) {
            (Some(Fault::Alert(alert)), _) if is_about_the_certificate(*alert) => {
                return Problem::CertificateRefused { server, alert: *alert };
            }
            (Some(Fault::Alert(alert)), _) => format!("the server broke TLS off ({alert:?})"),
            (_, Some(GoingAway { words, .. })) if words == TOO_MANY_PINGS => {
                return Problem::TooManyPings(server);
            }
            (_, Some(GoingAway { reason: Reason::NO_ERROR, .. })) => "the server asked for it".to_owned(),
            (_, Some(GoingAway { reason, words })) => {
                format!("the server ended it ({reason:?} \"{}\")", words.escape_ascii())
            }
            (Some(Fault::Io(error)), None) => error.clone(),
            (Some(Fault::Silent), None) => "the server answers no PING any more".to_owned(),
            (None, None) => "the server closed it".to_owned(),
        };
        Problem::ConnectionLost { server, reason }
    }

    /// Nothing here can be left half done by a panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport whose life is watched.
pub(crate) struct Watched<T> {
    transport: T,
    life: Arc<Life>,
    /// Says that the connection is gone when HTTP/2 drops it.
    _dead: DropGuard,
}

impl<T> Watched<T> {
    pub(crate) fn new(transport: T, life: &Arc<Life>) -> Self {
        Self { transport, life: Arc::clone(life), _dead: life.dead.clone().drop_guard() }
    }

    fn note<R>(&self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(error)) = &result {
            self.life.failed(error);
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.transport).poll_read(cx, buffer));
        match &result {
            Ok(()) => self.life.read(&buffer.filled()[before..]),
            Err(error) => self.life.failed(error),
        }
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write(cx, bytes);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write_vectored(cx, slices);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_flush(cx);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
