//! What the node agent sees of its host: real faults, each seen, told and over.

use serde_json::json;

use super::{
    events_about,
    node::{expendable_node, on_node, story_until},
    signals,
};
use crate::{
    kubectl::{OPERATOR, agent_log, apply, eventually, json, kubectl, pods_of, sample_image},
    namespace::Namespace,
};

const NODE: &str = "node_condition_change";
const DISK: &str = "kestrel.ai/DiskPressure";
const RUNTIME: &str = "kestrel.ai/RuntimeReady";

/// What `hack/test` has the agents watch, see `values.yaml`.
const FOLDER: &str = "/run/kestrel-disk";

/// Waits until a node's agent has written lines after the first `known` ones, one after the other, that have
/// these parts.
fn wait_for_story(node: &str, known: usize, story: &[&[&str]]) {
    eventually(&format!("the story of {node}: {story:?}"), 60, || {
        let log = agent_log(node);
        let mut lines = log.lines().skip(known);
        let mut told = |parts: &[&str]| lines.any(|line| parts.iter().all(|part| line.contains(part)));
        if story.iter().all(|parts| told(parts)) { Ok(()) } else { Err(log) }
    });
}

/// Scenario: a container takes more memory than its limit.
/// Guarantee: the kill is one event of the pod, with process, container and limit, told by the agent of its node
/// alone, which names it in its log.
#[test]
fn a_process_that_the_kernel_kills() {
    let namespace = Namespace::new("oom");
    let node = expendable_node();
    let known = agent_log(&node).lines().count();
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "glutton"},
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "glutton", "image": sample_image(),
                "command": ["sh", "-c", "tail -c 200000000 /dev/zero"],
                "resources": {"limits": {"memory": "24Mi"}},
            }],
        },
    });
    apply(&namespace.0, &manifest.to_string());
    let kill = eventually("the kill", 90, || {
        let mut kills = events_about(&namespace.0, "glutton");
        kills.retain(|told| {
            told["reason"] == "OOMKilled" && told["source"]["component"] == "kestrel-node-agent"
        });
        match &kills[..] {
            [kill] => Ok(kill.clone()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(kill["source"]["host"], *node);
    let message = kill["message"].as_str().unwrap();
    for part in [
        "the kernel killed ",
        " (pid ",
        " in container ",
        &format!("of pod {}/glutton", namespace.0),
        "limit of the",
    ] {
        assert!(message.contains(part), "{message}");
    }
    wait_for_story(&node, known, &[&["the kernel killed ", &format!("{}/glutton", namespace.0)]]);
    for other in pods_of("node-agent") {
        let log = kubectl(&["logs", "-n", OPERATOR, &other]);
        let is_of_node = json(&["get", "pod", "-n", OPERATOR, &other])["spec"]["nodeName"] == *node;
        let of_pod = format!("of pod {}/glutton: the limit", namespace.0);
        assert_eq!(log.contains(&of_pod), is_of_node, "{other}");
    }
}

/// Scenario: a file system of a node, a tmpfs made for it, is filled to 95 % and emptied.
/// Guarantee: one incident of the node, from then to then; the agent's log names the folder.
#[test]
fn a_file_system_that_fills_up() {
    let namespace = Namespace::new("disk");
    let node = expendable_node();
    let known = agent_log(&node).lines().count();
    let before = signals(NODE, "", &node).len();
    let script = format!(
        "in_node() {{ nsenter -t 1 -m -- \"$@\"; }}
        in_node mount -t tmpfs -o size=20m tmpfs {FOLDER} || exit
        trap 'in_node umount {FOLDER}; exit' TERM
        in_node dd if=/dev/zero of={FOLDER}/fill bs=1M count=19
        i=0; until [ -e /tmp/seen ] || [ $((i+=1)) -gt 180 ]; do sleep 0.5; done
        in_node umount {FOLDER}"
    );
    on_node(&namespace.0, &node, &script);
    story_until(&node, before, DISK, &format!("{DISK}=True"));
    kubectl(&["exec", "-n", &namespace.0, "surgeon", "--", "touch", "/tmp/seen"]);
    story_until(&node, before, DISK, &format!("{DISK}=False"));
    wait_for_story(&node, known, &[&[DISK, "is True", FOLDER], &[DISK, "is False", FOLDER]]);
}

/// Scenario: the container runtime of a node stands still for 30 seconds.
/// Guarantee: the node is in trouble while the API server still calls it Ready, and is well again after; the
/// agent's log says both.
#[test]
fn a_runtime_that_stands_still() {
    let namespace = Namespace::new("runtime");
    let node = expendable_node();
    let known = agent_log(&node).lines().count();
    let before = signals(NODE, "", &node).len();
    on_node(&namespace.0, &node, "pid=$(pidof containerd) && kill -STOP $pid && sleep 30; kill -CONT $pid");
    story_until(&node, before, RUNTIME, &format!("{RUNTIME}=False"));
    let told = signals(NODE, "", &node);
    let conditions = &told.last().unwrap()["message"]["conditions"];
    let ready = conditions.as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap();
    assert_eq!(ready["status"], "True", "both views in one message");
    story_until(&node, before, RUNTIME, &format!("{RUNTIME}=True"));
    wait_for_story(&node, known, &[&[RUNTIME, "is False", "has not answered for"], &[RUNTIME, "is True"]]);
}
