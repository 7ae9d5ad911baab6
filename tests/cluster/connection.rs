//! What the cloud knows of the cluster, and what it may ask.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kubectl::{OPERATOR, cloud, cloud_post, eventually, json, kubectl, pods_of};

/// `namespace/name` of everything that `kubectl get` lists.
fn in_the_cluster(resource: &str) -> BTreeSet<String> {
    let list = json(&["get", resource, "--all-namespaces"]);
    list["items"].as_array().unwrap().iter().map(|object| key(&object["metadata"])).collect()
}

/// `namespace/name` of everything of a kind at the cloud.
fn at_the_cloud(path: &str) -> BTreeSet<String> {
    cloud(path).as_array().unwrap().iter().map(key).collect()
}

fn key(object: &Value) -> String {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// Scenario: the operator has connected.
/// Guarantee: one connection with five streams, and an inventory that equals the cluster.
#[test]
fn the_inventory_equals_the_cluster() {
    eventually("a committed inventory", 60, || {
        let summary = cloud("/v1/summary");
        let committed = summary["inventory"]["commits"].as_array().is_some_and(|commits| !commits.is_empty());
        if committed { Ok(()) } else { Err(summary.to_string()) }
    });
    for (resource, path) in [("pods", "/v1/pods"), ("nodes", "/v1/nodes"), ("namespaces", "/v1/namespaces")] {
        eventually("equal sets of names", 60, || {
            let (here, there) = (in_the_cluster(resource), at_the_cloud(path));
            if here == there {
                Ok(())
            } else {
                Err(format!("{resource}: {:?}", here.symmetric_difference(&there)))
            }
        });
    }
    let workloads = ["deployments", "daemonsets", "replicasets"].map(in_the_cluster).into_iter().flatten();
    let there = at_the_cloud("/v1/workloads");
    let missing: Vec<_> = workloads.filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let connections = cloud("/v1/connections");
    let open = connections["open"].as_array().unwrap();
    assert_eq!(open.len(), 1, "{connections}");
    assert_eq!(open[0]["streams"].as_object().unwrap().len(), 5, "{connections}");
}

/// Scenario: the cloud asks for a plain GET, for a path that is not allowed, and for one that does not exist.
/// Guarantee: each gets its own true answer.
#[test]
fn a_request_of_the_cloud_is_answered() {
    let request = json!({"kubernetes_api_request": {"api_paths": [
        "api/v1/namespaces/kestrel-ai",
        "api/v1/namespaces/kestrel-ai/secrets/kestrel-agent-link",
        "api/v1/namespaces/no-such-namespace",
    ]}});
    let answer = cloud_post("/v1/send", &request);
    let results = &answer["answer"]["message"]["results"];
    let codes: Vec<_> = (0..3).map(|index| results[index]["status_code"].as_i64()).collect();
    assert_eq!(codes, [Some(200), Some(403), Some(404)], "{answer}");
    let namespace: Value = serde_json::from_str(results[0]["response_data"].as_str().unwrap()).unwrap();
    assert_eq!(namespace["metadata"]["name"], "kestrel-ai");
    assert!(namespace["metadata"]["managedFields"].is_null());
}

/// Scenario: every node has an agent.
/// Guarantee: the cloud knows each node's conditions as its host shows them, beside the API server's.
#[test]
fn host_conditions_reach_the_cloud() {
    for node in in_the_cluster("nodes") {
        let name = node.trim_start_matches('/');
        eventually("the node's conditions", 90, || {
            let signals = cloud(&format!("/v1/signals?name={name}"));
            let text = signals.to_string();
            let all = [
                "kestrel.ai/MemoryPressure",
                "kestrel.ai/DiskPressure",
                "kestrel.ai/PIDPressure",
                "\"Ready\"",
            ];
            if all.iter().all(|condition| text.contains(condition)) { Ok(()) } else { Err(text) }
        });
    }
}

/// Scenario: a person reads the log of a node's agent.
/// Guarantee: it tells what the agent follows, in sentences.
#[test]
fn the_agents_log_is_its_nodes_story() {
    let agents = pods_of("node-agent");
    assert_eq!(agents.len(), in_the_cluster("nodes").len());
    for agent in agents {
        let log = kubectl(&["logs", "-n", OPERATOR, &agent]);
        assert!(log.contains("follow"), "{log}");
    }
}
