//! Flows of some seconds, counted by what they have in common.
//!
//! Memory is bounded by the number of different flows and by the bytes of what says who their ends are. When
//! there is no more room, flows of a kind that is not counted yet are left out, which the caller counts.

mod failures;
mod names;

use std::{
    collections::{HashMap, hash_map},
    mem,
    net::{IpAddr, Ipv6Addr},
};

use foldhash::fast::RandomState;
use kestrel_proto::node::{
    FLOW_SPAN,
    v1::{self, FlowPeer},
};
use prost::Message as _;

use crate::flow::{Direction, Flow, NameFailure, Source, Verdict};
use failures::Failures;
use names::{Named, Names};

/// Different flows of a window in the agent and the aggregator; each takes about 150 bytes.
pub const MOST_FLOWS: usize = 32 * 1024;

/// With as many bytes of flows a message is full. Even with one that has all the names it is below the least that
/// a batch may have.
const REPORT_BYTES: usize = 256 * 1024;

/// What flows have in common that are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Which multiple of [`FLOW_SPAN`] was before them. However long nobody takes a window, an address that
    /// was another pod's before is another flow's, and both ends of a conversation count the same times.
    span: u32,
    addresses: [u128; 2],
    /// Of both ends, and of what decided.
    names: [u32; 3],
    port: u16,
    protocol: u8,
    verdict: Verdict,
    direction: Direction,
    seen_by: Source,
}

#[derive(Clone, Copy)]
struct Counts {
    count: u64,
    bytes_sent: u64,
    bytes_received: u64,
    first: u64,
    last: u64,
}

/// The flows since the last report.
pub struct Window {
    most: usize,
    flows: HashMap<Key, Counts, RandomState>,
    names: Names,
    failures: Failures,
}

impl Window {
    /// An empty one that counts no more than `most` different flows.
    pub fn new(most: usize) -> Self {
        Self { most, flows: HashMap::default(), names: Names::default(), failures: Failures::default() }
    }

    /// Counts a flow; false if there is no room for it.
    pub fn add(&mut self, flow: &Flow<'_>) -> bool {
        let is_full = self.flows.len() >= self.most;
        let names = &mut self.names;
        names.is_full = is_full;
        let (Some(source), Some(destination), Some(decision)) = (
            names.of(&flow.source),
            names.of(&flow.destination),
            names.of_decision(flow.reason, flow.policies),
        ) else {
            return false;
        };
        let key = Key {
            // All that there are fit.
            span: (flow.time / FLOW_SPAN) as u32,
            addresses: [&flow.source, &flow.destination].map(|peer| peer.address.map_or(0, bits)),
            names: [source, destination, decision],
            port: flow.port,
            protocol: flow.protocol,
            verdict: flow.verdict,
            direction: flow.direction,
            seen_by: flow.seen_by,
        };
        let Flow { time, bytes_sent, bytes_received, .. } = *flow;
        match self.flows.entry(key) {
            hash_map::Entry::Occupied(mut counts) => {
                let counts = counts.get_mut();
                counts.count += 1;
                counts.bytes_sent = counts.bytes_sent.saturating_add(bytes_sent);
                counts.bytes_received = counts.bytes_received.saturating_add(bytes_received);
                counts.first = counts.first.min(time);
                counts.last = counts.last.max(time);
            }
            hash_map::Entry::Vacant(_) if is_full => return false,
            hash_map::Entry::Vacant(room) => {
                room.insert(Counts { count: 1, bytes_sent, bytes_received, first: time, last: time });
            }
        }
        true
    }

    /// Counts an answer of a name server; false if there is no room for it.
    pub fn add_failure(&mut self, failure: &NameFailure<'_>) -> bool {
        self.failures.add(failure)
    }

    /// The answers that were counted. There are none then.
    pub fn take_failures(&mut self) -> Vec<v1::NameFailure> {
        self.failures.take()
    }

    /// Whether there is room for not much more.
    pub fn is_filling(&self) -> bool {
        self.flows.len() > self.most / 2 || self.names.is_filling()
    }

    /// All that was counted, in parts that fit a message. The window is empty then.
    pub fn close(&mut self) -> Parts {
        let names = mem::take(&mut self.names).into_list();
        Parts { flows: mem::take(&mut self.flows).into_iter(), names }
    }
}

/// The flows of a window that was closed, made when they are asked for: together they would take many times
/// the memory, as each has its names.
pub struct Parts {
    flows: hash_map::IntoIter<Key, Counts>,
    names: Vec<Named>,
}

impl Parts {
    /// Whether there are no more.
    pub fn is_empty(&self) -> bool {
        self.flows.len() == 0
    }
}

impl Iterator for Parts {
    type Item = Vec<v1::Flow>;

    fn next(&mut self) -> Option<Vec<v1::Flow>> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < REPORT_BYTES
            && let Some((key, counts)) = self.flows.next()
        {
            let flow = to_wire(&key, counts, &self.names);
            bytes += flow.encoded_len();
            part.push(flow);
        }
        (!part.is_empty()).then_some(part)
    }
}

fn to_wire(key: &Key, counts: Counts, names: &[Named]) -> v1::Flow {
    let [source, destination, decision] = key.names.map(|number| &names[number as usize]);
    let peer = |named: &Named, address| FlowPeer { address: bytes(address).into(), ..named.peer.clone() };
    let decision = decision.decision.clone();
    v1::Flow {
        source: Some(peer(source, key.addresses[0])),
        destination: Some(peer(destination, key.addresses[1])),
        port: key.port.into(),
        protocol: key.protocol.into(),
        verdict: key.verdict.into(),
        direction: key.direction.into(),
        seen_by: key.seen_by.into(),
        count: counts.count,
        bytes_sent: counts.bytes_sent,
        bytes_received: counts.bytes_received,
        first_seen: counts.first,
        last_seen: counts.last,
        ingress_allowed_by: decision.ingress_allowed_by,
        egress_allowed_by: decision.egress_allowed_by,
        ingress_denied_by: decision.ingress_denied_by,
        egress_denied_by: decision.egress_denied_by,
        drop_reason: decision.reason,
    }
}

/// An address as a number: one of IPv4 as IPv6 embeds it. 0 is no address of anybody.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn bytes(bits: u128) -> Vec<u8> {
    let address = Ipv6Addr::from_bits(bits);
    match address.to_ipv4_mapped() {
        _ if bits == 0 => Vec::new(),
        Some(address) => address.octets().to_vec(),
        None => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests;
