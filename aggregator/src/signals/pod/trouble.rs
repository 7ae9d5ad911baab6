//! What is wrong with a pod, and from when until when it counts.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use super::{
    container::{Container, OutOfMemory, Role, State},
    facts::{Controller, Facts, Phase},
};
use crate::signals::{
    incident::{Finding, Judgement, after},
    thresholds::Thresholds,
};

/// A container can't be made or started as it is configured.
pub(super) const CANNOT_START: &str = "CannotStart";
/// A container ends as it should not, and is started again.
pub(super) const CRASH_LOOP: &str = "CrashLoop";
/// The pod had to give way, or its node went down in order.
pub(super) const EVICTED: &str = "Evicted";
/// The pod, or a container that is not started again, failed.
pub(super) const FAILED: &str = "Failed";
/// An image can't be pulled.
pub(super) const IMAGE_PULL: &str = "ImagePull";
/// A container was killed for want of memory.
pub(super) const OUT_OF_MEMORY: &str = "OutOfMemory";
/// The pod has a node and does not begin.
pub(super) const STUCK_CREATING: &str = "StuckCreating";
/// The pod is deleted and does not end.
pub(super) const STUCK_TERMINATING: &str = "StuckTerminating";
/// No node can take the pod.
pub(super) const UNSCHEDULABLE: &str = "Unschedulable";
/// A container runs and is not ready.
pub(super) const UNREADY: &str = "Unready";

/// Volumes, sandbox and network are there, so an image is pulled: that takes
/// minutes where it is large, and a failure has a reason of its own.
const PULL_FACTOR: u32 = 5;

/// Something that is wrong in a span of time. Nothing else here depends on the
/// time, so it is known when a judgement is due again.
struct Trouble {
    kind: &'static str,
    reason: String,
    message: String,
    since: Timestamp,
    count: u32,
    /// `None`: at once, whatever the node's clock says.
    from: Option<Timestamp>,
    /// `None`: until the pod changes.
    until: Option<Timestamp>,
}

impl Trouble {
    fn holds(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }

    /// When that changes.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.from.into_iter().chain(self.until).filter(|due| *due > now).min()
    }
}

/// The deletion of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Deletion {
    /// When the pod should be gone: its grace period is over.
    pub(super) deadline: Timestamp,
    pub(super) grace_seconds: i64,
    pub(super) finalizers: Vec<String>,
    /// Containers that still run.
    pub(super) running: Vec<String>,
    /// Nobody can end them, because their node is lost.
    pub(super) node_is_lost: bool,
}

impl Deletion {
    /// When somebody asked for it.
    fn began(&self) -> Timestamp {
        let grace = SignedDuration::from_secs(self.grace_seconds);
        self.deadline.checked_sub(grace).unwrap_or(Timestamp::MIN)
    }
}

/// What is wrong at `now` with a pod that was so when, or before, it was deleted. The node's
/// clock, by which it is now, is so far `ahead` of the API server's.
pub(super) fn judge(
    facts: &Facts,
    deletion: Option<&Deletion>,
    (now, ahead): (Timestamp, SignedDuration),
    thresholds: &Thresholds,
) -> Judgement {
    let mut troubles = Vec::new();
    match facts.phase {
        Phase::Succeeded | Phase::Unknown => {}
        Phase::Failed => troubles.extend(failed(facts, thresholds)),
        Phase::Open => {
            troubles.extend(disrupted(facts));
            for container in &facts.containers {
                troubles.extend(of_a_container(facts, container, thresholds));
            }
            if facts.is_ready() {
                // It is not late with anything.
            } else if facts.node.is_empty() {
                troubles.extend(unscheduled(facts, thresholds));
            } else {
                // Whatever is wrong with a container explains the rest.
                if !troubles.iter().any(|trouble| trouble.holds(now)) {
                    troubles.extend(creating(facts, thresholds));
                }
                troubles.extend(unready(facts, thresholds, now));
            }
        }
    }
    if let Some(deletion) = deletion {
        // Nobody waits for it any more, but what was late by then stays so.
        let began = later(deletion.began(), ahead);
        troubles.retain(|trouble| trouble.from.is_none_or(|from| from <= began));
    }
    let can_end = deletion.filter(|deletion| !deletion.node_is_lost);
    troubles.extend(can_end.map(|deletion| terminating(deletion, ahead, thresholds)));
    joined(troubles, now)
}

/// One finding a kind, whatever the number of containers.
fn joined(mut troubles: Vec<Trouble>, now: Timestamp) -> Judgement {
    let due = troubles.iter().filter_map(|trouble| trouble.due(now)).min();
    troubles.retain(|trouble| trouble.holds(now));
    troubles.sort_by_key(|trouble| trouble.kind);
    let mut findings: Vec<Finding> = Vec::new();
    for Trouble { kind, reason, message, since, count, .. } in troubles {
        match findings.last_mut() {
            Some(finding) if finding.kind == kind => {
                finding.message = format!("{}; {message}", finding.message);
                finding.since = finding.since.min(since);
                finding.count = finding.count.saturating_add(count);
            }
            _ => findings.push(Finding { kind: kind.into(), reason, message, since, count }),
        }
    }
    Judgement { findings, due }
}

fn of_a_container(facts: &Facts, container: &Container, thresholds: &Thresholds) -> Vec<Trouble> {
    let goes_on = |container: &Container| container.role == Role::App && !container.is_over();
    if facts.controller == Controller::Job && container.is_over() && !facts.containers.iter().any(goes_on) {
        // The pod is about to be Failed, which is for the Job to tell.
        return Vec::new();
    }
    let disturbed = facts.condition("DisruptionTarget").is_some_and(|target| target.is_true);
    let memory = container.out_of_memory(disturbed);
    let memory = memory.and_then(|sureness| out_of_memory(facts, container, sureness, thresholds));
    // Who is killed for want of memory has not crashed.
    let crashes = container.crashes(thresholds.stable) && memory.is_none();
    let crash = crash(facts, container, thresholds).filter(|_| crashes);
    // A container that can't be started ends, and waits, for the same reason.
    let said = crash.as_ref().map(|crash| crash.kind);
    let mut troubles: Vec<_> = crash.into_iter().collect();
    if let State::Waiting { reason, message } = &container.state
        && let Some((kind, reason)) = cannot_begin(reason)
        && said != Some(kind)
    {
        troubles.push(Trouble {
            kind,
            reason: reason.to_owned(),
            message: format!("container {:?} waits to begin: {message}", container.name),
            since: facts.waits_since(container),
            count: 1,
            from: None,
            until: None,
        });
    }
    troubles.extend(memory);
    let has_failed = container.role != Role::Ephemeral && container.is_over();
    if let Some(exit) = container.exit().filter(|exit| has_failed && exit.is_error()) {
        troubles.push(Trouble {
            kind: FAILED,
            reason: exit.reason.clone(),
            message: format!("{}; it is not started again", course(container)),
            since: exit.finished.unwrap_or(facts.created),
            count: 1,
            from: None,
            until: None,
        });
    }
    troubles
}

/// Kind and reason of what a container waits for in vain. The node gives a pull
/// that failed its reason for a moment and `ImagePullBackOff` until the next.
fn cannot_begin(reason: &str) -> Option<(&'static str, &str)> {
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "SignatureValidationFailed" => {
            Some((IMAGE_PULL, "ImagePullBackOff"))
        }
        "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError" => Some((IMAGE_PULL, reason)),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => Some((CANNOT_START, reason)),
        _ => None,
    }
}

fn crash(facts: &Facts, container: &Container, thresholds: &Thresholds) -> Option<Trouble> {
    let exit = container.exit();
    let never_ran = exit.is_some_and(|exit| exit.never_ran());
    let reason = match (&container.state, exit) {
        (_, Some(exit)) if never_ran => &exit.reason,
        (State::Waiting { reason, .. }, _) if container.is_in_backoff() => reason,
        (_, Some(exit)) => &exit.reason,
        _ => return None,
    };
    Some(Trouble {
        kind: if never_ran { CANNOT_START } else { CRASH_LOOP },
        reason: reason.clone(),
        message: course(container),
        since: exit.and_then(|exit| exit.finished).unwrap_or_else(|| facts.waits_since(container)),
        count: container.restarts,
        from: None,
        until: container.running_since().map(|since| after(since, thresholds.stable)),
    })
}

fn out_of_memory(
    facts: &Facts,
    container: &Container,
    sureness: OutOfMemory,
    thresholds: &Thresholds,
) -> Option<Trouble> {
    let exit = container.exit()?;
    let limit = match &container.memory_limit {
        Some(limit) => format!("its memory limit is {limit}"),
        None => "it has no memory limit, so what ran out is the node's or the pod's memory".to_owned(),
    };
    let why = match sureness {
        OutOfMemory::Certain => "was killed for want of memory",
        OutOfMemory::Likely => {
            "was killed, most likely for want of memory: nothing else is known that could have done it"
        }
    };
    let until = match container.role {
        // Nothing starts it again, and it tells of nothing that still is.
        Role::Ephemeral => exit.finished,
        _ => container.running_since(),
    };
    Some(Trouble {
        kind: OUT_OF_MEMORY,
        reason: exit.reason.clone(),
        message: format!("container {:?} {why}; {limit}; {}", container.name, course(container)),
        since: exit.finished.unwrap_or(facts.created),
        count: container.restarts,
        from: None,
        until: until.map(|since| after(since, thresholds.stable)),
    })
}

/// A pod that has a controller is replaced: what is wrong with its remains is
/// over `stable` after its end. What fails in a Job is for the Job to tell.
fn failed(facts: &Facts, thresholds: &Thresholds) -> Vec<Trouble> {
    let target = facts.condition("DisruptionTarget").filter(|target| target.is_true);
    let is_evicted = target.is_some()
        || matches!(facts.reason.as_str(), "Evicted" | "Preempting" | "Terminated" | "NodeShutdown");
    let is_told_elsewhere = target.is_some_and(|target| !gives_way(&target.reason));
    if is_told_elsewhere || (facts.controller == Controller::Job && !is_evicted) {
        return Vec::new();
    }
    let ended = facts.last_change();
    let until = (facts.controller != Controller::Nothing).then(|| after(ended, thresholds.stable));
    let failures: Vec<_> = facts
        .containers
        .iter()
        .filter(|container| container.role != Role::Ephemeral)
        .filter(|container| container.exit().is_some_and(|exit| exit.code != 0))
        .collect();
    let first = failures.first().and_then(|container| container.exit());
    let reasons = [Some(&facts.reason), target.map(|target| &target.reason), first.map(|exit| &exit.reason)];
    let reason = reasons.into_iter().flatten().find(|reason| !reason.is_empty());
    let mut message = match facts.message.as_str() {
        "" => "the pod failed".to_owned(),
        message => message.trim_end().to_owned(),
    };
    for container in &failures {
        let _infallible = write!(message, "; {}", course(container));
    }
    let mut troubles = vec![Trouble {
        kind: if is_evicted { EVICTED } else { FAILED },
        reason: reason.cloned().unwrap_or_default(),
        message,
        since: ended,
        count: 1,
        from: None,
        until,
    }];
    for container in failures {
        if let Some(sureness) = container.out_of_memory(is_evicted) {
            let trouble = out_of_memory(facts, container, sureness, thresholds);
            troubles.extend(trouble.map(|trouble| Trouble { until, ..trouble }));
        }
    }
    troubles
}

/// Whether the pod has to go for a reason that is not its node's loss and that
/// nobody asked for. A drain (`EvictionByEvictionAPI`) was asked for.
fn gives_way(reason: &str) -> bool {
    matches!(reason, "PreemptionByScheduler" | "TerminationByKubelet")
}

fn disrupted(facts: &Facts) -> Option<Trouble> {
    let target = facts.condition("DisruptionTarget")?;
    (target.is_true && gives_way(&target.reason)).then(|| Trouble {
        kind: EVICTED,
        reason: target.reason.clone(),
        message: format!("the pod has to go: {}", target.message),
        since: target.since.unwrap_or(facts.created),
        count: 1,
        from: None,
        until: None,
    })
}

fn unscheduled(facts: &Facts, thresholds: &Thresholds) -> Option<Trouble> {
    let (reason, message, since, patience) = match facts.condition("PodScheduled") {
        Some(scheduled) if scheduled.is_true || scheduled.reason == "SchedulingGated" => return None,
        Some(scheduled) => {
            let since = scheduled.since.unwrap_or(facts.created);
            (scheduled.reason.clone(), scheduled.message.clone(), since, thresholds.unschedulable)
        }
        None => {
            let message = format!("no scheduler has looked at the pod; it names {:?}", facts.scheduler);
            ("Unseen".to_owned(), message, facts.created, thresholds.creating)
        }
    };
    let from = Some(after(since, patience));
    Some(Trouble { kind: UNSCHEDULABLE, reason, message, since, count: 1, from, until: None })
}

/// The pod has a node, and nothing of it runs that others wait for.
fn creating(facts: &Facts, thresholds: &Thresholds) -> Option<Trouble> {
    let begins = |container: &&Container| {
        let State::Waiting { reason, .. } = &container.state else { return false };
        matches!(reason.as_str(), "ContainerCreating" | "PodInitializing" | "")
    };
    let holds_others = |container: &Container| match container.role {
        Role::Init => matches!(container.state, State::Running { .. }),
        // It is ready when it has started, if nothing else is asked of it.
        Role::Sidecar => matches!(container.state, State::Running { .. }) && !container.ready,
        _ => false,
    };
    if facts.containers.iter().any(holds_others) {
        return None;
    }
    let waiting: Vec<_> =
        facts.containers.iter().filter(begins).map(|container| container.name.as_str()).collect();
    if waiting.is_empty() && !facts.containers.is_empty() {
        return None;
    }
    // Kubernetes before 1.29 has no such condition.
    let sandbox = facts.condition("PodReadyToStartContainers").map(|condition| condition.is_true);
    let (factor, why) = match sandbox {
        _ if facts.containers.is_empty() => (1, "its kubelet has not said anything of it"),
        None if facts.has_address => (PULL_FACTOR, "it has an address; its images may still be pulled"),
        None => (1, "its volumes, sandbox, network or images are not ready"),
        Some(true) => (PULL_FACTOR, "sandbox, network and volumes are ready; its images may still be pulled"),
        Some(false) => (1, "its sandbox, network or volumes are not ready"),
    };
    let since = facts.last_change();
    let containers =
        if waiting.is_empty() { String::new() } else { format!(" (containers {})", waiting.join(", ")) };
    Some(Trouble {
        kind: STUCK_CREATING,
        reason: "ContainerCreating".to_owned(),
        message: format!(
            "the pod has been on node {} since {} and does not begin{containers}: {why}",
            facts.node,
            facts.scheduled()
        ),
        since,
        count: 1,
        from: Some(after(since, thresholds.creating.saturating_mul(factor))),
        until: None,
    })
}

fn unready(facts: &Facts, thresholds: &Thresholds, now: Timestamp) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let turned = facts.condition("ContainersReady").filter(|condition| !condition.is_true);
    for container in &facts.containers {
        let (Some(running), Role::App | Role::Sidecar) = (container.running_since(), container.role) else {
            continue;
        };
        let crashes = of_a_container(facts, container, thresholds).iter().any(|trouble| trouble.holds(now));
        if container.ready || crashes {
            continue;
        }
        let since = turned.and_then(|turned| turned.since).into_iter().fold(running, Ord::max);
        let from = since.max(after(running, container.startup));
        troubles.push(Trouble {
            kind: UNREADY,
            reason: "ContainersNotReady".to_owned(),
            message: format!(
                "container {:?}: ready → not ready since {since}; it has been running since {running} ({} \
                 restarts): its readiness or startup probe fails",
                container.name, container.restarts
            ),
            since,
            count: 1,
            from: Some(after(from, thresholds.unready)),
            until: None,
        });
    }
    let gates = facts.condition("Ready").filter(|ready| ready.reason == "ReadinessGatesNotReady");
    if let Some(ready) = gates.filter(|ready| !ready.is_true && troubles.is_empty()) {
        let since = ready.since.unwrap_or(facts.created);
        troubles.push(Trouble {
            kind: UNREADY,
            reason: ready.reason.clone(),
            message: ready.message.clone(),
            since,
            count: 1,
            from: Some(after(since, thresholds.unready)),
            until: None,
        });
    }
    troubles
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(time)
}

fn terminating(deletion: &Deletion, ahead: SignedDuration, thresholds: &Thresholds) -> Trouble {
    let Deletion { deadline, grace_seconds, finalizers, running, node_is_lost: _ } = deletion;
    let mut message =
        format!("the pod was deleted and should be gone since {deadline} (grace period {grace_seconds}s)");
    if !finalizers.is_empty() {
        let _infallible = write!(message, "; it waits for its finalizers {}", finalizers.join(", "));
    }
    if !running.is_empty() {
        let _infallible = write!(message, "; its containers {} still run", running.join(", "));
    }
    Trouble {
        kind: STUCK_TERMINATING,
        reason: if finalizers.is_empty() { "Terminating" } else { "Finalizers" }.to_owned(),
        message,
        since: later(*deadline, ahead),
        count: 1,
        from: Some(after(later(*deadline, ahead), thresholds.terminating)),
        until: None,
    }
}

/// From the run that ended to what the container does now.
fn course(container: &Container) -> String {
    let mut text = format!("container {:?}", container.name);
    let (mut said, mut arrow) = (String::new(), ":");
    if let Some(exit) = container.exit() {
        let _infallible = if exit.never_ran() {
            write!(text, ": could not be started, {}", exit.text())
        } else {
            write!(text, ": running → {}", exit.text())
        };
        if let Some((started, finished)) = exit.started.zip(exit.finished) {
            let _infallible = write!(text, " after {:#}", finished.duration_since(started));
        }
        if let Some(finished) = exit.finished {
            let _infallible = write!(text, " at {finished}");
        }
        said = exit.message.trim().to_owned();
        arrow = " →";
    }
    let _infallible = match &container.state {
        State::Waiting { reason, message } => write!(text, "{arrow} waiting ({reason}: {message})"),
        State::Running { since: Some(since) } => write!(text, "{arrow} running since {since}"),
        State::Running { since: None } => write!(text, "{arrow} running"),
        State::Exited(_) => Ok(()),
    };
    let _infallible = write!(text, ", {} restarts", container.restarts);
    if !said.is_empty() {
        let _infallible = write!(text, ": {said}");
    }
    text
}
