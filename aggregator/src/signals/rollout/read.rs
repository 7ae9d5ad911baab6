//! What a Deployment, StatefulSet or DaemonSet shows of its roll-out.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSetStatus, DeploymentCondition, DeploymentStatus, StatefulSetStatus};
use kestrel_proto::cloud::v1::{WorkloadCondition, WorkloadRolloutStatus};

use super::{Finding, REPLICA_FAILURE, ROLLOUT_STALLED, Rollout, Shortage};
use crate::{
    inventory::convert::{Workload, created, text, time},
    signals::component::{Home, Part},
};

/// Why a Deployment is progressing when its roll-out is complete.
const COMPLETE: &str = "NewReplicaSetAvailable";
/// Why it is unknown whether a Deployment is progressing that somebody paused.
const PAUSED: &str = "DeploymentPaused";

/// What judging needs to know of any of the kinds.
struct Reading {
    status: WorkloadRolloutStatus,
    /// pods that should be ready
    wanted: i32,
    /// pods that a roll-out still has to replace
    outdated: i32,
    /// a roll-out is under way, also if none of them is left
    is_rolling: bool,
    /// there is a roll-out that Kubernetes itself watches
    is_watched: bool,
    /// since when there are fewer than its owner allows, if the object says
    unavailable: Option<Timestamp>,
}

/// The roll-out of a Deployment that is seen now.
pub fn deployment(object: &Workload<DeploymentStatus>, now: Timestamp) -> Rollout {
    let absent = DeploymentStatus::default();
    let seen = object.status.as_ref().unwrap_or(&absent);
    let conditions = seen.conditions.as_deref().unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let desired = object.spec.replicas.unwrap_or(1);
    let [replicas, ready, available, updated, unavailable] = [
        seen.replicas,
        seen.ready_replicas,
        seen.available_replicas,
        seen.updated_replicas,
        seen.unavailable_replicas,
    ]
    .map(Option::unwrap_or_default);
    let paused = object.spec.paused;
    let progressing = condition("Progressing");
    let is_watched = progressing.is_some_and(|condition| {
        let reason = condition.reason.as_deref().unwrap_or_default();
        reason != PAUSED && (condition.status != "True" || reason != COMPLETE)
    });
    // Without a deadline it has no such condition.
    let counts = progressing.is_none() && !paused;
    let outdated = if counts { (desired - updated).max(0) + (replicas - updated).max(0) } else { 0 };
    let status = WorkloadRolloutStatus {
        desired_replicas: desired,
        current_replicas: replicas,
        ready_replicas: ready,
        available_replicas: available,
        updated_replicas: updated,
        unavailable_replicas: unavailable,
        conditions: conditions.iter().map(wire_condition).collect(),
        observed_generation: seen.observed_generation.unwrap_or_default(),
        ..identity("Deployment", object)
    };
    let unavailable = condition("Available").filter(|condition| condition.status == "False");
    let reading = Reading {
        status,
        // What a paused one has not begun to create is not missing.
        wanted: if paused { desired.min(replicas) } else { desired },
        outdated,
        is_rolling: outdated > 0 || is_watched,
        is_watched,
        unavailable: unavailable
            .and_then(|condition| condition.last_transition_time.as_ref())
            .map(|it| it.0.min(now)),
    };
    let mut rollout = rollout(reading, object, now);
    let name = rollout.name();
    rollout.failures = conditions.iter().filter_map(|condition| failure(&name, condition, now)).collect();
    rollout
}

/// The roll-out of a StatefulSet that is seen now.
pub fn stateful_set(object: &Workload<StatefulSetStatus>, now: Timestamp) -> Rollout {
    let absent = StatefulSetStatus::default();
    let seen = object.status.as_ref().unwrap_or(&absent);
    let spec = &object.spec;
    let desired = spec.replicas.unwrap_or(1);
    let [ready, available, updated] =
        [seen.ready_replicas, seen.available_replicas, seen.updated_replicas].map(Option::unwrap_or_default);
    // Pods below the partition keep their revision, and all do until somebody
    // deletes them if the strategy is OnDelete.
    let held = spec.update_strategy.rolling_update.partition.saturating_sub(spec.ordinals.start);
    let has_other_revision = seen.update_revision != seen.current_revision;
    let is_rolling = has_other_revision && spec.update_strategy.r#type != "OnDelete";
    let status = WorkloadRolloutStatus {
        desired_replicas: desired,
        current_replicas: seen.current_replicas.unwrap_or_default(),
        ready_replicas: ready,
        available_replicas: available,
        updated_replicas: updated,
        unavailable_replicas: (desired - available).max(0),
        observed_generation: seen.observed_generation.unwrap_or_default(),
        ..identity("StatefulSet", object)
    };
    let outdated = if is_rolling { (desired - held.max(0) - updated).max(0) } else { 0 };
    // Its last pod is of the new revision before it is ready.
    let is_rolling = outdated > 0 || is_rolling && held <= 0;
    let reading =
        Reading { status, wanted: desired, outdated, is_rolling, is_watched: false, unavailable: None };
    rollout(reading, object, now)
}

/// The roll-out of a DaemonSet that is seen now.
pub fn daemon_set(object: &Workload<DaemonSetStatus>, now: Timestamp) -> Rollout {
    let absent = DaemonSetStatus::default();
    let seen = object.status.as_ref().unwrap_or(&absent);
    let updated = seen.updated_number_scheduled.unwrap_or_default();
    let is_rolling = object.spec.update_strategy.r#type != "OnDelete";
    let status = WorkloadRolloutStatus {
        desired_replicas: seen.desired_number_scheduled,
        current_replicas: seen.current_number_scheduled,
        ready_replicas: seen.number_ready,
        available_replicas: seen.number_available.unwrap_or_default(),
        updated_replicas: updated,
        unavailable_replicas: seen.number_unavailable.unwrap_or_default(),
        observed_generation: seen.observed_generation.unwrap_or_default(),
        ..identity("DaemonSet", object)
    };
    let wanted = status.desired_replicas;
    let outdated = if is_rolling { (seen.current_number_scheduled - updated).max(0) } else { 0 };
    let is_rolling = outdated > 0;
    let reading = Reading { status, wanted, outdated, is_rolling, is_watched: false, unavailable: None };
    rollout(reading, object, now)
}

/// What a condition of the Deployment `name` says is wrong.
fn failure(name: &str, condition: &DeploymentCondition, seen: Timestamp) -> Option<Finding> {
    let said = condition.message.as_deref().unwrap_or_default();
    let (kind, message) = match (condition.type_.as_str(), condition.status.as_str()) {
        ("ReplicaFailure", "True") => {
            (REPLICA_FAILURE, format!("Pods of {name} can't be created or deleted: {said}"))
        }
        ("Progressing", "False") => {
            (ROLLOUT_STALLED, format!("The roll-out of {name} does not get on: {said}"))
        }
        _ => return None,
    };
    Some(Finding {
        kind: kind.into(),
        reason: text(&condition.reason),
        message,
        since: condition.last_transition_time.as_ref().map_or(seen, |time| time.0.min(seen)),
        count: 0,
    })
}

fn rollout<Status: Clone>(reading: Reading, object: &Workload<Status>, now: Timestamp) -> Rollout {
    let Reading { status, wanted, outdated, is_rolling, is_watched, unavailable } = reading;
    let is_going = object.metadata.deletion_timestamp.is_some();
    let is_unobserved = status.observed_generation < status.metadata_generation && !is_going;
    let unready = (wanted - status.ready_replicas).max(0);
    let shortage = if is_going || (unready + outdated == 0 && !is_watched) {
        None
    } else if is_unobserved || is_rolling {
        Some(Shortage::of_rollout([unready, outdated], unavailable, now, is_watched))
    } else {
        Some(Shortage::of_pods(unready, unavailable, now))
    };
    let part = Home::of_workload(&status.kind, &object.metadata).map(|home| Part {
        home,
        name: format!("{} {}", status.kind, status.name),
        is_pod: false,
        node: None,
    });
    Rollout {
        part,
        status,
        seen: now,
        failures: Vec::new(),
        shortage,
        unobserved: is_unobserved.then_some(now),
        turnover: object.spec.turnover(),
        is_going,
    }
}

/// What is the same for every kind of workload.
pub(in crate::signals) fn identity<Status: Clone>(
    kind: &str,
    object: &Workload<Status>,
) -> WorkloadRolloutStatus {
    let meta = &object.metadata;
    WorkloadRolloutStatus {
        name: text(&meta.name),
        namespace: text(&meta.namespace),
        uid: text(&meta.uid),
        kind: kind.to_owned(),
        metadata_generation: meta.generation.unwrap_or_default(),
        created_at: created(meta),
        ..Default::default()
    }
}

fn wire_condition(condition: &DeploymentCondition) -> WorkloadCondition {
    WorkloadCondition {
        r#type: condition.type_.clone(),
        status: condition.status.clone(),
        last_update_time: time(condition.last_update_time.as_ref()),
        last_transition_time: time(condition.last_transition_time.as_ref()),
        reason: text(&condition.reason),
        message: text(&condition.message),
    }
}
