//! What is wrong in the cluster, told when it begins, changes and ends.

pub mod clock;
pub mod component;
pub mod event;
pub mod incident;
pub mod node;
pub mod register;
pub mod thresholds;
#[cfg(test)]
mod told;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core;
use kestrel_proto::cloud::v1::{Action, NodeCondition, stream_events_request::Request};

use crate::{inventory::convert, uplink::lanes::SignalLane};
use node::Node;
use thresholds::Thresholds;

/// The signals of everything that is watched. Clones share them.
#[derive(Clone)]
pub struct Signals {
    /// Of the nodes.
    pub nodes: Nodes,
}

impl Signals {
    /// Nothing is known yet; signals go to `lane`.
    pub fn new(_thresholds: &Thresholds, lane: &SignalLane) -> Self {
        Self { nodes: Nodes::new(lane.clone()) }
    }

    /// Looks at what time alone may have changed.
    pub fn tick(&self, _now: Timestamp) {}
}

/// The signals of all nodes. Clones share them.
#[derive(Clone)]
pub struct Nodes(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    lane: SignalLane,
}

#[derive(Default)]
struct State {
    /// by name, as hosts know no UID
    nodes: HashMap<String, Entry>,
    /// number of the current list
    list: u32,
}

#[derive(Default)]
struct Entry {
    node: Node,
    /// number of the list in which it was last seen
    list: u32,
    /// its host has reported in this process's life
    reported: bool,
}

impl Nodes {
    /// No nodes yet; signals go to `lane`.
    pub fn new(lane: SignalLane) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), lane }))
    }

    /// How many nodes the cluster has.
    pub fn count(&self) -> usize {
        self.state().nodes.values().filter(|entry| entry.node.uid().is_some()).count()
    }

    /// The agent of the node `name` reports what its host shows: the full list.
    ///
    /// The first report of a node is told even if nothing is wrong. It is the
    /// state from which changes are told, and it closes what an earlier leader
    /// opened and nobody saw end.
    pub fn reported(&self, name: &str, mut conditions: Vec<NodeCondition>) {
        // The rest is for the API server to say.
        conditions.retain(|condition| condition.r#type.starts_with(node::HOST_PREFIX));
        let mut state = self.state();
        let entry = state.nodes.entry(name.to_owned()).or_default();
        let is_first = !std::mem::replace(&mut entry.reported, true);
        let action = entry.node.reported(conditions, is_first);
        self.send(&entry.node, action);
    }

    /// A list begins: what it does not mention is gone when it ends.
    pub(crate) fn begin(&self) {
        self.state().list += 1;
    }

    /// The API server shows the node so.
    pub(crate) fn seen(&self, object: &core::v1::Node) {
        let view = convert::node_condition_change(object);
        let mut state = self.state();
        let list = state.list;
        let entry = state.nodes.entry(view.name.clone()).or_default();
        if entry.node.uid().is_some_and(|uid| uid != view.uid) {
            self.send(&entry.node, Some(Action::Delete));
            *entry = Entry::default();
        }
        entry.list = list;
        let action = entry.node.seen(view);
        self.send(&entry.node, action);
    }

    /// The node is gone.
    pub(crate) fn gone(&self, name: &str) {
        if let Some(entry) = self.state().nodes.remove(name) {
            self.send(&entry.node, Some(Action::Delete));
        }
    }

    /// The list is complete.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        let list = state.list;
        let is_gone = |entry: &Entry| entry.node.uid().is_some() && entry.list != list;
        for (_, entry) in state.nodes.extract_if(|_, entry| is_gone(entry)) {
            self.send(&entry.node, Some(Action::Delete));
        }
    }

    /// Called with the lock held, so that a node's signals are in order.
    fn send(&self, node: &Node, action: Option<Action>) {
        if let Some(message) = action.and_then(|action| node.message(action, Timestamp::now())) {
            self.0.lane.send(Request::NodeConditionChange(message));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::cloud::v1::StreamEventsRequest;
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::uplink::{
        lanes::{Lane, Lanes},
        metrics::Metrics,
    };

    fn node(name: &str, uid: &str, ready: &str) -> core::v1::Node {
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        serde_json::from_value(json!({"metadata": {"name": name, "uid": uid}, "status": status})).unwrap()
    }

    fn condition(kind: &str) -> NodeCondition {
        NodeCondition { r#type: kind.to_owned(), status: "False".to_owned(), ..Default::default() }
    }

    /// UID, action and number of conditions of every signal that waits.
    fn told(lanes: &Lanes) -> Vec<(String, Action, usize)> {
        let signals = std::iter::from_fn(|| lanes.take(Lane::Signals));
        signals
            .map(|(_, message)| {
                let (head, body) = message.on_own_stream();
                let envelope = StreamEventsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap();
                let Some(Request::NodeConditionChange(change)) = envelope.request else {
                    panic!("{envelope:?}")
                };
                (change.uid.clone(), change.action(), change.conditions.len())
            })
            .collect()
    }

    fn signal(uid: &str, action: Action, conditions: usize) -> (String, Action, usize) {
        (uid.to_owned(), action, conditions)
    }

    #[test]
    fn a_host_shows_conditions_of_its_own_and_its_first_report_is_told() {
        let lanes = Lanes::new(Metrics::default());
        lanes.lead();
        let nodes = Nodes::new(lanes.signals());
        nodes.seen(&node("a", "1", "True"));
        assert_eq!(told(&lanes), []);
        nodes.reported("a", vec![condition("kestrel.ai/DiskPressure"), condition("Ready")]);
        assert_eq!(told(&lanes), [signal("1", Action::Update, 2)]);
        nodes.reported("a", vec![condition("kestrel.ai/DiskPressure")]);
        assert_eq!(told(&lanes), []);
        nodes.reported("unknown", vec![]);
        assert_eq!((nodes.count(), told(&lanes)), (1, vec![]));
    }

    #[test]
    fn a_node_that_is_gone_is_told_gone() {
        let lanes = Lanes::new(Metrics::default());
        lanes.lead();
        let nodes = Nodes::new(lanes.signals());
        for name in ["a", "b", "c"] {
            nodes.seen(&node(name, name, "True"));
        }
        nodes.gone("a");
        nodes.gone("a");
        assert_eq!(told(&lanes), [signal("a", Action::Delete, 1)]);
        nodes.begin();
        nodes.seen(&node("b", "b", "True"));
        nodes.finish();
        assert_eq!(told(&lanes), [signal("c", Action::Delete, 1)]);
        nodes.seen(&node("b", "another", "False"));
        assert_eq!(told(&lanes), [signal("b", Action::Delete, 1), signal("another", Action::Create, 1)]);
    }
}
