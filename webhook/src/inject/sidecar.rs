//! The collector's container and the volumes that come with it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CONTAINER, Plan,
    pod::{SecurityContext, Spec},
    resources::Resources,
    sources::Sources,
};
use crate::profile::{ALS_PORT, Profile};

/// Holds the token that says to the aggregator which pod speaks.
const TOKEN_VOLUME: &str = "kestrel-link-token";
/// Holds the collector's positions, so that its restart repeats nothing.
pub(super) const STATE_VOLUME: &str = "kestrel-state";
/// The volumes that are added.
pub(super) const VOLUMES: [&str; 2] = [TOKEN_VOLUME, STATE_VOLUME];

/// Where the API server gives every container a token for itself, unless something is mounted there.
const API_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Expressions of what is taken out of lines, one a line.
const REDACT: &str = "KESTREL_REDACT";

/// User and group where the application's are unknown or root: those of our images.
const NOBODY: i64 = 65532;

/// As whom the collector runs. With the user of the container that writes the
/// files it reads what only their owner may. It never runs as root: a root
/// user without capabilities can read little more, and would not be admitted
/// in a namespace that enforces the restricted Pod Security Standard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: i64,
    gid: i64,
}

impl User {
    /// The user of the container named `writer`, or of the pod.
    pub(super) fn of(spec: &Spec, writer: Option<&str>) -> Self {
        let own = spec
            .app_containers()
            .find(|container| Some(container.name.as_str()) == writer)
            .and_then(|container| container.security_context)
            .unwrap_or_default();
        let pod = spec.security_context.unwrap_or_default();
        let choose = |of: fn(SecurityContext) -> Option<i64>| {
            of(own).or(of(pod)).filter(|&id| id != 0).unwrap_or(NOBODY)
        };
        Self { uid: choose(|context| context.run_as_user), gid: choose(|context| context.run_as_group) }
    }
}

/// The container. It has no probes and no ports: nothing of the pod depends on it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    name: &'static str,
    image: String,
    image_pull_policy: &'static str,
    command: [&'static str; 1],
    restart_policy: &'static str,
    env: Vec<Variable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_from: Option<[EnvFrom; 1]>,
    resources: Resources,
    volume_mounts: Vec<Mount>,
    security_context: Confined,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Variable {
    name: Cow<'static, str>,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Content {
    Value(Cow<'static, str>),
    ValueFrom(Field),
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Field {
    #[serde(rename_all = "camelCase")]
    FieldRef { field_path: &'static str },
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum EnvFrom {
    SecretRef { name: String, optional: bool },
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: Cow<'static, str>,
    mount_path: Cow<'static, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

/// What the restricted Pod Security Standard asks for.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Confined {
    allow_privilege_escalation: bool,
    capabilities: Capabilities,
    read_only_root_filesystem: bool,
    run_as_non_root: bool,
    run_as_user: i64,
    run_as_group: i64,
    seccomp_profile: Seccomp,
}

#[derive(Debug, PartialEq, Serialize)]
struct Capabilities {
    drop: [&'static str; 1],
}

#[derive(Debug, PartialEq, Serialize)]
struct Seccomp {
    r#type: &'static str,
}

/// One of [`VOLUMES`].
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Volume {
    name: &'static str,
    #[serde(flatten)]
    kind: VolumeKind,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum VolumeKind {
    Projected(Projected),
    EmptyDir(EmptyDir),
}

#[derive(Debug, PartialEq, Serialize)]
struct Projected {
    sources: [Projection; 1],
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct EmptyDir {
    size_limit: &'static str,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Projection {
    #[serde(rename_all = "camelCase")]
    ServiceAccountToken { audience: &'static str, expiration_seconds: u32, path: &'static str },
}

pub(super) fn container(plan: Plan<'_>) -> Container {
    let spec = &plan.profile.spec;
    Container {
        name: CONTAINER,
        image: spec.image.as_ref().unwrap_or(&plan.settings.image).clone(),
        image_pull_policy: "IfNotPresent",
        command: ["/kestrel-collector"],
        restart_policy: "Always",
        env: environment(&plan),
        // Optional: the pod starts whether the Secret exists or not.
        env_from: spec
            .secret_ref
            .as_ref()
            .map(|secret| [EnvFrom::SecretRef { name: secret.name.clone(), optional: true }]),
        volume_mounts: mounts(&plan.sources),
        resources: plan.resources,
        security_context: Confined {
            allow_privilege_escalation: false,
            capabilities: Capabilities { drop: ["ALL"] },
            read_only_root_filesystem: true,
            run_as_non_root: true,
            run_as_user: plan.user.uid,
            run_as_group: plan.user.gid,
            seccomp_profile: Seccomp { r#type: "RuntimeDefault" },
        },
    }
}

fn environment(plan: &Plan<'_>) -> Vec<Variable> {
    let Plan { settings, profile: Profile { spec, .. }, .. } = plan;
    let sources: Vec<_> = plan
        .sources
        .read
        .iter()
        .map(|source| {
            json!({
                "container": source.container,
                "directory": directory(&source.volume),
                "patterns": source.patterns,
            })
        })
        .collect();
    let sources = literal(&Value::from(sources).to_string());
    let value = |name: &'static str, value: &str| Variable::new(name, value.to_owned());
    let known = |name: &'static str, value: &'static str| Variable::new(name, value);
    let field = |name: &'static str, field_path: &'static str| Variable {
        name: name.into(),
        content: Content::ValueFrom(Field::FieldRef { field_path }),
    };
    let mut environment = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("NODE_NAME", "spec.nodeName"),
        value("KESTREL_LINK_ENDPOINT", spec.endpoint.as_ref().unwrap_or(&settings.link_endpoint)),
        value("KESTREL_LINK_CA", plan.link_ca),
        known("KESTREL_LINK_TOKEN_FILE", "/kestrel/token/token"),
        known("KESTREL_STATE_DIR", "/kestrel/state"),
        Variable::new("KESTREL_LOG_SOURCES", sources),
    ];
    if plan.receives_access_logs {
        environment.push(Variable::new("KESTREL_ALS_PORT", ALS_PORT.to_string()));
        environment.push(field("POD_IP", "status.podIP"));
    }
    // None of them has a name of the above; the last one of a name counts.
    for variable in &spec.env {
        environment.retain(|earlier| earlier.name != variable.name);
        environment.push(Variable::new(variable.name.clone(), variable.value.clone()));
    }
    // A profile adds to what is a secret in the whole cluster, and takes nothing from it.
    if !settings.redact.is_empty() {
        let redact = literal(&settings.redact);
        match environment.iter_mut().find(|variable| variable.name == REDACT) {
            Some(Variable { content: Content::Value(added), .. }) => {
                *added = format!("{redact}\n{added}").into()
            }
            _ => environment.push(Variable::new(REDACT, redact)),
        }
    }
    environment
}

impl Variable {
    fn new(name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), content: Content::Value(value.into()) }
    }
}

/// A value that stays as it is: the kubelet expands `$(NAME)`, and reads `$$` as a dollar sign.
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

fn mounts(sources: &Sources) -> Vec<Mount> {
    let known = |name: &'static str, path: &'static str, read_only| Mount {
        name: name.into(),
        mount_path: path.into(),
        read_only,
    };
    let mut mounts = vec![
        known(TOKEN_VOLUME, "/kestrel/token", true),
        // Else the API server mounts the application's own token there, which is none of our business.
        known(TOKEN_VOLUME, API_TOKEN_PATH, true),
        known(STATE_VOLUME, "/kestrel/state", false),
    ];
    mounts.extend(sources.read.iter().map(|source| Mount {
        name: source.volume.clone().into(),
        mount_path: directory(&source.volume).into(),
        read_only: true,
    }));
    mounts
}

fn directory(volume: &str) -> String {
    format!("/kestrel/volumes/{volume}")
}

/// The volumes of [`VOLUMES`].
pub(super) fn volumes() -> [Volume; 2] {
    let audience = "kestrel-agent-link";
    let token = Projection::ServiceAccountToken { audience, expiration_seconds: 3600, path: "token" };
    [
        Volume { name: TOKEN_VOLUME, kind: VolumeKind::Projected(Projected { sources: [token] }) },
        // Positions are a few KiB; a pod that exceeds the limit is evicted, so it is far away.
        Volume { name: STATE_VOLUME, kind: VolumeKind::EmptyDir(EmptyDir { size_limit: "16Mi" }) },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(pod: &Value, container: &Value) -> Spec {
        let containers = json!([{"name": "first"}, {"name": "app", "securityContext": container}]);
        serde_json::from_value(json!({"securityContext": pod, "containers": containers})).unwrap()
    }

    #[test]
    fn the_user_is_the_writers_then_the_pods_and_never_root() {
        let user = |uid, gid| User { uid, gid };
        let both = json!({"runAsUser": 1000, "runAsGroup": 2000});
        let root = json!({"runAsUser": 0, "runAsGroup": 0});
        let only_user = json!({"runAsUser": 3000});
        for (pod, container, expected) in [
            (&json!(null), &json!(null), user(NOBODY, NOBODY)),
            (&both, &json!(null), user(1000, 2000)),
            (&both, &only_user, user(3000, 2000)),
            (&json!(null), &only_user, user(3000, NOBODY)),
            (&both, &root, user(NOBODY, NOBODY)),
            (&root, &both, user(1000, 2000)),
        ] {
            assert_eq!(User::of(&spec(pod, container), Some("app")), expected, "{pod} {container}");
        }
        assert_eq!(User::of(&spec(&json!(null), &both), None), user(NOBODY, NOBODY));
    }
}
