//! Everything that makes pods, and everything that a pod can be.

use serde_json::{Value, json};

use super::{collector, inject, is_up, status_of};
use crate::{
    kubectl::{apply, eventually, json, kubectl, sample_image},
    namespace::Namespace,
    webhook::{created, has_sidecar},
};

/// A container that the restricted Pod Security Standard admits, and that ends at once when told to.
fn container(name: &str) -> Value {
    json!({
        "name": name, "image": sample_image(), "command": ["sh", "-c", "trap exit TERM; sleep 100000 & wait"],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    })
}

/// An annotated pod template of one such container, labelled with `name`.
fn template(name: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}, "annotations": inject()},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container("app")],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

fn object(api_version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn bare_pod(name: &str, mut template: Value) -> Value {
    template["apiVersion"] = "v1".into();
    template["kind"] = "Pod".into();
    template["metadata"]["name"] = name.into();
    template
}

/// A template that ends by itself.
fn ending(name: &str) -> Value {
    let mut template = template(name);
    template["spec"]["restartPolicy"] = "Never".into();
    template["spec"]["containers"][0]["command"] = json!(["sh", "-c", "echo done > /data/job.log"]);
    template
}

/// Scenario: every kind of workload asks for the sidecar, in a namespace that enforces the restricted Pod Security
/// Standard; among them pods with 40 containers, with containers that come before, and of the class Guaranteed.
/// Guarantee: every pod has the sidecar once and last, and is Ready or has ended well; Guaranteed stays Guaranteed.
#[test]
fn whatever_makes_a_pod_it_runs_with_the_sidecar_under_the_restricted_standard() {
    let namespace = Namespace::new("kinds");
    kubectl(&["label", "namespace", &namespace.0, "pod-security.kubernetes.io/enforce=restricted"]);
    let workload = |kind: &str, name: &str, more: Value| {
        let mut spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template(name)});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object("apps/v1", kind, name, &spec)
    };
    let job = json!({"backoffLimit": 0, "template": ending("job")});
    let nightly = json!({"schedule": "0 3 1 1 *", "jobTemplate": {"spec": {"template": ending("nightly")}}});
    let mut many = template("many");
    many["spec"]["containers"] = (0..40).map(|number| container(&format!("app-{number}"))).collect();
    let mut full = template("full");
    full["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "50m", "memory": "32Mi"}});
    let mut helped = template("helped");
    let (mut first, mut beside) = (container("first"), container("beside"));
    first["command"] = json!(["true"]);
    beside["restartPolicy"] = "Always".into();
    helped["spec"]["initContainers"] = json!([first, beside]);
    for manifest in [
        workload("Deployment", "deployment", json!({"replicas": 2})),
        workload("StatefulSet", "set", json!({"serviceName": "set"})),
        workload("DaemonSet", "daemon", json!({})),
        object("batch/v1", "Job", "job", &job),
        object("batch/v1", "CronJob", "nightly", &nightly),
        bare_pod("bare", template("bare")),
        bare_pod("many", many),
        bare_pod("full", full),
        bare_pod("helped", helped),
    ] {
        apply(&namespace.0, &manifest.to_string());
    }
    kubectl(&["create", "job", "-n", &namespace.0, "--from=cronjob/nightly", "tonight"]);
    let pods = eventually("every pod up or done", 180, || {
        let pods = json(&["get", "pods", "-n", &namespace.0])["items"].as_array().unwrap().clone();
        let names = ["deployment", "set", "daemon", "job", "nightly", "bare", "many", "full", "helped"];
        let missing: Vec<_> = names
            .into_iter()
            .filter(|name| !pods.iter().any(|pod| pod["metadata"]["labels"]["app"] == *name))
            .map(str::to_owned)
            .chain(pods.iter().filter(|pod| !is_up(pod)).map(status_of))
            .collect();
        if missing.is_empty() { Ok(pods) } else { Err(format!("{missing:?}")) }
    });
    for pod in &pods {
        let all = pod["spec"]["initContainers"].as_array().unwrap();
        let ours: Vec<_> = all.iter().filter(|container| container["name"] == "kestrel-collector").collect();
        assert_eq!(ours.len(), 1, "{}", status_of(pod));
        assert_eq!(all.last(), ours.first().copied(), "{}", status_of(pod));
        let expected = if pod["metadata"]["name"] == "full" { "Guaranteed" } else { "Burstable" };
        assert_eq!(pod["status"]["qosClass"], expected, "{}", status_of(pod));
    }
}

/// Scenario: a pod mounts volumes of every type that this cluster has.
/// Guarantee: it runs, its own volumes and mounts are as it said, and the sidecar mounts of them the emptyDir on
/// disk alone.
#[test]
fn volumes_stay_as_they_are_and_the_sidecar_mounts_only_what_it_reads() {
    let namespace = Namespace::new("volumes");
    let name = &namespace.0;
    let access = json!({
        "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": format!("/tmp/{name}"), "type": "DirectoryOrCreate"},
    });
    let claim = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": name, "resources": {"requests": {"storage": "1Mi"}},
    });
    apply(name, &object("v1", "PersistentVolume", name, &access).to_string());
    apply(name, &object("v1", "PersistentVolumeClaim", "claim", &claim).to_string());
    kubectl(&["create", "configmap", "-n", name, "config", "--from-literal=key=value"]);
    kubectl(&["create", "secret", "generic", "-n", name, "secret", "--from-literal=key=value"]);
    let token = json!({"serviceAccountToken": {"path": "token"}});
    let label = json!({"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}});
    let volumes = json!([
        {"name": "data", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "config", "configMap": {"name": "config"}},
        {"name": "secret", "secret": {"secretName": "secret"}},
        {"name": "downward", "downwardAPI": {"items": [label]}},
        {"name": "projected", "projected": {"sources": [token, {"configMap": {"name": "config"}}]}},
        {"name": "host", "hostPath": {"path": "/tmp", "type": "Directory"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
    ]);
    let names: Vec<&str> =
        volumes.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    let mounts: Vec<_> = names
        .iter()
        .map(|volume| json!({"name": volume, "mountPath": format!("/volumes/{volume}")}))
        .collect();
    let mut pod = bare_pod("volumes", template("volumes"));
    pod["spec"]["volumes"] = volumes.clone();
    pod["spec"]["containers"][0]["volumeMounts"] = mounts.clone().into();
    apply(name, &pod.to_string());
    let pod = eventually("the pod", 90, || {
        let pod = json(&["get", "pod", "-n", name, "volumes"]);
        if is_up(&pod) { Ok(pod) } else { Err(status_of(&pod)) }
    });
    kubectl(&["delete", "pv", name, "--wait=false"]);
    let named = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let stored = named(&pod["spec"]["volumes"]);
    assert_eq!(stored[..names.len()], names, "{stored:?}");
    let own = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    assert_eq!(own[..mounts.len()], mounts, "{own:?}");
    let ours = named(&collector(&pod)["volumeMounts"]);
    assert!(ours.contains(&"data".to_owned()), "{ours:?}");
    assert!(names[1..].iter().all(|volume| !ours.contains(&(*volume).to_owned())), "{ours:?}");
}

/// Scenario: namespaces with a LimitRange, and with quotas that leave room for the pod alone.
/// Guarantee: no pod is refused: the sidecar fits into the range, and where a quota has no room for it the pod is
/// created without and says so.
#[test]
fn no_pod_is_refused_for_the_sidecar() {
    let namespace = Namespace::new("limits");
    let range = json!({"limits": [{
        "type": "Container", "min": {"memory": "24Mi", "cpu": "10m"}, "max": {"memory": "256Mi", "cpu": "1"},
        "default": {"memory": "64Mi", "cpu": "100m"}, "defaultRequest": {"memory": "32Mi", "cpu": "10m"},
        "maxLimitRequestRatio": {"memory": "2"},
    }]});
    apply(&namespace.0, &object("v1", "LimitRange", "range", &range).to_string());
    eventually("a sidecar that fits", 30, || {
        let stored = created(&namespace.0, &bare_pod("fits", template("fits")))?;
        if has_sidecar(&stored) { Ok(()) } else { Err(status_of(&stored)) }
    });

    let quota = json!({"hard": {"limits.memory": "100Mi", "requests.cpu": "1"}});
    apply(&namespace.0, &object("v1", "ResourceQuota", "quota", &quota).to_string());
    let stored = eventually("no room for the sidecar", 30, || {
        let stored = created(&namespace.0, &bare_pod("alone", template("alone")))?;
        if has_sidecar(&stored) { Err(status_of(&stored)) } else { Ok(stored) }
    });
    let status = stored["metadata"]["annotations"]["kestrel.ai/status"].as_str().unwrap_or_default();
    assert!(status.starts_with("skipped (quota): ResourceQuota quota: limits.memory"), "{status:?}");
}

/// Scenario: a pod of about 1 MiB is created as a dry run.
/// Guarantee: it gets the sidecar, nothing of it is lost, and nothing is left behind.
#[test]
fn a_large_pod_is_injected_and_a_dry_run_leaves_nothing() {
    let namespace = Namespace::new("large");
    let mut pod = bare_pod("large", template("large"));
    let value = "x".repeat(100 * 1024);
    let env: Vec<_> = (0..10).map(|number| json!({"name": format!("V{number}"), "value": value})).collect();
    pod["spec"]["containers"][0]["env"] = env.clone().into();
    let stored = created(&namespace.0, &pod).unwrap();
    assert!(has_sidecar(&stored));
    assert_eq!(stored["spec"]["containers"][0]["env"], Value::from(env));
    assert_eq!(json(&["get", "pods,events", "-n", &namespace.0])["items"], json!([]));
}
