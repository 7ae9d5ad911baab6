//! A pod that asks for a collector and has none.

use super::event::Telling;
use crate::{
    cluster::Object,
    inject::{INJECT, PROFILE, STATUS, Skip, Workload},
    profile::{Labels, NoProfile, Profiles},
};

/// Nobody decided about the pod: nothing is known of it but its metadata, so that one like it may yet be left alone.
fn missing(object: &Object) -> String {
    let why = "the webhook was not asked when it was created, or it was annotated later; a pod is looked at when it is \
               created";
    let owner = object.owner();
    let Workload { namespace, kind, name } =
        Workload::of(&object.key.namespace, &owner.kind, &owner.name, &object.labels);
    if !matches!(kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet") {
        return why.to_owned();
    }
    let workload = format!("-n {namespace} {}/{name}", kind.to_ascii_lowercase());
    format!(
        "{why}. If the pod template does not ask for one yet: kubectl patch {workload} -p \
         '{{\"spec\":{{\"template\":{{\"metadata\":{{\"annotations\":{{\"{INJECT}\":\"true\"}}}}}}}}}}' (or change its source, \
         if Argo CD, Flux or Helm applies it); if it does: kubectl rollout restart {workload}"
    )
}

/// What is kept of such a pod.
#[derive(Debug, PartialEq)]
pub(super) struct Uncovered {
    /// Why it was left alone, as a metric's label; `None` if nobody decided that.
    pub(super) reason: Option<String>,
    labels: Labels,
    /// The profile that it names.
    named: Option<String>,
}

impl Uncovered {
    /// From the pod's metadata; `None` if it does not ask.
    pub(super) fn read(object: &Object, left_out: Option<Skip>) -> Option<Self> {
        let annotation = |key: &str| object.annotations.get(key).map(String::as_str);
        let wish = annotation(INJECT).filter(|wish| *wish != "false")?;
        let noted = annotation(STATUS).and_then(Skip::read_status).map(|(label, _)| label);
        let reason = if annotation("kubernetes.io/config.mirror").is_some() {
            Some(Skip::Mirror.label())
        } else {
            left_out.map(|skip| skip.label()).or(noted)
        };
        // Whatever else the annotation says asks for nothing; admission said so.
        (wish == "true" || noted.is_some()).then(|| Self {
            reason: reason.map(str::to_owned),
            labels: object.labels.clone(),
            named: annotation(PROFILE).map(str::to_owned),
        })
    }

    /// The profile that decides about it, enabled or not.
    pub(super) fn profile<'a>(&self, namespace: &Labels, profiles: &'a Profiles) -> Option<&'a str> {
        match profiles.choose(namespace, &self.labels, self.named.as_deref()) {
            Ok(profile) => Some(&profile.name),
            Err(NoProfile::Disabled(name)) => profiles.get(&name).map(|profile| profile.name.as_str()),
            Err(_) => None,
        }
    }

    /// Says that the pod goes without, to whoever looks at it or at what made it.
    pub(super) fn telling(&self, object: &Object) -> Telling {
        let owner = object.owner();
        let sentence = object.annotations.get(STATUS).and_then(|status| Skip::read_status(status));
        let (reason, why) = match self.reason.as_deref() {
            None => ("CollectorMissing", missing(object)),
            Some("namespace") => {
                ("CollectorSkipped", Skip::Namespace(object.key.namespace.clone()).to_string())
            }
            Some("labels") => ("CollectorSkipped", Skip::Labels.to_string()),
            Some("mirror-pod") => ("CollectorSkipped", Skip::Mirror.to_string()),
            Some(_) => ("CollectorSkipped", sentence.map(|(_, why)| why.to_owned()).unwrap_or_default()),
        };
        Telling {
            subject: owner,
            namespace: object.key.namespace.clone(),
            reason,
            label: self.reason.clone().unwrap_or_default(),
            note: format!("Pod {} asks for a collector and has none: {why}", object.key.name),
        }
    }
}
