//! Roll-outs and Jobs.

use serde_json::{Value, json};

use super::{expect_story, signals, story};
use crate::{
    kubectl::{apply, cloud, kubectl, rolled_out, sample_image},
    namespace::Namespace,
};

const WORKLOAD: &str = "workload_rollout_status";

fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 10,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "app", "image": image, "command": ["sh", "-c", "exec sleep 100000"],
                    }],
                },
            },
        },
    })
}

/// Scenario: a Deployment of 30 replicas is made, rolled and deleted.
/// Guarantee: nothing is told of it.
#[test]
fn a_healthy_roll_out_of_30_replicas() {
    let namespace = Namespace::new("healthy");
    let mut manifest = deployment("web", 30, &sample_image());
    manifest["spec"]["progressDeadlineSeconds"] = 300.into();
    apply(&namespace.0, &manifest.to_string());
    rolled_out(&namespace.0, "deployment/web");
    kubectl(&["rollout", "restart", "-n", &namespace.0, "deployment/web"]);
    rolled_out(&namespace.0, "deployment/web");
    kubectl(&["scale", "-n", &namespace.0, "deployment/web", "--replicas=0"]);
    rolled_out(&namespace.0, "deployment/web");
    kubectl(&["delete", "deployment", "-n", &namespace.0, "web"]);
    // What is told of this came after.
    let mut last = deployment("last", 1, "localhost/no-such-image:1");
    last["spec"]["replicas"] = 1.into();
    apply(&namespace.0, &last.to_string());
    expect_story(WORKLOAD, &namespace.0, "last", &["CREATE +RolloutStalled"]);
    let told = cloud(&format!("/v1/signals?namespace={}&limit=1000", namespace.0));
    let of_web = told.as_array().unwrap().iter().filter(|signal| {
        signal["kind"] != "kubernetes_event" && signal["name"].as_str().unwrap().starts_with("web")
    });
    assert_eq!(of_web.count(), 0, "{told:#}");
}

/// Scenario: a roll-out to an image that is nowhere, then back.
/// Guarantee: told when the roll-out's deadline has passed, and its end.
#[test]
fn a_roll_out_that_stalls() {
    let namespace = Namespace::new("stalled");
    apply(&namespace.0, &deployment("api", 2, &sample_image()).to_string());
    rolled_out(&namespace.0, "deployment/api");
    kubectl(&["set", "image", "-n", &namespace.0, "deployment/api", "app=localhost/no-such-image:1"]);
    expect_story(WORKLOAD, &namespace.0, "api", &["CREATE +RolloutStalled"]);
    let told = signals(WORKLOAD, &namespace.0, "api");
    assert_eq!(told[0]["message"]["rollout_status"], "TimedOut", "{told:#?}");
    kubectl(&["rollout", "undo", "-n", &namespace.0, "deployment/api"]);
    expect_story(WORKLOAD, &namespace.0, "api", &["CREATE +RolloutStalled", "UPDATE -RolloutStalled"]);
    let told = signals(WORKLOAD, &namespace.0, "api");
    let state = &told.last().unwrap()["message"]["rollout_status"];
    assert!(state == "Progressing" || state == "Complete", "{told:#?}");
}

/// Scenario: a Job fails after a retry, and is deleted.
/// Guarantee: one incident, of the Job; its pods open none.
#[test]
fn a_failing_job() {
    let namespace = Namespace::new("job");
    let manifest = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "report"},
        "spec": {
            "backoffLimit": 1,
            "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "app", "image": sample_image(), "command": ["sh", "-c", "exit 4"]}],
            }},
        },
    });
    apply(&namespace.0, &manifest.to_string());
    expect_story(WORKLOAD, &namespace.0, "report", &["CREATE +JobFailed"]);
    let pods = kubectl(&["get", "pods", "-n", &namespace.0, "-o", "jsonpath={.items[*].metadata.name}"]);
    for pod in pods.split_whitespace() {
        assert_eq!(story("pod_status_change", &namespace.0, pod), [""; 0]);
    }
    kubectl(&["delete", "job", "-n", &namespace.0, "report"]);
    expect_story(WORKLOAD, &namespace.0, "report", &["CREATE +JobFailed", "DELETE +JobFailed"]);
}
