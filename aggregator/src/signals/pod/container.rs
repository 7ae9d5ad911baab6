//! One container of a pod, as far as it is judged.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::record::moment;

/// A container as its node last saw it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) restarts: u32,
    pub(super) state: State,
    /// How the run before the state ended.
    pub(super) last: Option<Exit>,
    pub(super) ready: bool,
    restart: Restart,
    /// The node kills it if a liveness or startup probe fails.
    probed: bool,
    /// How long its startup probe lets it start.
    pub(super) startup: Duration,
    pub(super) memory_limit: Option<String>,
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It runs to its end before the next one begins.
    Init,
    /// It begins like an init container and runs as long as the pod.
    Sidecar,
    App,
    /// Somebody debugs with it.
    Ephemeral,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Waiting { reason: String, message: String },
    Running { since: Option<Timestamp> },
    Exited(Exit),
}

/// The end of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
}

/// When a container that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Exit {
    /// The node could not see how it ended, as after a reboot. That says nothing
    /// of the container.
    fn is_unseen(&self) -> bool {
        matches!(self.reason.as_str(), "Unknown" | "ContainerStatusUnknown")
    }

    /// The runtime could not start it.
    pub(super) fn never_ran(&self) -> bool {
        matches!(self.reason.as_str(), "StartError" | "ContainerCannotRun")
    }

    pub(super) fn is_error(&self) -> bool {
        self.code != 0 && !self.is_unseen()
    }

    fn is_shorter_than(&self, time: Duration) -> bool {
        let ran = self.started.zip(self.finished).map(|(started, finished)| finished.duration_since(started));
        ran.is_some_and(|ran| ran.unsigned_abs() < time)
    }

    /// Such as `exit code 137 (OOMKilled)`.
    pub(super) fn text(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        format!("exit code {}{reason}", self.code)
    }
}

/// How sure it is that a container was killed for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutOfMemory {
    /// The runtime says so.
    Certain,
    /// It was killed with SIGKILL and nothing else is known that could have done it.
    Likely,
}

impl Container {
    /// Runs that have ended.
    fn ends(&self) -> u32 {
        self.restarts.saturating_add(u32::from(!matches!(self.state, State::Running { .. })))
    }

    /// How the run ended that ended last.
    pub(super) fn exit(&self) -> Option<&Exit> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            _ => self.last.as_ref(),
        }
    }

    /// Since when it runs.
    pub(super) fn running_since(&self) -> Option<Timestamp> {
        match self.state {
            State::Running { since } => since,
            _ => None,
        }
    }

    /// Whether the node waits with its next start, because it ended too often.
    pub(super) fn is_in_backoff(&self) -> bool {
        matches!(&self.state, State::Waiting { reason, .. } if reason == "CrashLoopBackOff")
    }

    /// It has ended and nothing will start it again.
    pub(super) fn is_over(&self) -> bool {
        let State::Exited(exit) = &self.state else { return false };
        match self.restart {
            Restart::Always => false,
            Restart::OnFailure => exit.code == 0,
            Restart::Never => true,
        }
    }

    /// It ended as it should not, and was or will be started again. A container
    /// that ends well and is started again crashes if that happens twice and its
    /// runs are shorter than `stable`: then the node, too, waits longer each time.
    pub(super) fn crashes(&self, stable: Duration) -> bool {
        if self.role == Role::Ephemeral || self.is_over() {
            return false;
        }
        let ends_too_soon = |exit: &Exit| {
            let is_well = exit.code == 0 && self.restart == Restart::Always;
            is_well && self.ends() >= 2 && exit.is_shorter_than(stable)
        };
        self.is_in_backoff() || self.exit().is_some_and(|exit| exit.is_error() || ends_too_soon(exit))
    }

    /// Whether the last end of it was for want of memory. Only with the reason
    /// `OOMKilled` is it certain: a runtime may miss that, and the kernel may kill
    /// for want of memory of the whole node. Exit code 137 alone is also what a failed
    /// probe leaves, and what whoever `disturbs` the pod leaves; without a limit there
    /// is no reason to think of memory at all.
    pub(super) fn out_of_memory(&self, disturbs: bool) -> Option<OutOfMemory> {
        const KILLED: i32 = 128 + 9;
        let exit = self.exit()?;
        if exit.reason == "OOMKilled" {
            return Some(OutOfMemory::Certain);
        }
        let is_likely = exit.code == KILLED
            && exit.is_error()
            && self.memory_limit.is_some()
            && !self.probed
            && !disturbs;
        is_likely.then_some(OutOfMemory::Likely)
    }
}

/// The containers of a pod in the order in which they begin. A container of
/// which its node has said nothing is not among them.
pub(super) fn containers(object: &core::Pod) -> Vec<Container> {
    let (Some(spec), Some(status)) = (&object.spec, &object.status) else { return Vec::new() };
    let pod_policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let init = spec.init_containers.iter().flatten().map(|container| {
        let own = container.restart_policy.as_deref();
        let (role, restart) = match (own, pod_policy) {
            (Some("Always"), _) => (Role::Sidecar, Restart::Always),
            (Some("Never"), _) | (None, "Never") => (Role::Init, Restart::Never),
            _ => (Role::Init, Restart::OnFailure),
        };
        (container, role, restart)
    });
    let app = spec.containers.iter().map(|container| {
        let restart = match container.restart_policy.as_deref().unwrap_or(pod_policy) {
            "Never" => Restart::Never,
            "OnFailure" => Restart::OnFailure,
            _ => Restart::Always,
        };
        (container, Role::App, restart)
    });
    let regular = init.chain(app).filter_map(|(spec, role, restart)| {
        let of_its_role =
            if role == Role::App { &status.container_statuses } else { &status.init_container_statuses };
        let status = named(of_its_role.as_ref(), &spec.name)?;
        Some(Container {
            restart,
            probed: spec.liveness_probe.is_some() || spec.startup_probe.is_some(),
            startup: spec.startup_probe.as_ref().map(startup).unwrap_or_default()
                + spec.readiness_probe.as_ref().map(first_look).unwrap_or_default(),
            memory_limit: memory_limit(spec.resources.as_ref()),
            ..seen(status, role)
        })
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().filter_map(|spec| {
        let status = named(status.ephemeral_container_statuses.as_ref(), &spec.name)?;
        Some(Container {
            memory_limit: memory_limit(spec.resources.as_ref()),
            ..seen(status, Role::Ephemeral)
        })
    });
    regular.chain(ephemeral).collect()
}

fn named<'a>(all: Option<&'a Vec<core::ContainerStatus>>, name: &str) -> Option<&'a core::ContainerStatus> {
    all?.iter().find(|status| status.name == name)
}

fn seen(status: &core::ContainerStatus, role: Role) -> Container {
    let state = status.state.clone().unwrap_or_default();
    let state = if let Some(running) = state.running {
        State::Running { since: moment(running.started_at.as_ref()) }
    } else if let Some(terminated) = &state.terminated {
        State::Exited(exit(terminated))
    } else {
        let waiting = state.waiting.unwrap_or_default();
        State::Waiting {
            reason: waiting.reason.unwrap_or_default(),
            message: waiting.message.unwrap_or_default(),
        }
    };
    Container {
        name: status.name.clone(),
        role,
        restarts: u32::try_from(status.restart_count).unwrap_or_default(),
        state,
        last: status.last_state.as_ref().and_then(|last| last.terminated.as_ref()).map(exit),
        ready: status.ready,
        restart: Restart::Never,
        probed: false,
        startup: Duration::ZERO,
        memory_limit: None,
    }
}

fn exit(terminated: &core::ContainerStateTerminated) -> Exit {
    Exit {
        code: terminated.exit_code,
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        started: moment(terminated.started_at.as_ref()),
        finished: moment(terminated.finished_at.as_ref()),
    }
}

/// Before this time the node does not look whether a container is ready.
fn first_look(probe: &core::Probe) -> Duration {
    let seconds = probe.initial_delay_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.unwrap_or_default())
}

/// After this time the node kills a container that has not started.
fn startup(probe: &core::Probe) -> Duration {
    let number = |field: Option<i32>, default: u32| {
        field.and_then(|field| u32::try_from(field).ok()).unwrap_or(default)
    };
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let period = seconds(number(probe.period_seconds, 10));
    seconds(number(probe.initial_delay_seconds, 0))
        .saturating_add(period.saturating_mul(number(probe.failure_threshold, 3)))
}

fn memory_limit(resources: Option<&core::ResourceRequirements>) -> Option<String> {
    Some(resources?.limits.as_ref()?.get("memory")?.0.clone())
}
