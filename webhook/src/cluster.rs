//! What is known of the cluster when a pod is judged. Pure: objects in, facts
//! out; [`crate::watch`] keeps it up to date.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::Value;

use crate::{
    inject::Settings,
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
}

/// An object, taken apart as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Its name.
    pub name: String,
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
    /// Images that have run on a node, as pods name them.
    pub images: BTreeSet<String>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        let profiles = Profiles::new(settings.default_profile);
        Self { settings, profiles, namespaces: BTreeMap::new(), images: BTreeSet::new() }
    }

    /// Learns what an object says now.
    ///
    /// # Errors
    /// A profile that can't be used, and why; it covers nothing.
    pub fn put(&mut self, kind: Kind, object: Object) -> Result<(), String> {
        let Object { name, labels, generation, body } = object;
        match kind {
            Kind::Namespace => _ = self.namespaces.insert(name, labels),
            Kind::InjectionProfile => {
                self.profiles.remove(&name);
                self.profiles.put(Profile::read(name, generation, &body["spec"])?);
            }
        }
        Ok(())
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Namespace => _ = self.namespaces.remove(name),
            Kind::InjectionProfile => self.profiles.remove(name),
        }
    }

    /// Forgets all objects of a kind but these.
    pub fn retain(&mut self, kind: Kind, names: &BTreeSet<String>) {
        match kind {
            Kind::Namespace => self.namespaces.retain(|name, _| names.contains(name)),
            Kind::InjectionProfile => self.profiles.retain(names),
        }
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
