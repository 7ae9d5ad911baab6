//! Components: DNS, the network of pods, the mesh, kube-proxy. What is wrong with
//! their pods and workloads is one signal of theirs.

mod table;
mod trouble;
mod wire;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{KubernetesEvent, OwnerReference, stream_events_request::Request};
use kube::Resource;

use super::{incident::Finding, note::Voice};
use crate::inventory::Sink;
pub use table::Home;
use trouble::Troubles;
pub(super) use wire::words;

/// What counts of a part only after a time counts by then.
const PARTS_SETTLE: Duration = Duration::from_mins(2);

/// Something that can be wrong with a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is a part of.
    pub home: Home,
    /// Its kind and name, as a sentence can begin.
    pub name: String,
    /// It is one of the pods, not the workload.
    pub is_pod: bool,
    /// The node on which it is.
    pub node: Option<String>,
}

/// The components of a cluster. Clones share them.
///
/// CREATE when the first part of a component has something wrong, UPDATE as that changes
/// (a few at once, then one in a while) and when nothing is wrong any more, DELETE
/// when the workload is gone before that.
#[derive(Clone)]
pub struct Components(Arc<Shared>);

struct Shared {
    state: Mutex<Troubles>,
    voice: Voice,
}

impl Components {
    /// None is known yet; signals go to `voice`.
    pub fn new(voice: impl Into<Voice>) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), voice: voice.into() }))
    }

    /// A list of all workloads of `kind` begins: what it does not mention is gone when it ends.
    pub fn begin(&self, kind: &str) {
        self.state().begin(kind);
    }

    /// A component has this workload, which shall have so many pods.
    pub fn workload(&self, home: &Home, uid: &str, pods: i32) {
        self.state().workload(home, uid, pods);
    }

    /// A component's workload is gone.
    pub fn workload_gone(&self, home: &Home, now: Timestamp) {
        self.change(|troubles| troubles.workload_gone(home, now));
    }

    /// The list of the workloads of `kind` is complete.
    pub fn finish(&self, kind: &str, now: Timestamp) {
        self.change(|troubles| troubles.finish(kind, now));
    }

    /// This and nothing else is wrong with the part that has this UID.
    pub fn found(&self, uid: &str, part: &Part, findings: &[Finding], now: Timestamp) {
        self.change(|troubles| troubles.found(uid, part, findings, now));
    }

    /// A part with which something was wrong is gone.
    pub fn gone(&self, uid: &str, part: &Part, now: Timestamp) {
        self.state().gone(uid, &part.home, now);
    }

    /// Looks at what time alone may have changed.
    pub fn tick(&self, now: Timestamp) {
        self.change(|troubles| troubles.tick(now));
        let is_owed = |uid: &str| {
            let from = self.0.voice.note.owes(uid).and_then(|from| from.checked_add(PARTS_SETTLE).ok());
            from.is_some_and(|from| from <= now)
        };
        self.change(|troubles| troubles.well(is_owed, now));
    }

    /// What makes the networks of pods on `node`: a component's DaemonSet, else the node.
    pub(super) fn network_of(&self, node: &str) -> Part {
        let home = self.state().cni().cloned().unwrap_or_else(|| Home::of_node(node));
        Part { home, name: format!("Node {node}"), is_pod: false, node: Some(node.to_owned()) }
    }

    /// Kind and name of the workload of DNS that a pod of this namespace, with these owners, is of.
    pub(super) fn dns_of(
        &self,
        namespace: &str,
        owners: &[OwnerReference],
    ) -> Option<(&'static str, String)> {
        // Of nearly all pods this is all that is looked at.
        if !table::is_home_of_dns(namespace) {
            return None;
        }
        let (kind, name) = owners.iter().find_map(|owner| table::workload(&owner.kind, &owner.name))?;
        self.state().has_dns(namespace, kind, name).then(|| (kind, name.to_owned()))
    }

    /// Whether the component's workload was there and is gone.
    pub(super) fn has_lost(&self, home: &Home) -> bool {
        self.state().has_lost(home)
    }

    /// Called with the lock held while it sends, so that signals are in order.
    fn change<S: IntoIterator<Item = KubernetesEvent>>(&self, change: impl FnOnce(&mut Troubles) -> S) {
        let mut state = self.state();
        for signal in change(&mut state) {
            let (uid, is_open) = (signal.uid.clone(), !wire::is_end(&signal));
            self.0.voice.lane.send(Request::KubernetesEvent(signal));
            self.0.voice.note.turned(&uid, is_open);
        }
    }

    fn state(&self) -> MutexGuard<'_, Troubles> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the workloads of one kind, to know which components there are.
pub struct Workloads<F> {
    /// The components.
    pub components: Components,
    /// The kind.
    pub kind: &'static str,
    /// How many pods a workload shall have.
    pub pods: F,
}

impl<K: Resource, F: Fn(&K) -> i32 + Send + 'static> Sink<K> for Workloads<F> {
    fn begin(&self) {
        self.components.begin(self.kind);
    }

    fn apply(&self, object: &K) {
        if let Some(home) = Home::of_workload(self.kind, object.meta()) {
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            self.components.workload(&home, uid, (self.pods)(object));
        }
    }

    fn remove(&self, object: &K) {
        if let Some(home) = Home::of_workload(self.kind, object.meta()) {
            self.components.workload_gone(&home, Timestamp::now());
        }
    }

    fn finish(&self) {
        self.components.finish(self.kind, Timestamp::now());
    }
}

#[cfg(test)]
mod tests;
