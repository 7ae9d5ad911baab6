//! One CronJob: whether the last of its Jobs to end failed.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJobStatus;
use kestrel_proto::cloud::v1::{Action, WorkloadRolloutStatus, stream_events_request::Request};

use super::{
    incident::{Finding, Judgement, Subject},
    job::End,
    rollout::{News, identity, message},
    thresholds::Thresholds,
};
use crate::inventory::convert::Workload;

/// A CronJob with how its Jobs ended. A failure is over with the next success,
/// also when the Job that failed is kept.
#[derive(Clone, Debug, Default)]
pub struct CronJob {
    /// As the wire shows it, apart from what is judged; `None` before the API
    /// server shows it.
    status: Option<WorkloadRolloutStatus>,
    is_suspended: bool,
    /// when the last Job that succeeded had done its work
    succeeded: Option<Timestamp>,
    /// the last Job that failed
    failed: Option<Finding>,
}

/// The CronJob that is seen now.
pub fn cron_job(object: &Workload<CronJobStatus>, _now: Timestamp) -> CronJob {
    let seen = object.status.as_ref();
    let active = seen.and_then(|seen| seen.active.as_ref()).map_or(0, Vec::len);
    let status = WorkloadRolloutStatus {
        desired_replicas: 1,
        current_replicas: active.try_into().unwrap_or(i32::MAX),
        ..identity("CronJob", object)
    };
    CronJob {
        status: Some(status),
        is_suspended: object.spec.suspend,
        succeeded: seen.and_then(|seen| seen.last_successful_time.as_ref()).map(|time| time.0),
        failed: None,
    }
}

impl CronJob {
    /// All that one of its Jobs tells of it.
    pub fn with(end: End) -> Self {
        match end {
            End::Succeeded(at) => Self { succeeded: Some(at), ..Self::default() },
            End::Failed(finding) => Self { failed: Some(finding), ..Self::default() },
        }
    }
}

impl Subject for CronJob {
    fn follows(&mut self, earlier: &Self) {
        if self.status.is_none() {
            self.status.clone_from(&earlier.status);
            self.is_suspended = earlier.is_suspended;
        }
        self.succeeded = self.succeeded.max(earlier.succeeded);
        // Of two about the same the newer one, which is the last.
        let failed = [earlier.failed.clone(), self.failed.take()].into_iter().flatten();
        self.failed = failed.max_by_key(|finding| finding.since);
    }

    fn judge(&self, _now: Timestamp, _thresholds: &Thresholds) -> Judgement {
        // Nobody waits for the next run of a suspended one.
        let is_told = self.status.is_some() && !self.is_suspended;
        let failed = self.failed.iter().filter(|failed| is_told && Some(failed.since) > self.succeeded);
        Judgement { findings: failed.cloned().collect(), due: None }
    }

    fn is_well(&self, judgement: &Judgement) -> bool {
        self.status.is_some() && judgement.findings.is_empty()
    }

    /// Jobs say of it what it doesn't.
    fn is_kept(&self) -> bool {
        true
    }

    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], now: Timestamp) -> Request {
        let status = self.status.clone().unwrap_or_default();
        let state = if open.is_empty() { "Complete" } else { "Failed" };
        let WorkloadRolloutStatus { namespace, name, .. } = &status;
        let suspended = if self.is_suspended { " and is suspended" } else { "" };
        let summary = match self.succeeded {
            Some(at) => format!("CronJob {namespace}/{name} last succeeded at {at}{suspended}"),
            None => format!("CronJob {namespace}/{name} has not succeeded yet{suspended}"),
        };
        message(&status, state, &summary, News { action, open, ended, now })
    }
}
