//! Nodes on which pods get no network.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::signals::incident::Finding;

/// The kubelet's reason for it.
pub(super) const REASON: &str = "FailedCreatePodSandBox";
/// So many pods of a node …
const PODS: usize = 3;
/// … within this time are trouble of the node and not of the pods.
const WINDOW: Duration = Duration::from_mins(2);
/// It is over if nothing is heard of it for so long. A reporter that says a thing over
/// and over may say it every 5 minutes (the limit in client-go).
const QUIET: Duration = Duration::from_mins(6);
/// Pods that are remembered, on all nodes.
const MOST: usize = 10_000;
/// Pods that are named.
const NAMED: usize = 3;

/// A pod that got no network.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The node.
    pub(super) node: String,
    pub(super) uid: Arc<str>,
    /// Namespace and name.
    pub(super) pod: String,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) count: u32,
    /// What the kubelet says.
    pub(super) message: String,
}

/// The pods without a network, by node.
#[derive(Default)]
pub(super) struct Sandboxes {
    nodes: BTreeMap<String, Node>,
    pods: usize,
}

#[derive(Default)]
struct Node {
    pods: BTreeMap<Arc<str>, Pod>,
    /// When the trouble of the node began, if it is one.
    since: Option<Timestamp>,
    /// What the kubelet said last.
    message: String,
}

struct Pod {
    name: String,
    first: Timestamp,
    last: Timestamp,
    count: u32,
}

impl Sandboxes {
    /// A pod got no network. Returns what is wrong with its node, if it is the node.
    pub(super) fn failed(&mut self, failure: Failure, now: Timestamp) -> Option<Finding> {
        let Failure { node, uid, pod, first, last, count, message } = failure;
        let node = match self.nodes.get_mut(&node) {
            Some(node) => node,
            None if self.pods < MOST => self.nodes.entry(node).or_default(),
            None => return None,
        };
        // What happened long ago says nothing of now.
        if last + QUIET > now && (self.pods < MOST || node.pods.contains_key(&uid)) {
            let known = node.pods.entry(uid).or_insert_with(|| {
                self.pods += 1;
                Pod { name: pod, first, last, count: 0 }
            });
            known.first = known.first.min(first);
            known.last = known.last.max(last);
            known.count = known.count.max(count);
            node.message = message;
        }
        let recent = || node.pods.values().filter(|pod| pod.last + WINDOW > last);
        if node.since.is_none() && recent().count() >= PODS {
            node.since = recent().map(|pod| pod.first).min();
        }
        node.finding()
    }

    /// A pod of the node has a network. Returns whether that ends the node's trouble.
    pub(super) fn started(&mut self, node: &str, uid: &str) -> bool {
        let Some(known) = self.nodes.get_mut(node) else { return false };
        if known.pods.remove(uid).is_none() {
            return false;
        }
        self.pods -= 1;
        known.pods.is_empty() && self.nodes.remove(node).is_some_and(|node| node.since.is_some())
    }

    /// Forgets what was long ago. Returns the nodes whose trouble is over.
    pub(super) fn tick(&mut self, now: Timestamp) -> BTreeSet<String> {
        let mut over = BTreeSet::new();
        self.nodes.retain(|name, node| {
            node.pods.retain(|_, pod| pod.last + QUIET > now);
            if node.pods.is_empty() && node.since.is_some() {
                over.insert(name.clone());
            }
            !node.pods.is_empty()
        });
        self.pods = self.nodes.values().map(|node| node.pods.len()).sum();
        over
    }
}

impl Node {
    fn finding(&self) -> Option<Finding> {
        let since = self.since?;
        let names: Vec<_> = self.pods.values().take(NAMED).map(|pod| pod.name.as_str()).collect();
        let message = format!(
            "{} pods got no network, such as {}: {}",
            self.pods.len(),
            names.join(", "),
            self.message
        );
        let count = self.pods.values().map(|pod| pod.count).fold(0, u32::saturating_add);
        Some(Finding { kind: "PodSandbox".into(), reason: REASON.to_owned(), message, since, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failure(node: &str, pod: &str, last: i64) -> Failure {
        Failure {
            node: node.to_owned(),
            uid: pod.into(),
            pod: format!("shop/{pod}"),
            first: second(last),
            last: second(last),
            count: 1,
            message: "no IP".to_owned(),
        }
    }

    /// `None`: the pod's own trouble; else since when, how many times.
    fn failed(sandboxes: &mut Sandboxes, node: &str, pod: &str, at: i64) -> Option<(i64, u32)> {
        let finding = sandboxes.failed(failure(node, pod, at), second(at));
        finding.map(|finding| (finding.since.as_second(), finding.count))
    }

    #[test]
    fn many_pods_of_a_node_in_a_short_time_are_the_nodes_trouble() {
        let mut sandboxes = Sandboxes::default();
        assert_eq!(failed(&mut sandboxes, "a", "1", 1000), None);
        assert_eq!(failed(&mut sandboxes, "a", "1", 1005), None, "again and again");
        assert_eq!(failed(&mut sandboxes, "b", "2", 1010), None, "another node");
        assert_eq!(failed(&mut sandboxes, "a", "2", 1200), None);
        assert_eq!(failed(&mut sandboxes, "a", "3", 1310), None, "the first one's was long ago");
        assert_eq!(failed(&mut sandboxes, "a", "4", 1315), Some((1200, 4)));
        assert_eq!(failed(&mut sandboxes, "a", "5", 1316), Some((1200, 5)));
        let finding =
            sandboxes.failed(Failure { count: 9, ..failure("a", "4", 1320) }, second(1320)).unwrap();
        assert_eq!(
            (finding.count, finding.message.as_str()),
            (13, "5 pods got no network, such as shop/1, shop/2, shop/3: no IP")
        );
    }

    #[test]
    fn it_is_over_when_its_pods_have_started_or_nothing_is_heard_of_it() {
        let mut sandboxes = Sandboxes::default();
        for (pod, at) in [("1", 1000), ("2", 1001), ("3", 1002)] {
            failed(&mut sandboxes, "a", pod, at);
            failed(&mut sandboxes, "b", pod, at);
        }
        failed(&mut sandboxes, "c", "1", 1000);
        assert!(sandboxes.tick(second(1100)).is_empty());
        assert!(!sandboxes.started("a", "1") && !sandboxes.started("a", "1") && !sandboxes.started("a", "2"));
        assert!(sandboxes.started("a", "3"));
        assert!(!sandboxes.started("c", "1"), "it never was the node");
        assert_eq!(failed(&mut sandboxes, "a", "4", 1103), None, "it begins anew");
        assert_eq!(sandboxes.tick(second(1362)), BTreeSet::from(["b".to_owned()]));
        assert_eq!((sandboxes.nodes.len(), sandboxes.pods), (1, 1));
    }

    #[test]
    fn what_happened_long_ago_says_nothing_of_now() {
        let mut sandboxes = Sandboxes::default();
        for pod in ["1", "2", "3"] {
            assert_eq!(sandboxes.failed(failure("a", pod, 1000), second(5000)), None);
        }
        sandboxes.tick(second(5000));
        assert!(sandboxes.nodes.is_empty());
    }

    #[test]
    fn the_pods_that_are_remembered_are_bounded() {
        let mut sandboxes = Sandboxes::default();
        for pod in 0..MOST + 10 {
            sandboxes.failed(failure(&(pod % 100).to_string(), &pod.to_string(), 1000), second(1000));
            sandboxes.failed(failure(&pod.to_string(), "x", 1000), second(1000));
        }
        assert!(sandboxes.pods <= MOST && sandboxes.nodes.len() <= MOST);
    }
}
