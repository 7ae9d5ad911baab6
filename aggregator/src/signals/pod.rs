//! The signals of one pod: what is wrong with it, and what its node's agent has
//! to send of it meanwhile.

mod container;
mod facts;
mod quantity;
mod record;
mod skew;
mod trouble;

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kestrel_proto::cloud::v1::{Action, PodCondition, PodStatusChange, stream_events_request::Request};
use prost::Message as _;

use super::{
    component::{Home, Part},
    event::Networkless,
    incident::{Finding, Judgement, PREFIX, Subject},
    lines::Lines,
    register::Register,
    thresholds::Thresholds,
};
use crate::inventory::{Pods, Sink, convert, pods::uid_at_node, uid};
use container::{Container, State};
use facts::{Facts, Phase};
use record::moment;
use skew::Skew;
use trouble::{Deletion, judge};

/// The signals of all pods. Clones share them.
#[derive(Clone)]
pub struct PodSignals {
    register: Register<Pod>,
    around: Around,
}

/// What a pod's signals need beside the pod.
#[derive(Clone)]
struct Around {
    pods: Pods,
    lines: Lines,
    networkless: Networkless,
}

impl PodSignals {
    /// No pods yet. While something is wrong with one of them, all of its lines
    /// are asked for through `pods`; the last of them are taken from `lines`. A pod that
    /// waits for the network of a node in `networkless` is held back.
    pub(super) fn new(register: Register<Pod>, pods: Pods, lines: Lines, networkless: Networkless) -> Self {
        Self { register, around: Around { pods, lines, networkless } }
    }

    /// Judges anew what time alone may have changed.
    pub(super) fn tick(&self, now: Timestamp) {
        self.register.tick(now);
        self.around.pods.calm(Instant::now());
    }

    fn seen(&self, object: &core::Pod, now: Timestamp) {
        let uid = uid(object);
        if !is_sound(object) || self.register.knows(uid) {
            let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
            let object = if self.around.pods.keeps(namespace) { &without_words(object) } else { object };
            self.register.seen(uid, Pod::new(object, self.around.clone(), now), now);
        }
    }
}

impl Sink<core::Pod> for PodSignals {
    fn begin(&self) {
        self.register.begin();
    }

    fn apply(&self, object: &core::Pod) {
        self.seen(object, Timestamp::now());
    }

    fn remove(&self, object: &core::Pod) {
        self.register.gone(uid(object), Timestamp::now());
    }

    fn finish(&self) {
        self.register.finish(Timestamp::now());
    }

    fn hears(&self, does: bool) {
        self.register.hears(does, Timestamp::now());
    }
}

/// A pod with which something may be wrong.
pub(super) struct Pod {
    /// The encoded [`PodStatusChange`]: if much is wrong, these are many.
    record: Box<[u8]>,
    uid_at_node: Box<str>,
    /// As the pod is, or was when it was deleted: from then on what its
    /// containers do is its deletion's work.
    facts: Facts,
    deletion: Option<Deletion>,
    /// It has succeeded: nothing that came before is wrong any more, unless that is
    /// its deletion's work too.
    has_succeeded: bool,
    skew: Skew,
    part: Option<Part>,
    around: Around,
}

impl Pod {
    fn new(object: &core::Pod, around: Around, now: Timestamp) -> Self {
        let facts = Facts::of(object);
        let meta = &object.metadata;
        let deletion = moment(meta.deletion_timestamp.as_ref()).map(|deadline| Deletion {
            deadline,
            grace_seconds: meta.deletion_grace_period_seconds.unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            running: {
                let runs = |container: &&Container| matches!(container.state, State::Running { .. });
                facts.containers.iter().filter(runs).map(|container| container.name.clone()).collect()
            },
            node_is_lost: facts.is_lost(),
        });
        Self {
            record: record::pod_status_change(object).encode_to_vec().into(),
            uid_at_node: uid_at_node(object).into(),
            has_succeeded: facts.phase == Phase::Succeeded,
            part: Home::of_pod(meta).map(|home| Part {
                home,
                name: format!("Pod {}", meta.name.as_deref().unwrap_or_default()),
                is_pod: true,
                node: Some(facts.node.clone()).filter(|node| !node.is_empty()),
            }),
            skew: Skew::seen(facts.last_change(), now),
            // Whether it was well before nobody knows, unless `follows` does.
            facts: if deletion.is_some() { Facts::default() } else { facts },
            deletion,
            around,
        }
    }

    /// What the containers with which a finding of this kind deals wrote last.
    fn last_lines(&self, uid: &str, kind: &str) -> String {
        let mut text = String::new();
        for container in &self.facts.containers {
            let end = match (kind, container.exit()) {
                (trouble::UNREADY, _) if container.running_since().is_some() && !container.ready => None,
                (trouble::CRASH_LOOP | trouble::FAILED | trouble::OUT_OF_MEMORY, Some(exit)) => exit.finished,
                _ => continue,
            };
            let lines = self.around.lines.last(uid, &container.name, end);
            if !lines.is_empty() {
                text.push_str(&format!(
                    "\nlast lines of container {:?}:\n{}",
                    container.name,
                    lines.join("\n")
                ));
            }
        }
        text
    }
}

impl Subject for Pod {
    fn follows(&mut self, earlier: &Self) {
        self.skew.follows(&earlier.skew);
        if self.deletion.is_some() {
            self.facts = earlier.facts.clone();
        }
        // Who began to tell of it ends it, whatever becomes of its labels and its owner.
        if self.part.as_ref().map(|part| &part.home) != earlier.part.as_ref().map(|part| &part.home) {
            self.part = earlier.part.clone();
        }
    }

    fn judge(&self, now: Timestamp, thresholds: &Thresholds) -> Judgement {
        if self.has_succeeded && self.deletion.is_none() {
            return Judgement::default();
        }
        self.skew.judge(now, |now, skew| judge(&self.facts, self.deletion.as_ref(), (now, skew), thresholds))
    }

    fn begins(&mut self, _now: Timestamp) {
        self.skew.begins();
    }

    fn held_until(&self, finding: &Finding) -> Option<Timestamp> {
        let is_meant = finding.kind == trouble::STUCK_CREATING && self.facts.waits_for_network();
        is_meant.then(|| self.around.networkless.until(&self.facts.node)).flatten()
    }

    fn part(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    /// The finding that deals with how a container ended shows its last lines.
    fn in_full(&self, uid: &str, open: &[Finding]) -> Vec<Finding> {
        let mut findings = open.to_vec();
        let mut lines = findings.iter_mut().map(|finding| (self.last_lines(uid, &finding.kind), finding));
        if let Some((lines, finding)) = lines.find(|(lines, _)| !lines.is_empty()) {
            finding.message.push_str(&lines);
        }
        findings
    }

    fn turned(&self, is_open: bool) {
        self.around.pods.turned(&self.uid_at_node, is_open);
    }

    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], now: Timestamp) -> Request {
        // What was encoded here can be decoded.
        let mut record = PodStatusChange::decode(&*self.record).unwrap_or_default();
        for finding in self.in_full(&record.uid, open) {
            record.conditions.push(PodCondition {
                r#type: format!("{PREFIX}{}", finding.kind),
                status: "True".to_owned(),
                last_probe_time: None,
                last_transition_time: Some(convert::timestamp(finding.since)),
                reason: finding.reason,
                message: finding.message,
            });
        }
        record.conditions.extend(ended.iter().map(|finding| PodCondition {
            r#type: format!("{PREFIX}{}", finding.kind),
            status: "False".to_owned(),
            last_probe_time: None,
            last_transition_time: Some(convert::timestamp(now)),
            reason: finding.reason.clone(),
            message: format!("over; it was: {}", finding.message),
        }));
        record.status_timestamp = Some(convert::timestamp(now));
        record.set_action(action);
        Request::PodStatusChange(record)
    }
}

/// Without what its containers said when they ended, which may be the end of their logs.
fn without_words(object: &core::Pod) -> core::Pod {
    let mut object = object.clone();
    let status = object.status.iter_mut().flat_map(|status| {
        [
            &mut status.container_statuses,
            &mut status.init_container_statuses,
            &mut status.ephemeral_container_statuses,
        ]
    });
    for container in status.flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
            if let Some(terminated) = &mut state.terminated {
                terminated.message = None;
            }
        }
    }
    object
}

/// Whether nothing can be wrong with the pod, now or by time alone: so it is
/// with almost all pods at almost all times, and nothing is made of them.
fn is_sound(object: &core::Pod) -> bool {
    let Some(status) = &object.status else { return false };
    if status.phase.as_deref() == Some("Succeeded") {
        return object.metadata.deletion_timestamp.is_none();
    }
    let is = |kind: &str| {
        record::conditions(Some(status))
            .any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let statuses = |of: &Option<Vec<core::ContainerStatus>>, is_sound: fn(&core::ContainerStatus) -> bool| {
        of.iter().flatten().all(is_sound)
    };
    object.metadata.deletion_timestamp.is_none()
        && status.phase.as_deref() == Some("Running")
        && is("Ready")
        && !is("DisruptionTarget")
        && statuses(&status.container_statuses, |status| status.ready && has_not_ended(status))
        && statuses(&status.init_container_statuses, |status| {
            status.ready && has_not_ended(status) || has_ended_well(status)
        })
        && statuses(&status.ephemeral_container_statuses, |status| {
            has_not_ended(status) || has_ended_well(status)
        })
}

/// It runs, and did so from the beginning.
fn has_not_ended(status: &core::ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some()) && !has_ended_before(status)
}

/// It ran once, to a good end.
fn has_ended_well(status: &core::ContainerStatus) -> bool {
    let exit = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    exit.is_some_and(|exit| exit.exit_code == 0 && exit.reason.as_deref() != Some("OOMKilled"))
        && status.restart_count == 0
        && !has_ended_before(status)
}

fn has_ended_before(status: &core::ContainerStatus) -> bool {
    status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
}

#[cfg(test)]
mod tests;
