//! Sidecars in trouble, and what the application notices of it.

use serde_json::{Value, json};

use super::{collector, inject, is_up, profile::Profile, status_of};
use crate::{
    kubectl::{OPERATOR, apply, attempt, eventually, json, kubectl},
    namespace::Namespace,
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

/// Scenario: sidecars cannot reach the aggregator, or meet somebody whom another authority vouches for.
/// Guarantee: the pods are Ready, the sidecars stay up and say what is wrong.
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
}

/// Scenario: the sidecar is killed, as the kernel does when its memory is short.
/// Guarantee: the application goes on without a restart; the pod is Ready again once the sidecar is.
#[test]
fn a_killed_sidecar_costs_the_application_nothing() {
    let namespace = Namespace::new("killed");
    let mut pod = pod("killed", &inject());
    // The application sees the sidecar, and may end it as it is of the same user.
    pod["spec"]["shareProcessNamespace"] = true.into();
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000});
    apply(&namespace.0, &pod.to_string());
    let look = || json(&["get", "pod", "-n", &namespace.0, "killed"]);
    let up = |what: &str, restarts: u64| {
        eventually(what, 90, || {
            let pod = look();
            if is_up(&pod) && state(&pod)["restartCount"] == restarts { Ok(()) } else { Err(status_of(&pod)) }
        });
    };
    up("Ready", 0);
    let kill = "kill -9 $(pidof kestrel-collector)";
    kubectl(&["exec", "-n", &namespace.0, "killed", "-c", "app", "--", "sh", "-c", kill]);
    up("Ready again", 1);
    let pod = look();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(state(&pod)["lastState"]["terminated"]["exitCode"], 137, "{}", state(&pod));
}
