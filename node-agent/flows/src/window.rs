//! Flows of some seconds, counted by what they have in common.
//!
//! Memory is bounded by the number of different flows and by the bytes of what says who their ends are. When
//! there is no more room, flows of a kind that is not counted yet are left out, which the caller counts.

mod failures;
mod names;

use std::{
    collections::{HashMap, hash_map},
    hash::{BuildHasher as _, Hash, Hasher},
    mem,
    net::{IpAddr, Ipv6Addr},
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table};
use kestrel_proto::node::{
    FLOW_SPAN,
    v1::{self, FlowPeer},
};
use prost::Message as _;

use crate::flow::{Flow, NameFailure, Peer};
use failures::Failures;
use names::{Named, Names};

/// Different flows of a window in the agent and the aggregator; each takes about 150 bytes with its ends.
pub const MOST_FLOWS: usize = 32 * 1024;

/// With as many bytes of flows a message is full. Even with one that has all the names it is below the least that
/// a batch may have.
const REPORT_BYTES: usize = 256 * 1024;

/// What flows have in common that are counted together.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    /// Which multiple of [`FLOW_SPAN`] was before them. However long nobody takes a window, an address that
    /// was another pod's before is another flow's, and both ends of a conversation count the same times.
    span: u32,
    /// Numbers of both ends.
    ends: [u32; 2],
    /// Number of the name of what decided.
    decision: u32,
    port: u16,
    protocol: u8,
    /// Verdict, direction and what saw it, each below 256.
    seen: [u8; 3],
}

/// In three words, where field by field would be seven.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let [source, destination] = self.ends;
        let [verdict, direction, seen_by] = self.seen;
        state.write_u64(pair(source, destination));
        state.write_u64(pair(self.decision, self.span));
        state.write_u64(pair(
            self.port.into(),
            u32::from_be_bytes([self.protocol, verdict, direction, seen_by]),
        ));
    }
}

/// One end of a flow: its address, and the number of its name. It has a number itself, as a table of flows that both
/// ends stand in outgrows the processor's caches, which is most of what counting costs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct End {
    address: u128,
    name: u32,
}

#[derive(Clone, Copy)]
struct Counts {
    count: u64,
    bytes_sent: u64,
    bytes_received: u64,
    first: u64,
    last: u64,
}

/// In one line of the processor's caches.
#[repr(align(64))]
struct Entry {
    key: Key,
    counts: Counts,
}

/// The flows since the last report.
pub struct Window {
    most: usize,
    flows: HashTable<Entry>,
    hasher: RandomState,
    ends: HashMap<End, u32, RandomState>,
    names: Names,
    failures: Failures,
}

impl Window {
    /// An empty one that counts no more than `most` different flows.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            flows: HashTable::new(),
            hasher: RandomState::default(),
            ends: HashMap::default(),
            names: Names::default(),
            failures: Failures::default(),
        }
    }

    /// Counts a flow; false if there is no room for it.
    pub fn add(&mut self, flow: &Flow<'_>) -> bool {
        let is_full = self.flows.len() >= self.most;
        self.names.is_full = is_full;
        let (Some(source), Some(destination), Some(decision)) = (
            self.end(&flow.source),
            self.end(&flow.destination),
            self.names.of_decision(flow.reason, flow.policies),
        ) else {
            return false;
        };
        let key = Key {
            // All that there are fit.
            span: (flow.time / FLOW_SPAN) as u32,
            ends: [source, destination],
            decision,
            port: flow.port,
            protocol: flow.protocol,
            seen: [flow.verdict as u8, flow.direction as u8, flow.seen_by as u8],
        };
        let Flow { time, bytes_sent, bytes_received, .. } = *flow;
        let hash = |key: &Key| self.hasher.hash_one(key);
        let hashed = hash(&key);
        if let Some(Entry { counts, .. }) = self.flows.find_mut(hashed, |entry| entry.key == key) {
            counts.count += 1;
            counts.bytes_sent = counts.bytes_sent.saturating_add(bytes_sent);
            counts.bytes_received = counts.bytes_received.saturating_add(bytes_received);
            counts.first = counts.first.min(time);
            counts.last = counts.last.max(time);
        } else if is_full {
            return false;
        } else {
            let counts = Counts { count: 1, bytes_sent, bytes_received, first: time, last: time };
            self.flows.insert_unique(hashed, Entry { key, counts }, |entry| hash(&entry.key));
        }
        true
    }

    /// The number of an end; `None`: there is no room for it.
    fn end(&mut self, peer: &Peer<'_>) -> Option<u32> {
        let end = End { address: peer.address.map_or(0, bits), name: self.names.of(peer)? };
        let number = self.ends.len() as u32;
        match self.ends.entry(end) {
            hash_map::Entry::Occupied(known) => Some(*known.get()),
            // Also where flows are left out as there is no room for the other end's name.
            hash_map::Entry::Vacant(_) if self.names.is_full || number as usize / 2 >= self.most => None,
            hash_map::Entry::Vacant(room) => Some(*room.insert(number)),
        }
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
        let mut ends = vec![End { address: 0, name: 0 }; self.ends.len()];
        for (end, number) in mem::take(&mut self.ends) {
            ends[number as usize] = end;
        }
        Parts { flows: mem::take(&mut self.flows).into_iter(), ends, names }
    }
}

/// The flows of a window that was closed, made when they are asked for: together they would take many times
/// the memory, as each has its names.
pub struct Parts {
    flows: hash_table::IntoIter<Entry>,
    ends: Vec<End>,
    names: Vec<Named>,
}

impl Parts {
    /// Whether there are no more.
    pub fn is_empty(&self) -> bool {
        self.flows.len() == 0
    }

    fn to_wire(&self, key: &Key, counts: Counts) -> v1::Flow {
        let peer = |number: u32| {
            let End { address, name } = self.ends[number as usize];
            FlowPeer { address: bytes(address).into(), ..self.names[name as usize].peer.clone() }
        };
        let [verdict, direction, seen_by] = key.seen.map(i32::from);
        let decision = self.names[key.decision as usize].decision.clone();
        v1::Flow {
            source: Some(peer(key.ends[0])),
            destination: Some(peer(key.ends[1])),
            port: key.port.into(),
            protocol: key.protocol.into(),
            verdict,
            direction,
            seen_by,
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
}

impl Iterator for Parts {
    type Item = Vec<v1::Flow>;

    fn next(&mut self) -> Option<Vec<v1::Flow>> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < REPORT_BYTES
            && let Some(Entry { key, counts }) = self.flows.next()
        {
            let flow = self.to_wire(&key, counts);
            bytes += flow.encoded_len();
            part.push(flow);
        }
        (!part.is_empty()).then_some(part)
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
