//! What happened on hosts and is over, as their agents tell it: warnings like those of the cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::{
    cloud::v1::{Action, EventSource, KubernetesEvent, ObjectReference, stream_events_request::Request},
    node::v1::HostEvent,
};
use prometheus_client::metrics::counter::Counter;

use super::{
    incident::after,
    uid::{hash, uuid},
};
use crate::{
    inventory::{self, convert},
    uplink::lanes::SignalLane,
};

/// An agent repeats on each connection what happened in the ten minutes before.
const REMEMBERED: Duration = Duration::from_mins(20);
/// Of one node in that time; beyond it nothing more is told.
const MOST: usize = 256;
/// Bytes of a kind and of an id.
const MOST_BYTES: usize = 64;

/// Tells each event once. Clones share what was told.
#[derive(Clone)]
pub struct Happened(Arc<Shared>);

struct Shared {
    /// By node.
    told: Mutex<HashMap<Box<str>, Vec<Told>>>,
    pods: inventory::Pods,
    lane: SignalLane,
    dropped: Counter,
}

/// An event that was told.
struct Told {
    /// What its UID is made of.
    id: u128,
    /// When it was heard of first.
    at: Timestamp,
}

impl Happened {
    /// Nothing has happened. Signals go to `lane`.
    pub fn new(pods: inventory::Pods, lane: SignalLane) -> Self {
        let (told, dropped) = (Mutex::default(), Counter::default());
        Self(Arc::new(Shared { told, pods, lane, dropped }))
    }

    /// Events that were not told: of pods that do not run on their agent's node, without a kind,
    /// or too many.
    pub fn dropped(&self) -> Counter {
        self.0.dropped.clone()
    }

    /// The agent of `node` says that this happened.
    pub fn on(&self, node: &str, events: Vec<HostEvent>, now: Timestamp) {
        if events.is_empty() {
            return;
        }
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, events| {
            events.retain(|event| after(event.at, REMEMBERED) > now);
            !events.is_empty()
        });
        let told = told.entry(node.into()).or_default();
        for event in events {
            let id = hash(&format!("{node}/{}/{}", event.kind, event.id));
            if told.iter().any(|known| known.id == id) {
                continue;
            }
            match self.signal(node, event, id, now) {
                Ok(_) if told.len() >= MOST => drop(self.0.dropped.inc()),
                Ok(signal) => {
                    told.push(Told { id, at: now });
                    self.0.lane.send(Request::KubernetesEvent(signal));
                }
                Err(Untold::Kept) => {}
                Err(Untold::Wrong) => drop(self.0.dropped.inc()),
            }
        }
    }

    fn signal(
        &self,
        node: &str,
        event: HostEvent,
        id: u128,
        now: Timestamp,
    ) -> Result<KubernetesEvent, Untold> {
        let HostEvent { kind, id: own_id, time, message, pod_uid } = event;
        let is_word = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_word || kind.len() > MOST_BYTES || own_id.len() > MOST_BYTES {
            return Err(Untold::Wrong);
        }
        let about = if pod_uid.is_empty() {
            // As the kubelet refers to its node.
            let (name, uid) = (node.to_owned(), node.to_owned());
            ObjectReference { kind: "Node".to_owned(), name, uid, ..ObjectReference::default() }
        } else {
            let pod = self.0.pods.get(&pod_uid).filter(|pod| *pod.node == *node).ok_or(Untold::Wrong)?;
            if self.0.pods.keeps(&pod.info.namespace) {
                return Err(Untold::Kept);
            }
            ObjectReference {
                kind: "Pod".to_owned(),
                namespace: pod.info.namespace,
                name: pod.info.name,
                uid: pod.api_uid.to_string(),
                ..ObjectReference::default()
            }
        };
        let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
        let time = Some(convert::timestamp(time.map_or(now, |time| time.min(now))));
        Ok(KubernetesEvent {
            // As client-go names them.
            name: format!("{}.{:016x}", about.name, id as u64),
            namespace: if about.namespace.is_empty() {
                "default".to_owned()
            } else {
                about.namespace.clone()
            },
            uid: uuid(id),
            event_type: "Warning".to_owned(),
            reason: kind,
            message,
            involved_object: Some(ObjectReference { api_version: "v1".to_owned(), ..about }),
            source: Some(EventSource { component: "kestrel-node-agent".to_owned(), host: node.to_owned() }),
            first_timestamp: time,
            last_timestamp: time,
            count: 1,
            action: Action::Create.into(),
        })
    }
}

/// Why an event is not told.
enum Untold {
    /// It stays in the cluster.
    Kept,
    /// Its agent may not say it, or says it wrongly.
    Wrong,
}

#[cfg(test)]
mod tests {
    use kestrel_proto::node::v1::LogPolicy;
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::{excluded::Excluded, inventory::pods::Policies, signals::told};

    fn happened() -> (told::Told, Happened) {
        let far = told::Told::new();
        let policies = Policies { default: LogPolicy::Errors, excluded: Excluded::parse("bank") };
        let pods = inventory::Pods::new(policies);
        for (namespace, name, uid, node) in
            [("shop", "web", "u1", "n1"), ("shop", "other", "u2", "n2"), ("bank", "vault", "u3", "n1")]
        {
            let meta = json!({"namespace": namespace, "name": name, "uid": uid});
            let pod = json!({"metadata": meta, "spec": {"nodeName": node, "containers": []}});
            let pod = serde_json::from_value(pod).unwrap();
            pods.apply(&pod, convert::pod(&pod).encode_to_vec().into());
        }
        let happened = Happened::new(pods, far.lane());
        (far, happened)
    }

    fn event(id: &str, pod: &str) -> HostEvent {
        HostEvent {
            kind: "OOMKilled".to_owned(),
            id: id.to_owned(),
            time: Some(convert::timestamp(at(-5))),
            message: "the kernel killed x".to_owned(),
            pod_uid: pod.to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn told(far: &told::Told) -> Vec<KubernetesEvent> {
        let signals = far.next().into_iter().map(|request| match request {
            Request::KubernetesEvent(event) => event,
            other => panic!("{other:?}"),
        });
        signals.collect()
    }

    #[test]
    fn an_event_is_told_once_of_its_pod_with_a_uid_of_node_kind_and_time() {
        let (far, happened) = happened();
        happened.on("n1", vec![event("1", "u1"), event("1", "u1"), event("2", "")], at(0));
        happened.on("n1", vec![event("1", "u1")], at(60));
        let [of_pod, of_node] = &told(&far)[..] else { panic!("two") };
        let about = of_pod.involved_object.as_ref().unwrap();
        assert_eq!(
            (&*about.kind, &*about.namespace, &*about.name, &*about.uid),
            ("Pod", "shop", "web", "u1")
        );
        assert_eq!((&*of_pod.reason, &*of_pod.event_type, of_pod.count), ("OOMKilled", "Warning", 1));
        assert_eq!(of_pod.first_timestamp, Some(convert::timestamp(at(-5))));
        assert_eq!(of_pod.uid, uuid(hash("n1/OOMKilled/1")));
        let about = of_node.involved_object.as_ref().unwrap();
        assert_eq!((&*about.kind, &*about.name, &*of_node.namespace), ("Node", "n1", "default"));
    }

    #[test]
    fn an_agent_speaks_for_the_pods_of_its_node_and_only_so_often() {
        let (far, happened) = happened();
        let nameless = HostEvent { kind: "no word".to_owned(), ..event("3", "") };
        happened.on("n1", vec![event("1", "u2"), event("2", "gone"), nameless], at(0));
        assert_eq!((told(&far), happened.dropped().get()), (vec![], 3));
        happened.on("n1", vec![event("4", "u3")], at(0));
        assert_eq!((told(&far), happened.dropped().get()), (vec![], 3), "stays in the cluster");
        let many = |from: usize| (from..from + MOST).map(|id| event(&id.to_string(), "u1")).collect();
        happened.on("n1", many(10), at(0));
        happened.on("n1", vec![event("more", "u1")], at(1));
        assert_eq!((told(&far).len(), happened.dropped().get()), (MOST, 4));
        happened.on("n2", vec![event("more", "u2")], at(1));
        happened.on("n1", vec![event("later", "u1")], at(1200));
        assert_eq!(told(&far).len(), 2);
    }
}
