//! Which pods run on which node, for the agents that read those pods' logs.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kestrel_proto::{
    cloud::v1::{self, OwnerReference},
    node::v1::{LogPolicy, PodInfo, PodUpdate},
};
use prost::Message as _;
use tokio::sync::watch;

use super::key::Uid;

/// A deleted pod is kept this long, so that its last lines still find their
/// owner references.
const KEPT_AFTER_DELETION: Duration = Duration::from_secs(60);

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
    default_policy: LogPolicy,
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    pods: HashMap<Uid, Entry>,
    nodes: HashMap<Arc<str>, Node>,
    /// pods with an open incident, of which everything is sent
    troubled: HashSet<Uid>,
    /// deleted pods, in the order of time
    deleted: VecDeque<(Instant, Uid)>,
    /// number of the current list
    list: u32,
}

struct Entry {
    node: Arc<str>,
    /// the encoded `v1::Pod`, which the mirror holds too
    record: Arc<[u8]>,
    log_policy: LogPolicy,
    /// number of the list in which it was last seen
    list: u32,
    deleted: bool,
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
    /// No pods yet. Logs of pods that say nothing else are sent as
    /// `default_policy` says.
    pub fn new(default_policy: LogPolicy) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), default_policy, listed: watch::Sender::new(false) }))
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
        let info = entry.info(&id, entry.log_policy)?;
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
        let log_policy = log_policy(object, self.0.default_policy);
        let mut state = self.state();
        state.apply(uid_at_node(object).into(), node, record, log_policy);
        state.forget(Instant::now());
    }

    /// An incident of the pod has begun or is over. Until it is over everything is
    /// sent of the pod, unless nothing may be.
    pub(crate) fn turned(&self, uid: &str, is_troubled: bool) {
        let (uid, mut state) = (Uid::from(uid), self.state());
        if let Some(node) = state.pods.get(&uid).and_then(|entry| state.nodes.get(&entry.node)) {
            node.changed.send_replace(());
        }
        if is_troubled {
            state.troubled.insert(uid);
        } else {
            state.troubled.remove(&uid);
        }
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

    fn info(&self, uid: &Uid, log_policy: LogPolicy) -> Option<PodInfo> {
        let v1::Pod { namespace, name, .. } = self.pod()?;
        Some(PodInfo { uid: uid.to_string(), namespace, name, log_policy: log_policy.into() })
    }
}

impl State {
    /// What is sent of the pod at present.
    fn log_policy(&self, uid: &Uid, entry: &Entry) -> LogPolicy {
        match entry.log_policy {
            LogPolicy::Off => LogPolicy::Off,
            _ if self.troubled.contains(uid) => LogPolicy::All,
            policy => policy,
        }
    }

    fn apply(&mut self, uid: Uid, node: &str, record: Arc<[u8]>, log_policy: LogPolicy) {
        let list = self.list;
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.list = list;
            // A static pod's mirror may have been made again, with another UID.
            entry.record = record;
            entry.deleted = false;
            if std::mem::replace(&mut entry.log_policy, log_policy) == log_policy {
                return;
            }
        } else {
            // Pods of a node share its name.
            let known = self.nodes.get_key_value(node).map(|(name, _)| Arc::clone(name));
            let node = known.unwrap_or_else(|| node.into());
            let entry = Entry { node: Arc::clone(&node), record, log_policy, list, deleted: false };
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

/// What one agent or sidecar is told of its pods, as it changes.
pub struct Follower {
    pods: Pods,
    node: Arc<str>,
    only: Option<Uid>,
    changed: watch::Receiver<()>,
    /// Of each pod what can change of it.
    told: Option<HashMap<Uid, LogPolicy>>,
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
                && let policy = state.log_policy(uid, entry)
                && told.get(uid) != Some(&policy)
                && let Some(info) = entry.info(uid, policy)
            {
                told.insert(uid.clone(), policy);
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

fn log_policy(object: &Pod, default_policy: LogPolicy) -> LogPolicy {
    let annotation = |name: &str| object.metadata.annotations.as_ref()?.get(name).map(String::as_str);
    match annotation("kestrel.ai/logs") {
        Some("all") => LogPolicy::All,
        Some("errors") => LogPolicy::Errors,
        Some("off") => LogPolicy::Off,
        _ if annotation("kestrel.ai/inject") == Some("true") => LogPolicy::All,
        _ => default_policy,
    }
}

#[cfg(test)]
mod tests;
