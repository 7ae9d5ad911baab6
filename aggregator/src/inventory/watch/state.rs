//! How the watches are doing: for the log, `status` and `/metrics`.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::api::ApiResource;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tracing::{info, warn};

/// All watches of the process. Clones share them.
#[derive(Clone, Default)]
pub struct Watches(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    phases: Family<PhaseLabel, Gauge>,
    lists: Family<ResourceLabel, Counter>,
    failures: Family<ResourceLabel, Counter>,
    unreadable: Family<ResourceLabel, Counter>,
}

#[derive(Default)]
struct State {
    /// by the resource's plural name
    watches: BTreeMap<String, Watch>,
    /// What was said of passing trouble. An API server that is away gives all
    /// watches the same, which is said once.
    said: HashSet<String>,
}

#[derive(Default)]
struct Watch {
    phase: Phase,
    /// Its list is complete, if there is anything to list.
    listed: bool,
    /// What has to be done that it works.
    remedy: Option<String>,
}

/// What a watch does.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, EncodeLabelValue)]
enum Phase {
    /// It asks what there is.
    #[default]
    Listing,
    /// It hears of what changes.
    Watching,
    /// It tries to.
    Troubled,
    /// It may not.
    Forbidden,
    /// The cluster has no such kind.
    NotServed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabel {
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabel {
    resource: String,
    state: Phase,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").finish_non_exhaustive()
    }
}

impl Watches {
    /// Registers what is counted.
    pub fn register(&self, registry: &mut Registry) {
        let Shared { state: _, phases, lists, failures, unreadable } = &*self.0;
        registry.register("watch", "1 for what the watch of a resource does at present", phases.clone());
        registry.register("lists", "Lists begun, in one stream or in pages", lists.clone());
        registry.register("failures", "Requests of a watch that failed", failures.clone());
        let help = "Objects that could not be decoded and were left out";
        registry.register("unreadable_objects", help, unreadable.clone());
    }

    /// Watches whose list is complete, and all of them. What the cluster does
    /// not have is complete.
    pub fn count(&self) -> (usize, usize) {
        let state = self.state();
        (state.watches.values().filter(|watch| watch.listed).count(), state.watches.len())
    }

    /// What is not complete, and what has to be done for it where that is known.
    pub fn missing(&self) -> Vec<(String, Option<String>)> {
        let state = self.state();
        let missing = state.watches.iter().filter(|(_, watch)| !watch.listed);
        missing.map(|(resource, watch)| (resource.clone(), watch.remedy.clone())).collect()
    }

    pub(super) fn list_begins(&self, resource: &ApiResource) {
        self.0.lists.get_or_create(&label(resource)).inc();
        self.change(resource, |watch| {
            if watch.phase == Phase::Watching {
                watch.phase = Phase::Listing;
            }
        });
    }

    pub(super) fn list_is_complete(&self, resource: &ApiResource) {
        self.change(resource, |watch| watch.listed = true);
    }

    /// A request was answered.
    pub(super) fn works(&self, resource: &ApiResource, is_watch: bool) {
        let before = self.change(resource, |watch| {
            watch.remedy = None;
            let phase = if is_watch { Phase::Watching } else { Phase::Listing };
            std::mem::replace(&mut watch.phase, phase)
        });
        if matches!(before, Phase::Forbidden | Phase::NotServed) {
            info!("{} are seen now", resource.plural);
        }
    }

    pub(super) fn failed(&self, resource: &ApiResource) {
        self.0.failures.get_or_create(&label(resource)).inc();
    }

    /// It fails again and again. That passes. Returns whether all others work.
    pub(super) fn is_troubled(&self, resource: &ApiResource, why: &str) -> bool {
        self.change(resource, |watch| watch.phase = Phase::Troubled);
        let mut state = self.state();
        let troubled = state.watches.values().filter(|watch| watch.phase == Phase::Troubled).count();
        // As many sentences as watches are enough for anything.
        if state.said.len() < troubled && state.said.insert(why.to_owned()) {
            let resource = &resource.plural;
            warn!(
                "what changes in the cluster is not seen at present, as {resource} can't be watched: {why}"
            );
        }
        troubled == 1
    }

    pub(super) fn is_forbidden(&self, resource: &ApiResource) {
        let ApiResource { group, plural, .. } = resource;
        let remedy = format!(
            "its ClusterRole needs the rule {{apiGroups: [{group:?}], resources: [{plural:?}], verbs: [get, list, watch]}}"
        );
        let before = self.change(resource, |watch| {
            (watch.listed, watch.remedy) = (false, Some(remedy.clone()));
            std::mem::replace(&mut watch.phase, Phase::Forbidden)
        });
        if before != Phase::Forbidden {
            warn!("{plural} are not seen, because this process may not watch them; {remedy}");
        }
    }

    /// `as_expected`: a cluster need not have it.
    pub(super) fn is_not_served(&self, resource: &ApiResource, as_expected: bool) {
        let ApiResource { group, plural, .. } = resource;
        let remedy = format!("the API server does not know them in group {group:?}");
        let before = self.change(resource, |watch| {
            watch.listed = as_expected;
            watch.remedy = (!as_expected).then(|| remedy.clone());
            std::mem::replace(&mut watch.phase, Phase::NotServed)
        });
        match before {
            Phase::NotServed => {}
            _ if !as_expected => warn!("{plural} are not seen: {remedy}"),
            Phase::Watching => info!("{plural} are not served any more, and gone"),
            _ => {}
        }
    }

    pub(super) fn is_unreadable(&self, resource: &ApiResource) {
        self.0.unreadable.get_or_create(&label(resource)).inc();
    }

    /// Somebody was told of trouble that is not over.
    #[cfg(test)]
    pub(super) fn is_troubled_now(&self) -> bool {
        !self.state().said.is_empty()
    }

    fn change<T>(&self, resource: &ApiResource, change: impl FnOnce(&mut Watch) -> T) -> T {
        let mut state = self.state();
        let watch = state.watches.entry(resource.plural.clone()).or_default();
        let before = watch.phase;
        let result = change(watch);
        let label = |state| PhaseLabel { resource: resource.plural.clone(), state };
        let after = watch.phase;
        if before != after {
            self.0.phases.remove(&label(before));
        }
        self.0.phases.get_or_create(&label(after)).set(1);
        if before == Phase::Troubled
            && !state.said.is_empty()
            && state.watches.values().all(|watch| watch.phase != Phase::Troubled)
        {
            state.said.clear();
            info!("what changes in the cluster is seen again");
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn label(resource: &ApiResource) -> ResourceLabel {
    ResourceLabel { resource: resource.plural.clone() }
}
