//! One Deployment, StatefulSet or DaemonSet: whether its pods become what was
//! asked for, and stay so.

mod message;
mod read;
mod shortage;

pub use read::{daemon_set, deployment, stateful_set};

use std::time::Duration;

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, WorkloadRolloutStatus, stream_events_request::Request};

use super::{
    component::Part,
    incident::{Finding, Judgement, Subject, after},
    thresholds::Thresholds,
};
pub(super) use message::{News, message};
pub(super) use read::identity;
use shortage::Shortage;

/// Fewer pods are ready than there should be, and no roll-out is the reason.
const DEGRADED: &str = "Degraded";
/// The controller has not looked at what was asked for.
const NOT_OBSERVED: &str = "NotObserved";
/// Kubernetes can't create or delete pods.
const REPLICA_FAILURE: &str = "ReplicaFailure";
/// A roll-out does not come to its end.
const ROLLOUT_STALLED: &str = "RolloutStalled";
/// Its reason where Kubernetes gives none.
const NO_PROGRESS: &str = "NoProgress";

/// A Deployment, StatefulSet or DaemonSet as it was last seen.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// As the wire shows it, apart from what is judged: `rollout_…`, `action`
    /// and the time.
    status: WorkloadRolloutStatus,
    /// When it was so.
    seen: Timestamp,
    /// What Kubernetes itself says is wrong.
    failures: Vec<Finding>,
    /// There are fewer ready, or more outdated, pods than there should be.
    shortage: Option<Shortage>,
    /// Since when the controller has not looked at what was asked for.
    unobserved: Option<Timestamp>,
    /// How long one pod may take beyond the threshold.
    turnover: Duration,
    /// Its owner is deleting it.
    is_going: bool,
    /// What it is of a component.
    part: Option<Part>,
}

impl Rollout {
    fn name(&self) -> String {
        let WorkloadRolloutStatus { kind, namespace, name, .. } = &self.status;
        format!("{kind} {namespace}/{name}")
    }

    /// Such as "2 of 3 pods are ready, 1 of the revision that was asked for".
    fn pods(&self) -> String {
        let WorkloadRolloutStatus { ready_replicas, desired_replicas, updated_replicas, .. } = self.status;
        format!(
            "{ready_replicas} of {desired_replicas} pods are ready, {updated_replicas} are of the revision that was asked for"
        )
    }

    /// When a condition of it turned, by Kubernetes' clock.
    fn turned(&self, kind: &str) -> Option<prost_types::Timestamp> {
        let condition = self.status.conditions.iter().find(|condition| condition.r#type == kind)?;
        condition.last_transition_time
    }

    fn not_observed(&self, since: Timestamp) -> Finding {
        let WorkloadRolloutStatus { metadata_generation, observed_generation, .. } = self.status;
        Finding {
            kind: NOT_OBSERVED.into(),
            reason: "GenerationNotObserved".to_owned(),
            message: format!(
                "Generation {metadata_generation} of {} was asked for, but its controller has seen generation \
                 {observed_generation} last: kube-controller-manager may not be running",
                self.name()
            ),
            since,
            count: 0,
        }
    }

    fn degraded(&self, since: Timestamp) -> Finding {
        let reason = if self.status.ready_replicas == 0 { "NoPodReady" } else { "PodsNotReady" };
        Finding {
            kind: DEGRADED.into(),
            reason: reason.to_owned(),
            message: format!(
                "Pods of {} are not ready, and no roll-out took them: {}",
                self.name(),
                self.pods()
            ),
            since,
            count: 0,
        }
    }

    fn stalled(&self, since: Timestamp, patience: Duration) -> Finding {
        Finding {
            kind: ROLLOUT_STALLED.into(),
            reason: NO_PROGRESS.to_owned(),
            message: format!(
                "The roll-out of generation {} of {} made no progress for {} s: {}",
                self.status.metadata_generation,
                self.name(),
                patience.as_secs(),
                self.pods()
            ),
            since,
            count: 0,
        }
    }

    /// The `rollout_status` of the wire.
    fn state(&self, open: &[Finding]) -> &'static str {
        let found = |kind| open.iter().find(|finding| finding.kind == kind);
        if found(DEGRADED).or(found(REPLICA_FAILURE)).is_some() {
            "Failed"
        } else if let Some(stalled) = found(ROLLOUT_STALLED) {
            // Else a ReplicaSet can't be created.
            let is_late = matches!(stalled.reason.as_str(), NO_PROGRESS | "ProgressDeadlineExceeded");
            if is_late { "TimedOut" } else { "Failed" }
        } else if found(NOT_OBSERVED).is_some() {
            "Unknown"
        } else if self.unobserved.is_some() || self.shortage.is_some() {
            "Progressing"
        } else {
            "Complete"
        }
    }
}

impl Subject for Rollout {
    fn follows(&mut self, earlier: &Self) {
        if self.is_going {
            // Its pods go as they should; what was wrong before stays so.
            self.shortage.clone_from(&earlier.shortage);
            self.unobserved = earlier.unobserved;
            return;
        }
        // Who is always one change behind does look.
        let before = earlier
            .unobserved
            .filter(|_| self.status.observed_generation == earlier.status.observed_generation);
        self.unobserved = self.unobserved.map(|now| before.unwrap_or(now));
        // Our clock knows since when: from the first sight of it, and not from before the last sight without.
        let stays_unavailable = self.turned("Available") == earlier.turned("Available");
        let since = |failure: &Finding| {
            let kind = if failure.kind == ROLLOUT_STALLED { "Progressing" } else { &failure.kind };
            let before = earlier.failures.iter().find(|before| before.kind == failure.kind);
            let before = before.filter(|_| self.turned(kind) == earlier.turned(kind));
            before.map_or(failure.since.max(earlier.seen), |before| before.since)
        };
        let times: Vec<_> = self.failures.iter().map(since).collect();
        for (failure, since) in self.failures.iter_mut().zip(times) {
            failure.since = since;
        }
        if let Some(shortage) = &mut self.shortage {
            let (asked, before) = (&self.status, &earlier.status);
            shortage.follows(
                earlier.shortage.as_ref(),
                shortage::Change {
                    asks_for_more: asked.desired_replicas > before.desired_replicas,
                    asks_for_other: asked.desired_replicas == before.desired_replicas
                        && asked.metadata_generation != before.metadata_generation,
                    stays_unavailable,
                },
            );
        }
    }

    fn begins(&mut self, now: Timestamp) {
        for failure in &mut self.failures {
            failure.since = now;
        }
        if let Some(shortage) = &mut self.shortage {
            shortage.is_new();
        }
    }

    fn judge(&self, now: Timestamp, thresholds: &Thresholds) -> Judgement {
        let mut judgement = Judgement::default();
        for failure in &self.failures {
            // One creation that is refused may succeed a second later. A deadline was patient.
            let patience =
                if failure.kind == REPLICA_FAILURE { thresholds.unschedulable } else { Duration::ZERO };
            judgement.add_from(after(failure.since, patience), now, || failure.clone());
        }
        if let Some(since) = self.unobserved {
            judgement.add_from(after(since, thresholds.rollout), now, || self.not_observed(since));
        }
        if let Some(shortage) = &self.shortage {
            if let Some((from, since)) = shortage.degraded_from(thresholds.unready) {
                judgement.add_from(from, now, || self.degraded(since));
            }
            let patience = thresholds.rollout + self.turnover;
            if let Some((from, since)) = shortage.stalled_from(patience) {
                judgement.add_from(from, now, || self.stalled(since, patience));
            }
        }
        judgement.in_order()
    }

    /// How many pods a DaemonSet should have depends on the nodes. Who did not see
    /// it before can't tell that it grew from that its pods died.
    fn is_kept(&self) -> bool {
        self.status.kind == "DaemonSet"
    }

    fn part(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], now: Timestamp) -> Request {
        let summary = format!("Of {} {}", self.name(), self.pods());
        message(&self.status, self.state(open), &summary, News { action, open, ended, now })
    }
}

#[cfg(test)]
mod tests;
