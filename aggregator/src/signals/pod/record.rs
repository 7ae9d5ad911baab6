//! A pod in the form of the wire: all that a signal shows of it.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::Time};
use kestrel_proto::cloud::v1::{self, container_state::State};

use super::quantity;
use crate::inventory::convert;

/// The record of a pod. `status_timestamp` and `action` are left unset: they are
/// known when it is told.
pub(super) fn pod_status_change(object: &core::Pod) -> v1::PodStatusChange {
    let (pod, spec, status) = (convert::pod(object), object.spec.as_ref(), object.status.as_ref());
    let container_statuses = statuses(status.and_then(|status| status.container_statuses.as_ref()));
    let init_container_statuses = statuses(status.and_then(|status| status.init_container_statuses.as_ref()));
    let restarts = container_statuses.iter().chain(&init_container_statuses);
    v1::PodStatusChange {
        name: pod.name,
        namespace: pod.namespace,
        uid: pod.uid,
        pod_ip: pod.pod_ip,
        node_name: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        phase: pod.phase,
        total_restart_count: restarts.map(|status| status.restart_count).fold(0, i32::saturating_add),
        container_statuses,
        init_container_statuses,
        conditions: conditions(status).map(condition).collect(),
        qos_class: status.and_then(|status| status.qos_class.clone()).unwrap_or_default(),
        resource_usage: spec.map(resources),
        owner_references: pod.owner_references,
        created_at: pod.created_at,
        status_timestamp: None,
        action: 0,
    }
}

/// The pod's conditions.
pub(super) fn conditions(status: Option<&core::PodStatus>) -> impl Iterator<Item = &core::PodCondition> {
    status.into_iter().flat_map(|status| status.conditions.iter().flatten())
}

/// The moment of a field that is there and is not Go's zero time or the epoch,
/// which runtimes write for what never began.
pub(super) fn moment(field: Option<&Time>) -> Option<Timestamp> {
    field.map(|time| time.0).filter(|time| *time > Timestamp::UNIX_EPOCH)
}

fn condition(condition: &core::PodCondition) -> v1::PodCondition {
    v1::PodCondition {
        r#type: condition.type_.clone(),
        status: condition.status.clone(),
        last_probe_time: time(condition.last_probe_time.as_ref()),
        last_transition_time: time(condition.last_transition_time.as_ref()),
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
    }
}

fn statuses(all: Option<&Vec<core::ContainerStatus>>) -> Vec<v1::ContainerStatus> {
    all.into_iter().flatten().map(container_status).collect()
}

fn container_status(status: &core::ContainerStatus) -> v1::ContainerStatus {
    v1::ContainerStatus {
        name: status.name.clone(),
        image: status.image.clone(),
        image_id: status.image_id.clone(),
        container_id: status.container_id.clone().unwrap_or_default(),
        ready: status.ready,
        restart_count: status.restart_count,
        state: container_state(status.state.as_ref()),
        last_termination_state: container_state(status.last_state.as_ref()),
        started: status.started.unwrap_or_default(),
    }
}

/// `None` for the empty state that the API server writes where there was none.
fn container_state(state: Option<&core::ContainerState>) -> Option<v1::ContainerState> {
    let core::ContainerState { waiting, running, terminated } = state?;
    let waiting = waiting.as_ref().map(|waiting| {
        State::Waiting(v1::ContainerStateWaiting {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
        })
    });
    let running = running.as_ref().map(|running| {
        State::Running(v1::ContainerStateRunning { started_at: time(running.started_at.as_ref()) })
    });
    let terminated = terminated.as_ref().map(|terminated| {
        State::Terminated(v1::ContainerStateTerminated {
            exit_code: terminated.exit_code,
            signal: terminated.signal.unwrap_or_default(),
            reason: terminated.reason.clone().unwrap_or_default(),
            message: terminated.message.clone().unwrap_or_default(),
            started_at: time(terminated.started_at.as_ref()),
            finished_at: time(terminated.finished_at.as_ref()),
            container_id: terminated.container_id.clone().unwrap_or_default(),
        })
    });
    waiting.or(running).or(terminated).map(|state| v1::ContainerState { state: Some(state) })
}

/// Requests and limits, summed over the app containers.
fn resources(spec: &core::PodSpec) -> v1::ResourceUsage {
    let sum = |limits: bool, resource: &str, unit: fn(&str) -> Option<i64>| {
        let of = |container: &core::Container| {
            let resources = container.resources.as_ref()?;
            let all = if limits { &resources.limits } else { &resources.requests };
            unit(&all.as_ref()?.get(resource)?.0)
        };
        spec.containers.iter().filter_map(of).fold(0, i64::saturating_add)
    };
    let nano_cores = |text: &str| Some(quantity::milli(text)?.saturating_mul(1_000_000));
    v1::ResourceUsage {
        cpu_usage_nano_cores: 0,
        memory_usage_bytes: 0,
        cpu_limit_nano_cores: sum(true, "cpu", nano_cores),
        memory_limit_bytes: sum(true, "memory", quantity::whole),
        cpu_request_nano_cores: sum(false, "cpu", nano_cores),
        memory_request_bytes: sum(false, "memory", quantity::whole),
    }
}

fn time(field: Option<&Time>) -> Option<prost_types::Timestamp> {
    field.map(|time| convert::timestamp(time.0))
}
