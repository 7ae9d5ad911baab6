//! Who the ends of a flow were when it was seen.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use kestrel_proto::{
    cloud::v1::Endpoint,
    node::{
        FLOW_SPAN,
        v1::{Flow, FlowDirection, FlowPeer},
    },
};

use crate::{inventory::Resident, signals::edges};

/// Who spoke to whom.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) source: End,
    pub(super) destination: End,
    pub(super) port: u32,
    pub(super) protocol: u32,
    /// In which of the times that flows are counted over.
    span: u64,
}

/// One end, in the form of the wire.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) address: Option<IpAddr>,
    pub(super) endpoint: Named,
    /// Where it runs, if that is known.
    pub(super) node: Arc<str>,
}

/// What flows have in common that are told as one: both ends of it may have seen it, and know different
/// things of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    ends: [Place; 2],
    port: u32,
    protocol: u32,
    span: u64,
}

/// An end by its address, and by its name if that is all that there is, or if it is of something outside,
/// where many share an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    address: Option<IpAddr>,
    name: Option<Box<Named>>,
}

/// As [`Endpoint`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Named {
    pub(super) ns: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) labels: Vec<String>,
}

impl Conversation {
    pub(super) fn ends(&self) -> impl Iterator<Item = &End> {
        [&self.source, &self.destination].into_iter()
    }

    pub(super) fn key(&self) -> Key {
        let Self { source, destination, port, protocol, span } = self;
        Key { ends: [source.place(), destination.place()], port: *port, protocol: *protocol, span: *span }
    }

    /// Takes over the names of who knew more.
    pub(super) fn learn(&mut self, other: Self) {
        for (end, other) in [(&mut self.source, other.source), (&mut self.destination, other.destination)] {
            if other.endpoint.says() > end.endpoint.says() {
                *end = other;
            }
        }
    }

    /// Which way it went for the pods of `node`, where what saw it does not say so.
    pub(super) fn direction_at(&self, node: &str) -> FlowDirection {
        match (*self.source.node == *node, *self.destination.node == *node) {
            (true, false) => FlowDirection::Egress,
            (false, true) => FlowDirection::Ingress,
            _ => FlowDirection::Unspecified,
        }
    }
}

impl End {
    /// What it is in the cluster, if it is anything there.
    pub(super) fn named(&self) -> Option<edges::End> {
        let Named { ns, kind, name, .. } = &self.endpoint;
        edges::End::new(ns, kind, name)
    }

    fn place(&self) -> Place {
        let needs_name = self.address.is_none() || self.node.is_empty() && self.endpoint.kind == UNMANAGED;
        Place { address: self.address, name: needs_name.then(|| Box::new(self.endpoint.clone())) }
    }
}

const POD: &str = "Pod";
const UNMANAGED: &str = "Unmanaged";
const UNKNOWN: &str = "Unknown";

impl Named {
    /// Nobody knows who.
    pub(super) fn unknown() -> Self {
        Self { kind: UNKNOWN.to_owned(), name: "unknown".to_owned(), ..Self::default() }
    }

    /// How much: nothing, what kind of thing, a pod, or a workload.
    fn says(&self) -> u8 {
        match self.kind.as_str() {
            UNKNOWN => 0,
            UNMANAGED => 1,
            POD => 2,
            _ => 3,
        }
    }
}

/// The flow's ends, of which `resident` knows who had an address when.
pub(super) fn resolve(flow: &Flow, resident: impl Fn(IpAddr, Timestamp) -> Option<Resident>) -> Conversation {
    let time = Timestamp::from_nanosecond(flow.last_seen.into()).unwrap_or(Timestamp::MAX);
    let none = FlowPeer::default();
    let end = |peer: &Option<FlowPeer>| {
        let peer = peer.as_ref().unwrap_or(&none);
        let address = address(&peer.address);
        let found = address.and_then(|address| resident(address, time));
        let node = found.as_ref().map_or_else(|| "".into(), |found| Arc::clone(&found.node));
        End { address, endpoint: named(peer, found), node }
    };
    Conversation {
        source: end(&flow.source),
        destination: end(&flow.destination),
        port: flow.port,
        protocol: flow.protocol,
        span: flow.last_seen / FLOW_SPAN,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// What saw the flow knows the pod that it was of; the cluster knows its workload and labels. Where the two
/// do not agree, the first was there. Hubble knows workloads of pods on its own node alone.
fn named(peer: &FlowPeer, found: Option<Resident>) -> Named {
    let found = found.as_ref().map(|found| {
        let labels = found.labels.iter().map(|(key, value)| format!("k8s:{key}={value}")).collect();
        Named { labels, ..of_resident(found) }
    });
    if !peer.name.is_empty() {
        let FlowPeer { namespace, kind, name, labels, .. } = peer.clone();
        return match found {
            Some(found) if kind == POD && namespace == found.ns => Named { labels, ..found },
            _ => Named { ns: namespace, kind, name, labels },
        };
    }
    match found {
        Some(named) if peer.pod.is_empty() || peer.namespace == named.ns => named,
        _ if !peer.pod.is_empty() => Named {
            ns: peer.namespace.clone(),
            kind: POD.to_owned(),
            name: peer.pod.clone(),
            labels: Vec::new(),
        },
        _ if !peer.service.is_empty() => service(&peer.service),
        _ => Named::unknown(),
    }
}

/// Without labels.
pub(super) fn of_resident(found: &Resident) -> Named {
    let mut parts = found.workload.splitn(3, '.').map(str::to_owned);
    let [ns, kind, name] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    Named { ns, kind, name, labels: Vec::new() }
}

/// A Service by its name in the cluster's DNS; another name is of something outside.
pub(super) fn service(host: &str) -> Named {
    let (kind, ns, name) = match host.splitn(4, '.').collect::<Vec<_>>()[..] {
        [name, namespace, "svc"] | [name, namespace, "svc", _] => ("Service", namespace, name),
        _ => (UNMANAGED, "", host),
    };
    Named { ns: ns.to_owned(), kind: kind.to_owned(), name: name.to_owned(), labels: Vec::new() }
}

impl From<Named> for Endpoint {
    fn from(Named { ns, kind, name, labels }: Named) -> Self {
        Self { ns, kind, name, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: [u8; 4], pod: &str, service: &str) -> Option<FlowPeer> {
        let namespace = if pod.is_empty() { "" } else { "shop" };
        let [namespace, pod, service] = [namespace, pod, service].map(str::to_owned);
        Some(FlowPeer { address: address.to_vec().into(), namespace, pod, service, ..FlowPeer::default() })
    }

    /// 10.0.0.1 was a pod of `web` until second 100 and is one of `api`; 10.96.0.1 is a Service.
    fn resident(address: IpAddr, time: Timestamp) -> Option<Resident> {
        let workload = match address.to_string().as_str() {
            "10.0.0.1" if time.as_second() < 100 => "shop.Deployment.web",
            "10.0.0.1" => "other.StatefulSet.api.v2",
            "10.96.0.1" => "shop.Service.db",
            "10.1.0.1" => ".Node.n1",
            _ => return None,
        };
        let labels = [("app".into(), "web".into())].into();
        Some(Resident { workload: workload.into(), labels, node: "n1".into() })
    }

    #[test]
    fn both_ends_mean_one_conversation_and_names_of_the_outside_are_kept_apart() {
        let key = |from: Option<FlowPeer>, to: Option<FlowPeer>, second: u64| {
            let last_seen = second * 1_000_000_000;
            resolve(&Flow { source: from, destination: to, last_seen, ..Flow::default() }, resident).key()
        };
        let by_hubble = |kind: &str, name: &str, last: u8| {
            let [kind, name] = [kind, name].map(str::to_owned);
            Some(FlowPeer { kind, name, ..peer([10, 0, 0, last], "a-pod", "").unwrap() })
        };
        let at_source = key(by_hubble("Deployment", "web", 1), by_hubble("Pod", "db-0", 3), 11);
        let at_destination = key(by_hubble("Pod", "web-1", 1), by_hubble("StatefulSet", "db", 3), 19);
        assert_eq!(at_source, at_destination);
        assert_ne!(at_source, key(by_hubble("Deployment", "web", 1), by_hubble("Pod", "db-0", 3), 20));
        let outside = |name: &str| key(None, peer([192, 0, 2, 1], "", name), 11);
        assert_ne!(outside("a.example.com"), outside("b.example.com"));
    }

    #[test]
    fn each_end_is_who_it_was_then() {
        let told = |peer: Option<FlowPeer>, second: u64| {
            let flow = Flow { source: peer, last_seen: second * 1_000_000_000, ..Flow::default() };
            let Named { ns, kind, name, .. } = resolve(&flow, resident).source.endpoint;
            format!("{ns} {kind} {name}")
        };
        for (peer, second, expected) in [
            (peer([10, 0, 0, 1], "", ""), 99, "shop Deployment web"),
            (peer([10, 0, 0, 1], "", ""), 100, "other StatefulSet api.v2"),
            (peer([10, 0, 0, 1], "web-1", ""), 99, "shop Deployment web"),
            (peer([10, 0, 0, 1], "web-1", ""), 100, "shop Pod web-1"),
            (peer([10, 96, 0, 1], "", ""), 1, "shop Service db"),
            (peer([10, 1, 0, 1], "", ""), 1, " Node n1"),
            (peer([10, 9, 9, 9], "", "db.shop.svc.cluster.local"), 1, "shop Service db"),
            (peer([10, 9, 9, 9], "", "db.shop.svc"), 1, "shop Service db"),
            (peer([10, 9, 9, 9], "", "api.example.com"), 1, " Unmanaged api.example.com"),
            (peer([10, 9, 9, 9], "", ""), 1, " Unknown unknown"),
            (None, 1, " Unknown unknown"),
        ] {
            assert_eq!(told(peer.clone(), second), expected, "{peer:?}");
        }
        let by_hubble = FlowPeer {
            kind: "Deployment".to_owned(),
            name: "shop-web".to_owned(),
            labels: vec!["k8s:app=web".to_owned()],
            ..peer([10, 0, 0, 1], "web-1", "").unwrap()
        };
        assert_eq!(told(Some(by_hubble), 100), "shop Deployment shop-web", "who saw it knew it then");
        let of_far = FlowPeer {
            kind: "Pod".to_owned(),
            name: "web-1".to_owned(),
            ..peer([10, 0, 0, 1], "web-1", "").unwrap()
        };
        assert_eq!(
            told(Some(of_far.clone()), 99),
            "shop Deployment web",
            "Hubble knows no workloads elsewhere"
        );
        assert_eq!(told(Some(of_far), 100), "shop Pod web-1", "who saw it knew it then");
        let flow = Flow { destination: peer([10, 0, 0, 1], "", ""), ..Flow::default() };
        let end = resolve(&flow, resident).destination;
        assert_eq!((end.endpoint.labels, &*end.node), (vec!["k8s:app=web".to_owned()], "n1"));
        assert_eq!(address(&[0; 16]), Some(IpAddr::from([0; 16])));
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
