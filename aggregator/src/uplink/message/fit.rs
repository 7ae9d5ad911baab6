//! Makes messages fit on the wire. Nothing of an ordinary cluster is that large;
//! what is, arrives cut and says so, because a server that gets one message over
//! its limit ends the stream, and would do so again whenever it is sent again.

use kestrel_proto::cloud::v1::{
    ContainerState, ContainerStatus, NetworkPolicyWithError, NodeCondition, PodCondition, PodLogs,
    WorkloadCondition, container_state::State, stream_control_request::Request as Tool,
    stream_events_request::Request as Signal,
};
use prost::Message;

use super::{Answer, BODY_BYTES};

/// What is left of a long text.
const TEXT: usize = 1024;
/// What is left of a long line; it has four texts.
const LINE_TEXT: usize = 1024 * 1024;
/// What is left of a long list in a signal …
const PARTS: usize = 100;
/// … and in an answer.
const RESULTS: usize = 1000;
/// The condition that tells of the cut.
const CUT: &str = "kestrel.ai/Cut";

/// Whether a message fits as it is.
pub(super) fn fits(message: &impl Message) -> bool {
    message.encoded_len() <= BODY_BYTES
}

/// Cuts texts to `most` bytes each, with a notice.
fn shorten<'a>(texts: impl IntoIterator<Item = &'a mut String>, most: usize) {
    for text in texts.into_iter().filter(|text| text.len() > most) {
        let bytes = text.len();
        text.truncate(text.floor_char_boundary(most));
        text.push_str(&format!(" [cut: it has {bytes} bytes]"));
    }
}

/// Logs in as many parts as they need.
pub(super) fn logs(mut logs: PodLogs) -> Vec<PodLogs> {
    if fits(&logs) {
        return vec![logs];
    }
    if logs.log_entries.len() > 1 {
        let mut rest = logs.clone();
        rest.log_entries = logs.log_entries.split_off(logs.log_entries.len() / 2);
        logs.total_lines = logs.log_entries.len() as i64;
        rest.total_lines = rest.log_entries.len() as i64;
        logs.stream_offset = logs.stream_offset.saturating_sub(rest.total_lines).max(0);
        logs.stream_complete = false;
        return [self::logs(logs), self::logs(rest)].concat();
    }
    for entry in &mut logs.log_entries {
        shorten([&mut entry.message, &mut entry.level], LINE_TEXT);
        if let Some(info) = &mut entry.error_info {
            shorten([&mut info.error_type, &mut info.stack_trace, &mut info.error_message], LINE_TEXT);
        }
    }
    let PodLogs { pod_name, namespace, pod_uid, container_name, node_name, owner_references, .. } = &mut logs;
    shorten([pod_name, namespace, pod_uid, container_name, node_name], TEXT);
    owner_references.truncate(PARTS);
    for owner in owner_references {
        shorten([&mut owner.api_version, &mut owner.kind, &mut owner.name, &mut owner.uid], TEXT);
    }
    vec![logs]
}

/// Shortens a list of conditions, whose last one tells of the cut.
macro_rules! shorten_conditions {
    ($conditions:expr, $condition:ident, $bytes:expr) => {{
        let message = format!("long texts and lists are cut: the signal would have {} bytes", $bytes);
        $conditions.truncate(PARTS);
        $conditions.push($condition {
            r#type: CUT.to_owned(),
            status: "True".to_owned(),
            message,
            ..Default::default()
        });
        for condition in &mut $conditions {
            let $condition { r#type, status, reason, message, .. } = condition;
            shorten([r#type, status, reason, message], TEXT);
        }
    }};
}

/// A signal that is too large, with its identity and the beginnings of its texts
/// and lists.
pub(super) fn signal(signal: &mut Signal) {
    match signal {
        Signal::KubernetesEvent(event) if !fits(event) => {
            shorten([&mut event.name, &mut event.namespace, &mut event.uid, &mut event.event_type], TEXT);
            shorten([&mut event.reason, &mut event.message], TEXT);
            if let Some(object) = &mut event.involved_object {
                shorten([&mut object.kind, &mut object.namespace, &mut object.name, &mut object.uid], TEXT);
                shorten([&mut object.api_version, &mut object.resource_version], TEXT);
                shorten([&mut object.field_path], TEXT);
            }
            if let Some(source) = &mut event.source {
                shorten([&mut source.component, &mut source.host], TEXT);
            }
        }
        Signal::PodStatusChange(pod) if !fits(pod) => {
            shorten_conditions!(pod.conditions, PodCondition, pod.encoded_len());
            shorten([&mut pod.name, &mut pod.namespace, &mut pod.uid, &mut pod.pod_ip], TEXT);
            shorten([&mut pod.node_name, &mut pod.phase, &mut pod.qos_class], TEXT);
            for containers in [&mut pod.container_statuses, &mut pod.init_container_statuses] {
                containers.truncate(PARTS);
                containers.iter_mut().for_each(container);
            }
            pod.owner_references.truncate(PARTS);
            for owner in &mut pod.owner_references {
                shorten([&mut owner.api_version, &mut owner.kind, &mut owner.name, &mut owner.uid], TEXT);
            }
        }
        Signal::NodeConditionChange(node) if !fits(node) => {
            shorten_conditions!(node.conditions, NodeCondition, node.encoded_len());
            shorten([&mut node.name, &mut node.uid, &mut node.hostname], TEXT);
            shorten([&mut node.instance_type, &mut node.zone], TEXT);
            for addresses in [&mut node.internal_ips, &mut node.external_ips] {
                addresses.truncate(PARTS);
                shorten(addresses, TEXT);
            }
            for resources in [&mut node.capacity, &mut node.allocatable] {
                resources.retain(|name, value| name.len() + value.len() <= TEXT);
                let beyond = resources.keys().nth(PARTS).cloned();
                beyond.map(|name| resources.split_off(&name));
            }
        }
        Signal::WorkloadRolloutStatus(workload) if !fits(workload) => {
            shorten_conditions!(workload.conditions, WorkloadCondition, workload.encoded_len());
            shorten([&mut workload.name, &mut workload.namespace, &mut workload.uid], TEXT);
            shorten([&mut workload.kind, &mut workload.rollout_status], TEXT);
            shorten([&mut workload.rollout_reason, &mut workload.rollout_message], TEXT);
        }
        Signal::DatadogMonitorAlert(alert) if !fits(alert) => {
            shorten([&mut alert.monitor_id, &mut alert.monitor_name, &mut alert.current_status], TEXT);
            shorten([&mut alert.previous_status, &mut alert.monitor_type], TEXT);
            shorten([&mut alert.query, &mut alert.message], TEXT);
            alert.tags.truncate(PARTS);
            alert.tags.push(CUT.to_owned());
            shorten(&mut alert.tags, TEXT);
        }
        _ => {}
    }
}

fn container(container: &mut ContainerStatus) {
    let ContainerStatus { name, image, image_id, container_id, state, last_termination_state, .. } =
        container;
    shorten([name, image, image_id, container_id], TEXT);
    for state in [state, last_termination_state].into_iter().flatten() {
        match state {
            ContainerState { state: Some(State::Waiting(waiting)) } => {
                shorten([&mut waiting.reason, &mut waiting.message], TEXT);
            }
            ContainerState { state: Some(State::Terminated(end)) } => {
                shorten([&mut end.reason, &mut end.message, &mut end.container_id], TEXT);
            }
            ContainerState { state: Some(State::Running(_)) | None } => {}
        }
    }
}

/// The status of a part whose answer is too large: "content too large".
const TOO_LARGE: i32 = 413;

/// An answer that is too large, without what was asked for and with the reason.
/// What was done is still told.
pub(super) fn answer(answer: &mut Answer) {
    let why = |bytes| {
        format!(
            "the answer would have {bytes} bytes, and {BODY_BYTES} can be sent at once: ask for less at a time"
        )
    };
    match answer {
        Answer::Tool(Tool::KubernetesApiResponse(answer)) if !fits(answer) => {
            let why = why(answer.encoded_len());
            answer.results.truncate(RESULTS);
            for result in &mut answer.results {
                (result.success, result.status_code) = (false, TOO_LARGE);
                (result.response_data, result.error_message) = (String::new(), why.clone());
                shorten([&mut result.api_path], TEXT);
            }
            answer.global_error_message = why;
            shorten([&mut answer.request_id], TEXT);
        }
        Answer::Tool(Tool::ShellCommandResponse(answer)) if !fits(answer) => {
            let why = why(answer.encoded_len());
            answer.results.truncate(RESULTS);
            for result in &mut answer.results {
                (result.stdout, result.stderr) = (String::new(), why.clone());
                shorten([&mut result.command], TEXT);
            }
            answer.global_error_message = why;
            shorten([&mut answer.request_id], TEXT);
        }
        Answer::Tool(Tool::YamlDryRunResponse(answer)) if !fits(answer) => {
            let why = why(answer.encoded_len());
            answer.results.truncate(RESULTS);
            for result in &mut answer.results {
                let texts = [&mut result.manifest_id, &mut result.error_message, &mut result.suggested_fix];
                shorten(texts, TEXT);
            }
            answer.global_error_message = why;
            shorten([&mut answer.request_id], TEXT);
        }
        Answer::Tool(Tool::YamlApplyResponse(answer)) if !fits(answer) => {
            let why = why(answer.encoded_len());
            answer.results.truncate(RESULTS);
            for result in &mut answer.results {
                shorten([&mut result.manifest_id, &mut result.error_message], TEXT);
                shorten([&mut result.applied_resource_info], TEXT);
            }
            answer.global_error_message = why;
            shorten([&mut answer.request_id], TEXT);
        }
        Answer::Tool(Tool::CertificateRenewalResponse(answer)) if !fits(answer) => {
            shorten([&mut answer.request_id, &mut answer.error_message], TEXT);
        }
        Answer::Tool(Tool::OperatorRestartResponse(answer)) if !fits(answer) => {
            shorten([&mut answer.request_id, &mut answer.error_message], TEXT);
        }
        Answer::Tool(Tool::MetricsQueryResponse(answer)) if !fits(answer) => {
            shorten([&mut answer.request_id, &mut answer.error_message], TEXT);
            answer.truncated = true;
            let bytes = answer.encoded_len();
            while !fits(answer) {
                answer.metrics.truncate(answer.metrics.len() / 2);
            }
            answer.total_series_returned = answer.metrics.len() as i32;
            if answer.metrics.is_empty() {
                answer.error_message = why(bytes);
            }
        }
        Answer::Tool(Tool::DatadogQueryResponse(answer)) if !fits(answer) => {
            answer.error_message = why(answer.encoded_len());
            (answer.success, answer.status_code) = (false, TOO_LARGE);
            answer.response_data = String::new();
            shorten([&mut answer.request_id], TEXT);
        }
        Answer::Policy(verdict) if !fits(verdict) => {
            verdict.policies.truncate(RESULTS);
            for NetworkPolicyWithError { network_policy, error_message, policy_id } in &mut verdict.policies {
                // A manifest that is cut would be another manifest.
                network_policy.clear();
                shorten([error_message, policy_id], TEXT);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
