//! Which pods carry a collector, which ask for one in vain, and which it
//! keeps from starting. Pure: objects in; statuses of profiles, Events and
//! stops out. [`writer`] writes them.

mod breaker;
mod carrier;
mod event;
mod report;
mod uncovered;
pub mod writer;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub(crate) use self::carrier::Ran;
pub use self::{breaker::Stops, event::Telling, report::Report};
use self::{carrier::Carrier, event::Untold, report::Declared, uncovered::Uncovered};
use crate::{
    cluster::{Cluster, Key, Kind, Object},
    inject::Skip,
    profile::Selector,
};

/// Pods without a collector that are kept in mind, about 600 bytes each. Those
/// beyond are in no status.
const MOST_UNCOVERED: usize = 5000;

/// What is known of the pods that ask for a collector.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Namespaces about whose pods the API server asks the webhook.
    pub namespaces: Selector,
    /// Labels of the pods about which it does.
    pub pods: Selector,
    declared: BTreeMap<String, Declared>,
    carriers: BTreeMap<Key, Carrier>,
    /// By the watch that brings them: one has those with the label of injected pods, which may lie.
    uncovered: BTreeMap<(Kind, Key), Uncovered>,
    untold: Untold,
    revision: u64,
}

impl Coverage {
    /// Changes whenever a status may have changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes note that something changed on which statuses depend.
    pub(crate) fn changed(&mut self) {
        self.revision += 1;
    }

    /// A profile is there; its specification may have a problem.
    pub(crate) fn declare(&mut self, object: &Object, problem: Option<&String>) {
        self.declared.insert(object.key.name.clone(), Declared::read(object, problem));
        self.changed();
    }

    /// A pod has the label of those that carry a collector. Gives with what it has run, if it has.
    pub(crate) fn is_labelled(&mut self, object: &Object, left_out: Option<Skip>) -> Option<Ran> {
        let Some((carrier, ran)) = Carrier::read(object) else {
            if self.carriers.remove(&object.key).is_some() {
                self.changed();
            }
            self.lacks(Kind::InjectedPod, object, left_out);
            return None;
        };
        self.uncovered.remove(&(Kind::InjectedPod, object.key.clone()));
        if self.carriers.insert(object.key.clone(), carrier).is_none() {
            for telling in carrier::unheeded(object) {
                self.untold.add(telling, object.created, object.seen);
            }
        }
        self.changed();
        ran
    }

    /// A pod of this watch carries none. `left_out`: why the API server does not ask the webhook about it.
    pub(crate) fn lacks(&mut self, watch: Kind, object: &Object, left_out: Option<Skip>) {
        let key = (watch, object.key.clone());
        let earlier = self.uncovered.get(&key);
        let has_room = earlier.is_some() || self.uncovered.len() < MOST_UNCOVERED;
        let found = Uncovered::read(object, left_out).filter(|_| has_room);
        let Some(found) = found else { return self.remove(watch, &object.key) };
        if earlier == Some(&found) {
            return;
        }
        if earlier.is_none_or(|earlier| earlier.reason != found.reason) {
            self.untold.add(found.telling(object), object.created, object.seen);
        }
        self.uncovered.insert(key, found);
        self.changed();
    }

    /// Forgets an object that is gone.
    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) {
        let is_known = match kind {
            Kind::InjectionProfile => self.declared.remove(&key.name).is_some(),
            Kind::InjectedPod | Kind::OtherPod => {
                let carried = kind == Kind::InjectedPod && self.carriers.remove(key).is_some();
                self.uncovered.remove(&(kind, key.clone())).is_some() || carried
            }
            _ => false,
        };
        if is_known {
            self.changed();
        }
    }

    /// Forgets all objects of a kind but these.
    pub(crate) fn retain(&mut self, kind: Kind, keys: &BTreeSet<Key>) {
        match kind {
            Kind::InjectionProfile => self.declared.retain(|name, _| keys.contains(&Key::of_cluster(name))),
            Kind::InjectedPod => self.carriers.retain(|key, _| keys.contains(key)),
            _ => {}
        }
        self.uncovered.retain(|(watch, key), _| *watch != kind || keys.contains(key));
        self.changed();
    }

    /// Stops injection for workloads whose pods collectors keep from starting,
    /// and ends stops that have lasted long enough.
    pub(crate) fn look_for_trouble(&mut self, stops: &mut Stops, now: Timestamp) {
        for (key, carrier) in &self.carriers {
            if let Some((why, at)) = carrier.trouble(now)
                && stops.hold(&carrier.workload, carrier.template.as_deref(), why, at)
            {
                self.untold.add(carrier.telling(key, why), None, now);
            }
        }
        stops.expire(now);
    }

    /// At most so many of the Events that nobody has been told yet.
    pub fn tell(&mut self, most: usize) -> Vec<Telling> {
        self.untold.take(most)
    }

    /// One of them could not be written: the next pod that it may be about has it told.
    pub(crate) fn not_told(&mut self, telling: &Telling) {
        self.untold.forget(telling);
    }

    /// How many Events there was no room for.
    pub fn dropped(&self) -> u64 {
        self.untold.dropped
    }

    /// How many pods carry a collector, wait for one, and were left alone; of all profiles and of none.
    pub fn pods(&self) -> [(&'static str, usize); 3] {
        let pending = self.uncovered.values().filter(|pod| pod.reason.is_none()).count();
        [("injected", self.carriers.len()), ("pending", pending), ("skipped", self.uncovered.len() - pending)]
    }

    /// What all profiles have to say.
    pub(crate) fn reports(&self, cluster: &Cluster, now: Timestamp) -> Vec<Report> {
        let mut counts = report::Counts::default();
        for carrier in self.carriers.values() {
            counts.carries(&carrier.profile);
        }
        for ((_, key), pod) in &self.uncovered {
            if let Some(profile) = pod.profile(&cluster.labels_of(&key.namespace), &cluster.profiles) {
                counts.lacks(profile, pod.reason.as_deref());
            }
        }
        let conflicts = cluster.profiles.conflicts(cluster.namespaces.iter());
        self.declared
            .iter()
            .map(|(name, declared)| {
                let conflict = conflicts.iter().find(|conflict| conflict.loser == *name);
                declared.report(name, counts.of(name), conflict, cluster, now)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
