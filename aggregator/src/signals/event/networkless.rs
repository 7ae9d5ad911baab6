//! Nodes on which pods get no network, for those who judge the pods.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::signals::incident::after;

/// The nodes on which pods get no network, and until when a pod there may still be
/// late for it. Clones share them.
#[derive(Clone)]
pub struct Networkless {
    nodes: Arc<Mutex<BTreeMap<String, Timestamp>>>,
    wait: Duration,
}

impl Networkless {
    /// No nodes yet; a pod gets `wait` to begin after the trouble of its node.
    pub fn new(wait: Duration) -> Self {
        Self { nodes: Arc::default(), wait }
    }

    /// It is these nodes now.
    pub(super) fn are<'a>(&self, nodes: impl Iterator<Item = &'a String>, now: Timestamp) {
        let end = after(now, self.wait);
        let mut all = self.nodes();
        // A clock that was set back holds nothing for longer.
        all.retain(|_, until| now < *until && *until <= end);
        all.extend(nodes.map(|node| (node.clone(), end)));
    }

    /// Until when, as far as is known, it may be for want of a network that a pod of
    /// the node does not begin.
    pub(in crate::signals) fn until(&self, node: &str) -> Option<Timestamp> {
        self.nodes().get(node).copied()
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
