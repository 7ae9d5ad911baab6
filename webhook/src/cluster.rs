//! What is known of the cluster when a pod is judged. Pure: objects in, facts
//! out; [`crate::watch`] keeps it up to date.

mod images;
mod limit_range;
mod quota;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use jiff::Timestamp;
use serde_json::Value;

pub(crate) use self::{
    images::Images,
    limit_range::{Limits, Scope as LimitScope},
    quota::Scope as QuotaScope,
};
pub use self::{limit_range::LimitRange, quota::Quota};
use crate::{
    coverage::{Coverage, Ran, Report, Stops},
    inject::{Settings, Skip, Workload},
    profile::{Labels, Profile, Profiles},
};

/// The label that every namespace has, with its own name as the value.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// What the reason names if a pod may have been refused for its collector's sake: a quota, a limit or a
/// security context constraint, which name no container, or the collector itself.
const REFUSALS: [&str; 8] = [
    "exceeded quota",
    "failed quota",
    "per Container",
    "per Pod",
    "security context constraint",
    "kestrel-collector",
    "kestrel-link-token",
    "kestrel-state",
];
/// Of a note why a pod could not be created, in characters.
const LONGEST_NOTE: usize = 300;

/// A kind of object that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// For its labels.
    Namespace,
    /// What collectors are made of.
    InjectionProfile,
    /// What a container or a pod may have.
    LimitRange,
    /// What all pods of a namespace may have together, and have.
    ResourceQuota,
    /// A pod that carries a collector, and how it is.
    InjectedPod,
    /// The metadata of a pod that carries none.
    OtherPod,
    /// An Event that says why a pod could not be created.
    FailedCreation,
}

/// By what an object is told from the others of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// Of an object of the cluster.
    pub(crate) fn of_cluster(name: &str) -> Self {
        Self { namespace: String::new(), name: name.to_owned() }
    }
}

/// What makes an object, or the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// An object, taken apart as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Its namespace and name.
    pub key: Key,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its UID.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// What makes it.
    pub controller: Option<Owner>,
    /// Everything but its metadata.
    pub body: Value,
    /// When it was seen so.
    pub seen: Timestamp,
}

impl Object {
    /// What makes this pod; nothing makes it: the pod.
    pub(crate) fn owner(&self) -> Owner {
        self.controller.clone().unwrap_or_else(|| Owner {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
        })
    }
}

/// Everything that decides about a pod beside the pod itself.
#[derive(Debug)]
pub struct Cluster {
    /// What was configured.
    pub settings: Settings,
    /// The profiles that can be used.
    pub profiles: Profiles,
    /// Labels of the namespaces.
    pub namespaces: BTreeMap<String, Labels>,
    limit_ranges: BTreeMap<Key, LimitRange>,
    quotas: BTreeMap<Key, Quota>,
    /// Images that collectors have run with on a node.
    pub(crate) images: Images,
    /// Where collectors kept pods from starting.
    pub stops: Stops,
    /// The pods that ask for a collector.
    pub coverage: Coverage,
    /// Kinds of which all objects are known.
    listed: BTreeSet<Kind>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        let profiles = Profiles::new(settings.default_profile);
        let images = Images::with(settings.image.clone(), &settings.pull_secrets);
        Self {
            settings,
            profiles,
            namespaces: BTreeMap::new(),
            limit_ranges: BTreeMap::new(),
            quotas: BTreeMap::new(),
            images,
            stops: Stops::default(),
            coverage: Coverage::default(),
            listed: BTreeSet::new(),
        }
    }

    /// Learns what an object says now.
    ///
    /// # Errors
    /// A profile that can't be used, and why; it covers nothing.
    pub fn put(&mut self, kind: Kind, object: Object) -> Result<(), String> {
        match kind {
            Kind::Namespace => {
                self.namespaces.insert(object.key.name, object.labels);
                self.coverage.changed();
            }
            Kind::InjectionProfile => {
                self.profiles.remove(&object.key.name);
                let profile = Profile::read(object.key.name.clone(), object.generation, &object.body["spec"]);
                self.coverage.declare(&object, profile.as_ref().err());
                self.profiles.put(profile?);
            }
            Kind::LimitRange => _ = self.limit_ranges.insert(object.key, LimitRange::read(&object.body)),
            Kind::ResourceQuota => _ = self.quotas.insert(object.key, Quota::read(&object.body)),
            Kind::InjectedPod => {
                let left_out = self.leaves_out(&object.key.namespace, &object.labels);
                if let Some(Ran { image, pull_secrets }) = self.coverage.is_labelled(&object, left_out) {
                    let Self { settings, profiles, images, .. } = self;
                    images.ran(image, pull_secrets, |image| {
                        image == settings.image
                            || profiles.iter().any(|of| of.spec.image.as_deref() == Some(image))
                    });
                }
            }
            Kind::OtherPod => {
                let left_out = self.leaves_out(&object.key.namespace, &object.labels);
                self.coverage.lacks(kind, &object, left_out);
            }
            Kind::FailedCreation => self.stop_where_a_pod_was_refused(&object.body, object.seen),
        }
        Ok(())
    }

    /// Why the API server does not ask the webhook about pods with these labels, if it doesn't.
    pub(crate) fn leaves_out(&self, namespace: &str, labels: &Labels) -> Option<Skip> {
        if !self.coverage.namespaces.matches(&self.labels_of(namespace)) {
            return Some(Skip::Namespace(namespace.to_owned()));
        }
        (!self.coverage.pods.matches(labels)).then_some(Skip::Labels)
    }

    /// The pod may have been refused for the collector's sake: usage of a quota that is watched is a little
    /// old, and of other rules nothing is known. The next pod shows whether it fits without.
    fn stop_where_a_pod_was_refused(&mut self, event: &Value, seen: Timestamp) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let note = text(&event["message"]);
        if !REFUSALS.iter().any(|refusal| note.contains(refusal)) {
            return;
        }
        let times = [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
        let at = times.into_iter().find_map(|time| time.as_str()?.parse().ok()).unwrap_or(seen);
        let object = &event["involvedObject"];
        let owner = Workload {
            namespace: text(&object["namespace"]),
            kind: text(&object["kind"]),
            name: text(&object["name"]),
        };
        let note: String = note.chars().take(LONGEST_NOTE).collect();
        self.stops.hold(&owner, None, &format!("its last pod was refused: {note}"), at);
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Namespace => _ = self.namespaces.remove(&key.name),
            Kind::InjectionProfile => self.profiles.remove(&key.name),
            Kind::LimitRange => _ = self.limit_ranges.remove(key),
            Kind::ResourceQuota => _ = self.quotas.remove(key),
            Kind::InjectedPod | Kind::OtherPod | Kind::FailedCreation => {}
        }
        self.coverage.remove(kind, key);
    }

    /// All objects of a kind have been listed: forgets those that were not among them.
    pub fn retain(&mut self, kind: Kind, keys: &BTreeSet<Key>) {
        match kind {
            Kind::Namespace => self.namespaces.retain(|name, _| keys.contains(&Key::of_cluster(name))),
            Kind::InjectionProfile => self.profiles.retain(|name| keys.contains(&Key::of_cluster(name))),
            Kind::LimitRange => self.limit_ranges.retain(|key, _| keys.contains(key)),
            Kind::ResourceQuota => self.quotas.retain(|key, _| keys.contains(key)),
            Kind::InjectedPod | Kind::OtherPod | Kind::FailedCreation => {}
        }
        self.coverage.retain(kind, keys);
        self.listed.insert(kind);
    }

    /// Whether all objects of a kind have been listed once.
    pub fn knows_all(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    /// Acts on what shows only with time.
    pub fn look_for_trouble(&mut self, now: Timestamp) {
        self.coverage.look_for_trouble(&mut self.stops, now);
    }

    /// What all profiles have to say about themselves; `None` until everything that they depend on is known.
    pub fn reports(&self, now: Timestamp) -> Option<Vec<Report>> {
        let needed = [Kind::Namespace, Kind::InjectionProfile, Kind::InjectedPod, Kind::OtherPod];
        needed.into_iter().all(|kind| self.knows_all(kind)).then(|| self.coverage.reports(self, now))
    }

    /// The LimitRanges of a namespace, by name.
    pub(crate) fn limit_ranges_of(&self, namespace: &str) -> impl Iterator<Item = (&str, &LimitRange)> {
        of_namespace(&self.limit_ranges, namespace)
    }

    /// The ResourceQuotas of a namespace, by name.
    pub(crate) fn quotas_of(&self, namespace: &str) -> impl Iterator<Item = (&str, &Quota)> {
        of_namespace(&self.quotas, namespace)
    }

    /// The images that profiles name, with the names of these.
    pub(crate) fn images_of_profiles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.profiles.iter().filter_map(|of| Some((of.name.as_str(), of.spec.image.as_deref()?)))
    }

    /// Without a cluster nobody knows which images have run on a node: takes those of profiles for some that have.
    pub(crate) fn take_images_as_tried(&mut self) {
        let Self { profiles, images, .. } = self;
        for image in profiles.iter().filter_map(|of| of.spec.image.clone()) {
            images.ran(image, BTreeSet::new(), |_| true);
        }
    }

    /// Labels of a namespace. One that is so new that nothing is known of it
    /// has the label that all have.
    pub(crate) fn labels_of(&self, namespace: &str) -> Cow<'_, Labels> {
        match self.namespaces.get(namespace) {
            Some(labels) => Cow::Borrowed(labels),
            None => Cow::Owned(Labels::from([(NAME_LABEL.to_owned(), namespace.to_owned())])),
        }
    }
}

fn of_namespace<'a, T>(
    objects: &'a BTreeMap<Key, T>,
    namespace: &str,
) -> impl Iterator<Item = (&'a str, &'a T)> {
    let first = Key { namespace: namespace.to_owned(), name: String::new() };
    objects
        .range(&first..)
        .take_while(move |(key, _)| key.namespace == first.namespace)
        .map(|(key, object)| (key.name.as_str(), object))
}

/// A cluster that watches write to and admission reads. All of them run in one
/// thread and hold the lock for microseconds, so that nobody waits for it.
#[derive(Debug)]
pub struct Shared(RwLock<Cluster>);

impl Shared {
    /// Shares `cluster`.
    pub fn new(cluster: Cluster) -> Self {
        Self(RwLock::new(cluster))
    }

    /// To look at.
    pub fn read(&self) -> RwLockReadGuard<'_, Cluster> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change.
    pub fn write(&self) -> RwLockWriteGuard<'_, Cluster> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
