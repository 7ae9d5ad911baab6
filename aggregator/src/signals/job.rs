//! One Job: whether it failed. A Job that may still succeed is no incident,
//! however many of its pods failed.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use kestrel_proto::cloud::v1::{
    Action, WorkloadCondition, WorkloadRolloutStatus, stream_events_request::Request,
};

use super::{
    incident::{Finding, Judgement, Subject},
    rollout::{News, identity, message},
    thresholds::Thresholds,
};
use crate::inventory::convert::{Workload, text, time};

/// A Job failed for good.
pub(super) const JOB_FAILED: &str = "JobFailed";

/// A Job that no CronJob made.
#[derive(Clone, Debug)]
pub struct Job {
    /// As the wire shows it, apart from what is judged.
    status: WorkloadRolloutStatus,
    failure: Option<Finding>,
}

/// How a Job ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It has done its work; when.
    Succeeded(Timestamp),
    /// It failed for good.
    Failed(Finding),
}

/// How the Job that is seen `now` ended, if it has.
pub fn end(object: &Workload<JobStatus>, now: Timestamp) -> Option<End> {
    let status = object.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let is = |condition: &&JobCondition, kind: &str| condition.type_ == kind && condition.status == "True";
    let since = |condition: &JobCondition| condition.last_transition_time.as_ref().map_or(now, |time| time.0);
    if let Some(complete) = conditions.iter().find(|condition| is(condition, "Complete")) {
        return Some(End::Succeeded(status.completion_time.as_ref().map_or(since(complete), |time| time.0)));
    }
    // What will fail says so as soon as that is certain, before its last pods have ended.
    let failed = ["FailureTarget", "Failed"];
    let failed = failed.iter().find_map(|kind| conditions.iter().find(|condition| is(condition, kind)))?;
    let meta = &object.metadata;
    let (succeeded, pods_failed) = (status.succeeded.unwrap_or_default(), status.failed.unwrap_or_default());
    Some(End::Failed(Finding {
        kind: JOB_FAILED.into(),
        reason: text(&failed.reason),
        message: format!(
            "Job {}/{} failed: {} ({succeeded} of {} pods that were asked for succeeded, {pods_failed} failed)",
            text(&meta.namespace),
            text(&meta.name),
            failed.message.as_deref().unwrap_or_default().trim_end_matches('.'),
            wanted(object),
        ),
        since: since(failed),
        count: 0,
    }))
}

/// How many of its pods have to succeed.
fn wanted(object: &Workload<JobStatus>) -> i32 {
    object.spec.completions.or(object.spec.parallelism).unwrap_or(1)
}

/// A Job that is seen now.
impl Job {
    /// The Job that is seen `now`.
    pub fn new(object: &Workload<JobStatus>, now: Timestamp) -> Self {
        let absent = JobStatus::default();
        let seen = object.status.as_ref().unwrap_or(&absent);
        let status = WorkloadRolloutStatus {
            desired_replicas: wanted(object),
            current_replicas: seen.active.unwrap_or_default(),
            ready_replicas: seen.ready.unwrap_or_default(),
            available_replicas: seen.succeeded.unwrap_or_default(),
            unavailable_replicas: seen.failed.unwrap_or_default(),
            conditions: seen.conditions.iter().flatten().map(wire_condition).collect(),
            ..identity("Job", object)
        };
        let failure = match end(object, now) {
            Some(End::Failed(finding)) => Some(finding),
            _ => None,
        };
        Self { status, failure }
    }
}

impl Subject for Job {
    fn judge(&self, _now: Timestamp, _thresholds: &Thresholds) -> Judgement {
        Judgement { findings: self.failure.iter().cloned().collect(), due: None }
    }

    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], now: Timestamp) -> Request {
        let WorkloadRolloutStatus { namespace, name, .. } = &self.status;
        let state = if open.is_empty() { "Progressing" } else { "Failed" };
        let summary = format!("Job {namespace}/{name} has not failed");
        message(&self.status, state, &summary, News { action, open, ended, now })
    }
}

fn wire_condition(condition: &JobCondition) -> WorkloadCondition {
    WorkloadCondition {
        r#type: condition.type_.clone(),
        status: condition.status.clone(),
        last_update_time: time(condition.last_probe_time.as_ref()),
        last_transition_time: time(condition.last_transition_time.as_ref()),
        reason: text(&condition.reason),
        message: text(&condition.message),
    }
}

#[cfg(test)]
mod tests;
