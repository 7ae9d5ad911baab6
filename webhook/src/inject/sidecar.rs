//! The collector's container and the volumes that come with it.

use serde_json::{Value, json};

use super::{
    CONTAINER, Plan,
    pod::{SecurityContext, Spec},
};
use crate::profile::Profile;

/// Holds the token that says to the aggregator which pod speaks.
const TOKEN_VOLUME: &str = "kestrel-link-token";
/// Holds the collector's positions, so that its restart repeats nothing.
pub(super) const STATE_VOLUME: &str = "kestrel-state";
/// The volumes that are added.
pub(super) const VOLUMES: [&str; 2] = [TOKEN_VOLUME, STATE_VOLUME];

/// Where the API server gives every container a token for itself, unless something is mounted there.
const API_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

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
pub(super) fn container(plan: &Plan<'_>) -> Value {
    let mut container = json!({
        "name": CONTAINER,
        "image": plan.profile.spec.image.as_ref().unwrap_or(&plan.settings.image),
        "imagePullPolicy": "IfNotPresent",
        "command": ["/kestrel-collector"],
        "restartPolicy": "Always",
        "env": environment(plan),
        "resources": plan.resources.to_json(),
        "volumeMounts": mounts(plan),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": plan.user.uid,
            "runAsGroup": plan.user.gid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    if let Some(secret) = &plan.profile.spec.secret_ref {
        // Optional: the pod starts whether the Secret exists or not.
        container["envFrom"] = json!([{"secretRef": {"name": secret.name, "optional": true}}]);
    }
    container
}

fn environment(plan: &Plan<'_>) -> Vec<Value> {
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
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut environment = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("NODE_NAME", "spec.nodeName"),
        value("KESTREL_LINK_ENDPOINT", spec.endpoint.as_ref().unwrap_or(&settings.link_endpoint)),
        value("KESTREL_LINK_CA", plan.link_ca),
        value("KESTREL_LINK_TOKEN_FILE", "/kestrel/token/token"),
        value("KESTREL_STATE_DIR", "/kestrel/state"),
        value("KESTREL_LOG_SOURCES", &sources),
    ];
    if !settings.redact.is_empty() {
        environment.push(value("KESTREL_REDACT", &literal(&settings.redact)));
    }
    // None of them has a name of the above but for KESTREL_REDACT; the last one of a name counts.
    for variable in &spec.env {
        environment.retain(|earlier| earlier["name"] != variable.name.as_str());
        environment.push(value(&variable.name, &variable.value));
    }
    environment
}

/// A value that stays as it is: the kubelet expands `$(NAME)`, and reads `$$` as a dollar sign.
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

fn mounts(plan: &Plan<'_>) -> Vec<Value> {
    let mut mounts = vec![
        json!({"name": TOKEN_VOLUME, "mountPath": "/kestrel/token", "readOnly": true}),
        // Else the API server mounts the application's own token there, which is none of our business.
        json!({"name": TOKEN_VOLUME, "mountPath": API_TOKEN_PATH, "readOnly": true}),
        json!({"name": STATE_VOLUME, "mountPath": "/kestrel/state"}),
    ];
    mounts.extend(plan.sources.read.iter().map(
        |source| json!({"name": source.volume, "mountPath": directory(&source.volume), "readOnly": true}),
    ));
    mounts
}

fn directory(volume: &str) -> String {
    format!("/kestrel/volumes/{volume}")
}

/// The volumes of [`VOLUMES`].
pub(super) fn volumes() -> Vec<Value> {
    vec![
        json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
            "audience": "kestrel-agent-link", "expirationSeconds": 3600, "path": "token"}}]}}),
        // Positions are a few KiB; a pod that exceeds the limit is evicted, so it is far away.
        json!({"name": STATE_VOLUME, "emptyDir": {"sizeLimit": "16Mi"}}),
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
