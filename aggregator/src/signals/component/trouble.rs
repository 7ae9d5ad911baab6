//! Which components are in trouble, and what of it has been told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, KubernetesEvent};

use super::{
    Part,
    table::{Area, Home, KINDS, precedence},
    wire,
};
use crate::signals::{event::budget::Budget, incident::Finding};

/// The trouble of a pod that is gone counts for so long, because the pod that takes its
/// place can't show the same at once.
const AFTER_PODS_END: Duration = Duration::from_mins(2);

/// The components of a cluster: a few, and the nodes on which an unknown CNI fails.
#[derive(Default)]
pub(super) struct Troubles {
    entries: BTreeMap<Home, Entry>,
    /// numbers of the current lists, in the order of `KINDS`
    lists: [u32; KINDS.len()],
}

#[derive(Default)]
struct Entry {
    workload: Option<Workload>,
    /// The workload was there and is not any more: what is left of it opens nothing.
    is_gone: bool,
    /// What is in trouble, by UID.
    parts: BTreeMap<Arc<str>, Trouble>,
    open: Option<Open>,
}

/// A DaemonSet or Deployment.
#[derive(Debug)]
struct Workload {
    uid: String,
    /// How many pods it shall have.
    pods: i32,
    /// number of the list in which it was last seen
    list: u32,
}

/// What is wrong with a part.
pub(super) struct Trouble {
    pub(super) part: Part,
    /// Not empty.
    pub(super) findings: Vec<Finding>,
    /// The part is gone; until when its trouble counts.
    until: Option<Timestamp>,
}

/// A signal that has been opened.
struct Open {
    start: Timestamp,
    /// How often anything was found.
    count: u32,
    is_news: bool,
    budget: Budget,
}

/// What a signal of a component says.
pub(super) struct View<'a> {
    pub(super) home: &'a Home,
    /// UID of the workload; empty while it is not known.
    pub(super) uid: &'a str,
    /// How many pods it shall have, if that is known.
    pub(super) pods: Option<i32>,
    pub(super) troubles: Vec<&'a Trouble>,
    pub(super) start: Timestamp,
    pub(super) count: u32,
}

impl Troubles {
    /// A list of the workloads of `kind` begins.
    pub(super) fn begin(&mut self, kind: &str) {
        if let Some(list) = self.list(kind) {
            *list += 1;
        }
    }

    /// A component has this workload, which shall have so many pods.
    pub(super) fn workload(&mut self, home: &Home, uid: &str, pods: i32) {
        let list = self.list(home.kind).map_or(0, |list| *list);
        let entry = self.entries.entry(home.clone()).or_default();
        entry.workload = Some(Workload { uid: uid.to_owned(), pods, list });
        // If parts of it are still in trouble, that is told at the next tick.
        entry.is_gone = false;
    }

    /// The workload is gone. Parts that are still there are remembered: it may come again.
    pub(super) fn workload_gone(&mut self, home: &Home, now: Timestamp) -> Option<KubernetesEvent> {
        let entry = self.entries.get_mut(home)?;
        let signal =
            entry.open.as_ref().map(|open| wire::signal(&entry.view(home, open), Action::Delete, now));
        (entry.open, entry.workload, entry.is_gone) = (None, None, true);
        entry.parts.retain(|_, trouble| trouble.until.is_none());
        self.forget_empty(home);
        signal
    }

    /// The list of the workloads of `kind` is complete.
    pub(super) fn finish(&mut self, kind: &str, now: Timestamp) -> Vec<KubernetesEvent> {
        let Some(list) = self.list(kind).copied() else { return Vec::new() };
        let is_gone = |entry: &Entry| entry.workload.as_ref().is_some_and(|workload| workload.list != list);
        let gone = self.entries.iter().filter(|(home, entry)| home.kind == kind && is_gone(entry));
        let gone: Vec<_> = gone.map(|(home, _)| home.clone()).collect();
        gone.iter().filter_map(|home| self.workload_gone(home, now)).collect()
    }

    /// This and nothing else is wrong with a part.
    pub(super) fn found(
        &mut self,
        uid: &str,
        part: &Part,
        findings: &[Finding],
        now: Timestamp,
    ) -> Option<KubernetesEvent> {
        if findings.is_empty() && !self.entries.get(&part.home)?.parts.contains_key(uid) {
            return None;
        }
        let entry = self.entries.entry(part.home.clone()).or_default();
        let before = entry.parts.remove(uid).map(|trouble| trouble.findings).unwrap_or_default();
        let earlier = |finding: &Finding| before.iter().find(|before| before.kind == finding.kind);
        let times = findings.iter().map(|finding| {
            finding.count.max(1).saturating_sub(earlier(finding).map_or(0, |before| before.count.max(1)))
        });
        let times = times.fold(0, u32::saturating_add);
        let is_same =
            |finding: &Finding| earlier(finding).is_some_and(|before| before.reason == finding.reason);
        let is_news = times > 0 || before.len() != findings.len() || !findings.iter().all(is_same);
        if !findings.is_empty() {
            let trouble = Trouble { part: part.clone(), findings: findings.to_vec(), until: None };
            entry.parts.insert(uid.into(), trouble);
        }
        let signal = entry.judge(&part.home, is_news, times, now);
        self.forget_empty(&part.home);
        signal
    }

    /// A part in trouble is gone.
    pub(super) fn gone(&mut self, uid: &str, home: &Home, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(home) else { return };
        if entry.is_gone {
            // Nothing takes its place.
            entry.parts.remove(uid);
            self.forget_empty(home);
        } else if let Some(trouble) = entry.parts.get_mut(uid) {
            trouble.until = Some(now + AFTER_PODS_END);
        }
    }

    /// Returns what time alone makes due.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<KubernetesEvent> {
        let mut due = Vec::new();
        self.entries.retain(|home, entry| {
            let parts = entry.parts.len();
            entry.parts.retain(|_, trouble| trouble.until.is_none_or(|until| until > now));
            due.extend(entry.judge(home, entry.parts.len() != parts, 0, now));
            !entry.is_empty()
        });
        due
    }

    /// Tells that those are well of which that `is_owed`.
    pub(super) fn well(&self, is_owed: impl Fn(&str) -> bool, now: Timestamp) -> Vec<KubernetesEvent> {
        let well = self.entries.iter().filter(|(home, entry)| {
            entry.workload.is_some() && entry.open.is_none() && is_owed(&wire::uid(home))
        });
        let open = Open { start: now, count: 0, is_news: false, budget: Budget::default() };
        well.map(|(home, entry)| wire::signal(&entry.view(home, &open), Action::Update, now)).collect()
    }

    /// What makes the networks of pods in this cluster, if that is known.
    pub(super) fn cni(&self) -> Option<&Home> {
        let known =
            self.entries.iter().filter(|(home, entry)| home.makes_networks() && entry.workload.is_some());
        known.map(|(home, _)| home).min_by_key(|home| precedence(home.component))
    }

    /// Whether this is a workload of DNS.
    pub(super) fn has_dns(&self, namespace: &str, kind: &str, name: &str) -> bool {
        self.entries.iter().any(|(home, entry)| {
            home.component.area == Area::Dns
                && entry.workload.is_some()
                && (home.kind, &*home.namespace, &*home.name) == (kind, namespace, name)
        })
    }

    /// Whether the workload was there and is gone.
    pub(super) fn has_lost(&self, home: &Home) -> bool {
        self.entries.get(home).is_some_and(|entry| entry.is_gone)
    }

    fn forget_empty(&mut self, home: &Home) {
        if self.entries.get(home).is_some_and(Entry::is_empty) {
            self.entries.remove(home);
        }
    }

    fn list(&mut self, kind: &str) -> Option<&mut u32> {
        let place = KINDS.iter().position(|known| *known == kind)?;
        self.lists.get_mut(place)
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.workload.is_none() && self.parts.is_empty() && self.open.is_none()
    }

    /// Something was found `times` more often. Returns what is to be told.
    fn judge(&mut self, home: &Home, is_news: bool, times: u32, now: Timestamp) -> Option<KubernetesEvent> {
        let is_well = self.parts.is_empty();
        let findings = self.parts.values().flat_map(|trouble| &trouble.findings);
        let action = match &mut self.open {
            None if self.is_gone => return None,
            None => {
                let start = findings.clone().map(|finding| finding.since).min()?;
                let count = findings.map(|finding| finding.count.max(1)).fold(0, u32::saturating_add);
                let mut budget = Budget::default();
                // A fresh budget has one.
                let _taken = budget.take(now);
                self.open = Some(Open { start, count, is_news: false, budget });
                Action::Create
            }
            Some(open) => {
                open.count = open.count.saturating_add(times);
                open.is_news |= is_news;
                // The end waits for nothing.
                if !is_well && (!open.is_news || open.budget.take(now).is_err()) {
                    return None;
                }
                open.is_news = false;
                Action::Update
            }
        };
        let signal = wire::signal(&self.view(home, self.open.as_ref()?), action, now);
        if is_well {
            self.open = None;
        }
        Some(signal)
    }

    fn view<'a>(&'a self, home: &'a Home, open: &Open) -> View<'a> {
        View {
            home,
            uid: self.workload.as_ref().map(|workload| workload.uid.as_str()).unwrap_or_default(),
            pods: self.workload.as_ref().map(|workload| workload.pods),
            troubles: self.parts.values().collect(),
            start: open.start,
            count: open.count,
        }
    }
}

#[cfg(test)]
impl Troubles {
    /// The names of the workloads in trouble.
    pub(super) fn open(&self) -> std::collections::BTreeSet<String> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.open.is_some())
            .map(|(home, _)| home.name.clone())
            .collect()
    }
}
