//! Flows of some seconds, counted by what they have in common.
//!
//! Memory is bounded by the number of different flows. When there is no more room, flows of a kind that
//! is not counted yet are left out, which the caller counts.

use std::{
    collections::{HashMap, hash_map},
    net::{IpAddr, Ipv6Addr},
};

use foldhash::fast::RandomState;
use kestrel_proto::node::v1::{self, FlowPeer};

use super::flow::{Direction, Flow, Peer, Source, Verdict};

/// Flows of one message. Even with long names it is far below the least that a batch may have.
const MOST_IN_REPORT: usize = 1000;

/// What flows have in common that are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    addresses: [u128; 2],
    names: [u32; 2],
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
    /// Times of the earliest and the latest.
    times: (u64, u64),
}

/// Of no flow.
const NEVER: (u64, u64) = (u64::MAX, 0);

impl Window {
    /// An empty one that counts no more than `most` different flows.
    pub fn new(most: usize) -> Self {
        Self { most, flows: HashMap::default(), names: Names::default(), times: NEVER }
    }

    /// Counts a flow; false if there is no room for it.
    pub fn add(&mut self, flow: &Flow<'_>) -> bool {
        let names = [self.names.of(&flow.source), self.names.of(&flow.destination)];
        let key = Key {
            addresses: [&flow.source, &flow.destination].map(|peer| peer.address.map_or(0, bits)),
            names,
            port: flow.port,
            protocol: flow.protocol,
            verdict: flow.verdict,
            direction: flow.direction,
            seen_by: flow.seen_by,
        };
        let Flow { time, bytes_sent, bytes_received, .. } = *flow;
        let is_full = self.flows.len() >= self.most;
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
        self.times = (self.times.0.min(time), self.times.1.max(time));
        true
    }

    /// Whether there is room for not much more.
    pub fn is_filling(&self) -> bool {
        self.flows.len() > self.most / 2
    }

    /// Nanoseconds between the earliest flow and the latest.
    pub fn span(&self) -> u64 {
        self.times.1.saturating_sub(self.times.0)
    }

    /// All that was counted, in parts that fit a message. The window is empty then.
    pub fn close(&mut self) -> Vec<Vec<v1::Flow>> {
        let names = std::mem::take(&mut self.names).into_list();
        let mut flows = self.flows.drain().map(|(key, counts)| to_wire(&key, counts, &names));
        let mut parts = Vec::new();
        loop {
            let part: Vec<_> = flows.by_ref().take(MOST_IN_REPORT).collect();
            if part.is_empty() {
                break;
            }
            parts.push(part);
        }
        drop(flows);
        self.flows.shrink_to(MOST_IN_REPORT);
        self.times = NEVER;
        parts
    }
}

fn to_wire(key: &Key, counts: Counts, names: &[[String; 3]]) -> v1::Flow {
    let peer = |end: usize| {
        let [namespace, pod, service] = names[key.names[end] as usize].clone();
        FlowPeer { address: bytes(key.addresses[end]).into(), namespace, pod, service }
    };
    v1::Flow {
        source: Some(peer(0)),
        destination: Some(peer(1)),
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

/// Names of peers, each kept once and known by its number. That of no names is 0.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, u32, RandomState>,
    joined: String,
}

/// Stands in no name of Kubernetes.
const SEPARATOR: char = '\u{0}';

impl Names {
    fn of(&mut self, peer: &Peer<'_>) -> u32 {
        let Peer { namespace, pod, service, .. } = *peer;
        if namespace.is_empty() && pod.is_empty() && service.is_empty() {
            return 0;
        }
        self.joined.clear();
        for (at, name) in [namespace, pod, service].into_iter().enumerate() {
            if at > 0 {
                self.joined.push(SEPARATOR);
            }
            self.joined.push_str(name);
        }
        if let Some(number) = self.numbers.get(&self.joined) {
            return *number;
        }
        // As many as twice the flows that were ever added to the window, which has a bound.
        let number = self.numbers.len() as u32 + 1;
        self.numbers.insert(self.joined.clone(), number);
        number
    }

    fn into_list(self) -> Vec<[String; 3]> {
        let mut list = vec![<[String; 3]>::default(); self.numbers.len() + 1];
        for (joined, number) in self.numbers {
            let mut parts = joined.split(SEPARATOR).map(str::to_owned);
            list[number as usize] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn flow<'a>(pods: [&'a str; 2], port: u16, time: u64) -> Flow<'a> {
        let peer = |pod| Peer { address: Some([10, 0, 0, 1].into()), namespace: "shop", pod, service: "" };
        Flow {
            source: peer(pods[0]),
            destination: peer(pods[1]),
            port,
            protocol: 6,
            verdict: Verdict::Forwarded,
            direction: Direction::Egress,
            seen_by: Source::Ztunnel,
            time,
            bytes_sent: 10,
            bytes_received: 1,
        }
    }

    #[test]
    fn what_is_alike_is_counted_together_and_a_full_window_says_so() {
        let mut window = Window::new(2);
        for time in [5, 3, 9] {
            assert!(window.add(&flow(["web", "db"], 80, time)));
        }
        assert!(window.add(&flow(["web", "db"], 81, 7)));
        assert!(!window.add(&flow(["web", "db"], 82, 1)), "a third kind");
        assert!(window.add(&flow(["web", "db"], 81, 8)), "of a kind that is counted");
        assert!(window.is_filling());
        assert_eq!(window.span(), 6);
        let mut flows = window.close().concat();
        flows.sort_by_key(|flow| flow.port);
        let of = |flow: &v1::Flow| {
            (flow.port, flow.count, flow.first_seen, flow.last_seen, flow.bytes_sent, flow.bytes_received)
        };
        assert_eq!(flows.iter().map(of).collect::<Vec<_>>(), [(80, 3, 3, 9, 30, 3), (81, 2, 7, 8, 20, 2)]);
        let source = flows[0].source.clone().unwrap();
        assert_eq!((source.pod.as_str(), source.namespace.as_str()), ("web", "shop"));
        assert_eq!(source.address, [10, 0, 0, 1].as_slice());
        assert!(window.span() == 0 && !window.is_filling() && window.close().is_empty());
    }

    #[test]
    fn a_report_has_a_bound() {
        let mut window = Window::new(usize::MAX);
        for port in 0..2500 {
            window.add(&flow(["web", "db"], port, 1));
        }
        assert_eq!(window.close().iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    }

    proptest! {
        /// Nothing is counted twice or lost, and both kinds of address come out as they went in.
        #[test]
        fn what_goes_in_comes_out(
            flows in prop::collection::vec((0..3_usize, any::<bool>(), 0..3_u16, 1..9_u64), 0..200),
            v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(),
        ) {
            let pods = ["a", "b", ""];
            let mut window = Window::new(usize::MAX);
            let mut expected = BTreeMap::<_, u64>::new();
            for (pod, is_v6, port, time) in flows {
                let address = if is_v6 { IpAddr::from(v6) } else { IpAddr::from(v4) };
                let peer = Peer { address: Some(address), pod: pods[pod], ..Peer::default() };
                let is_counted = window.add(&Flow { source: peer, ..flow(["x", "y"], port, time) });
                prop_assert!(is_counted);
                let address = match address.to_canonical() {
                    _ if is_v6 && v6 == [0; 16] => vec![],
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                *expected.entry((address, pods[pod].to_owned(), u32::from(port))).or_default() += 1;
            }
            let mut found = BTreeMap::new();
            for flow in window.close().concat() {
                let source = flow.source.unwrap();
                let before = found.insert((source.address.to_vec(), source.pod, flow.port), flow.count);
                prop_assert_eq!(before, None);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
