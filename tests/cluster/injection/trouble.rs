//! Sidecars in trouble, and what the application notices of it.

use serde_json::{Value, json};

use super::{collector, coverage::event, file_writer, inject, is_up, messages, profile::Profile, status_of};
use crate::{
    incidents::events_about,
    kubectl::{OPERATOR, apply, attempt, eventually, json, kubectl, sample_image},
    namespace::Namespace,
    process,
    webhook::{created, pod},
};

fn state(pod: &Value) -> &Value {
    pod["status"]["initContainerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|status| status["name"] == "kestrel-collector")
        .unwrap_or(&Value::Null)
}

/// Scenario: sidecars cannot reach the aggregator (by a closed port, as the network of `hack/cluster` enforces no
/// NetworkPolicy), or meet somebody whom another authority vouches for.
/// Guarantee: the pods are Ready, the sidecars stay up and say what is wrong; an Event names the port to open.
#[test]
fn a_sidecar_without_its_link_leaves_the_pod_ready_and_says_why() {
    let namespace = Namespace::new("unlinked");
    let wrong = [
        ("nobody", format!("https://kestrel-agent-link.{OPERATOR}.svc:1"), "can't be reached"),
        ("stranger", format!("https://kestrel-webhook.{OPERATOR}.svc:443"), "authority that we do not trust"),
    ];
    let profiles: Vec<_> = wrong
        .iter()
        .map(|(name, endpoint, _)| {
            let spec = json!({"endpoint": endpoint, "podSelector": {"matchLabels": {"app": name}}});
            Profile::of_namespace(name, &namespace.0, &spec)
        })
        .collect();
    for ((name, endpoint, _), profile) in wrong.iter().zip(&profiles) {
        let mut pod = pod(name, &inject());
        pod["metadata"]["labels"] = json!({"app": name});
        eventually("the profile in use", 30, || {
            let stored = created(&namespace.0, &pod)?;
            let env = collector(&stored)["env"].to_string();
            if env.contains(endpoint.as_str()) { Ok(()) } else { Err(format!("{} {env}", profile.0)) }
        });
        apply(&namespace.0, &pod.to_string());
    }
    for (name, _, problem) in wrong {
        eventually("Ready, and the reason", 90, || {
            let pod = json(&["get", "pod", "-n", &namespace.0, name]);
            let log = attempt(&["logs", "-n", &namespace.0, name, "-c", "kestrel-collector"])?;
            if is_up(&pod) && log.contains(problem) {
                Ok(())
            } else {
                Err(format!("{} {log}", status_of(&pod)))
            }
        });
        let pod = json(&["get", "pod", "-n", &namespace.0, name]);
        assert_eq!(state(&pod)["restartCount"], 0, "{}", state(&pod));
    }
    let told = event(&namespace.0, "CollectorNotAttached", "nobody");
    println!("{told}");
    assert!(told.contains("TCP port 8443") && told.contains("NetworkPolicies"), "{told}");
}

/// Kills the sidecar from a container of the same user that sees its processes, and waits until it is Ready again.
pub(super) fn restart_collector(namespace: &str, pod: &str, container: &str) {
    let look = || json(&["get", "pod", "-n", namespace, pod]);
    let restarts = state(&look())["restartCount"].as_u64().unwrap() + 1;
    let kill = "kill -9 $(pidof kestrel-collector)";
    kubectl(&["exec", "-n", namespace, pod, "-c", container, "--", "sh", "-c", kill]);
    eventually("the sidecar again, and Ready", 90, || {
        let pod = look();
        if is_up(&pod) && state(&pod)["restartCount"] == restarts { Ok(()) } else { Err(status_of(&pod)) }
    });
}

/// Scenario: the kernel kills the sidecar, as its memory is at the limit.
/// Guarantee: the application goes on without a restart; the pod is Ready again once the sidecar is; the node's agent tells
/// of the kill.
#[test]
fn a_sidecar_that_the_kernel_kills_costs_the_application_nothing() {
    let namespace = Namespace::new("killed");
    let mut pod = pod(&namespace.0, &inject());
    // The application sees the sidecar, and may end it as it is of the same user.
    pod["spec"]["shareProcessNamespace"] = true.into();
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000});
    apply(&namespace.0, &pod.to_string());
    let look = || json(&["get", "pod", "-n", &namespace.0, &namespace.0]);
    kubectl(&[
        "wait",
        "-n",
        &namespace.0,
        "--for=condition=Ready",
        &format!("pod/{}", namespace.0),
        "--timeout=60s",
    ]);
    match process::of_pod("/kestrel-collector", &namespace.0) {
        Some(process) => {
            process::exhaust_memory_of(&process);
            eventually("the sidecar again, and Ready", 90, || {
                let pod = look();
                if is_up(&pod) && state(&pod)["restartCount"] == 1 { Ok(()) } else { Err(status_of(&pod)) }
            });
            eventually("the agent's words", 60, || {
                let told = events_about(&namespace.0, &namespace.0);
                let is_kill = |told: &Value| {
                    let message = told["message"].as_str().unwrap_or_default();
                    told["reason"] == "OOMKilled"
                        && message.contains("kestrel-collec")
                        && message.contains("limit of the")
                };
                if told.iter().any(is_kill) { Ok(()) } else { Err(format!("{told:?}")) }
            });
        }
        None => {
            println!("the pod is on another machine: its sidecar is killed from within instead");
            restart_collector(&namespace.0, &namespace.0, "app");
        }
    }
    let pod = look();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(state(&pod)["lastState"]["terminated"]["exitCode"], 137, "{}", state(&pod));
}

/// Puts a file system without room in the place of the sidecar's volume, as the node has it; where it is mounted.
fn fill_state_of(namespace: &str, pod: &Value) -> String {
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let place = format!("/pods/{uid}/volumes/kubernetes.io~empty-dir/kestrel-state");
    let script = format!(
        "mount -t tmpfs -o size=4k,mode=777 full {place} && dd if=/dev/zero of={place}/full bs=4k count=1 && \
         touch /tmp/done && exec sleep 100000"
    );
    let filler = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"},
        "spec": {
            "nodeName": pod["spec"]["nodeName"], "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "filler", "image": sample_image(), "command": ["sh", "-c", script],
                "securityContext": {"privileged": true, "runAsUser": 0},
                "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/done"]}, "periodSeconds": 1},
                "volumeMounts": [{"name": "pods", "mountPath": "/pods", "mountPropagation": "Bidirectional"}],
            }],
            "volumes": [{"name": "pods", "hostPath": {"path": "/var/lib/kubelet/pods"}}],
        },
    });
    apply(namespace, &filler.to_string());
    kubectl(&["wait", "-n", namespace, "--for=condition=Ready", "pod/filler", "--timeout=60s"]);
    place
}

/// Scenario: the sidecar's volume is full when it starts again.
/// Guarantee: the pod is Ready, and lines are sent; the sidecar says what a full volume means for them.
#[test]
fn a_full_volume_leaves_the_pod_ready_and_its_lines_are_sent() {
    let namespace = Namespace::new("full");
    let mut pod = file_writer(&inject(), "exec sleep 100000");
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    pod["metadata"]["name"] = "full".into();
    pod["spec"]["shareProcessNamespace"] = true.into();
    apply(&namespace.0, &pod.to_string());
    kubectl(&["wait", "-n", &namespace.0, "--for=condition=Ready", "pod/full", "--timeout=60s"]);
    let place = fill_state_of(&namespace.0, &json(&["get", "pod", "-n", &namespace.0, "full"]));
    restart_collector(&namespace.0, "full", "shop");
    let write = "echo order-1 >> /data/orders.log";
    kubectl(&["exec", "-n", &namespace.0, "full", "-c", "shop", "--", "sh", "-c", write]);
    eventually("the line at the cloud", 90, || {
        let lines = messages(&namespace.0, "shop", "order-1");
        if lines.is_empty() { Err("not there".to_owned()) } else { Ok(()) }
    });
    eventually("the sidecar's words", 60, || {
        let log = attempt(&["logs", "-n", &namespace.0, "full", "-c", "kestrel-collector"])?;
        if log.contains("positions cannot be kept") { Ok(()) } else { Err(log) }
    });
    let pod = json(&["get", "pod", "-n", &namespace.0, "full"]);
    assert!(is_up(&pod) && state(&pod)["restartCount"] == 1, "{}", status_of(&pod));
    kubectl(&["exec", "-n", &namespace.0, "filler", "--", "umount", &place]);
}
