//! Which pods run on which node, for the agents that read those pods' logs.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kestrel_proto::{
    cloud::v1::OwnerReference,
    node::v1::{LogPolicy, PodInfo, PodUpdate},
};
use prost::Message as _;
use tokio::sync::watch;

use super::convert;

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
    pods: HashMap<Arc<str>, Entry>,
    nodes: HashMap<Arc<str>, Node>,
    /// deleted pods, in the order of time
    deleted: VecDeque<(Instant, Arc<str>)>,
    /// number of the current list
    list: u32,
}

struct Entry {
    api_uid: Arc<str>,
    node: Arc<str>,
    /// the encoded `PodInfo`
    info: Bytes,
    owners: Arc<[OwnerReference]>,
    /// number of the list in which it was last seen
    list: u32,
    deleted: bool,
}

#[derive(Default)]
struct Node {
    uids: BTreeSet<Arc<str>>,
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
        let state = self.state();
        let entry = state.pods.get(uid)?;
        Some(Known {
            // What was encoded here can be decoded.
            info: PodInfo::decode(entry.info.clone()).ok()?,
            owners: Arc::clone(&entry.owners),
            api_uid: Arc::clone(&entry.api_uid),
            node: Arc::clone(&entry.node),
        })
    }

    /// The node that this pod runs on.
    pub fn node_of(&self, uid: &str) -> Option<Arc<str>> {
        self.state().pods.get(uid).map(|entry| Arc::clone(&entry.node))
    }

    /// Follows the pods of `node`, or one of them.
    pub fn follow(&self, node: &str, only: Option<&str>) -> Follower {
        let changed = self.state().nodes.entry(node.into()).or_default().changed.subscribe();
        let (node, only) = (node.into(), only.map(Into::into));
        Follower { pods: self.clone(), node, only, changed, told: None }
    }

    /// A list begins: what it does not mention is gone when it ends.
    pub(super) fn begin(&self) {
        self.state().list += 1;
    }

    /// The pod is as `object` says.
    pub(crate) fn apply(&self, object: &Pod) {
        let Some(node) = object.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { return };
        let api_uid = object.metadata.uid.as_deref().unwrap_or_default().into();
        let info = pod_info(object, self.0.default_policy);
        let owners = convert::owner_references(&object.metadata).into();
        let mut state = self.state();
        state.apply(&info.uid, api_uid, node, info.encode_to_vec().into(), owners);
        state.forget(Instant::now());
    }

    /// The pod is gone.
    pub(super) fn remove(&self, object: &Pod) {
        let now = Instant::now();
        let mut state = self.state();
        state.remove(uid_at_node(object), now);
        state.forget(now);
    }

    /// The list is complete.
    pub(super) fn finish(&self) {
        let (now, mut state) = (Instant::now(), self.state());
        let list = state.list;
        let vanished: Vec<_> = state
            .pods
            .iter()
            .filter(|(_, entry)| entry.list != list)
            .map(|(uid, _)| Arc::clone(uid))
            .collect();
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

impl State {
    fn apply(
        &mut self,
        uid: &str,
        api_uid: Arc<str>,
        node: &str,
        info: Bytes,
        owners: Arc<[OwnerReference]>,
    ) {
        let list = self.list;
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.list = list;
            // A static pod's mirror may have been made again, with another UID.
            entry.api_uid = api_uid;
            entry.owners = owners;
            entry.deleted = false;
            if entry.info == info {
                return;
            }
            entry.info = info;
        } else {
            let (uid, node): (Arc<str>, Arc<str>) = (uid.into(), node.into());
            let entry = Entry { api_uid, node: Arc::clone(&node), info, owners, list, deleted: false };
            self.pods.insert(Arc::clone(&uid), entry);
            self.nodes.entry(node).or_default().uids.insert(uid);
        }
        if let Some(node) = self.nodes.get(node) {
            node.changed.send_replace(());
        }
    }

    fn remove(&mut self, uid: &str, now: Instant) {
        if let Some((uid, entry)) = self.pods.get_key_value(uid)
            && !entry.deleted
        {
            let uid = Arc::clone(uid);
            self.deleted.push_back((now, Arc::clone(&uid)));
            self.pods.entry(uid).and_modify(|entry| entry.deleted = true);
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
    only: Option<Arc<str>>,
    changed: watch::Receiver<()>,
    told: Option<HashMap<Arc<str>, Bytes>>,
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
        let now = self.now();
        let mut update = PodUpdate { snapshot: self.told.is_none(), ..Default::default() };
        let told = self.told.get_or_insert_default();
        let mut bytes = 0;
        for uid in told.keys().filter(|uid| !now.contains_key(*uid)).cloned().collect::<Vec<_>>() {
            if bytes < PART_BYTES {
                bytes += uid.len();
                told.remove(&uid);
                update.removed_uids.push(uid.to_string());
            }
        }
        for (uid, info) in now {
            if bytes < PART_BYTES && told.get(&uid) != Some(&info) {
                bytes += info.len();
                // What was encoded here can be decoded.
                update.pods.extend(PodInfo::decode(info.clone()).ok());
                told.insert(uid, info);
            }
        }
        (update.snapshot || !update.pods.is_empty() || !update.removed_uids.is_empty()).then_some(update)
    }

    fn now(&self) -> HashMap<Arc<str>, Bytes> {
        let state = self.pods.state();
        let uids = state.nodes.get(&self.node).into_iter().flat_map(|node| &node.uids);
        uids.filter(|uid| self.only.as_ref().is_none_or(|only| only == *uid))
            .filter_map(|uid| Some((Arc::clone(uid), state.pods.get(uid)?.info.clone())))
            .collect()
    }
}

/// The UID under which the pod's node knows it: a static pod's is in the
/// annotation that ties its mirror to it.
fn uid_at_node(object: &Pod) -> &str {
    let annotations = object.metadata.annotations.as_ref();
    let mirrors = annotations.and_then(|annotations| annotations.get("kubernetes.io/config.mirror"));
    mirrors.or(object.metadata.uid.as_ref()).map(String::as_str).unwrap_or_default()
}

fn pod_info(object: &Pod, default_policy: LogPolicy) -> PodInfo {
    let meta = &object.metadata;
    let annotation = |name: &str| {
        let annotations = meta.annotations.as_ref()?;
        annotations.get(&format!("kestrel.ai/{name}")).map(String::as_str)
    };
    let policy = match annotation("logs") {
        Some("all") => LogPolicy::All,
        Some("errors") => LogPolicy::Errors,
        Some("off") => LogPolicy::Off,
        _ if annotation("inject") == Some("true") => LogPolicy::All,
        _ => default_policy,
    };
    PodInfo {
        uid: uid_at_node(object).to_owned(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        log_policy: policy.into(),
    }
}

#[cfg(test)]
mod tests;
