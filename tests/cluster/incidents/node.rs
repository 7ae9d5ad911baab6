//! Nodes, and the agents on them.

use serde_json::json;

use super::{findings, signals};
use crate::{
    kubectl::{OPERATOR, apply, eventually, json, kubectl, sample_image},
    namespace::Namespace,
};

/// Runs a script on a node that sees the node's processes.
fn on_node(namespace: &str, node: &str, script: &str) {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "surgeon"},
        "spec": {
            "nodeName": node, "hostPID": true, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "surgeon", "image": sample_image(), "command": ["sh", "-c", script],
                "securityContext": {"runAsUser": 0},
            }],
        },
    });
    apply(namespace, &manifest.to_string());
}

/// A node whose trouble takes nothing from us but its own: the cloud runs elsewhere.
fn expendable_node() -> String {
    let cloud = json(&["get", "pods", "-n", "kestrel-cloud"]);
    let of_cloud: Vec<_> =
        cloud["items"].as_array().unwrap().iter().map(|pod| &pod["spec"]["nodeName"]).collect();
    let nodes = json(&["get", "nodes"]);
    let mut names = nodes["items"].as_array().unwrap().iter().map(|node| &node["metadata"]["name"]);
    names.find(|name| !of_cloud.contains(name)).unwrap().as_str().unwrap().to_owned()
}

/// Scenario: a node's kubelet stands still until the node is given up, then goes on.
/// Guarantee: told that the node is not ready, and that it is again.
#[test]
fn a_kubelet_that_stops() {
    let namespace = Namespace::new("kubelet");
    let node = expendable_node();
    let before = signals("node_condition_change", "", &node).len();
    // Long enough for the node to be given up (16 s), too short for its pods to be (30 s later).
    let script = "kubelet=$(pidof kubelet) && kill -STOP $kubelet && sleep 28; kill -CONT $kubelet";
    on_node(&namespace.0, &node, script);
    let ready = |status: &str| {
        eventually(&format!("{node} told with Ready={status}"), 90, || {
            let told = signals("node_condition_change", "", &node).split_off(before);
            let is_told = told.iter().position(|signal| {
                let conditions = signal["message"]["conditions"].as_array().unwrap();
                conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == status)
            });
            is_told.map(|index| (told[index].clone(), told.len())).ok_or_else(|| format!("{told:#?}"))
        })
    };
    let (opened, _) = ready("Unknown");
    assert_eq!(opened["action"], "CREATE", "{opened:#}");
    let open: Vec<_> = findings(&opened).map(|(kind, ..)| kind).collect();
    println!("open: {open:?}");
    kubectl(&["wait", &format!("node/{node}"), "--for=condition=Ready", "--timeout=60s"]);
    let (ended, _) = ready("True");
    assert_eq!(ended["action"], "UPDATE", "{ended:#}");
}

/// Scenario: a node's agent is killed.
/// Guarantee: the crash is told with its exit code, and its end when the agent has run for a while.
#[test]
fn a_node_agent_that_is_killed() {
    let namespace = Namespace::new("agent");
    let node = expendable_node();
    let agents = json(&["get", "pods", "-n", OPERATOR, "-l", "app.kubernetes.io/component=node-agent"]);
    let agent = agents["items"].as_array().unwrap().iter().find(|pod| pod["spec"]["nodeName"] == *node);
    let agent = agent.unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    on_node(&namespace.0, &node, "kill -KILL $(pidof kestrel-node-agent)");
    super::expect_story("pod_status_change", OPERATOR, &agent, &["CREATE +CrashLoop", "UPDATE -CrashLoop"]);
}
