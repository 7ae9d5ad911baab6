//! What the uplink is at this moment, for the people who look at it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;

use super::stream::Stream;

/// The uplink at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Host and port of the server.
    pub server: String,
    /// The connection, if there is one.
    pub connection: Option<ConnectionState>,
    /// Connections made since the start.
    pub connections: u64,
    /// Why there is none, or why the last one ended.
    pub problem: Option<String>,
    /// The five streams.
    pub streams: [StreamState; 5],
}

/// A connection at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionState {
    /// When it was made.
    pub since: Timestamp,
    /// A new one is being made that takes its place: the server said GOAWAY, or
    /// there are new credentials.
    pub leaving: bool,
    /// A sentence, if the server's windows are such that one slow stream can
    /// delay the others.
    pub narrow: Option<String>,
}

/// A stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// `data`, `control`, `flows`, `events` or `logs`.
    pub name: &'static str,
    /// Whether it carries anything.
    pub phase: Phase,
    /// Why it ended last.
    pub problem: Option<String>,
    /// Times it was opened.
    pub opened: u64,
    /// What left for the server, repeats included.
    pub sent: Traffic,
    /// What came from the server, heartbeats included.
    pub received: Traffic,
    /// Messages that were sent and would be sent again if it ended now.
    pub unsettled: u64,
}

impl StreamState {
    /// Whether the server answers on it.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }
}

/// What passed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// gRPC messages.
    pub messages: u64,
    /// Their bytes, envelopes included.
    pub bytes: u64,
}

/// Whether a stream carries anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its next attempt, or for a connection.
    #[default]
    Closed,
    /// It was asked for, and the server has not answered yet.
    Opening,
    /// Open since then.
    Open(Timestamp),
    /// The server does not offer it: the data stream carries its messages.
    Fallback,
}

/// Where the parts of the uplink write what [`State`] is made of; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    connection: Mutex<Option<ConnectionState>>,
    connections: AtomicU64,
    streams: [StreamParts; 5],
}

#[derive(Debug, Default)]
struct StreamParts {
    told: Mutex<(Phase, Option<String>)>,
    opened: AtomicU64,
    sent: Counters,
    received: Counters,
    unsettled: AtomicU64,
}

#[derive(Debug, Default)]
struct Counters {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    fn read(&self) -> Traffic {
        let [messages, bytes] = [&self.messages, &self.bytes].map(|counter| counter.load(Ordering::Relaxed));
        Traffic { messages, bytes }
    }
}

/// Nothing here can be left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// Everything at this moment.
    pub(crate) fn read(&self, server: String, problem: Option<String>) -> State {
        let streams = Stream::ALL.map(|stream| {
            let parts = self.of(stream);
            let (phase, problem) = lock(&parts.told).clone();
            StreamState {
                name: stream.name(),
                phase,
                problem,
                opened: parts.opened.load(Ordering::Relaxed),
                sent: parts.sent.read(),
                received: parts.received.read(),
                unsettled: parts.unsettled.load(Ordering::Relaxed),
            }
        });
        let connections = self.0.connections.load(Ordering::Relaxed);
        State { server, connection: lock(&self.0.connection).clone(), connections, problem, streams }
    }

    /// There is a connection.
    pub(crate) fn connected(&self) {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        let state = ConnectionState { since: Timestamp::now(), leaving: false, narrow: None };
        *lock(&self.0.connection) = Some(state);
    }

    /// Something about the connection is new.
    pub(crate) fn connection(&self, change: impl FnOnce(&mut ConnectionState)) {
        if let Some(connection) = lock(&self.0.connection).as_mut() {
            change(connection);
        }
    }

    /// There is no connection any more.
    pub(crate) fn disconnected(&self) {
        *lock(&self.0.connection) = None;
    }

    /// A stream is in another phase.
    pub(crate) fn phase(&self, stream: Stream, phase: Phase) {
        let parts = self.of(stream);
        if phase == Phase::Opening {
            parts.opened.fetch_add(1, Ordering::Relaxed);
        }
        let mut told = lock(&parts.told);
        told.0 = phase;
        if matches!(phase, Phase::Open(_)) {
            told.1 = None;
        }
    }

    /// Why a stream ended.
    pub(crate) fn problem(&self, stream: Stream, problem: String) {
        lock(&self.of(stream).told).1 = Some(problem);
    }

    /// Bytes have left for the server; `ended`: with them a message has.
    pub(crate) fn sent(&self, stream: Stream, bytes: usize, ended: bool) {
        let Counters { messages, bytes: total } = &self.of(stream).sent;
        total.fetch_add(bytes as u64, Ordering::Relaxed);
        messages.fetch_add(u64::from(ended), Ordering::Relaxed);
    }

    /// Bytes have come from the server.
    pub(crate) fn received(&self, stream: Stream, bytes: usize) {
        self.of(stream).received.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A message has come from the server.
    pub(crate) fn message(&self, stream: Stream) {
        self.of(stream).received.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// So many messages are in the resend window.
    pub(crate) fn unsettled(&self, stream: Stream, count: usize) {
        self.of(stream).unsettled.store(count as u64, Ordering::Relaxed);
    }

    fn of(&self, stream: Stream) -> &StreamParts {
        &self.0.streams[stream as usize]
    }
}
