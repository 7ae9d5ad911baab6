//! The statuses of profiles.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize as _;

use crate::{
    cluster::{Cluster, Object},
    profile::{Condition, Conflict, Status},
};

/// Reasons that are counted each by itself; the rest is one.
const MOST_REASONS: usize = 32;

/// What is to be written into a profile's status.
#[derive(Debug, PartialEq)]
pub struct Report {
    /// The profile.
    pub profile: String,
    /// The version of it that was looked at.
    pub version: String,
    /// What its status says …
    pub observed: Status,
    /// … and what it has to say.
    pub status: Status,
}

/// A profile as it is declared, whether it can be used or not.
#[derive(Debug)]
pub(super) struct Declared {
    generation: i64,
    version: String,
    problem: Option<String>,
    observed: Status,
}

/// How many pods there are, by profile.
#[derive(Debug, Default)]
pub(super) struct Counts<'a>(BTreeMap<&'a str, Count>);

#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    injected: u32,
    pending: u32,
    skipped: BTreeMap<String, u32>,
}

impl<'a> Counts<'a> {
    pub(super) fn carries(&mut self, profile: &'a str) {
        self.0.entry(profile).or_default().injected += 1;
    }

    /// A pod has none, for this reason or for none.
    pub(super) fn lacks(&mut self, profile: &'a str, reason: Option<&str>) {
        let count = self.0.entry(profile).or_default();
        let Some(reason) = reason else { return count.pending += 1 };
        let is_one_too_many = count.skipped.len() >= MOST_REASONS && !count.skipped.contains_key(reason);
        let reason = if is_one_too_many { "other" } else { reason };
        *count.skipped.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn of(&self, profile: &str) -> Count {
        self.0.get(profile).cloned().unwrap_or_default()
    }
}

impl Declared {
    pub(super) fn read(object: &Object, problem: Option<&String>) -> Self {
        Self {
            generation: object.generation,
            version: object.version.clone(),
            problem: problem.cloned(),
            observed: Status::deserialize(&object.body["status"]).unwrap_or_default(),
        }
    }

    pub(super) fn report(
        &self,
        name: &str,
        count: Count,
        conflict: Option<&Conflict>,
        cluster: &Cluster,
        now: Timestamp,
    ) -> Report {
        let spec = cluster.profiles.get(name).map(|profile| &profile.spec);
        let untried = spec.and_then(|spec| spec.image.as_ref()).filter(|image| !cluster.images.run(image));
        let (ready, reason, message) = match (&self.problem, spec, untried) {
            (Some(problem), ..) => ("False", "Invalid", problem.clone()),
            (None, Some(spec), _) if !spec.enabled => {
                ("False", "Disabled", "The pods that it covers get no collector.".to_owned())
            }
            (None, _, Some(image)) => {
                ("False", "UntriedImage", format!("The image {image} has not run on any node yet."))
            }
            _ => ("True", "Ready", "Annotated pods that it covers get a collector.".to_owned()),
        };
        let mut conditions = vec![self.condition("Ready", ready, reason, message, now)];
        if let Some(conflict) = conflict {
            conditions.push(self.condition("Conflict", "True", "Overlap", conflict.to_string(), now));
        }
        let Count { injected, pending, skipped } = count;
        Report {
            profile: name.to_owned(),
            version: self.version.clone(),
            observed: self.observed.clone(),
            status: Status { observed_generation: self.generation, injected, pending, skipped, conditions },
        }
    }

    fn condition(
        &self,
        kind: &str,
        status: &str,
        reason: &str,
        message: String,
        now: Timestamp,
    ) -> Condition {
        let before = self.observed.conditions.iter().find(|condition| condition.kind == kind);
        let since =
            before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since.unwrap_or_else(|| format!("{now:.0}")),
            observed_generation: self.generation,
        }
    }
}
