//! A flow as any source shows it.

use std::net::IpAddr;

pub use kestrel_proto::node::v1::{FlowDirection as Direction, FlowSource as Source, FlowVerdict as Verdict};

/// Packets or a connection that something saw on this node. The source's port, which is another one for
/// each connection, is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<'a> {
    /// Who began it.
    pub source: Peer<'a>,
    /// To whom.
    pub destination: Peer<'a>,
    /// Of the destination; 0 where the protocol has none, or it is not known.
    pub port: u16,
    /// Number of the protocol at IANA; 0: not known.
    pub protocol: u8,
    /// What became of it.
    pub verdict: Verdict,
    /// As seen from the node's pods.
    pub direction: Direction,
    /// What saw it.
    pub seen_by: Source,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Bytes from source to destination.
    pub bytes_sent: u64,
    /// Bytes from destination to source.
    pub bytes_received: u64,
    /// What stopped it, in the words of its source; empty: it says nothing, or nothing did.
    pub reason: &'a str,
    /// Policies that let it pass or stopped it: part of an encoded flow of Hubble.
    pub policies: &'a [u8],
}

/// An answer of a name server that says that it could not resolve a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameFailure<'a> {
    /// Who asked.
    pub client: Peer<'a>,
    /// Whom.
    pub server: Peer<'a>,
    /// How it failed (RFC 6895).
    pub code: u32,
    /// What was asked for.
    pub name: &'a str,
    /// Nanoseconds since 1970.
    pub time: u64,
}

/// One end of a flow. What is empty was not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// What it was addressed as.
    pub service: &'a str,
    /// The same as an encoded Service of Hubble.
    pub encoded_service: &'a [u8],
    /// An encoded endpoint of Hubble, which says more.
    pub endpoint: &'a [u8],
}

impl From<IpAddr> for Peer<'_> {
    fn from(address: IpAddr) -> Self {
        Self { address: Some(address), ..Self::default() }
    }
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A flow.
    Flow(Flow<'a>),
    /// No flow, but why one is not made.
    NameFailure(NameFailure<'a>),
    /// Something of a flow that is told by another line.
    Told,
    /// Something else.
    Other,
    /// It should be a flow, and can't be read.
    Unreadable,
}

/// Number of a protocol by its name; 0 if there is none.
pub fn protocol(name: &str) -> u8 {
    match name {
        "ICMP" | "ICMPv4" => 1,
        "TCP" => 6,
        "UDP" => 17,
        "ICMPv6" => 58,
        "SCTP" => 132,
        _ => 0,
    }
}
