//! Flows of some seconds, counted by what they have in common.
//!
//! Memory is bounded by the number of different flows and by the bytes of what says who their ends are. When
//! there is no more room, flows of a kind that is not counted yet are left out, which the caller counts.

use std::{
    collections::{HashMap, hash_map},
    mem,
    net::{IpAddr, Ipv6Addr},
};

use foldhash::fast::RandomState;
use kestrel_proto::{
    cloud::v1::Policy,
    hubble,
    node::{
        FLOW_SPAN,
        v1::{self, FlowPeer},
    },
};
use prost::Message as _;

use super::flow::{Direction, Flow, Peer, Source, Verdict};

/// Bytes of names of a window, encoded, and so of one flow at most.
const MOST_NAME_BYTES: usize = 2 * 1024 * 1024;

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
    /// Of both ends, and of the policies.
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
}

impl Window {
    /// An empty one that counts no more than `most` different flows.
    pub fn new(most: usize) -> Self {
        Self { most, flows: HashMap::default(), names: Names::default() }
    }

    /// Counts a flow; false if there is no room for it.
    pub fn add(&mut self, flow: &Flow<'_>) -> bool {
        let is_full = self.flows.len() >= self.most;
        let names = &mut self.names;
        names.is_full = is_full;
        let (Some(source), Some(destination), Some(policies)) =
            (names.of(&flow.source), names.of(&flow.destination), names.of_policies(flow.allowed_by))
        else {
            return false;
        };
        let key = Key {
            // All that there are fit.
            span: (flow.time / FLOW_SPAN) as u32,
            addresses: [&flow.source, &flow.destination].map(|peer| peer.address.map_or(0, bits)),
            names: [source, destination, policies],
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

    /// Whether there is room for not much more.
    pub fn is_filling(&self) -> bool {
        self.flows.len() > self.most / 2 || self.names.bytes > MOST_NAME_BYTES / 2
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
    let [source, destination, policies] = key.names.map(|number| &names[number as usize]);
    let peer = |named: &Named, address| FlowPeer { address: bytes(address).into(), ..named.peer.clone() };
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
        ingress_allowed_by: policies.ingress.clone(),
        egress_allowed_by: policies.egress.clone(),
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

/// What says who a peer is, or which policies there were: each kept once and known by its number. That of
/// nothing is 0.
#[derive(Default)]
struct Names {
    numbers: HashMap<Vec<u8>, u32, RandomState>,
    /// The last one that was asked for.
    text: Vec<u8>,
    /// Of all of them.
    bytes: usize,
    /// No more are added.
    is_full: bool,
}

/// What such a text is decoded to.
#[derive(Default)]
struct Named {
    peer: FlowPeer,
    ingress: Vec<Policy>,
    egress: Vec<Policy>,
}

/// What a text begins with.
mod tag {
    /// Namespace, pod and service.
    pub(super) const NAMES: u8 = 0;
    /// Service and an encoded endpoint of Hubble.
    pub(super) const ENDPOINT: u8 = 1;
    /// Policies, as part of an encoded flow of Hubble.
    pub(super) const POLICIES: u8 = 2;
}

/// Stands in no name of Kubernetes.
const SEPARATOR: u8 = 0;

impl Names {
    /// `None`: there is no room for it.
    fn of(&mut self, peer: &Peer<'_>) -> Option<u32> {
        let Peer { namespace, pod, service, endpoint, .. } = *peer;
        let parts: [&[u8]; 6] = match endpoint {
            [] if namespace.is_empty() && pod.is_empty() && service.is_empty() => return Some(0),
            [] => [
                &[tag::NAMES],
                namespace.as_bytes(),
                &[SEPARATOR],
                pod.as_bytes(),
                &[SEPARATOR],
                service.as_bytes(),
            ],
            endpoint => [&[tag::ENDPOINT], service.as_bytes(), &[SEPARATOR], endpoint, &[], &[]],
        };
        self.number(&parts)
    }

    fn of_policies(&mut self, policies: &[u8]) -> Option<u32> {
        if policies.is_empty() { Some(0) } else { self.number(&[&[tag::POLICIES], policies]) }
    }

    fn number(&mut self, parts: &[&[u8]]) -> Option<u32> {
        self.text.clear();
        parts.iter().for_each(|part| self.text.extend_from_slice(part));
        if let Some(number) = self.numbers.get(&self.text) {
            return Some(*number);
        }
        if self.is_full || self.bytes + self.text.len() > MOST_NAME_BYTES {
            return None;
        }
        self.bytes += self.text.len();
        let number = self.numbers.len() as u32 + 1;
        self.numbers.insert(self.text.clone(), number);
        Some(number)
    }

    fn into_list(self) -> Vec<Named> {
        let mut list: Vec<_> = std::iter::repeat_with(Named::default).take(self.numbers.len() + 1).collect();
        for (text, number) in self.numbers {
            list[number as usize] = named(&text);
        }
        list
    }
}

fn named(text: &[u8]) -> Named {
    let Some((tag, rest)) = text.split_first() else { return Named::default() };
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match *tag {
        tag::ENDPOINT => {
            let at = rest.iter().position(|byte| *byte == SEPARATOR).unwrap_or(rest.len());
            let endpoint = hubble::flow::Endpoint::decode(rest.get(at + 1..).unwrap_or_default());
            Named { peer: of_hubble(endpoint.unwrap_or_default(), string(&rest[..at])), ..Named::default() }
        }
        tag::POLICIES => {
            let flow = hubble::flow::Flow::decode(rest).unwrap_or_default();
            let policies = |of: Vec<hubble::flow::Policy>| of.into_iter().map(policy).collect();
            let (ingress, egress) = (policies(flow.ingress_allowed_by), policies(flow.egress_allowed_by));
            Named { ingress, egress, ..Named::default() }
        }
        _ => {
            let mut parts = rest.split(|byte| *byte == SEPARATOR).map(string);
            let [namespace, pod, service] = std::array::from_fn(|_| parts.next().unwrap_or_default());
            Named { peer: FlowPeer { namespace, pod, service, ..FlowPeer::default() }, ..Named::default() }
        }
    }
}

/// The name of an endpoint: of its workload, else of its pod, else what it was looked up by or its first
/// label, which says what kind of peer it is, else its identity.
fn of_hubble(endpoint: hubble::flow::Endpoint, service: String) -> FlowPeer {
    let hubble::flow::Endpoint { identity, namespace, labels, pod_name, workloads } = endpoint;
    let (kind, name) = match workloads.into_iter().next() {
        Some(workload) => (workload.kind, workload.name),
        None if !pod_name.is_empty() => ("Pod".to_owned(), pod_name.clone()),
        None if !service.is_empty() => ("Unmanaged".to_owned(), service.clone()),
        None => match labels.first() {
            Some(label) => ("Unmanaged".to_owned(), label.clone()),
            None => ("Unknown".to_owned(), format!("identity-{identity}")),
        },
    };
    FlowPeer { address: Default::default(), namespace, pod: pod_name, service, kind, name, labels }
}

fn policy(policy: hubble::flow::Policy) -> Policy {
    let hubble::flow::Policy { name, namespace, labels, revision, kind } = policy;
    Policy { name, namespace, labels, revision, kind }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn flow<'a>(pods: [&'a str; 2], port: u16, time: u64) -> Flow<'a> {
        let peer =
            |pod| Peer { address: Some([10, 0, 0, 1].into()), namespace: "shop", pod, ..Peer::default() };
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
            allowed_by: &[],
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
        let mut flows: Vec<_> = window.close().flatten().collect();
        flows.sort_by_key(|flow| flow.port);
        let of = |flow: &v1::Flow| {
            (flow.port, flow.count, flow.first_seen, flow.last_seen, flow.bytes_sent, flow.bytes_received)
        };
        assert_eq!(flows.iter().map(of).collect::<Vec<_>>(), [(80, 3, 3, 9, 30, 3), (81, 2, 7, 8, 20, 2)]);
        let source = flows[0].source.clone().unwrap();
        assert_eq!((source.pod.as_str(), source.namespace.as_str()), ("web", "shop"));
        assert_eq!(source.address, [10, 0, 0, 1].as_slice());
        assert!(!window.is_filling() && window.close().is_empty());
    }

    #[test]
    fn one_record_never_spans_ten_seconds_however_long_a_window_is_open() {
        let mut window = Window::new(usize::MAX);
        for second in [9, 10, 3600, 19, 7205] {
            assert!(window.add(&flow(["web", "db"], 80, second * 1_000_000_000)));
        }
        let mut flows: Vec<_> = window.close().flatten().collect();
        flows.sort_by_key(|flow| flow.first_seen);
        let seconds = |flow: &v1::Flow| (flow.first_seen / 1_000_000_000, flow.last_seen / 1_000_000_000);
        let expected = [(9, 9), (10, 19), (3600, 3600), (7205, 7205)];
        assert_eq!(flows.iter().map(seconds).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_report_has_a_bound() {
        let mut window = Window::new(usize::MAX);
        let long = "x".repeat(1000);
        for port in 0..600 {
            window.add(&flow([&long, "db"], port, 1));
        }
        let parts: Vec<_> = window.close().collect();
        let bytes = |part: &Vec<v1::Flow>| part.iter().map(v1::Flow::encoded_len).sum::<usize>();
        assert!(parts.iter().all(|part| bytes(part) < REPORT_BYTES + 2000));
        assert_eq!((parts.len(), parts.concat().len()), (3, 600));
    }

    #[test]
    fn names_have_a_bound_and_those_of_flows_that_are_left_out_are_not_kept() {
        let mut window = Window::new(1);
        assert!(window.add(&flow(["web", "db"], 1, 1)));
        let bytes = window.names.bytes;
        assert!(!window.add(&flow(["other", "db"], 1, 1)));
        assert_eq!(window.names.bytes, bytes);
        assert!(window.add(&flow(["web", "db"], 1, 1)), "of a kind that is counted");
        let mut window = Window::new(usize::MAX);
        let half = [0, 1].map(|number: u8| vec![number; MOST_NAME_BYTES / 2 - 10]);
        let add = |window: &mut Window, endpoint: &[u8], port| {
            let source = Peer { endpoint, ..Peer::default() };
            window.add(&Flow { source, ..flow(["", ""], port, 1) })
        };
        assert!(add(&mut window, &half[0], 1) && !window.is_filling());
        assert!(add(&mut window, &half[1], 1) && window.is_filling());
        assert!(!add(&mut window, &[2; 100], 1));
        assert!(add(&mut window, &half[1], 2), "its name is known");
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
            for flow in window.close().flatten() {
                let source = flow.source.unwrap();
                let before = found.insert((source.address.to_vec(), source.pod, flow.port), flow.count);
                prop_assert_eq!(before, None);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
