//! The signals of all nodes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kestrel_proto::cloud::v1::NodeCondition;

use super::{incident::after, node::Node, note::Voice, register::Register, thresholds::Thresholds};

/// The signals of all nodes, by name, as hosts know no UID. Clones share them.
#[derive(Clone)]
pub struct Nodes {
    register: Register<Node>,
    hearing: Arc<Mutex<Hearing>>,
}

/// Whether nodes are heard of at all. A heartbeat that does not come may be
/// missing here, not there.
struct Hearing {
    /// Some node has something to say more often than that.
    pause: Duration,
    /// From when on a node that is silent is silent itself.
    from: Timestamp,
    /// When one was heard last.
    last: Timestamp,
}

impl Nodes {
    /// No nodes yet; signals go to `voice`.
    pub fn new(thresholds: Thresholds, voice: impl Into<Voice>) -> Self {
        let hearing = Hearing { pause: thresholds.heartbeat / 2, from: Timestamp::MIN, last: Timestamp::MIN };
        let register = Register::new(thresholds, voice);
        Self { register, hearing: Arc::new(Mutex::new(hearing)) }
    }

    /// How many nodes the cluster has.
    pub fn count(&self) -> usize {
        self.register.count(Node::exists)
    }

    /// The agent of the node `name` reports what its host shows: the full list.
    pub fn reported(&self, name: &str, conditions: Vec<NodeCondition>) {
        let now = Timestamp::now();
        self.register.reported(name, Node::reported(conditions, now), now);
    }

    /// A list begins: what it does not mention is gone when it ends.
    pub(crate) fn begin(&self) {
        self.register.begin();
    }

    /// Whether what changes is seen from `now` on.
    pub(crate) fn hears(&self, does: bool, now: Timestamp) {
        self.register.hears(does, now);
    }

    /// The API server shows the node so.
    pub(crate) fn seen(&self, object: &core::Node, now: Timestamp) {
        self.hearing().heard(now);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        self.register.seen(name, Node::seen(object, now), now);
    }

    /// The node is gone.
    pub(crate) fn gone(&self, name: &str, now: Timestamp) {
        self.register.gone(name, now);
    }

    /// The list is complete.
    pub(crate) fn finish(&self, now: Timestamp) {
        self.register.finish(now);
        self.hearing().listed(now);
    }

    /// Looks at what time alone may have changed.
    pub(super) fn tick(&self, now: Timestamp) {
        if self.hearing().hears(now) {
            self.register.tick(now);
        }
    }

    /// The state is whole after each of its operations.
    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hearing {
    fn heard(&mut self, now: Timestamp) {
        if now > after(self.last, self.pause) {
            self.listed(now);
        }
        self.last = now;
    }

    /// After a pause nodes had no chance to say something, and do so one after another.
    fn listed(&mut self, now: Timestamp) {
        self.from = after(now, self.pause / 8);
        self.last = now;
    }

    fn hears(&self, now: Timestamp) -> bool {
        now >= self.from && now <= after(self.last, self.pause)
    }
}

#[cfg(test)]
mod tests;
