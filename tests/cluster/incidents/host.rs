//! What the node agent sees of its host: real faults, each seen, told and over.

use std::thread;

use serde_json::json;

use super::{
    events_about,
    node::{expendable_node, on_node, story_until},
    signals,
};
use crate::{
    kubectl::{
        OPERATOR, agent_log, apply, attempt, eventually, json, kubectl, pods_of, rolled_out, sample_image,
    },
    namespace::Namespace,
};

const NODE: &str = "node_condition_change";
const DISK: &str = "kestrel.ai/DiskPressure";
const RUNTIME: &str = "kestrel.ai/RuntimeReady";

/// What `hack/test` has the agents watch, see `values.yaml`.
const FOLDER: &str = "/run/kestrel-disk";

const CONNTRACK: &str = "kestrel.ai/ConntrackPressure";
const CLOCK: &str = "kestrel.ai/ClockSkewed";

/// A setting of all agents that a test changes, which starts them anew; and again at its end.
struct Setting(&'static str);

impl Setting {
    fn to(name: &'static str, value: &str) -> Self {
        let setting = Self(name);
        setting.change(&format!("{name}={value}"));
        setting
    }

    fn change(&self, change: &str) {
        kubectl(&["set", "env", "-n", OPERATOR, AGENTS, change]);
        rolled_out(OPERATOR, AGENTS);
    }

    /// As it was before.
    fn back(&self) {
        self.change(&format!("{}-", self.0));
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if thread::panicking() {
            let _best_effort = attempt(&["set", "env", "-n", OPERATOR, AGENTS, &format!("{}-", self.0)]);
        }
    }
}

const AGENTS: &str = "daemonset/kestrel-node-agent";

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

/// Scenario: a node has more and more connections, and its kernel, as the agent is made to see it, hardly more room than
/// for them: the real maximum can't be changed in a node that shares the kernel.
/// Guarantee: one incident of the node while its table is nearly full, and its end; the agent's log says both.
#[test]
fn a_table_of_connections_that_fills_up() {
    let namespace = Namespace::new("conntrack");
    let node = expendable_node();
    let before = signals(NODE, "", &node).len();
    // All but the maximum is the kernel's own. An echo stays in the table for thirty seconds; what is refused leaves it at once.
    let script = format!(
        "in_node() {{ nsenter -t 1 -m -- \"$@\"; }}
        root={FOLDER}/proc
        in_node mkdir -p $root/sys/net/netfilter || exit
        for file in meminfo loadavg uptime pressure; do in_node ln -sfn /proc/$file $root/$file; done
        in_node ln -sfn /proc/sys/kernel $root/sys/kernel
        used=$((0x$(nsenter -t 1 -n -- awk 'NR == 2 {{ print $1 }}' /proc/1/net/stat/nf_conntrack)))
        echo $((used * 2 + 100)) | nsenter -t 1 -m -- tee $root/sys/net/netfilter/nf_conntrack_max
        until [ -e /tmp/begin ]; do sleep 0.5; done
        end=$(($(date +%s) + 180))
        nsenter -t 1 -n -- sh -c \"until [ -e /tmp/seen ] || [ \\$(date +%s) -gt $end ]; do
            for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do ping -c 1 -W 1 127.0.0.1 >/dev/null; done
        done\"
        until [ -e /tmp/end ] || [ $(date +%s) -gt $((end + 180)) ]; do sleep 0.5; done
        in_node rm -rf $root"
    );
    on_node(&namespace.0, &node, &script);
    kubectl(&["wait", "-n", &namespace.0, "pod/surgeon", "--for=condition=Ready", "--timeout=60s"]);
    let step = |file: &str| {
        kubectl(&["exec", "-n", &namespace.0, "surgeon", "--", "touch", &format!("/tmp/{file}")]);
    };
    eventually("the maximum of the test", 30, || {
        let maximum = format!("/proc/1/root{FOLDER}/proc/sys/net/netfilter/nf_conntrack_max");
        attempt(&["exec", "-n", &namespace.0, "surgeon", "--", "cat", &maximum])
    });
    let setting = Setting::to("KESTREL_PROC_DIR", &format!("/host{FOLDER}/proc"));
    let known = agent_log(&node).lines().count();
    step("begin");
    story_until(&node, before, CONNTRACK, &format!("{CONNTRACK}=True"));
    step("seen");
    story_until(&node, before, CONNTRACK, &format!("{CONNTRACK}=False"));
    wait_for_story(&node, known, &[&[CONNTRACK, "is True", "nf_conntrack_max"], &[CONNTRACK, "is False"]]);
    setting.back();
    step("end");
}

/// Scenario: the clocks of the nodes are, as the agents are made to read them, five seconds ahead, and then right.
/// Guarantee: an incident of each node that says by how much, and its end.
#[test]
fn a_clock_that_is_off() {
    let node = expendable_node();
    let before = signals(NODE, "", &node).len();
    let setting = Setting::to("KESTREL_CLOCK_AHEAD_SECONDS", "5");
    story_until(&node, before, CLOCK, &format!("{CLOCK}=True"));
    wait_for_story(&node, 0, &[&[CLOCK, "is True", "s ahead of the leading aggregator's"]]);
    setting.back();
    story_until(&node, before, CLOCK, &format!("{CLOCK}=False"));
    wait_for_story(&node, 0, &[&["as it should be", CLOCK]]);
}

/// Scenario: a person asks the agent of each node how it is, and what it lacks.
/// Guarantee: it is connected and follows pods; nothing that its values switch on is missing, and the level of Pod
/// Security that its namespace needs is named.
#[test]
fn every_agent_says_how_it_is_and_what_it_lacks() {
    for agent in pods_of("node-agent") {
        let program = |word| kubectl(&["exec", "-n", OPERATOR, &agent, "--", "/kestrel-node-agent", word]);
        let (status, check) = (program("status"), program("check"));
        println!("{status}{check}");
        assert!(status.contains("link        connected to "), "{status}");
        assert!(!check.contains("FAILED"), "{check}");
        let label =
            format!("kubectl label namespace {OPERATOR} pod-security.kubernetes.io/enforce=privileged");
        assert!(check.contains(&label), "{check}");
        for part in ["ok      kernel log: ", "ok      container runtime: ", "ok      table of connections: "]
        {
            assert!(check.contains(part), "{part} in {check}");
        }
    }
}
