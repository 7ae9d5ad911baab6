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
    pod::{Pod, Secret},
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
/// Names the profile by which a collector is made, among those that cover the pod.
pub const PROFILE: &str = "kestrel.ai/profile";
/// Label, `true` on a pod that got one, so that such pods can be watched.
pub const INJECTED: &str = "kestrel.ai/injected";
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

impl Settings {
    /// Whether one of these opens the registry of the operator's image.
    pub(crate) fn names_pull_secret(&self, secrets: &[Secret]) -> bool {
        secrets.iter().any(|secret| self.pull_secrets.contains(&secret.name))
    }
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
    sources: Sources,
    user: User,
    resources: Resources,
}

/// Decides about `pod`, which is about to be created in `namespace`.
pub fn judge(pod: &Pod, namespace: &str, cluster: &Cluster) -> Verdict {
    match plan(pod, namespace, cluster) {
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
    }
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
    if !cluster.runs(image) {
        return Err(Skip::UntriedImage(image.clone()));
    }
    if *image == settings.image
        && !settings.pull_secrets.is_empty()
        && !settings.names_pull_secret(spec.pull_secrets())
        && !cluster.has_run(image)
    {
        return Err(Skip::PullSecret(settings.pull_secrets.join(", ")));
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
    Ok(Plan { settings, link_ca, profile, sources, user, resources })
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
        let logs = if self.profile.spec.collect.access_logs { "; receives access logs" } else { "" };
        format!("injected{by}: {files}{logs}")
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::{Key, Kind, Object};

    fn settings() -> Settings {
        Settings {
            namespace: "kestrel-ai".to_owned(),
            image: "registry/kestrel-operator@sha256:0".to_owned(),
            pull_secrets: Vec::new(),
            link_endpoint: "https://kestrel-agent-link.kestrel-ai.svc:8443".to_owned(),
            link_ca: Some("PEM".to_owned()),
            redact: String::new(),
            default_profile: true,
        }
    }

    fn put(cluster: &mut Cluster, kind: Kind, namespace: &str, body: Value) {
        let key = Key { namespace: namespace.to_owned(), name: "x".to_owned() };
        cluster.put(kind, Object { key, body, ..Object::default() }).unwrap();
    }

    /// A cluster with these profiles.
    fn cluster(settings: Settings, profiles: &Value) -> Cluster {
        let mut cluster = Cluster::new(settings);
        for (name, spec) in profiles.as_object().unwrap() {
            let key = Key { namespace: String::new(), name: name.clone() };
            let object = Object { key, body: json!({ "spec": spec }), ..Object::default() };
            cluster.put(Kind::InjectionProfile, object).unwrap();
        }
        cluster
    }

    fn pod(annotations: &Value, mut spec: Value) -> Pod {
        spec["containers"] = json!([{"name": "app"}]);
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap()
    }

    fn wish(value: &str) -> Value {
        json!({ INJECT: value })
    }

    #[test]
    fn every_reason_to_leave_a_pod_alone_is_named() {
        let profiles = json!({
            "off": {"enabled": false, "podSelector": {"matchLabels": {"never": "there"}}},
            "other": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bank"}}},
            "foreign": {"image": "elsewhere/collector:1",
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "lab"}}},
            "slow": {"rollout": {"percent": 0},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "none-yet"}}},
            "quiet": {"enabled": false,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "quiet"}}},
        });
        let fargate = json!({"schedulerName": "fargate-scheduler"});
        let no_default = Settings { default_profile: false, ..settings() };
        let by = |profile: &str| json!({INJECT: "true", PROFILE: profile});
        let much = json!({INJECT: "true", "kestrel.ai/collector-cpu-limit": "much"});
        let no_ca = Settings { link_ca: None, ..settings() };
        let private = Settings { pull_secrets: vec!["registry".to_owned()], ..settings() };
        let mirror = json!({INJECT: "true", "kubernetes.io/config.mirror": "hash"});
        let sidecar = json!({"initContainers": [{"name": CONTAINER}]});
        let volume = json!({"volumes": [{"name": "kestrel-state", "emptyDir": {}}]});
        let none = || json!({});
        let windows = json!({"os": {"name": "windows"}});
        let windows_node = json!({"nodeSelector": {"kubernetes.io/os": "windows"}});
        let priority = |name: &str| json!({ "priorityClassName": name });
        let [for_cluster, for_node] =
            ["cluster", "node"].map(|of| priority(&format!("system-{of}-critical")));
        // Label, noted on the pod, told to its creator.
        for (annotations, spec, namespace, settings, label, noted, told) in [
            (none(), none(), "shop", settings(), "not-asked", false, false),
            (wish("false"), none(), "shop", settings(), "not-asked", false, false),
            (wish("yes"), none(), "shop", settings(), "unclear-wish", true, true),
            (wish("true"), sidecar, "shop", settings(), "already-injected", false, false),
            (mirror, none(), "shop", settings(), "mirror-pod", false, true),
            (wish("true"), json!({"hostNetwork": true}), "shop", settings(), "host-network", true, true),
            (wish("true"), windows, "shop", settings(), "windows", true, true),
            (wish("true"), windows_node, "shop", settings(), "windows", true, true),
            (wish("true"), for_cluster, "shop", settings(), "critical-priority", true, true),
            (wish("true"), for_node, "shop", settings(), "critical-priority", true, true),
            (wish("true"), none(), "kube-system", settings(), "namespace", false, true),
            (wish("true"), none(), "kestrel-ai", settings(), "namespace", false, true),
            (wish("true"), volume, "shop", settings(), "volume-name", true, true),
            (wish("true"), none(), "shop", no_ca, "no-link-authority", true, true),
            (wish("true"), none(), "shop", no_default, "no-profile", true, true),
            (wish("true"), none(), "quiet", settings(), "profile-disabled", true, true),
            (by("nowhere"), none(), "shop", settings(), "unknown-profile", true, true),
            (by("other"), none(), "shop", settings(), "profile-elsewhere", true, true),
            (wish("true"), none(), "lab", settings(), "untried-image", true, true),
            (wish("true"), none(), "shop", private, "pull-secret", true, true),
            (much, none(), "shop", settings(), "bad-annotation", true, true),
            (wish("true"), fargate, "shop", settings(), "virtual-node", true, true),
            (wish("true"), none(), "none-yet", settings(), "rollout", true, true),
            (wish("true"), none(), "stopped", settings(), "stopped", true, true),
            (wish("true"), none(), "tight", settings(), "limit-range", true, true),
            (wish("true"), none(), "full", settings(), "quota", true, true),
        ] {
            let mut cluster = cluster(settings, &profiles);
            let tight = json!({"spec": {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]}});
            put(&mut cluster, Kind::LimitRange, "tight", tight);
            let full = json!({"spec": {"hard": {"limits.cpu": "0"}}});
            put(&mut cluster, Kind::ResourceQuota, "full", full);
            let bare = Workload::of("stopped", "Pod", "", &Labels::new());
            cluster.stops.hold(&bare, None, "it was killed", Timestamp::UNIX_EPOCH);
            let verdict = judge(&pod(&annotations, spec), namespace, &cluster);
            let skip = verdict.skipped.unwrap();
            assert_eq!(skip.label(), label);
            assert_eq!(verdict.patch.len(), usize::from(noted), "{skip}");
            assert_eq!(verdict.warnings.len(), usize::from(told), "{skip}");
        }
    }

    #[test]
    fn other_systems_and_priorities_get_a_collector() {
        for spec in [
            json!({"os": {"name": "linux"}}),
            json!({"nodeSelector": {"kubernetes.io/os": "linux", "disk": "windows"}}),
            json!({"priorityClassName": "shop-critical"}),
        ] {
            assert_eq!(
                judge(&pod(&wish("true"), spec), "shop", &cluster(settings(), &json!({}))).skipped,
                None
            );
        }
    }

    #[test]
    fn a_node_that_needs_a_secret_for_the_image_gets_pods_that_name_it_or_shows_that_it_does_not() {
        let settings = Settings { pull_secrets: vec!["registry".to_owned()], ..settings() };
        let image = settings.image.clone();
        let mut cluster = cluster(settings, &json!({}));
        let secret = |name: &str| json!({"imagePullSecrets": [{"name": "x"}, {"name": name}]});
        let skipped = |cluster: &Cluster, name: &str| {
            judge(&pod(&wish("true"), secret(name)), "shop", cluster).skipped.map(|skip| skip.label())
        };
        let ran = |secrets: Value| {
            let mut body = json!({"spec": secrets, "status": {"initContainerStatuses": [
                {"name": CONTAINER, "state": {"running": {}}}]}});
            body["spec"]["initContainers"] = json!([{"name": CONTAINER, "image": image}]);
            body
        };
        assert_eq!(skipped(&cluster, "registry"), None);
        put(&mut cluster, Kind::InjectedPod, "shop", ran(secret("registry")));
        assert_eq!(skipped(&cluster, "other"), Some("pull-secret"), "that pod had it");
        put(&mut cluster, Kind::InjectedPod, "shop", ran(json!({})));
        assert_eq!(skipped(&cluster, "other"), None);
    }

    #[test]
    fn a_note_that_the_pod_has_already_is_not_written_again() {
        let cluster = cluster(settings(), &json!({}));
        let first = judge(&pod(&wish("yes"), json!({})), "shop", &cluster);
        let patch::Value::Text(status) = &first.patch[0].value else { panic!("{:?}", first.patch) };
        assert_eq!(
            status,
            "skipped (unclear-wish): kestrel.ai/inject is \"yes\", and only \"true\" asks for a collector"
        );
        let second = judge(&pod(&json!({INJECT: "yes", STATUS: status}), json!({})), "shop", &cluster);
        assert!(second.patch.is_empty());
    }
}
