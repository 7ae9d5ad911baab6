//! Nodes, and the agents on them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{component_signals, expect_after, is_one_incident, settled, signals, story};
use crate::{
    kubectl::{OPERATOR, apply, attempt, cloud, eventually, json, kubectl, sample_image},
    namespace::Namespace,
};

const NODE: &str = "node_condition_change";
const POD: &str = "pod_status_change";
const CORDONED: &str = "kestrel.ai/Cordoned";

/// Runs a script on a node that sees the node's processes and, below `/proc/1/root`, its files.
pub(super) fn on_node(namespace: &str, node: &str, script: &str) {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "surgeon"},
        "spec": {
            "nodeName": node, "hostPID": true, "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "surgeon", "image": sample_image(), "command": ["sh", "-c", script],
                "securityContext": {"runAsUser": 0, "privileged": true},
            }],
        },
    });
    apply(namespace, &manifest.to_string());
}

/// A pod that does nothing, on a node.
fn pod_on(node: &str, name: &str) -> Value {
    let container = json!({"name": "app", "image": sample_image(), "command": ["sleep", "100000"]});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}

/// A node whose trouble takes nothing from us but its own: the cloud runs elsewhere.
pub(crate) fn expendable_node() -> String {
    let cloud = json(&["get", "pods", "-n", "kestrel-cloud"]);
    let of_cloud: Vec<_> =
        cloud["items"].as_array().unwrap().iter().map(|pod| &pod["spec"]["nodeName"]).collect();
    let nodes = json(&["get", "nodes"]);
    let mut names = nodes["items"].as_array().unwrap().iter().map(|node| &node["metadata"]["name"]);
    names.find(|name| !of_cloud.contains(name)).unwrap().as_str().unwrap().to_owned()
}

/// What the cloud was told of one condition of a node in all messages after the first `known`
/// ones, in order: `Ready=Unknown`, `Ready=True`.
pub(super) fn story_of(node: &str, known: usize, kind: &str) -> Vec<String> {
    let told = signals(NODE, "", node).split_off(known);
    let told = told.iter().map(|signal| {
        let mut conditions = signal["message"]["conditions"].as_array().unwrap().iter();
        let status = conditions.find(|it| it["type"] == kind).map_or(&Value::Null, |it| &it["status"]);
        format!("{kind}={}", status.as_str().unwrap_or("?"))
    });
    // Messages about something else repeat it.
    let mut told: Vec<_> = told.collect();
    told.dedup();
    told
}

/// Waits until the last that is told of a condition is this; all of it.
pub(super) fn story_until(node: &str, known: usize, kind: &str, last: &str) -> Vec<String> {
    eventually(&format!("{node}: {last}"), 90, || {
        let told = story_of(node, known, kind);
        if told.last().is_some_and(|told| told == last) { Ok(told) } else { Err(format!("{told:?}")) }
    })
}

/// Namespace and name of each pod that is to stay on a node.
fn pods_on(node: &str) -> Vec<(String, String)> {
    let on_node = format!("--field-selector=spec.nodeName={node}");
    let pods = json(&["get", "pods", "--all-namespaces", &on_node]);
    let stay =
        pods["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |pod: &Value, field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
    stay.map(|pod| (text(pod, "namespace"), text(pod, "name"))).collect()
}

/// Scenario: a node's kubelet stands still until the node is given up, then goes on.
/// Guarantee: one incident of the node, from when Kubernetes gives it up until it is ready again; its
/// pods open none.
#[test]
fn a_kubelet_that_stops() {
    let namespace = Namespace::new("kubelet");
    let node = expendable_node();
    let pods = pods_on(&node);
    let stories: Vec<_> = pods.iter().map(|(namespace, name)| settled(POD, namespace, name)).collect();
    let known = signals(NODE, "", &node).len();
    // Long enough for the node to be given up (16 s), too short for its pods to be (30 s later).
    let script = "kubelet=$(pidof kubelet) && kill -STOP $kubelet && sleep 28; kill -CONT $kubelet";
    on_node(&namespace.0, &node, script);
    story_until(&node, known, "Ready", "Ready=Unknown");
    kubectl(&["wait", &format!("node/{node}"), "--for=condition=Ready", "--timeout=60s"]);
    let mut told = story_until(&node, known, "Ready", "Ready=True");
    // A kubelet that was away may first find that it has not heard of its runtime for 30 seconds.
    told.retain(|told| told != "Ready=False");
    assert!(told.ends_with(&["Ready=Unknown", "Ready=True"].map(String::from)), "{told:?}");
    let done = "--for=jsonpath={.status.phase}=Succeeded";
    kubectl(&["wait", "-n", &namespace.0, "pod/surgeon", done, "--timeout=60s"]);
    assert!(!pods.is_empty());
    for ((namespace, name), before) in pods.iter().zip(stories) {
        assert_eq!(story(POD, namespace, name), before, "{name} on {node}");
    }
}

/// Makes a node take pods again.
struct Cordoned(String);

impl Drop for Cordoned {
    fn drop(&mut self) {
        let _best_effort = attempt(&["uncordon", &self.0]);
    }
}

/// Scenario: a node is drained of a pod, which does not end until it is killed, and then uncordoned.
/// Guarantee: one incident, of the node, and its end; the pod has none.
#[test]
fn a_drain() {
    let namespace = Namespace::new("drain");
    let node = Cordoned(expendable_node());
    let mut guest = pod_on(&node.0, "guest");
    guest["metadata"]["labels"] = json!({"purpose": "drain"});
    guest["spec"]["terminationGracePeriodSeconds"] = 2.into();
    apply(&namespace.0, &guest.to_string());
    kubectl(&["wait", "-n", &namespace.0, "pod/guest", "--for=condition=Ready", "--timeout=60s"]);
    let known = signals(NODE, "", &node.0).len();
    kubectl(&["drain", &node.0, "--pod-selector=purpose=drain", "--force", "--timeout=60s"]);
    story_until(&node.0, known, CORDONED, &format!("{CORDONED}=True"));
    kubectl(&["uncordon", &node.0]);
    let told = story_until(&node.0, known, CORDONED, &format!("{CORDONED}=False"));
    assert!(told.ends_with(&["True", "False"].map(|status| format!("{CORDONED}={status}"))), "{told:?}");
    assert_eq!(story(POD, &namespace.0, "guest"), [""; 0]);
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
    let before = settled(POD, OPERATOR, &agent);
    on_node(&namespace.0, &node, "kill -KILL $(pidof kestrel-node-agent)");
    expect_after(&before, POD, OPERATOR, &agent, &["CREATE +CrashLoop", "UPDATE -CrashLoop"]);
}

/// Scenario: no pod of a node gets a network, as its CNI is configured with a plugin that is not
/// there; four pods are made on it, then the configuration is mended.
/// Guarantee: one incident, of the node's CNI, which ends when all have a network; the pods have none, and
/// from the third on not even their events are told.
#[test]
fn a_node_that_gives_pods_no_network() {
    let namespace = Namespace::new("network");
    let node = expendable_node();
    let known = component_signals("", &node).len();
    let script = format!(
        "cd /proc/1/root/run/kestrel/cluster/{node}/cni || cd /proc/1/root/etc/cni/net.d || exit
        cp *.conflist /tmp
        mend() {{ cp /tmp/*.conflist . && sync; }}
        trap 'mend; exit' TERM
        sed -i 's/\"type\": *\"/&no-such-/' *.conflist
        i=0; until [ -e /tmp/mended ] || [ $((i+=1)) -gt 120 ]; do sleep 0.5; done
        mend"
    );
    on_node(&namespace.0, &node, &script);
    kubectl(&["wait", "-n", &namespace.0, "pod/surgeon", "--for=condition=Ready", "--timeout=60s"]);
    let names = ["first", "second", "third", "fourth"];
    for name in names {
        apply(&namespace.0, &pod_on(&node, name).to_string());
    }
    eventually("the node's CNI", 60, || {
        let told = component_signals("", &node).split_off(known);
        if told.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
    });
    kubectl(&["exec", "-n", &namespace.0, "surgeon", "--", "touch", "/tmp/mended"]);
    for name in names {
        let ready = ["wait", "-n", &namespace.0, &format!("pod/{name}"), "--for=condition=Ready"];
        kubectl(&[ready.as_slice(), &["--timeout=120s"]].concat());
    }
    let told = eventually("the end of it", 60, || {
        let told = component_signals("", &node).split_off(known);
        if told.last().unwrap()["reason"] == "CNIRecovered" { Ok(told) } else { Err(format!("{told:#?}")) }
    });
    is_one_incident(&told, "CNI");
    for name in names {
        assert_eq!(story(POD, &namespace.0, name), [""; 0]);
    }
    let events = cloud(&format!("/v1/signals?kind=kubernetes_event&namespace={}&limit=1000", namespace.0));
    let events = events.as_array().unwrap().iter().map(|signal| &signal["message"]);
    let of_pods: BTreeSet<_> = events
        .filter(|told| told["reason"] == "FailedCreatePodSandBox")
        .map(|told| told["involved_object"]["name"].as_str())
        .collect();
    assert_eq!(of_pods.len(), 2, "{of_pods:?}");
}
