//! A pod that carries a collector.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;

use super::{breaker, event::Telling};
use crate::{
    cluster::{Key, Object, Owner},
    inject::{
        CONTAINER, INJECTED_BY, LOG_PATHS, LOGS, STATUS, Workload, not_understood, pod::Secret, template,
    },
};

/// So many starts are more than a hiccup.
const RESTARTS: u32 = 3;
/// Of what the kubelet says, in characters.
const LONGEST: usize = 200;

/// What is kept of such a pod.
#[derive(Debug)]
pub(super) struct Carrier {
    /// The profile by which it was made; empty: the built-in one.
    pub(super) profile: String,
    pub(super) workload: Workload,
    pub(super) template: Option<String>,
    owner: Owner,
    trouble: Option<Trouble>,
}

/// With what a collector has run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) image: String,
    /// Secrets that the pod names for pulling images.
    pub(crate) pull_secrets: BTreeSet<String>,
}

/// What keeps the collector from running.
#[derive(Debug)]
struct Trouble {
    why: String,
    /// `None`: it lasts.
    at: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    image_pull_secrets: Vec<Secret>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    init_container_statuses: Vec<ContainerStatus>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    restart_count: u32,
    state: State,
    last_state: State,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    reason: String,
    exit_code: i32,
    finished_at: Option<Timestamp>,
}

/// What was asked for with a pod that has its collector, and is not done. Its owner hears of it like of a pod without.
pub(super) fn unheeded(object: &Object) -> Vec<Telling> {
    let annotation = |key: &str| object.annotations.get(key).map(String::as_str);
    let paths = annotation(LOG_PATHS).and(annotation(STATUS)).and_then(|status| {
        let (_, unread) = status.split_once("not read: ")?;
        Some(("log-paths", format!("not all that {LOG_PATHS} names is read: {unread}")))
    });
    let logs = annotation(LOGS).and_then(not_understood).map(|problem| ("logs", problem));
    let telling = |(label, problem): (&str, String)| Telling {
        subject: object.owner(),
        namespace: object.key.namespace.clone(),
        reason: "AnnotationIgnored",
        label: label.to_owned(),
        note: format!("Pod {} has a collector, but {problem}", object.key.name),
    };
    paths.into_iter().chain(logs).map(telling).collect()
}

impl Carrier {
    /// From the whole pod; with it what its collector has run with, if it has. Other pods that have the
    /// label and a container of the collector's name are taken like injected ones: with one of them an
    /// image is tried. `None`: the pod has the label, perhaps from a template that was copied, and no such container.
    pub(super) fn read(object: &Object) -> Option<(Self, Option<Ran>)> {
        let Body { spec, status } = Body::deserialize(&object.body).unwrap_or_default();
        let mut containers = spec.init_containers.into_iter().chain(spec.containers);
        let Container { image, .. } = containers.find(|container| container.name == CONTAINER)?;
        let status = status
            .init_container_statuses
            .into_iter()
            .chain(status.container_statuses)
            .find(|status| status.name == CONTAINER)
            .unwrap_or_default();
        let has_run = [&status.state, &status.last_state]
            .into_iter()
            .any(|state| state.running.is_some() || state.terminated.is_some());
        let names = spec.image_pull_secrets.into_iter().map(|secret| secret.name);
        let pull_secrets = names.filter(|name| !name.is_empty()).collect();
        let ran = has_run.then_some(Ran { image, pull_secrets });
        let owner = object.owner();
        let carrier = Self {
            profile: object.annotations.get(INJECTED_BY).cloned().unwrap_or_default(),
            workload: Workload::of(&object.key.namespace, &owner.kind, &owner.name, &object.labels),
            template: template(&object.labels).map(str::to_owned),
            owner,
            trouble: status.trouble(),
        };
        Some((carrier, ran))
    }

    /// What keeps the collector from running, and when it last did.
    pub(super) fn trouble(&self, now: Timestamp) -> Option<(&str, Timestamp)> {
        let Trouble { why, at } = self.trouble.as_ref()?;
        let at = at.unwrap_or(now);
        (now.duration_since(at) < breaker::STOP).then_some((why.as_str(), at))
    }

    /// Says that injection is stopped for its workload.
    pub(super) fn telling(&self, key: &Key, why: &str) -> Telling {
        Telling {
            subject: self.owner.clone(),
            namespace: key.namespace.clone(),
            reason: "InjectionStopped",
            label: "stopped".to_owned(),
            note: format!(
                "New pods of {} get no collector until its pod template changes, or for 10 minutes after the \
                 last trouble: in pod {} {why}",
                self.workload, key.name
            ),
        }
    }
}

impl ContainerStatus {
    fn trouble(&self) -> Option<Trouble> {
        let Self { state, last_state, restart_count, .. } = self;
        let ended = last_state.terminated.as_ref();
        let how = |ended: &Terminated| match ended.reason.as_str() {
            "" | "Error" => format!("ended with exit code {}", ended.exit_code),
            reason => format!("ended ({reason}, exit code {})", ended.exit_code),
        };
        match (&state.waiting, ended) {
            (Some(Waiting { reason, .. }), ended) if reason == "CrashLoopBackOff" => {
                let how = ended.map_or_else(|| "ended".to_owned(), how);
                Some(Trouble { why: format!("the collector {how} again and again"), at: None })
            }
            (Some(Waiting { reason, message }), _)
                if !matches!(reason.as_str(), "" | "PodInitializing" | "ContainerCreating") =>
            {
                let message: String = message.chars().take(LONGEST).collect();
                Some(Trouble { why: format!("the collector does not start: {reason} {message}"), at: None })
            }
            (_, Some(ended)) if *restart_count >= RESTARTS => Some(Trouble {
                why: format!("the collector {} {restart_count} times", how(ended)),
                at: ended.finished_at,
            }),
            _ => None,
        }
    }
}
