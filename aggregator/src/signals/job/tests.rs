use serde_json::{Value, json};

use super::*;
use crate::inventory::convert;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-11-21T12:00:00Z")
}

fn job(spec: Value, status: Value) -> Workload<JobStatus> {
    let meta = json!({"name": "report", "namespace": "shop", "uid": "u", "generation": 1});
    serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "Job has reached the limit.",
           "lastTransitionTime": "2026-11-21T10:00:00Z"})
}

#[test]
fn which_jobs_failed() {
    for (conditions, failed) in [
        (json!([]), None),
        (json!([condition("Suspended", "True", "JobSuspended")]), None),
        (json!([condition("Complete", "True", "")]), None),
        (json!([condition("SuccessCriteriaMet", "True", "")]), None),
        (json!([condition("Failed", "False", "")]), None),
        (json!([condition("Failed", "True", "BackoffLimitExceeded")]), Some("BackoffLimitExceeded")),
        (json!([condition("Failed", "True", "DeadlineExceeded")]), Some("DeadlineExceeded")),
        (json!([condition("FailureTarget", "True", "PodFailurePolicy")]), Some("PodFailurePolicy")),
    ] {
        // Pods that failed are no failed Job.
        let job =
            Job::new(&job(json!({"backoffLimit": 6}), json!({"failed": 3, "conditions": conditions})), now());
        let Judgement { findings, due } = job.judge(now(), &Thresholds::default());
        let reasons: Vec<_> = findings.iter().map(|finding| finding.reason.as_str()).collect();
        assert_eq!((reasons, due), (failed.into_iter().collect(), None), "{conditions}");
    }
}

#[test]
fn a_signal_in_full() {
    let failed = condition("Failed", "True", "BackoffLimitExceeded");
    let status = json!({"active": 1, "ready": 0, "succeeded": 2, "failed": 4, "conditions": [failed]});
    let job = Job::new(&job(json!({"completions": 5, "parallelism": 2}), status), now());
    let findings = job.judge(now(), &Thresholds::default()).findings;
    let Request::WorkloadRolloutStatus(told) = job.request(Action::Create, &findings, &[], now()) else {
        panic!()
    };
    let moment = |text| Some(convert::timestamp(at(text)));
    let message = "Job shop/report failed: Job has reached the limit (2 of 5 pods that were asked for succeeded, 4 failed)";
    let condition = |kind: &str, message: &str, updated| WorkloadCondition {
        r#type: kind.to_owned(),
        status: "True".to_owned(),
        last_update_time: updated,
        last_transition_time: moment("2026-11-21T10:00:00Z"),
        reason: "BackoffLimitExceeded".to_owned(),
        message: message.to_owned(),
    };
    let expected = WorkloadRolloutStatus {
        name: "report".to_owned(),
        namespace: "shop".to_owned(),
        uid: "u".to_owned(),
        kind: "Job".to_owned(),
        rollout_status: "Failed".to_owned(),
        rollout_reason: "BackoffLimitExceeded".to_owned(),
        rollout_message: format!("{message}."),
        desired_replicas: 5,
        current_replicas: 1,
        available_replicas: 2,
        unavailable_replicas: 4,
        conditions: vec![
            condition("Failed", "Job has reached the limit.", None),
            condition("kestrel.ai/JobFailed", message, moment("2026-11-21T12:00:00Z")),
        ],
        metadata_generation: 1,
        status_timestamp: moment("2026-11-21T12:00:00Z"),
        action: Action::Create.into(),
        ..Default::default()
    };
    assert_eq!(told, expected);
}
