//! Who connected, with which certificate, and who was refused.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use jiff::Timestamp;
use serde::Serialize;

use crate::wire::Stream;

/// Closed connections, refusals and openings of streams that are kept, each.
const MAX_PAST: usize = 1_000;
/// Certificates that are remembered, to tell a reconnect from a first connection.
const MAX_CERTIFICATES: usize = 1_000;

/// The client certificate of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ClientCertificate {
    /// The subject, such as `CN=local`.
    pub subject: String,
    /// The serial number in hexadecimal.
    pub serial: String,
}

/// One TLS connection.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// Counts up from 1.
    pub id: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// What it proved itself with.
    pub certificate: ClientCertificate,
    /// When its handshake was done.
    pub opened: Timestamp,
    /// When it ended.
    pub closed: Option<Timestamp>,
    /// Streams that are open on it.
    pub streams: BTreeMap<Stream, u32>,
    /// The clusters whose tokens it carried.
    pub clusters: BTreeSet<String>,
}

/// Something that was not let in.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// The other end.
    pub peer: SocketAddr,
    /// The RPC, or `handshake`.
    pub rpc: String,
    /// The sentence that the client was told.
    pub reason: String,
}

/// How often a stream was opened.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StreamCount {
    /// Open now.
    pub open: u32,
    /// Opened ever.
    pub opened: u64,
}

/// One opening of a stream.
#[derive(Clone, Debug, Serialize)]
pub struct Opening {
    /// Counts up over all streams.
    pub id: u64,
    /// The stream.
    pub stream: Stream,
    /// The connection's id.
    pub connection: u64,
    /// When the RPC was let in.
    pub opened: Timestamp,
    /// When it ended.
    pub closed: Option<Timestamp>,
    /// How it ended, in words.
    pub outcome: String,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Connections {
    open: BTreeMap<u64, Connection>,
    past: VecDeque<Connection>,
    refusals: VecDeque<Refusal>,
    certificates: BTreeSet<ClientCertificate>,
    streams: BTreeMap<Stream, StreamCount>,
    openings: VecDeque<Opening>,
    opened: u64,
    reconnects: u64,
    refused: u64,
}

impl Connections {
    /// A handshake was done; the connection's id.
    pub fn open(&mut self, peer: SocketAddr, certificate: ClientCertificate, now: Timestamp) -> u64 {
        self.opened += 1;
        let known = self.certificates.contains(&certificate);
        self.reconnects += u64::from(known);
        if !known && self.certificates.len() < MAX_CERTIFICATES {
            self.certificates.insert(certificate.clone());
        }
        let id = self.opened;
        let (streams, clusters) = (BTreeMap::new(), BTreeSet::new());
        let connection = Connection { id, peer, certificate, opened: now, closed: None, streams, clusters };
        self.open.insert(id, connection);
        id
    }

    /// A connection ended.
    pub fn close(&mut self, id: u64, now: Timestamp) {
        let Some(connection) = self.open.remove(&id) else { return };
        push_bounded(&mut self.past, Connection { closed: Some(now), ..connection });
    }

    /// A stream was opened on a connection.
    pub fn open_stream(
        &mut self,
        connection: u64,
        (stream, id): (Stream, u64),
        cluster: &str,
        now: Timestamp,
    ) {
        let count = self.streams.entry(stream).or_default();
        count.open += 1;
        count.opened += 1;
        let opening = Opening { id, stream, connection, opened: now, closed: None, outcome: String::new() };
        push_bounded(&mut self.openings, opening);
        if let Some(connection) = self.open.get_mut(&connection) {
            *connection.streams.entry(stream).or_default() += 1;
            connection.clusters.insert(cluster.to_owned());
        }
    }

    /// A stream ended.
    pub fn close_stream(
        &mut self,
        connection: u64,
        (stream, id): (Stream, u64),
        outcome: String,
        now: Timestamp,
    ) {
        self.streams.entry(stream).and_modify(|count| count.open = count.open.saturating_sub(1));
        if let Some(opening) = self.openings.iter_mut().rev().find(|opening| opening.id == id) {
            (opening.closed, opening.outcome) = (Some(now), outcome);
        }
        if let Some(connection) = self.open.get_mut(&connection) {
            connection.streams.entry(stream).and_modify(|open| *open = open.saturating_sub(1));
        }
    }

    /// Something was not let in.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.refused += 1;
        push_bounded(&mut self.refusals, refusal);
    }

    /// Connections that are open now.
    pub fn open_now(&self) -> impl ExactSizeIterator<Item = &Connection> {
        self.open.values()
    }

    /// The newest connections that ended, oldest first.
    pub fn past(&self) -> &VecDeque<Connection> {
        &self.past
    }

    /// The newest refusals, oldest first.
    pub fn refusals(&self) -> &VecDeque<Refusal> {
        &self.refusals
    }

    /// The newest openings of streams, oldest first.
    pub fn openings(&self) -> &VecDeque<Opening> {
        &self.openings
    }

    /// The counts of one stream.
    pub fn stream(&self, stream: Stream) -> StreamCount {
        self.streams.get(&stream).copied().unwrap_or_default()
    }

    /// The figures without the lists.
    pub fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.open.len(),
            opened: self.opened,
            reconnects: self.reconnects,
            refused: self.refused,
            streams: self.streams.values().map(|count| count.open).sum(),
        }
    }
}

/// What [`Connections`] counted.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: usize,
    /// Opened ever.
    pub opened: u64,
    /// Opened with a certificate that had connected before.
    pub reconnects: u64,
    /// Handshakes and RPCs that were refused.
    pub refused: u64,
    /// Streams that are open now.
    pub streams: u32,
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= MAX_PAST {
        queue.pop_front();
    }
    queue.push_back(item);
}
