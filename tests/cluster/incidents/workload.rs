//! Roll-outs and Jobs.

use serde_json::{Value, json};

use super::{expect_after, expect_story, settled, signals, story};
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
    let mut manifest = deployment("api", 2, &sample_image());
    manifest["spec"]["progressDeadlineSeconds"] = 300.into();
    apply(&namespace.0, &manifest.to_string());
    rolled_out(&namespace.0, "deployment/api");
    apply(&namespace.0, &deployment("api", 2, "localhost/no-such-image:1").to_string());
    expect_story(WORKLOAD, &namespace.0, "api", &["CREATE +RolloutStalled"]);
    let told = signals(WORKLOAD, &namespace.0, "api");
    assert_eq!(told[0]["message"]["rollout_status"], "TimedOut", "{told:#?}");
    kubectl(&["rollout", "undo", "-n", &namespace.0, "deployment/api"]);
    expect_story(WORKLOAD, &namespace.0, "api", &["CREATE +RolloutStalled", "UPDATE -RolloutStalled"]);
    let told = signals(WORKLOAD, &namespace.0, "api");
    let state = &told.last().unwrap()["message"]["rollout_status"];
    assert!(state == "Progressing" || state == "Complete", "{told:#?}");
}

/// Scenario: roll-outs of a StatefulSet and a DaemonSet, on which Kubernetes sets no deadline, to an image
/// that is nowhere, then back.
/// Guarantee: told when they have stood still for a while, and their ends.
#[test]
fn roll_outs_without_a_deadline_that_stall() {
    let namespace = Namespace::new("still");
    let all = [("StatefulSet", "statefulset/db", "db"), ("DaemonSet", "daemonset/probe", "probe")];
    for (kind, _, name) in all {
        let mut manifest = deployment(name, 2, &sample_image());
        manifest["kind"] = kind.into();
        let spec = manifest["spec"].as_object_mut().unwrap();
        spec.remove("progressDeadlineSeconds");
        if kind == "DaemonSet" {
            spec.remove("replicas");
        }
        apply(&namespace.0, &manifest.to_string());
    }
    let before = all.map(|(_, workload, name)| {
        rolled_out(&namespace.0, workload);
        let before = settled(WORKLOAD, &namespace.0, name);
        kubectl(&["set", "image", "-n", &namespace.0, workload, "app=localhost/no-such-image:1"]);
        before
    });
    for ((_, _, name), before) in all.iter().zip(&before) {
        expect_after(before, WORKLOAD, &namespace.0, name, &["CREATE +RolloutStalled"]);
        let told = signals(WORKLOAD, &namespace.0, name);
        assert_eq!(told.last().unwrap()["message"]["rollout_status"], "TimedOut", "{told:#?}");
    }
    for (_, workload, _) in all {
        kubectl(&["rollout", "undo", "-n", &namespace.0, workload]);
    }
    // A StatefulSet waits for a pod that can't become ready until somebody deletes it.
    kubectl(&["delete", "pod", "-n", &namespace.0, "db-1"]);
    for ((_, _, name), before) in all.iter().zip(&before) {
        let expected = ["CREATE +RolloutStalled", "UPDATE -RolloutStalled"];
        expect_after(before, WORKLOAD, &namespace.0, name, &expected);
    }
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

/// Scenario: of the Jobs of a CronJob one fails, one succeeds, one fails, and the CronJob is suspended.
/// Guarantee: two incidents, of the CronJob, over with the success and the suspension; its Jobs and their
/// pods have none.
#[test]
fn a_cron_job_whose_jobs_fail() {
    let namespace = Namespace::new("cron");
    let manifest = |script: &str, is_suspended: bool| {
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
            "spec": {
                // It would fire on some leap days.
                "schedule": "0 0 29 2 *",
                "suspend": is_suspended,
                "jobTemplate": {"spec": {
                    "backoffLimit": 0,
                    "template": {"spec": {
                        "restartPolicy": "Never",
                        "containers": [{
                            "name": "app", "image": sample_image(), "command": ["sh", "-c", script],
                        }],
                    }},
                }},
            },
        })
    };
    let fires = |job: &str, script: &str| {
        apply(&namespace.0, &manifest(script, false).to_string());
        kubectl(&["create", "job", "-n", &namespace.0, job, "--from=cronjob/nightly"]);
    };
    let told = ["CREATE +JobFailed", "UPDATE -JobFailed", "CREATE +JobFailed", "UPDATE -JobFailed"];
    fires("first", "exit 5");
    expect_story(WORKLOAD, &namespace.0, "nightly", &told[..1]);
    fires("second", "exit 0");
    expect_story(WORKLOAD, &namespace.0, "nightly", &told[..2]);
    fires("third", "exit 6");
    expect_story(WORKLOAD, &namespace.0, "nightly", &told[..3]);
    apply(&namespace.0, &manifest("exit 6", true).to_string());
    expect_story(WORKLOAD, &namespace.0, "nightly", &told);
    let all = cloud(&format!("/v1/signals?namespace={}&limit=1000", namespace.0));
    let of_parts = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|signal| signal["kind"] != "kubernetes_event" && signal["name"] != "nightly");
    assert_eq!(of_parts.count(), 0, "{all:#}");
}
