//! What is wanted of each pod whose files are followed, as the aggregator says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kestrel_proto::node::v1::{LogPolicy, PodInfo, PodUpdate};
use kestrel_tail::{
    discover::Origin,
    engine::{Engine, Policy},
    time::Timestamp,
};

/// What is sent of a pod that the aggregator does not name for so long, while it could: the API
/// server may never have known it.
#[derive(Clone, Copy, Debug)]
pub struct Unnamed {
    /// How long it is waited for.
    pub after: Duration,
    /// What is sent then.
    pub policy: Policy,
}

/// The pods of this node, or the one of this sidecar.
#[derive(Debug)]
pub struct Pods {
    of_unnamed: Unnamed,
    /// Namespaces of which nothing is read, whatever the aggregator says.
    excluded: BTreeSet<String>,
    /// By UID.
    known: BTreeMap<String, Pod>,
    /// Since when the aggregator could name pods.
    linked: Option<Instant>,
    /// Pods with incidents whose lines are to be looked at again, and from when on.
    look_backs: Vec<(String, Timestamp)>,
    /// Pods with files that it has not named, and since when.
    unnamed: BTreeMap<String, Instant>,
}

#[derive(Debug)]
struct Pod {
    policy: Policy,
    /// From when on its lines were asked for last.
    look_back: Option<Timestamp>,
    /// Deleted; what is left of its files is still read as was wanted of it.
    gone: bool,
}

impl Pods {
    /// No pods yet. Of those of `excluded` namespaces nothing is ever wanted.
    pub fn new(of_unnamed: Unnamed, excluded: BTreeSet<String>) -> Self {
        Self {
            of_unnamed,
            excluded,
            known: BTreeMap::new(),
            linked: None,
            look_backs: Vec::new(),
            unnamed: BTreeMap::new(),
        }
    }

    /// The aggregator can name pods from now on.
    pub fn connected(&mut self, now: Instant) {
        self.linked = Some(now);
    }

    /// It cannot any more. What it said holds on.
    pub fn disconnected(&mut self) {
        self.linked = None;
        self.unnamed.clear();
    }

    /// No name is waited for any more, nor a connection.
    pub fn end(&mut self) {
        self.of_unnamed.after = Duration::ZERO;
    }

    /// The aggregator named pods.
    pub fn update(&mut self, update: PodUpdate) {
        if update.snapshot {
            self.known.values_mut().for_each(|pod| pod.gone = true);
        }
        for uid in &update.removed_uids {
            if let Some(pod) = self.known.get_mut(uid) {
                pod.gone = true;
            }
        }
        for pod in update.pods {
            let policy = self.policy(&pod);
            let look_back = pod.look_back_from.map(|from| Timestamp {
                seconds: from.seconds,
                nanos: from.nanos.try_into().unwrap_or_default(),
            });
            let before = self.known.get(&pod.uid).and_then(|before| before.look_back);
            if let Some(from) = look_back.filter(|_| look_back != before) {
                self.look_backs.push((pod.uid.clone(), from));
            }
            let look_back = look_back.or(before);
            self.known.insert(pod.uid, Pod { policy, look_back, gone: false });
        }
    }

    /// Tells the engine what is wanted of each container it found, now and from before, and forgets
    /// deleted pods without files.
    pub fn assign(&mut self, engine: &mut Engine, now: Instant) {
        let mut with_files = BTreeSet::new();
        engine.assign(|origin| {
            let policy = self.decide(origin, now);
            with_files.insert(origin.uid.clone());
            policy
        });
        for (uid, from) in self.look_backs.drain(..) {
            engine.look_back(&uid, from);
        }
        self.known.retain(|uid, pod| !pod.gone || with_files.contains(uid));
        self.unnamed.retain(|uid, _| with_files.contains(uid));
    }

    fn decide(&mut self, origin: &Origin, now: Instant) -> Option<Policy> {
        if self.excluded.contains(&origin.namespace) {
            return Some(Policy::Off);
        }
        if let Some(pod) = self.known.get(&origin.uid) {
            return Some(pod.policy);
        }
        let Unnamed { after, policy } = self.of_unnamed;
        if after.is_zero() {
            return Some(policy);
        }
        let linked = self.linked?;
        let since = *self.unnamed.entry(origin.uid.clone()).or_insert(now);
        (now.saturating_duration_since(since.max(linked)) >= after).then_some(policy)
    }

    /// The policy of a pod; what a newer aggregator may ask beyond these is that of an unnamed one.
    fn policy(&self, pod: &PodInfo) -> Policy {
        match pod.log_policy() {
            LogPolicy::Unspecified => self.of_unnamed.policy,
            LogPolicy::Errors => Policy::Errors,
            LogPolicy::All => Policy::All,
            LogPolicy::Off => Policy::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use kestrel_tail::redact::{Expressions, Redactor};

    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    fn pods(excluded: &[&str]) -> Pods {
        let excluded = excluded.iter().map(ToString::to_string).collect();
        Pods::new(Unnamed { after: AFTER, policy: Policy::Errors }, excluded)
    }

    fn pod(uid: &str, policy: LogPolicy) -> PodInfo {
        PodInfo { uid: uid.into(), log_policy: policy.into(), ..PodInfo::default() }
    }

    fn origin(uid: &str) -> Origin {
        Origin { uid: uid.into(), ..Origin::default() }
    }

    #[test]
    fn unnamed_pods_wait_and_then_send_errors() {
        let mut pods = pods(&[]);
        let start = Instant::now();
        let found = origin("1-1");
        assert_eq!(pods.decide(&found, start), None);
        pods.connected(start);
        assert_eq!(pods.decide(&found, start), None);
        assert_eq!(pods.decide(&found, start + AFTER / 2), None);
        pods.disconnected();
        let again = start + AFTER;
        pods.connected(again);
        assert_eq!(pods.decide(&found, again), None, "the time without a link does not count");
        assert_eq!(pods.decide(&found, again + AFTER), Some(Policy::Errors));
        pods.update(PodUpdate { pods: vec![pod("1-1", LogPolicy::All)], ..PodUpdate::default() });
        assert_eq!(pods.decide(&found, again), Some(Policy::All));
    }

    #[test]
    fn at_the_end_no_name_is_waited_for() {
        let mut pods = pods(&[]);
        assert_eq!(pods.decide(&origin("1-1"), Instant::now()), None);
        pods.end();
        assert_eq!(pods.decide(&origin("1-1"), Instant::now()), Some(Policy::Errors));
    }

    #[test]
    fn of_excluded_namespaces_nothing_is_read_whoever_asks() {
        let mut pods = pods(&["bank"]);
        let vault = Origin { namespace: "bank".into(), ..origin("1-1") };
        let now = Instant::now();
        assert_eq!(pods.decide(&vault, now), Some(Policy::Off), "before anybody is asked");
        pods.connected(now);
        pods.update(PodUpdate { pods: vec![pod("1-1", LogPolicy::All)], ..PodUpdate::default() });
        assert_eq!(pods.decide(&vault, now + AFTER), Some(Policy::Off));
        assert_eq!(pods.decide(&origin("1-1"), now), Some(Policy::All));
    }

    #[test]
    fn lines_from_before_an_incident_are_asked_for_once() {
        let asked = |pods: &mut Pods| std::mem::take(&mut pods.look_backs).len();
        let named = |seconds| PodInfo {
            look_back_from: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..pod("1-1", LogPolicy::All)
        };
        let mut pods = pods(&[]);
        for (pod, times) in
            [(named(1), 1), (named(1), 0), (pod("1-1", LogPolicy::All), 0), (named(1), 0), (named(2), 1)]
        {
            pods.update(PodUpdate { snapshot: true, pods: vec![pod], ..PodUpdate::default() });
            assert_eq!(asked(&mut pods), times);
        }
    }

    #[test]
    fn deleted_pods_keep_their_policy_while_their_files_are_read() {
        let mut pods = pods(&[]);
        pods.update(PodUpdate { pods: vec![pod("1-1", LogPolicy::All)], ..PodUpdate::default() });
        pods.update(PodUpdate { snapshot: true, ..PodUpdate::default() });
        assert_eq!(pods.decide(&origin("1-1"), Instant::now()), Some(Policy::All));
        let store = kestrel_tail::position::store::Store::empty(std::path::Path::new("/nowhere"));
        pods.assign(&mut Engine::new(vec![], store, Redactor::new(Expressions::default())), Instant::now());
        assert!(pods.known.is_empty());
    }
}
