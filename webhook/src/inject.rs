//! Whether a pod gets a collector, and the patch that gives it one. Pure:
//! values in, values out.

mod budget;
mod log_paths;
mod patch;
pub mod pod;
mod qos;
mod resources;
mod sidecar;
mod skip;
mod sources;
mod workload;

use std::collections::BTreeMap;

pub(crate) use self::workload::template;
pub use self::{patch::Add, skip::Skip, workload::Workload};
use self::{
    pod::Pod,
    resources::Resources,
    sidecar::User,
    sources::{Sources, Wanted},
};
use crate::{
    cluster::Cluster,
    profile::{Labels, Profile},
};

/// The sidecar's name, by which an injected pod is recognised.
pub const CONTAINER: &str = "kestrel-collector";
/// Asks for a collector (`true`) or forbids one (`false`).
pub const INJECT: &str = "kestrel.ai/inject";
/// Narrows what the collector reads: paths or patterns inside the containers, separated by commas.
pub const LOG_PATHS: &str = "kestrel.ai/log-paths";
/// Whether the collector receives access logs (`true`, `false`), whatever its profile says.
pub const ACCESS_LOGS: &str = "kestrel.ai/access-logs";
/// How much of its lines is sent, for the node agent.
pub(crate) const LOGS: &str = "kestrel.ai/logs";
/// Names the profile by which a collector is made, among those that cover the pod.
pub const PROFILE: &str = "kestrel.ai/profile";
/// Label, `true` on a pod that got one, so that such pods can be watched.
pub const INJECTED: &str = "kestrel.ai/injected";
/// Label, `true` on a pod whose collector receives access logs, so that its proxy can be told to send them there.
pub const RECEIVES_ACCESS_LOGS: &str = "kestrel.ai/receives-access-logs";
/// Names the profile by which it was made; absent if that is the built-in one.
pub const INJECTED_BY: &str = "kestrel.ai/injected-by";
/// What was decided, for the reader of `kubectl describe pod`.
pub const STATUS: &str = "kestrel.ai/status";

/// Namespaces, besides the operator's own, whose pods are never changed: the
/// cluster itself may depend on them.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// Priority classes whose pods are never changed, for the same reason.
const CRITICAL: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// What was configured, the same for every pod.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The operator's own namespace.
    pub namespace: String,
    /// Image that holds `/kestrel-collector`.
    pub image: String,
    /// Secrets of which a pod has to name one, as its node may not have the image without; none: every node has it.
    pub pull_secrets: Vec<String>,
    /// Address of the agent link, `https://host:port`.
    pub link_endpoint: String,
    /// PEM text of the agent link's authority; `None` until it is known.
    pub link_ca: Option<String>,
    /// `KESTREL_REDACT` of the collector; may be empty.
    pub redact: String,
    /// Whether pods that no profile covers get a collector.
    pub default_profile: bool,
}

/// What is answered about a pod.
#[derive(Debug)]
pub struct Verdict {
    /// Why the pod gets no collector; `None` if it gets one.
    pub skipped: Option<Skip>,
    /// The text of [`STATUS`], whether or not it is written onto the pod.
    pub status: String,
    /// The change to the pod, possibly none.
    pub patch: Vec<Add>,
    /// Sentences for whoever creates the pod.
    pub warnings: Vec<String>,
}

/// What a pod is given.
struct Plan<'a> {
    settings: &'a Settings,
    link_ca: &'a str,
    profile: &'a Profile,
    receives_access_logs: bool,
    sources: Sources,
    user: User,
    resources: Resources,
}

/// Decides about `pod`, which is about to be created in `namespace`.
pub fn judge(pod: &Pod, namespace: &str, cluster: &Cluster) -> Verdict {
    let mut verdict = match plan(pod, namespace, cluster) {
        Ok(plan) => {
            let status = plan.status();
            let unread = plan.sources.unread.iter();
            let warnings = unread.map(|path| format!("log files are not read: {path}")).collect();
            Verdict { skipped: None, patch: patch::inject(pod, plan, &status), status, warnings }
        }
        Err(skip) => Verdict {
            status: skip.status(),
            patch: if skip.may_be_noted() { patch::note(pod, &skip.status()) } else { Vec::new() },
            warnings: if skip.is_news() {
                vec![format!("no collector is injected: {skip}")]
            } else {
                Vec::new()
            },
            skipped: Some(skip),
        },
    };
    if let Some(said) = pod.annotation(LOGS).and_then(not_understood) {
        verdict.warnings.push(said);
    }
    verdict
}

/// What is wrong with a value of [`LOGS`].
pub(crate) fn not_understood(logs: &str) -> Option<String> {
    let is_known = matches!(logs, "all" | "errors" | "off");
    (!is_known).then(|| {
        format!(
            "{LOGS} is {:?} and counts as if it was not there; it has to be all, errors or off",
            skip::start(logs)
        )
    })
}

/// What `pod` is given, or why it is given nothing.
fn plan<'a>(pod: &Pod, namespace: &str, cluster: &'a Cluster) -> Result<Plan<'a>, Skip> {
    let settings = &cluster.settings;
    let wish = match pod.annotation(INJECT) {
        None | Some("false") => return Err(Skip::NotAsked),
        Some(wish) => wish,
    };
    if pod.annotation("kubernetes.io/config.mirror").is_some() {
        return Err(Skip::Mirror);
    }
    if namespace == settings.namespace || SYSTEM_NAMESPACES.contains(&namespace) {
        return Err(Skip::Namespace(namespace.to_owned()));
    }
    if wish != "true" {
        return Err(Skip::UnclearWish(wish.to_owned()));
    }
    let spec = &pod.spec;
    if spec.all_containers().any(|container| container.name == CONTAINER) {
        return Err(Skip::AlreadyInjected);
    }
    if spec.host_network == Some(true) {
        return Err(Skip::HostNetwork);
    }
    if spec.is_windows() {
        return Err(Skip::Windows);
    }
    if spec.is_for_a_virtual_node() {
        return Err(Skip::VirtualNode);
    }
    if let Some(name) = CRITICAL.into_iter().find(|name| spec.priority_class_name.as_deref() == Some(name)) {
        return Err(Skip::CriticalPriority(name));
    }
    if let Some(name) = sidecar::VOLUMES.into_iter().find(|name| spec.volume(name).is_some()) {
        return Err(Skip::VolumeName(name));
    }
    let none = BTreeMap::new();
    let labels: &Labels = pod.labels().unwrap_or(&none);
    let profile = cluster.profiles.choose(&cluster.labels_of(namespace), labels, pod.annotation(PROFILE))?;
    let image = profile.spec.image.as_ref().unwrap_or(&settings.image);
    if !cluster.images.run(image) {
        return Err(Skip::UntriedImage(image.clone()));
    }
    if !cluster.images.are_opened_by(spec.pull_secrets(), image) {
        return Err(Skip::PullSecret(cluster.images.needed_for(image)));
    }
    let workload = Workload::of_new(pod, namespace);
    let maker = Workload::maker_of_new(pod, namespace);
    let template = workload::template(labels);
    if let Some(why) = [Some(&workload), maker.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|stopped| cluster.stops.why(stopped, template))
    {
        return Err(Skip::Stopped(why.to_owned()));
    }
    if workload.share() >= profile.spec.rollout.percent {
        return Err(Skip::Rollout(profile.name.clone()));
    }
    let resources = Resources::of(pod, &profile.spec.resources)?;
    let resources = budget::fit(resources, spec, namespace, cluster)?;
    let link_ca = settings.link_ca.as_deref().ok_or(Skip::NoLinkAuthority)?;
    let sources = sources::find(spec, &Wanted::of(pod.annotation(LOG_PATHS), &profile.spec.collect));
    let user = User::of(spec, sources.read.first().map(|source| source.container.as_str()));
    let receives_access_logs = match pod.annotation(ACCESS_LOGS) {
        None => profile.spec.collect.access_logs,
        Some("true") => true,
        Some("false") => false,
        Some(other) => {
            let problem = format!("{:?} is neither \"true\" nor \"false\"", skip::start(other));
            return Err(Skip::BadAnnotation(ACCESS_LOGS, problem));
        }
    };
    Ok(Plan { settings, link_ca, profile, receives_access_logs, sources, user, resources })
}

impl Plan<'_> {
    /// The text of [`STATUS`].
    fn status(&self) -> String {
        let Sources { read, unread } = &self.sources;
        let by = match self.profile.name.as_str() {
            "" => String::new(),
            name => format!(" by InjectionProfile {name}"),
        };
        let volumes: Vec<_> = read.iter().map(|source| source.volume.as_str()).collect();
        let files = match (volumes.join(", "), unread.join("; ")) {
            (read, unread) if read.is_empty() && unread.is_empty() => {
                "no log files to read, as no container writes to an emptyDir volume".to_owned()
            }
            (read, unread) if unread.is_empty() => format!("reads log files in {read}"),
            (read, unread) if read.is_empty() => format!("not read: {unread}"),
            (read, unread) => format!("reads log files in {read}; not read: {unread}"),
        };
        let logs = if self.receives_access_logs { "; receives access logs" } else { "" };
        format!("injected{by}: {files}{logs}")
    }
}

#[cfg(test)]
mod tests;
