//! What the API server stores of pods with the sidecar, beside what it stores of the same pods without.

use fastrand::Rng;
use serde_json::{Value, json};

use super::collector;
use crate::{kubectl::sample_image, namespace::Namespace, webhook::created};

const PODS: u64 = 60;
const KINDS: [&str; 7] =
    ["emptyDir", "memory", "configMap", "secret", "downwardAPI", "projected", "persistentVolumeClaim"];

/// A volume of a kind, whose object need not be there.
fn volume(name: &str, kind: &str) -> Value {
    let label = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
    match kind {
        "memory" => json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        "configMap" => json!({"name": name, "configMap": {"name": "nobody", "optional": true}}),
        "secret" => json!({"name": name, "secret": {"secretName": "nobody", "optional": true}}),
        "downwardAPI" => json!({"name": name, "downwardAPI": {"items": [label]}}),
        "projected" => json!({"name": name, "projected": {"sources": [{"downwardAPI": {"items": [label]}}]}}),
        "persistentVolumeClaim" => json!({"name": name, "persistentVolumeClaim": {"claimName": "nobody"}}),
        _ => json!({"name": name, "emptyDir": {}}),
    }
}

fn container(rng: &mut Rng, name: &str, volumes: &[Value]) -> Value {
    let mut container = json!({"name": name, "image": sample_image(), "command": ["sleep", "1"]});
    let mounts: Vec<_> = volumes
        .iter()
        .filter_map(|volume| {
            let name = volume["name"].as_str().unwrap();
            let mount =
                || json!({"name": name, "mountPath": format!("/mnt/{name}"), "readOnly": name < "v3"});
            rng.bool().then(mount)
        })
        .collect();
    container["volumeMounts"] = mounts.into();
    for (field, value) in [
        (
            "env",
            json!([{"name": "A", "value": "$(B) \u{e4}\"\\"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        ),
        ("ports", json!([{"containerPort": 8080, "name": "http"}])),
        ("resources", json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "1", "memory": "64Mi"}})),
        ("securityContext", json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}})),
        ("terminationMessagePolicy", json!("FallbackToLogsOnError")),
        ("workingDir", json!("/tmp")),
    ] {
        if rng.bool() {
            container[field] = value;
        }
    }
    container
}

/// A pod that API servers take, with much that the webhook does not know.
fn generated(seed: u64) -> Value {
    let mut rng = Rng::with_seed(seed);
    let volumes: Vec<_> = (0..rng.usize(..6))
        .map(|number| volume(&format!("v{number}"), KINDS[rng.usize(..KINDS.len())]))
        .collect();
    let containers: Vec<_> =
        (0..rng.usize(1..6)).map(|number| container(&mut rng, &format!("c{number}"), &volumes)).collect();
    let initial: Vec<_> = (0..rng.usize(..3))
        .map(|number| {
            let mut container = container(&mut rng, &format!("i{number}"), &volumes);
            if rng.bool() {
                container["restartPolicy"] = json!("Always");
            }
            container
        })
        .collect();
    let mut spec = json!({"automountServiceAccountToken": false, "containers": containers});
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}});
    let affinity = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}});
    let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]);
    for (field, value) in [
        ("volumes", Value::from(volumes.clone())),
        ("initContainers", Value::from(initial)),
        ("affinity", affinity),
        ("topologySpreadConstraints", spread),
        ("tolerations", json!([{"operator": "Exists"}])),
        ("hostAliases", json!([{"ip": "10.0.0.1", "hostnames": ["x"]}])),
        ("dnsConfig", json!({"options": [{"name": "ndots", "value": "1"}]})),
        ("securityContext", json!({"runAsUser": 1000, "fsGroup": 2000, "sysctls": []})),
        ("readinessGates", json!([{"conditionType": "example.com/ready"}])),
        ("shareProcessNamespace", json!(true)),
    ] {
        // Containers may mount every volume.
        if field == "volumes" || rng.bool() {
            spec[field] = value;
        }
    }
    let mut metadata = json!({"name": format!("pod-{seed}"), "annotations": {"example.com/a.b": "c"}});
    if rng.bool() {
        metadata["labels"] = json!({"example.com/team": "shop"});
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// Without what each creation sets anew.
fn lasting(mut pod: Value) -> Value {
    for field in ["uid", "creationTimestamp", "managedFields", "generation"] {
        pod["metadata"].as_object_mut().unwrap().remove(field);
    }
    pod.as_object_mut().unwrap().remove("status");
    pod
}

fn remove_empty(object: &mut Value, field: &str) {
    let is_empty = match &object[field] {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if is_empty {
        object.as_object_mut().unwrap().remove(field);
    }
}

/// Without what the webhook adds.
fn without_sidecar(mut pod: Value) -> Value {
    for (field, keys) in [
        (
            "annotations",
            &[
                "kestrel.ai/inject",
                "kestrel.ai/status",
                "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
            ][..],
        ),
        ("labels", &["kestrel.ai/injected"]),
    ] {
        for key in keys {
            pod["metadata"][field].as_object_mut().unwrap().remove(*key);
        }
        remove_empty(&mut pod["metadata"], field);
    }
    for field in ["volumes", "initContainers"] {
        let is_ours = |item: &Value| item["name"].as_str().is_some_and(|name| name.starts_with("kestrel-"));
        pod["spec"][field].as_array_mut().unwrap().retain(|item| !is_ours(item));
        remove_empty(&mut pod["spec"], field);
    }
    pod
}

/// Scenario: pods of all shapes are created without the annotation, with it, and then once more as they were stored.
/// Guarantee: what is stored with it is what is stored without, and the sidecar; once more nothing is added.
#[test]
fn what_is_stored_is_the_pod_and_the_sidecar_and_nothing_else() {
    let namespace = Namespace::new("stored");
    for seed in 0..PODS {
        let plain = generated(seed);
        let mut asking = plain.clone();
        asking["metadata"]["annotations"]["kestrel.ai/inject"] = json!("true");
        let stored = |pod: &Value| {
            lasting(created(&namespace.0, pod).unwrap_or_else(|why| panic!("seed {seed}: {why}")))
        };
        let (without, with) = (stored(&plain), stored(&asking));
        assert!(!collector(&with).is_null(), "seed {seed}: {}", with["metadata"]["annotations"]);
        assert_eq!(without_sidecar(with.clone()), without, "seed {seed}");
        assert_eq!(stored(&with), with, "seed {seed}, again");
    }
}
