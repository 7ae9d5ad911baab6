//! Which pods run on which node, for the agents that read those pods' logs.

mod collector;
mod policy;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kestrel_proto::{
    cloud::v1::{self, OwnerReference},
    node::v1::{LogPolicy, PodInfo, PodUpdate},
};
use prost::Message as _;
use tokio::sync::watch;

use super::{convert, key::Uid};
use collector::Collector;
pub use collector::{CONTAINER, Collected};
pub use policy::Policies;
use policy::Said;

/// A deleted pod is kept this long, so that its last lines still find their
/// owner references.
const KEPT_AFTER_DELETION: Duration = Duration::from_secs(60);

/// So long before an incident begins its agent is asked for all lines.
const LOOK_BACK: Duration = Duration::from_mins(5);

/// An agent that comes later than this after an incident began, or after a pod asked for all
/// of its lines, is not asked any more: it has been asked before, or the lines have been sent.
const LOOKS_BACK_WITHIN: Duration = Duration::from_mins(5);

/// So long after the end of an incident all lines are still sent.
const LINGERS: Duration = Duration::from_mins(5);

/// An update that has as many bytes ends; the rest is told in the next. Clients
/// take messages of 4 MiB, and no pod has a quarter of that.
const PART_BYTES: usize = 1024 * 1024;

/// All scheduled pods. Clones share them.
///
/// Pods are named by the UID that their node knows: it is part of the paths of
/// their log files. It differs from the API server's UID for static pods alone.
#[derive(Clone)]
pub struct Pods(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    policies: Policies,
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    pods: HashMap<Uid, Entry>,
    nodes: HashMap<Arc<str>, Node>,
    /// what namespaces say of their pods
    namespaces: HashMap<Arc<str>, Said>,
    /// pods with an incident, of which everything is sent
    troubled: HashMap<Uid, Trouble>,
    /// when incidents ended, in the order of time
    ended: VecDeque<(Instant, Uid)>,
    /// deleted pods, in the order of time
    deleted: VecDeque<(Instant, Uid)>,
    /// number of the current list
    list: u32,
}

struct Entry {
    node: Arc<str>,
    /// the encoded `v1::Pod`, which the mirror holds too
    record: Arc<[u8]>,
    namespace: Arc<str>,
    said: Said,
    /// when it began, while it ran, to ask for all of its lines
    asked: Option<Instant>,
    /// of a pod that carries one
    collector: Option<Collector>,
    /// number of the list in which it was last seen
    list: u32,
    deleted: bool,
}

/// An incident of a pod.
struct Trouble {
    began: (Instant, Timestamp),
    ended: Option<Instant>,
}

/// What of a pod can change, as far as its agent is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wanted {
    policy: LogPolicy,
    /// From when on what was left out is to be sent after all.
    look_back: Option<Timestamp>,
}

#[derive(Default)]
struct Node {
    uids: BTreeSet<Uid>,
    changed: watch::Sender<()>,
}

/// A pod that the API server knows, or knew until a moment ago.
pub struct Known {
    /// What its node's agent is told of it.
    pub info: PodInfo,
    /// Its owner references.
    pub owners: Arc<[OwnerReference]>,
    /// Its UID as the API server knows it.
    pub api_uid: Arc<str>,
    /// The node it runs on.
    pub node: Arc<str>,
}

impl Pods {
    /// No pods yet.
    pub fn new(policies: impl Into<Policies>) -> Self {
        let (policies, listed) = (policies.into(), watch::Sender::new(false));
        Self(Arc::new(Shared { state: Mutex::default(), policies, listed }))
    }

    /// Whether what this namespace's pods write stays in the cluster.
    pub fn keeps(&self, namespace: &str) -> bool {
        self.0.policies.excluded.has(namespace)
    }

    /// Resolves when all pods are known, or can't be.
    pub async fn listed(&self) {
        let mut listed = self.0.listed.subscribe();
        // The sender lives as long as `self`.
        let _always = listed.wait_for(|listed| *listed).await;
    }

    /// The pod that its node knows by this UID.
    pub fn get(&self, uid: &str) -> Option<Known> {
        let (id, state) = (Uid::from(uid), self.state());
        let entry = state.pods.get(&id)?;
        let info = entry.info(&id, state.wanted(&self.0.policies, &id, entry))?;
        let v1::Pod { uid, owner_references, .. } = entry.pod()?;
        let (api_uid, node) = (uid.into(), Arc::clone(&entry.node));
        Some(Known { info, owners: owner_references.into(), api_uid, node })
    }

    /// The node that this pod runs on.
    pub fn node_of(&self, uid: &str) -> Option<Arc<str>> {
        self.state().pods.get(&Uid::from(uid)).map(|entry| Arc::clone(&entry.node))
    }

    /// Follows the pods of `node`, or one of them.
    pub fn follow(&self, node: &str, only: Option<&str>) -> Follower {
        let changed = self.state().nodes.entry(node.into()).or_default().changed.subscribe();
        let (node, only) = (node.into(), only.map(Uid::from));
        Follower { pods: self.clone(), node, only, changed, told: None }
    }

    /// A list begins: what it does not mention is gone when it ends.
    pub(super) fn begin(&self) {
        self.state().list += 1;
    }

    /// The pod is as `object` and its encoded `record` say.
    pub(crate) fn apply(&self, object: &Pod, record: Arc<[u8]>) {
        let Some(node) = object.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { return };
        let (meta, said) = (&object.metadata, Said::by(&object.metadata));
        let collector = Collector::of(object);
        let (uid, mut state) = (Uid::from(uid_at_node(object)), self.state());
        said.complain(state.pods.get(&uid).map(|entry| entry.said), "pod", meta);
        let usual = |state: &State| Some(state.usual(&self.0.policies, state.pods.get(&uid)?));
        let before = usual(&state);
        state.apply(uid.clone(), node, meta.namespace.as_deref().unwrap_or_default(), record, said);
        let asks = before.is_some_and(leaves_out) && usual(&state) == Some(LogPolicy::All);
        if let Some(entry) = state.pods.get_mut(&uid) {
            entry.collector = collector;
            if asks {
                entry.asked = Some(Instant::now());
            }
        }
        state.forget(Instant::now());
    }

    /// What a namespace says of those of its pods that say nothing.
    pub(super) fn apply_namespace(&self, object: &Namespace) {
        let (meta, said) = (&object.metadata, Said::by(&object.metadata));
        let (name, mut state) = (meta.name.as_deref().unwrap_or_default(), self.state());
        said.complain(state.namespaces.get(name).copied(), "namespace", meta);
        state.said_of_namespace(name, said);
    }

    /// The namespace is gone.
    pub(super) fn remove_namespace(&self, object: &Namespace) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        self.state().namespaces.remove(name);
    }

    /// An incident of the pod has begun or is over. Everything is sent of the pod until some
    /// time after, unless nothing may be, and what it wrote before is asked for.
    pub(crate) fn turned(&self, uid: &str, is_troubled: bool) {
        self.state().turned(uid.into(), is_troubled, (Instant::now(), Timestamp::now()));
    }

    /// Of pods whose incidents ended some time before `now` no more than usual is sent.
    pub(crate) fn calm(&self, now: Instant) {
        self.state().calm(now);
    }

    /// The pod is gone.
    pub(super) fn remove(&self, object: &Pod) {
        let now = Instant::now();
        let mut state = self.state();
        state.remove(&uid_at_node(object).into(), now);
        state.forget(now);
    }

    /// The list is complete.
    pub(super) fn finish(&self) {
        let (now, mut state) = (Instant::now(), self.state());
        let list = state.list;
        let vanished: Vec<_> =
            state.pods.iter().filter(|(_, entry)| entry.list != list).map(|(uid, _)| uid.clone()).collect();
        for uid in vanished {
            state.remove(&uid, now);
        }
        drop(state);
        self.skip();
    }

    /// Pods can't be listed at present; nobody shall wait for them.
    pub(super) fn skip(&self) {
        self.0.listed.send_replace(true);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn pod(&self) -> Option<v1::Pod> {
        // What was encoded here can be decoded.
        v1::Pod::decode(&*self.record).ok()
    }

    fn info(&self, uid: &Uid, wanted: Wanted) -> Option<PodInfo> {
        let v1::Pod { namespace, name, .. } = self.pod()?;
        let look_back_from = wanted.look_back.map(convert::timestamp);
        let log_policy = wanted.policy.into();
        Some(PodInfo { uid: uid.to_string(), namespace, name, log_policy, look_back_from })
    }
}

impl State {
    /// What is sent of the pod without an incident: what the namespaces that are kept say goes before
    /// what the pod says, that before what its namespace says, and that before the default.
    fn usual(&self, policies: &Policies, entry: &Entry) -> LogPolicy {
        let of_namespace = || self.namespaces.get(&entry.namespace).and_then(|said| said.policy);
        if policies.excluded.has(&entry.namespace) {
            LogPolicy::Off
        } else {
            entry.said.policy.or_else(of_namespace).unwrap_or(policies.default)
        }
    }

    /// What is sent of the pod at present.
    fn wanted(&self, policies: &Policies, uid: &Uid, entry: &Entry) -> Wanted {
        let recent = |began: &Instant| began.elapsed() < LOOKS_BACK_WITHIN;
        let trouble = self.troubled.get(uid);
        match self.usual(policies, entry) {
            policy if leaves_out(policy) && trouble.is_some() => {
                let look_back = trouble.filter(|it| recent(&it.began.0));
                Wanted { policy: LogPolicy::All, look_back: look_back.map(|it| it.began.1) }
            }
            LogPolicy::All => {
                let asked = entry.asked.filter(recent);
                Wanted { policy: LogPolicy::All, look_back: asked.map(|_| Timestamp::UNIX_EPOCH) }
            }
            policy => Wanted { policy, look_back: None },
        }
    }

    fn turned(&mut self, uid: Uid, is_troubled: bool, (now, time): (Instant, Timestamp)) {
        self.tell_of(&uid);
        if !is_troubled {
            if let Some(trouble) = self.troubled.get_mut(&uid) {
                trouble.ended = Some(now);
                self.ended.push_back((now, uid));
            }
            return;
        }
        // One that begins again goes on: nothing was left out meanwhile.
        let from = time.checked_sub(LOOK_BACK).unwrap_or(time);
        self.troubled.entry(uid).or_insert(Trouble { began: (now, from), ended: None }).ended = None;
    }

    fn calm(&mut self, now: Instant) {
        while let Some((at, uid)) = self.ended.pop_front_if(|(at, _)| *at + LINGERS <= now) {
            if self.troubled.get(&uid).is_some_and(|trouble| trouble.ended == Some(at)) {
                self.troubled.remove(&uid);
                self.tell_of(&uid);
            }
        }
    }

    /// Something changed of the pod.
    fn tell_of(&self, uid: &Uid) {
        if let Some(node) = self.pods.get(uid).and_then(|entry| self.nodes.get(&entry.node)) {
            node.changed.send_replace(());
        }
    }

    fn said_of_namespace(&mut self, name: &str, said: Said) {
        let (name, before) = match self.namespaces.get_key_value(name) {
            Some((name, before)) => (Arc::clone(name), *before),
            None => (name.into(), Said::default()),
        };
        self.namespaces.insert(Arc::clone(&name), said);
        if before != said {
            let inside = self.pods.values().filter(|entry| entry.namespace == name);
            let nodes: HashSet<_> = inside.map(|entry| &entry.node).collect();
            for node in nodes.into_iter().filter_map(|node| self.nodes.get(node)) {
                node.changed.send_replace(());
            }
        }
    }

    fn apply(&mut self, uid: Uid, node: &str, namespace: &str, record: Arc<[u8]>, said: Said) {
        let list = self.list;
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.list = list;
            // A static pod's mirror may have been made again, with another UID.
            entry.record = record;
            entry.deleted = false;
            if std::mem::replace(&mut entry.said, said) == said {
                return;
            }
        } else {
            // Pods of a namespace share its name too.
            let known = self.namespaces.get_key_value(namespace).map(|(name, _)| Arc::clone(name));
            let namespace = known.unwrap_or_else(|| {
                let name = Arc::<str>::from(namespace);
                self.namespaces.insert(Arc::clone(&name), Said::default());
                name
            });
            // Pods of a node share its name.
            let known = self.nodes.get_key_value(node).map(|(name, _)| Arc::clone(name));
            let node = known.unwrap_or_else(|| node.into());
            let entry = Entry {
                node: Arc::clone(&node),
                record,
                namespace,
                said,
                asked: None,
                collector: None,
                list,
                deleted: false,
            };
            self.pods.insert(uid.clone(), entry);
            self.nodes.entry(node).or_default().uids.insert(uid);
        }
        if let Some(node) = self.nodes.get(node) {
            node.changed.send_replace(());
        }
    }

    fn remove(&mut self, uid: &Uid, now: Instant) {
        if let Some(entry) = self.pods.get_mut(uid)
            && !entry.deleted
        {
            entry.deleted = true;
            self.deleted.push_back((now, uid.clone()));
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((_, uid)) = self.deleted.pop_front_if(|(at, _)| *at + KEPT_AFTER_DELETION <= now) {
            let Some(entry) = self.pods.get(&uid).filter(|entry| entry.deleted) else { continue };
            let name = Arc::clone(&entry.node);
            self.pods.remove(&uid);
            if let Some(node) = self.nodes.get_mut(&name) {
                node.uids.remove(&uid);
                node.changed.send_replace(());
                if node.uids.is_empty() && node.changed.receiver_count() == 0 {
                    self.nodes.remove(&name);
                }
            }
        }
    }
}

/// Whether lines are left out that may be sent when something calls for them.
fn leaves_out(policy: LogPolicy) -> bool {
    matches!(policy, LogPolicy::Errors | LogPolicy::Unspecified)
}

/// What one agent or sidecar is told of its pods, as it changes.
pub struct Follower {
    pods: Pods,
    node: Arc<str>,
    only: Option<Uid>,
    changed: watch::Receiver<()>,
    /// Of each pod what can change of it.
    told: Option<HashMap<Uid, Wanted>>,
}

impl Follower {
    /// Resolves when [`Follower::update`] may have something to tell again.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The node's entry lives as long as somebody follows it.
            std::future::pending().await
        }
    }

    /// The next part of what there is to tell: everything at first, later what
    /// changed. `None`: nothing did.
    pub fn update(&mut self) -> Option<PodUpdate> {
        self.changed.mark_unchanged();
        let state = self.pods.state();
        let on_node = state.nodes.get(&self.node).map(|node| &node.uids);
        let followed = |uid: &Uid| {
            self.only.as_ref().is_none_or(|only| only == uid)
                && on_node.is_some_and(|uids| uids.contains(uid))
        };
        let mut update = PodUpdate { snapshot: self.told.is_none(), ..Default::default() };
        let told = self.told.get_or_insert_default();
        let mut bytes = 0;
        for uid in told.keys().filter(|uid| !followed(uid)).cloned().collect::<Vec<_>>() {
            if bytes < PART_BYTES {
                told.remove(&uid);
                let uid = uid.to_string();
                bytes += uid.len();
                update.removed_uids.push(uid);
            }
        }
        for uid in on_node.into_iter().flatten().filter(|uid| followed(uid)) {
            if bytes < PART_BYTES
                && let Some(entry) = state.pods.get(uid)
                && let wanted = state.wanted(&self.pods.0.policies, uid, entry)
                && told.get(uid) != Some(&wanted)
                && let Some(info) = entry.info(uid, wanted)
            {
                told.insert(uid.clone(), wanted);
                bytes += info.encoded_len();
                update.pods.push(info);
            }
        }
        (update.snapshot || !update.pods.is_empty() || !update.removed_uids.is_empty()).then_some(update)
    }
}

/// The UID under which the pod's node knows it: a static pod's is in the
/// annotation that ties its mirror to it.
pub(crate) fn uid_at_node(object: &Pod) -> &str {
    let annotations = object.metadata.annotations.as_ref();
    let mirrors = annotations.and_then(|annotations| annotations.get("kubernetes.io/config.mirror"));
    mirrors.or(object.metadata.uid.as_ref()).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
