//! Which conditions of a node are problems.

use jiff::Timestamp;
use kestrel_proto::cloud::v1::NodeCondition;

use crate::signals::incident::{Finding, PREFIX};

/// Conditions whose names end so are well when they are True, like Ready itself
/// and those of hosts and node monitors that are named after it. `IsVoter` is the
/// etcd membership of k3s and RKE2.
const WELL_IF_TRUE: [&str; 5] = ["Ready", "Healthy", "Available", "Online", "IsVoter"];

/// A new node shows these as problems until its network is made.
pub(super) const JOINING: [&str; 2] = ["Ready", "NetworkUnavailable"];

/// Which of [`JOINING`] are among the conditions, and no problems.
pub(super) fn joined(conditions: &[NodeCondition], problems: &[Finding]) -> Vec<&'static str> {
    let is_shown = |kind: &str| conditions.iter().any(|condition| condition.r#type == kind);
    let is_problem = |kind: &str| problems.iter().any(|problem| problem.kind == kind);
    JOINING.into_iter().filter(|kind| is_shown(kind) && !is_problem(kind)).collect()
}

/// What is wrong if a node shows this condition.
///
/// Kubernetes names no healthy status. All others follow the convention of its own
/// pressures and of node-problem-detector: a condition is a problem when it is
/// True. An Unknown one is none then, as whoever lost sight of a problem has none
/// to tell; of the node agent's none is.
pub(super) fn problem(condition: &NodeCondition, now: Timestamp) -> Option<Finding> {
    let NodeCondition { r#type: kind, status, reason, message, .. } = condition;
    let is_well_if_true = WELL_IF_TRUE.iter().any(|end| kind.ends_with(end));
    let is_unseen = status == "Unknown" && kind.starts_with(PREFIX);
    if is_unseen || is_well_if_true == (status == "True") {
        return None;
    }
    let since = condition.last_transition_time;
    let since = since.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    Some(Finding {
        kind: kind.clone().into(),
        reason: if reason.is_empty() { status.clone() } else { reason.clone() },
        message: format!("{kind} is {status}: {message}"),
        since: since.map_or(now, |since| since.min(now)),
        count: 0,
    })
}
