//! What flows say of the edges between workloads, for the signals.

use jiff::Timestamp;
use kestrel_proto::{
    cloud::v1::{self, Policy},
    node::v1::{Flow, FlowSource, FlowVerdict, NameFailure},
};

use super::{conversation::Seen, resolve::Conversation};
use crate::signals::edges::{Edges, End, Evidence};

/// What stopped one conversation, as far as told apart.
const MOST_REASONS: usize = 4;

/// Adds what stopped a flow, as far as what saw it says so: a policy, else the reason, else what its source is there
/// to see.
pub(super) fn add_why(known: &mut Vec<String>, flow: &Flow) {
    let policies = flow.ingress_denied_by.iter().chain(&flow.egress_denied_by).map(named);
    let reason = || match (flow.seen_by(), flow.verdict()) {
        _ if !flow.drop_reason.is_empty() => Some(flow.drop_reason.to_lowercase().replace('_', " ")),
        (FlowSource::AwsPolicyAgent, FlowVerdict::Dropped) => Some("a NetworkPolicy".to_owned()),
        (FlowSource::Ztunnel, FlowVerdict::Dropped) => Some("a policy of the mesh".to_owned()),
        (_, FlowVerdict::Error) => Some("an error".to_owned()),
        _ => None,
    };
    let mut why: Vec<_> = policies.collect();
    if why.is_empty() {
        why.extend(reason());
    }
    for one in why {
        if known.len() < MOST_REASONS && !known.contains(&one) {
            known.push(one);
        }
    }
}

fn named(policy: &Policy) -> String {
    let Policy { kind, namespace, name, .. } = policy;
    let kind = if kind.is_empty() { "policy" } else { kind };
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

/// What was told of a conversation.
pub(super) fn tell(edges: &Edges, flow: &v1::Flow, seen: &Seen, now: Timestamp) {
    let who = || {
        let end = |end: &Option<v1::Endpoint>| {
            let v1::Endpoint { ns, kind, name, .. } = end.as_ref()?;
            End::new(ns, kind, name)
        };
        Some(([end(&flow.src)?, end(&flow.dst)?], place(&flow.protocol, flow.port)))
    };
    let times = flow.count.unsigned_abs();
    let at = flow.last_seen.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok()).unwrap_or(now);
    if flow.allowed {
        edges.passed(who, times, at);
    } else if let Some((ends, place)) = who() {
        edges.stopped(ends, times, at, Evidence::new(&place, seen.stopped_by(), None), now);
    }
}

/// Protocol and port, as far as there are any.
fn place(protocol: &str, port: u32) -> String {
    match (protocol, port) {
        ("", 0) => "any protocol".to_owned(),
        (protocol, 0) => protocol.to_owned(),
        ("", port) => format!("port {port}"),
        (protocol, port) => format!("{protocol} {port}"),
    }
}

/// What a name failure has of a flow: its ends, and when.
pub(super) fn as_flow(failure: &NameFailure) -> Flow {
    let NameFailure { client, server, last_seen, .. } = failure.clone();
    Flow { source: client, destination: server, last_seen, ..Flow::default() }
}

/// A name server failed to answer.
pub(super) fn unresolved(edges: &Edges, conversation: &Conversation, failure: &NameFailure, now: Timestamp) {
    let [client, server] = [&conversation.source, &conversation.destination].map(|end| end.named());
    let (Some(client), Some(server)) = (client, server) else { return };
    let at = Timestamp::from_nanosecond(failure.last_seen.into()).unwrap_or(now);
    let evidence = Evidence::new(&code(failure.code), None, Some(failure.name.trim_end_matches('.')));
    edges.unresolved([client, server], failure.count, at, evidence, now);
}

/// As RFC 6895 names it.
fn code(code: u32) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stopped_a_flow_is_said_as_well_as_its_source_knows() {
        let why = |flow: Flow| {
            let mut why = Vec::new();
            add_why(&mut why, &flow);
            add_why(&mut why, &flow);
            why
        };
        let (dropped, error) = (FlowVerdict::Dropped.into(), FlowVerdict::Error.into());
        let policy = Policy { name: "deny".into(), namespace: "shop".into(), ..Policy::default() };
        let of_cilium = Policy { kind: "CiliumNetworkPolicy".into(), ..policy.clone() };
        let by_policies = Flow {
            drop_reason: "POLICY_DENY".into(),
            verdict: dropped,
            ingress_denied_by: vec![policy],
            egress_denied_by: vec![of_cilium],
            ..Flow::default()
        };
        assert_eq!(why(by_policies), ["policy shop/deny", "CiliumNetworkPolicy shop/deny"]);
        let reason =
            Flow { drop_reason: "STALE_OR_UNROUTABLE_IP".into(), verdict: dropped, ..Flow::default() };
        assert_eq!(why(reason), ["stale or unroutable ip"]);
        let of = |source: FlowSource, verdict| Flow { seen_by: source.into(), verdict, ..Flow::default() };
        assert_eq!(why(of(FlowSource::AwsPolicyAgent, dropped)), ["a NetworkPolicy"]);
        assert_eq!(why(of(FlowSource::Ztunnel, dropped)), ["a policy of the mesh"]);
        assert_eq!(why(of(FlowSource::Ztunnel, error)), ["an error"]);
        assert_eq!(why(of(FlowSource::Hubble, dropped)), [""; 0]);
        assert_eq!([place("TCP", 80), place("ICMPv4", 0), place("", 9)], ["TCP 80", "ICMPv4", "port 9"]);
    }
}
