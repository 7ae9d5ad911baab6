//! What is known of the cluster when a pod is judged. Pure: objects in, facts
//! out; [`crate::watch`] keeps it up to date.

mod limit_range;
mod quota;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::Value;

pub use self::{limit_range::LimitRange, quota::Quota};
pub(crate) use self::{
    limit_range::{Limits, Scope as LimitScope},
    quota::Scope as QuotaScope,
};
use crate::{
    inject::{Settings, Workload},
    profile::{Labels, Profile, Profiles},
};

/// The label that every namespace has, with its own name as the value.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

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
}

/// By what an object is told from the others of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// An object, taken apart as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Its namespace and name.
    pub key: Key,
    /// Its labels.
    pub labels: Labels,
    /// `metadata.generation`.
    pub generation: i64,
    /// Everything but its metadata.
    pub body: Value,
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
    /// Images that have run on a node, as pods name them.
    pub images: BTreeSet<String>,
    /// Workloads whose pods collectors kept from starting, and in which way.
    pub stopped: BTreeMap<Workload, String>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        let profiles = Profiles::new(settings.default_profile);
        Self {
            settings,
            profiles,
            namespaces: BTreeMap::new(),
            limit_ranges: BTreeMap::new(),
            quotas: BTreeMap::new(),
            images: BTreeSet::new(),
            stopped: BTreeMap::new(),
        }
    }

    /// Learns what an object says now.
    ///
    /// # Errors
    /// A profile that can't be used, and why; it covers nothing.
    pub fn put(&mut self, kind: Kind, object: Object) -> Result<(), String> {
        let Object { key, labels, generation, body } = object;
        match kind {
            Kind::Namespace => _ = self.namespaces.insert(key.name, labels),
            Kind::InjectionProfile => {
                self.profiles.remove(&key.name);
                self.profiles.put(Profile::read(key.name, generation, &body["spec"])?);
            }
            Kind::LimitRange => _ = self.limit_ranges.insert(key, LimitRange::read(&body)),
            Kind::ResourceQuota => _ = self.quotas.insert(key, Quota::read(&body)),
        }
        Ok(())
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Namespace => _ = self.namespaces.remove(&key.name),
            Kind::InjectionProfile => self.profiles.remove(&key.name),
            Kind::LimitRange => _ = self.limit_ranges.remove(key),
            Kind::ResourceQuota => _ = self.quotas.remove(key),
        }
    }

    /// Forgets all objects of a kind but these.
    pub fn retain(&mut self, kind: Kind, keys: &BTreeSet<Key>) {
        let is_there = |name: &str| keys.contains(&Key { namespace: String::new(), name: name.to_owned() });
        match kind {
            Kind::Namespace => self.namespaces.retain(|name, _| is_there(name)),
            Kind::InjectionProfile => self.profiles.retain(is_there),
            Kind::LimitRange => self.limit_ranges.retain(|key, _| keys.contains(key)),
            Kind::ResourceQuota => self.quotas.retain(|key, _| keys.contains(key)),
        }
    }

    /// The LimitRanges of a namespace, by name.
    pub(crate) fn limit_ranges_of(&self, namespace: &str) -> impl Iterator<Item = (&str, &LimitRange)> {
        of_namespace(&self.limit_ranges, namespace)
    }

    /// The ResourceQuotas of a namespace, by name.
    pub(crate) fn quotas_of(&self, namespace: &str) -> impl Iterator<Item = (&str, &Quota)> {
        of_namespace(&self.quotas, namespace)
    }

    /// Whether an image is known to run here.
    pub(crate) fn runs(&self, image: &str) -> bool {
        image == self.settings.image || self.images.contains(image)
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
