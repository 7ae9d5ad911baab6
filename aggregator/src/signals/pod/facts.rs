//! What is judged of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::{
    container::{Container, Exit, State, containers},
    record::{conditions, moment},
};

/// A pod as the API server shows it, as far as it is judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) created: Timestamp,
    /// The node it is to run on; empty: none yet.
    pub(super) node: String,
    /// It uses the network of its node.
    is_of_host: bool,
    pub(super) scheduler: String,
    /// Its sandbox has an address, so it is there. That of its node says nothing.
    pub(super) has_address: bool,
    pub(super) phase: Phase,
    /// Why the pod as a whole is as it is.
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) controller: Controller,
    pub(super) containers: Vec<Container>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not ended: Pending or Running.
    Open,
    Succeeded,
    Failed,
    /// Nobody knows: its node is lost, or nobody has seen it.
    #[default]
    Unknown,
}

/// What replaces the pod when it fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Controller {
    #[default]
    Nothing,
    /// It counts failures and tells of them itself.
    Job,
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    kind: String,
    pub(super) is_true: bool,
    /// Since it is so.
    pub(super) since: Option<Timestamp>,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Facts {
    pub(super) fn of(object: &core::Pod) -> Self {
        let (meta, spec, status) = (&object.metadata, object.spec.as_ref(), object.status.as_ref());
        let text = |field: Option<&Option<String>>| field.cloned().flatten().unwrap_or_default();
        let owners = meta.owner_references.iter().flatten();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        Self {
            created: moment(meta.creation_timestamp.as_ref()).unwrap_or_default(),
            node: text(spec.map(|spec| &spec.node_name)),
            is_of_host: spec.is_some_and(|spec| spec.host_network == Some(true)),
            scheduler: text(spec.map(|spec| &spec.scheduler_name)),
            has_address: !text(status.map(|status| &status.pod_ip)).is_empty()
                && spec.and_then(|spec| spec.host_network) != Some(true),
            phase: match status.and_then(|status| status.phase.as_deref()) {
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Open,
            },
            reason: text(status.map(|status| &status.reason)),
            message: text(status.map(|status| &status.message)),
            controller: match controller.map(|owner| owner.kind.as_str()) {
                None => Controller::Nothing,
                Some("Job") => Controller::Job,
                Some(_) => Controller::Other,
            },
            containers: containers(object),
            conditions: conditions(status).map(condition).collect(),
        }
    }

    pub(super) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|ready| ready.is_true)
    }

    /// Its node is lost, and told of by itself: it is not the kubelet that says
    /// that the pod is not ready, because it would say so of the containers too.
    /// (The node lifecycle controller turns Ready alone, and gives no reason.)
    pub(super) fn is_lost(&self) -> bool {
        let turned = |ready: &Condition| !ready.is_true && ready.reason.is_empty();
        self.phase == Phase::Unknown
            || self.condition("Ready").is_some_and(turned)
                && self.condition("ContainersReady").is_some_and(|containers| containers.is_true)
    }

    /// Whether it may be for want of a network of its own that it does not begin.
    pub(super) fn waits_for_network(&self) -> bool {
        let sandbox = self.condition("PodReadyToStartContainers");
        !self.is_of_host && sandbox.is_none_or(|sandbox| !sandbox.is_true)
    }

    /// Since when it has a node, or would have one.
    pub(super) fn scheduled(&self) -> Timestamp {
        let scheduled = self.condition("PodScheduled").filter(|condition| condition.is_true);
        scheduled.and_then(|condition| condition.since).unwrap_or(self.created)
    }

    /// When something last happened to it.
    pub(super) fn last_change(&self) -> Timestamp {
        let conditions = self.conditions.iter().filter_map(|condition| condition.since);
        conditions.chain(self.containers.iter().filter_map(moved)).fold(self.created, Ord::max)
    }

    /// Since when the container waits, which its state does not say.
    pub(super) fn waits_since(&self, container: &Container) -> Timestamp {
        let initialized = self.condition("Initialized").filter(|condition| condition.is_true);
        let exited = container.exit().and_then(|exit| exit.finished);
        initialized
            .and_then(|condition| condition.since)
            .into_iter()
            .chain(exited)
            .fold(self.scheduled(), Ord::max)
    }
}

/// When the container last began or ended a run.
fn moved(container: &Container) -> Option<Timestamp> {
    let exited = |exit: &Exit| exit.finished.or(exit.started);
    match &container.state {
        State::Running { since } => *since,
        _ => container.exit().and_then(exited),
    }
}

fn condition(condition: &core::PodCondition) -> Condition {
    Condition {
        kind: condition.type_.clone(),
        is_true: condition.status == "True",
        since: moment(condition.last_transition_time.as_ref()),
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
    }
}
