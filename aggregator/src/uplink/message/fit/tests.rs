use kestrel_proto::cloud::v1::{
    ContainerStateTerminated, DatadogMonitorAlert, DatadogQueryResponse, KubernetesApiResponse,
    KubernetesApiResult, KubernetesEvent, LogEntry, MetricsQueryResponse, NetworkPoliciesWithErrors,
    NodeConditionChange, OTelMetric, PodStatusChange, ShellCommandResponse, ShellCommandResult,
    StreamControlRequest, StreamDataRequest, StreamEventsRequest, StreamLogsRequest, WorkloadRolloutStatus,
    YamlApplyResponse, YamlApplyResult, YamlDryRunResponse, YamlValidationResult, stream_logs_request,
};
use proptest::prelude::*;

use super::*;
use crate::uplink::message::{MAX_MESSAGE_BYTES, Message as Encoded};

/// The envelopes as the server reads them.
fn arrives<E: Message + Default>(message: Encoded) -> E {
    let (data_head, data_body) = message.clone().on_data_stream();
    StreamDataRequest::decode(&[&data_head[5..], &data_body].concat()[..]).unwrap();
    let (head, body) = message.on_own_stream();
    for (head, body) in [(&head, &body), (&data_head, &data_body)] {
        assert!(head.len() - 5 + body.len() <= MAX_MESSAGE_BYTES);
    }
    E::decode(&[&head[5..], &body].concat()[..]).unwrap()
}

fn signal(signal: Signal) -> Signal {
    arrives::<StreamEventsRequest>(signal.into()).request.unwrap()
}

fn tool(tool: Tool) -> Tool {
    arrives::<StreamControlRequest>(Answer::Tool(tool).into()).request.unwrap()
}

fn logs(logs: PodLogs) -> Vec<PodLogs> {
    let part = |message| match arrives::<StreamLogsRequest>(message).request {
        Some(stream_logs_request::Request::PodLogs(logs)) => logs,
        other => panic!("{other:?}"),
    };
    Encoded::of_logs(logs).into_iter().map(part).collect()
}

fn long(bytes: usize) -> String {
    "é".repeat(bytes / 2)
}

const HUGE: usize = 11 << 20;

#[test]
fn logs_are_split_and_only_a_line_of_its_own_is_cut() {
    let entry = |line_number, bytes| LogEntry { message: long(bytes), line_number, ..Default::default() };
    let log_entries = (1..=30).map(|number| entry(number, 1 << 20)).chain([entry(31, HUGE)]).collect();
    let parts = logs(PodLogs {
        log_entries,
        total_lines: 31,
        stream_offset: 31,
        stream_complete: true,
        ..Default::default()
    });
    let mut numbers = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        numbers.extend(part.log_entries.iter().map(|entry| entry.line_number));
        assert_eq!(part.total_lines, part.log_entries.len() as i64);
        assert_eq!(part.stream_offset, part.log_entries.last().unwrap().line_number);
        assert_eq!(part.stream_complete, index + 1 == parts.len());
    }
    assert!(numbers.iter().copied().eq(1..=31) && parts.len() > 3);
    let last = &parts.last().unwrap().log_entries.last().unwrap().message;
    assert!(last.ends_with("é [cut: it has 11534336 bytes]"), "{}", &last[last.len() - 40..]);
}

#[test]
fn a_signal_that_is_too_large_arrives_with_its_identity_and_a_notice() {
    let event = KubernetesEvent { uid: "u".to_owned(), message: long(HUGE), ..Default::default() };
    let Signal::KubernetesEvent(event) = signal(Signal::KubernetesEvent(event)) else { panic!() };
    assert!(event.uid == "u" && event.message.ends_with("[cut: it has 11534336 bytes]"));

    let end = ContainerStateTerminated { exit_code: 137, message: long(HUGE), ..Default::default() };
    let state = Some(ContainerState { state: Some(State::Terminated(end)) });
    let pod = PodStatusChange {
        uid: "u".to_owned(),
        container_statuses: vec![ContainerStatus { state, ..Default::default() }],
        ..Default::default()
    };
    let Signal::PodStatusChange(pod) = signal(Signal::PodStatusChange(pod)) else { panic!() };
    let Some(State::Terminated(end)) = &pod.container_statuses[0].state.as_ref().unwrap().state else {
        panic!()
    };
    assert_eq!((pod.uid.as_str(), end.exit_code, pod.conditions[0].r#type.as_str()), ("u", 137, CUT));

    let node = NodeConditionChange {
        conditions: vec![NodeCondition { r#type: "Ready".to_owned(), ..Default::default() }; 2 << 20],
        capacity: (0..1000).map(|n| (n.to_string(), n.to_string())).collect(),
        ..Default::default()
    };
    let Signal::NodeConditionChange(node) = signal(Signal::NodeConditionChange(node)) else { panic!() };
    assert_eq!((node.conditions.len(), node.capacity.len()), (PARTS + 1, PARTS));
}

#[test]
fn an_answer_that_is_too_large_says_so_where_a_reader_looks() {
    let result = KubernetesApiResult {
        api_path: "pods".to_owned(),
        success: true,
        response_data: long(HUGE),
        status_code: 200,
        ..Default::default()
    };
    let answer =
        KubernetesApiResponse { request_id: "r".to_owned(), results: vec![result], ..Default::default() };
    let Tool::KubernetesApiResponse(answer) = tool(Tool::KubernetesApiResponse(answer)) else { panic!() };
    let result = &answer.results[0];
    assert_eq!((answer.request_id.as_str(), result.api_path.as_str()), ("r", "pods"));
    assert!(!result.success && result.status_code == 413 && result.error_message.contains("ask for less"));

    let metrics = vec![OTelMetric { name: long(1 << 20), ..Default::default() }; 20];
    let answer = MetricsQueryResponse { metrics, total_series_matched: 20, ..Default::default() };
    let Tool::MetricsQueryResponse(answer) = tool(Tool::MetricsQueryResponse(answer)) else { panic!() };
    assert_eq!((answer.truncated, answer.total_series_returned, answer.metrics.len()), (true, 5, 5));

    let results =
        vec![YamlApplyResult { success: true, applied_resource_info: long(HUGE), ..Default::default() }];
    let answer = YamlApplyResponse { results, ..Default::default() };
    let Tool::YamlApplyResponse(answer) = tool(Tool::YamlApplyResponse(answer)) else { panic!() };
    assert!(answer.results[0].success, "it was done");
}

/// A text, mostly short.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => 0_usize..40, 1 => 2000_usize..3000, 1 => HUGE / 4..HUGE].prop_map(long)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_a_message_holds_it_arrives(texts in prop::collection::vec(text(), 8), count in 0_usize..3000) {
        let mut texts = texts.into_iter().cycle();
        let mut next = || texts.next().unwrap();
        // A list of long texts would only fill the test's memory.
        let short = || "x".repeat(100);
        let condition = PodCondition { message: next(), reason: next(), ..Default::default() };
        let container = ContainerStatus { image: short(), name: short(), ..Default::default() };
        let signals = [
            Signal::KubernetesEvent(KubernetesEvent { name: next(), message: next(), reason: next(), ..Default::default() }),
            Signal::PodStatusChange(PodStatusChange {
                name: next(),
                container_statuses: vec![container; count * 40],
                conditions: vec![condition],
                ..Default::default()
            }),
            Signal::NodeConditionChange(NodeConditionChange { name: next(), internal_ips: vec![next()], ..Default::default() }),
            Signal::WorkloadRolloutStatus(WorkloadRolloutStatus { name: next(), rollout_message: next(), ..Default::default() }),
            Signal::DatadogMonitorAlert(DatadogMonitorAlert { message: next(), tags: vec![next(), next()], ..Default::default() }),
        ];
        signals.into_iter().for_each(|message| { signal(message); });
        let result = KubernetesApiResult { api_path: short(), ..Default::default() };
        let (api, shell) = (vec![result; count * 40], ShellCommandResult { command: next(), stdout: next(), ..Default::default() });
        let dry = YamlValidationResult { error_message: next(), suggested_fix: next(), ..Default::default() };
        let apply = YamlApplyResult { error_message: next(), applied_resource_info: next(), ..Default::default() };
        let tools = [
            Tool::KubernetesApiResponse(KubernetesApiResponse { request_id: next(), results: api, ..Default::default() }),
            Tool::ShellCommandResponse(ShellCommandResponse { request_id: next(), results: vec![shell], ..Default::default() }),
            Tool::YamlDryRunResponse(YamlDryRunResponse { request_id: next(), results: vec![dry], ..Default::default() }),
            Tool::YamlApplyResponse(YamlApplyResponse { request_id: next(), results: vec![apply], ..Default::default() }),
            Tool::MetricsQueryResponse(MetricsQueryResponse { request_id: next(), error_message: next(), ..Default::default() }),
            Tool::DatadogQueryResponse(DatadogQueryResponse { request_id: next(), response_data: next(), ..Default::default() }),
        ];
        tools.into_iter().for_each(|answer| { tool(answer); });
        let policy = NetworkPolicyWithError { network_policy: next(), policy_id: next(), ..Default::default() };
        let verdict = NetworkPoliciesWithErrors { policies: vec![policy] };
        arrives::<StreamDataRequest>(Answer::Policy(verdict).into());
        let entry = LogEntry { message: next(), level: next(), ..Default::default() };
        logs(PodLogs { pod_name: next(), log_entries: vec![entry; 3], ..Default::default() });
    }
}
