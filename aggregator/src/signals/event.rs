//! The Warning events of a cluster.

pub(super) mod budget;
mod heard;
mod networkless;
mod occurrence;
mod sandbox;
mod series;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kestrel_proto::cloud::v1::{KubernetesEvent, stream_events_request::Request};
use prometheus_client::metrics::counter::Counter;

use super::component::{Components, Part};
use crate::{
    inventory::{Sink, uid},
    uplink::lanes::SignalLane,
};
pub use networkless::Networkless;
use occurrence::Occurrence;
use sandbox::{Failure, Sandboxes};
pub use series::Mark;
use series::Series;

/// The events of a cluster. Clones share them.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    components: Components,
    networkless: Networkless,
    lane: SignalLane,
}

struct State {
    series: Series,
    sandboxes: Sandboxes,
    /// The nodes on which pods get no network, and whose trouble that is.
    troubled: BTreeMap<String, Part>,
}

impl Events {
    /// Nothing has happened before now. Signals go to `lane`, those of nodes on which pods get no
    /// network to `components`; which nodes that are, `networkless` hears at each tick.
    pub fn new(components: Components, networkless: Networkless, lane: SignalLane) -> Self {
        let series = Series::new(Timestamp::now());
        let state = State { series, sandboxes: Sandboxes::default(), troubled: BTreeMap::new() };
        Self(Arc::new(Shared { state: Mutex::new(state), components, networkless, lane }))
    }

    /// What is told of the first list.
    pub fn set_mark(&self, mark: Mark) {
        self.state().series.set_mark(mark);
    }

    /// Events that the cluster still had and that were forgotten for want of room.
    pub fn forgotten(&self) -> Counter {
        self.state().series.forgotten()
    }

    /// An event is so.
    fn seen(&self, event: &Event, now: Timestamp) {
        let Some(occurrence) = Occurrence::of(event, now) else { return };
        let mut state = self.state();
        let State { series, sandboxes, troubled } = &mut *state;
        let is_covered = |occurrence: &Occurrence| {
            let Some(failure) = failure(occurrence) else { return false };
            let node = failure.node.clone();
            let Some(finding) = sandboxes.failed(failure, now) else { return false };
            if troubled.get(&node).is_some_and(|part| self.0.components.has_lost(&part.home)) {
                self.ended(troubled, &node, now);
            }
            let part = troubled.entry(node.clone()).or_insert_with(|| self.0.components.network_of(&node));
            self.0.components.found(&key(&node), part, &[finding], now);
            true
        };
        let signals = series.seen(occurrence, is_covered, now);
        self.send(signals);
    }

    /// A pod has a network.
    fn started(&self, node: &str, uid: &str, now: Timestamp) {
        let mut state = self.state();
        if state.sandboxes.started(node, uid) {
            self.ended(&mut state.troubled, node, now);
        }
    }

    /// Looks at what time alone may have changed.
    pub fn tick(&self, now: Timestamp) {
        let mut state = self.state();
        self.0.networkless.are(state.troubled.keys(), now);
        for node in state.sandboxes.tick(now) {
            self.ended(&mut state.troubled, &node, now);
        }
        let signals = state.series.tick(now);
        self.send(signals);
    }

    /// The pods of a node get networks again, or somebody else is to make them.
    fn ended(&self, troubled: &mut BTreeMap<String, Part>, node: &str, now: Timestamp) {
        if let Some(part) = troubled.remove(node) {
            self.0.components.found(&key(node), &part, &[], now);
        }
    }

    /// Called with the lock held, so that signals are in order.
    fn send(&self, signals: impl IntoIterator<Item = KubernetesEvent>) {
        for signal in signals {
            self.0.lane.send(Request::KubernetesEvent(signal));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink<Event> for Events {
    fn begin(&self) {
        self.state().series.begin();
    }

    fn apply(&self, object: &Event) {
        self.seen(object, Timestamp::now());
    }

    fn remove(&self, object: &Event) {
        let mut state = self.state();
        let signal = state.series.gone(uid(object));
        self.send(signal);
    }

    fn finish(&self) {
        let mut state = self.state();
        let signals = state.series.finish();
        self.send(signals);
    }
}

/// Takes pods, to see which have a network.
pub struct Started(pub Events);

impl Sink<Pod> for Started {
    fn begin(&self) {}

    fn apply(&self, object: &Pod) {
        let node = object.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let address = object.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let uid = object.metadata.uid.as_deref();
        if let (Some(node), Some(uid), Some(_address)) = (node, uid, address) {
            self.0.started(node, uid, Timestamp::now());
        }
    }

    fn remove(&self, _object: &Pod) {}

    fn finish(&self) {}
}

/// By what a component knows the node.
fn key(node: &str) -> String {
    format!("node/{node}")
}

/// The kubelet of a node could not make the network of a pod.
fn failure(occurrence: &Occurrence) -> Option<Failure> {
    let KubernetesEvent { reason, message, source, involved_object, .. } = &occurrence.told;
    let (source, pod) = (source.as_ref()?, involved_object.as_ref()?);
    let is_meant = reason == sandbox::REASON && pod.kind == "Pod" && !source.host.is_empty();
    is_meant.then(|| Failure {
        node: source.host.clone(),
        uid: pod.uid.as_str().into(),
        pod: format!("{}/{}", pod.namespace, pod.name),
        first: occurrence.first,
        last: occurrence.last,
        count: occurrence.count,
        message: message.clone(),
    })
}

#[cfg(test)]
mod tests;
