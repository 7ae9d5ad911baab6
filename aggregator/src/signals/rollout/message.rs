//! The signal of a workload.

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{
    Action, WorkloadCondition, WorkloadRolloutStatus, stream_events_request::Request,
};

use super::Finding;
use crate::{inventory::convert, signals::incident::PREFIX};

/// What a signal tells of a workload.
pub(in crate::signals) struct News<'a> {
    pub(in crate::signals) action: Action,
    pub(in crate::signals) open: &'a [Finding],
    pub(in crate::signals) ended: &'a [Finding],
    pub(in crate::signals) now: Timestamp,
}

/// The signal of the workload that shows `snapshot`, whose roll-out is in `state`
/// (Progressing, Complete, Failed, TimedOut or Unknown), or in a sentence `summary`.
///
/// Findings travel as conditions beside the object's own.
pub(in crate::signals) fn message(
    snapshot: &WorkloadRolloutStatus,
    state: &str,
    summary: &str,
    News { action, open, ended, now }: News<'_>,
) -> Request {
    let condition = |finding: &Finding, status: &str, since| WorkloadCondition {
        r#type: format!("{PREFIX}{}", finding.kind),
        status: status.to_owned(),
        last_update_time: Some(convert::timestamp(now)),
        last_transition_time: Some(convert::timestamp(since)),
        reason: finding.reason.clone(),
        message: finding.message.clone(),
    };
    let mut status = snapshot.clone();
    status.conditions.extend(open.iter().map(|finding| condition(finding, "True", finding.since)));
    status.conditions.extend(ended.iter().map(|finding| condition(finding, "False", now)));

    let wrong = open.iter().map(|finding| finding.message.clone());
    let over = ended.iter().map(|finding| format!("No longer: {}", finding.message));
    let sentences = wrong.chain(open.is_empty().then(|| summary.to_owned())).chain(over);
    // Kubernetes ends some of its sentences with a full stop, others not.
    let sentences = sentences.map(|sentence| format!("{}.", sentence.trim_end_matches('.')));

    status.rollout_status = state.to_owned();
    status.rollout_reason = open.first().map_or(state, |finding| &finding.reason).to_owned();
    status.rollout_message = sentences.collect::<Vec<_>>().join(" ");
    status.status_timestamp = Some(convert::timestamp(now));
    status.set_action(action);
    Request::WorkloadRolloutStatus(status)
}
