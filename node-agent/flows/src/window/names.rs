//! Names of a window: each is kept once, as the bytes it came in, and known by its number.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use kestrel_proto::{cloud::v1::Policy, hubble::flow, node::v1::FlowPeer};
use prost::Message as _;

use crate::flow::Peer;

/// Bytes of names of a window, encoded, and so of one flow at most.
pub(super) const MOST_NAME_BYTES: usize = 2 * 1024 * 1024;

/// What says who a peer is, or what decided about a flow. The number of nothing is 0.
#[derive(Default)]
pub(super) struct Names {
    numbers: HashMap<Vec<u8>, u32, RandomState>,
    /// The last one that was asked for.
    text: Vec<u8>,
    /// Of all of them.
    pub(super) bytes: usize,
    /// No more are added.
    pub(super) is_full: bool,
}

/// What such a text is decoded to.
#[derive(Default)]
pub(super) struct Named {
    pub(super) peer: FlowPeer,
    pub(super) decision: Decision,
}

/// What let a flow pass or stopped it.
#[derive(Clone, Default)]
pub(super) struct Decision {
    pub(super) reason: String,
    pub(super) ingress_allowed_by: Vec<Policy>,
    pub(super) egress_allowed_by: Vec<Policy>,
    pub(super) ingress_denied_by: Vec<Policy>,
    pub(super) egress_denied_by: Vec<Policy>,
}

/// What a text begins with.
mod tag {
    /// Namespace, pod and service.
    pub(super) const NAMES: u8 = 0;
    /// Service, the length of an encoded Service of Hubble, that, and an encoded endpoint.
    pub(super) const ENDPOINT: u8 = 1;
    /// Reason, and policies as part of an encoded flow of Hubble.
    pub(super) const DECISION: u8 = 2;
}

/// Stands in no name of Kubernetes.
const SEPARATOR: u8 = 0;

impl Names {
    /// `None`: there is no room for it.
    pub(super) fn of(&mut self, peer: &Peer<'_>) -> Option<u32> {
        let Peer { namespace, pod, service, encoded_service, endpoint, .. } = *peer;
        if endpoint.is_empty() && encoded_service.is_empty() {
            if namespace.is_empty() && pod.is_empty() && service.is_empty() {
                return Some(0);
            }
            let [namespace, pod, service] = [namespace, pod, service].map(str::as_bytes);
            return self.number(&[&[tag::NAMES], namespace, &[SEPARATOR], pod, &[SEPARATOR], service]);
        }
        let length = u32::try_from(encoded_service.len()).ok()?.to_be_bytes();
        self.number(&[&[tag::ENDPOINT], service.as_bytes(), &[SEPARATOR], &length, encoded_service, endpoint])
    }

    /// `None`: there is no room for it.
    pub(super) fn of_decision(&mut self, reason: &str, policies: &[u8]) -> Option<u32> {
        if reason.is_empty() && policies.is_empty() {
            return Some(0);
        }
        self.number(&[&[tag::DECISION], reason.as_bytes(), &[SEPARATOR], policies])
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

    /// Whether there is room for not much more.
    pub(super) fn is_filling(&self) -> bool {
        self.bytes > MOST_NAME_BYTES / 2
    }

    /// All of them, decoded, at the places that are their numbers.
    pub(super) fn into_list(self) -> Vec<Named> {
        let mut list: Vec<_> = std::iter::repeat_with(Named::default).take(self.numbers.len() + 1).collect();
        for (text, number) in self.numbers {
            list[number as usize] = named(&text);
        }
        list
    }
}

fn named(text: &[u8]) -> Named {
    let Some((tag, rest)) = text.split_first() else { return Named::default() };
    match *tag {
        tag::ENDPOINT => {
            let (service, rest) = split(rest);
            Named { peer: of_hubble(string(service), rest).unwrap_or_default(), ..Named::default() }
        }
        tag::DECISION => {
            let (reason, rest) = split(rest);
            let flow = flow::Flow::decode(rest).unwrap_or_default();
            let policies = |of: Vec<flow::Policy>| of.into_iter().map(policy).collect();
            let decision = Decision {
                reason: string(reason),
                ingress_allowed_by: policies(flow.ingress_allowed_by),
                egress_allowed_by: policies(flow.egress_allowed_by),
                ingress_denied_by: policies(flow.ingress_denied_by),
                egress_denied_by: policies(flow.egress_denied_by),
            };
            Named { decision, ..Named::default() }
        }
        _ => {
            let mut parts = rest.split(|byte| *byte == SEPARATOR).map(string);
            let [namespace, pod, service] = std::array::from_fn(|_| parts.next().unwrap_or_default());
            Named { peer: FlowPeer { namespace, pod, service, ..FlowPeer::default() }, ..Named::default() }
        }
    }
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What stands before the separator, and after it.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let at = text.iter().position(|byte| *byte == SEPARATOR).unwrap_or(text.len());
    (&text[..at], text.get(at + 1..).unwrap_or_default())
}

/// The name of an endpoint: of its workload, else of its pod, else of the Service whose address it is, else what
/// it was looked up by or its first label, which says what kind of peer it is, else its identity.
fn of_hubble(name: String, rest: &[u8]) -> Option<FlowPeer> {
    let (length, rest) = rest.split_first_chunk()?;
    let (service, endpoint) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let service = flow::Service::decode(service).unwrap_or_default();
    let endpoint = flow::Endpoint::decode(endpoint).unwrap_or_default();
    let flow::Endpoint { identity, mut namespace, labels, pod_name: pod, workloads } = endpoint;
    let is_service = !service.name.is_empty();
    let (kind, known_as) = match workloads.into_iter().next() {
        Some(workload) => (workload.kind, workload.name),
        None if !pod.is_empty() => ("Pod".to_owned(), pod.clone()),
        None if is_service => {
            namespace.clone_from(&service.namespace);
            ("Service".to_owned(), service.name.clone())
        }
        None if !name.is_empty() => ("Unmanaged".to_owned(), name.clone()),
        None => match labels.first() {
            Some(label) => ("Unmanaged".to_owned(), label.clone()),
            None => ("Unknown".to_owned(), format!("identity-{identity}")),
        },
    };
    let service = if is_service { format!("{}.{}.svc", service.name, service.namespace) } else { name };
    Some(FlowPeer { address: Default::default(), namespace, pod, service, kind, name: known_as, labels })
}

/// Who an encoded endpoint is, without an address.
pub(super) fn peer_of(endpoint: &[u8]) -> FlowPeer {
    // With no Service before it.
    let text = [&0_u32.to_be_bytes(), endpoint].concat();
    of_hubble(String::new(), &text).unwrap_or_default()
}

fn policy(policy: flow::Policy) -> Policy {
    let flow::Policy { name, namespace, labels, revision, kind } = policy;
    Policy { name, namespace, labels, revision, kind }
}
