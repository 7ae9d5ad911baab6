//! Network flows of Hubble: Cilium's own server (`hack/hubble`, whose program `KESTREL_HUBBLE` names) in a folder of a node of
//! `hack/cluster`, which has no Cilium.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    incidents::{events_about, node::expendable_node},
    kubectl::{OPERATOR, agent_log, agent_on, apply, cloud, eventually, json, kubectl, sample_image},
    namespace::Namespace,
};

/// `nodeAgent.flows.hubbleSocket` of `values.yaml`.
const SOCKET: &str = "/var/lib/kestrel-hubble/hubble.sock";

/// A server; it ends with its standard input.
struct Hubble {
    process: Child,
    events: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Hubble {
    /// Returns when it serves.
    fn start(socket: &Path, pods: [&str; 2]) -> Self {
        let program = env::var_os("KESTREL_HUBBLE").expect("KESTREL_HUBBLE names the program of hack/hubble");
        let mut command = Command::new(program);
        command.arg(socket).arg("4095").args(pods).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (events, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut hubble = Self { process, events, answers: BufReader::new(answers) };
        hubble.expect("serves");
        hubble
    }

    fn expect(&mut self, answer: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), answer);
    }

    /// Its ring gives an event away when the next one has come: a reply, which nobody asks for.
    fn happen(&mut self, events: &str) {
        for events in [events, "replies 1"] {
            writeln!(self.events, "{events}").unwrap();
            self.expect(events);
        }
    }
}

impl Drop for Hubble {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// The socket on this machine: what is below `/var` of a node lies in its folder, beside the kubeconfig.
fn socket_of(node: &str) -> PathBuf {
    let kubeconfig = PathBuf::from(env::var_os("KUBECONFIG").expect("hack/test names the cluster"));
    let folder = kubeconfig.parent().unwrap().join(node);
    assert!(folder.is_dir(), "{} is no node of hack/cluster", folder.display());
    folder.join(SOCKET.trim_start_matches('/'))
}

/// Waits until the agent has said `sentence` so often. `meanwhile` is done before each look.
fn says(node: &str, sentence: &str, times: usize, mut meanwhile: impl FnMut()) {
    eventually(&format!("{sentence:?} in the agent's log"), 60, || {
        meanwhile();
        let log = agent_log(node);
        if log.matches(sentence).count() >= times { Ok(()) } else { Err(log) }
    });
}

/// Address, namespace and name of a pod, once it has one.
fn pod(namespace: &str, name: &str) -> String {
    let address = eventually("the pod's address", 60, || {
        let pod = json(&["get", "pod", "-n", namespace, name]);
        pod["status"]["podIP"].as_str().map(str::to_owned).ok_or(pod["status"].to_string())
    });
    format!("{address}/{namespace}/{name}")
}

/// How often the cloud was told of packets between the test's pods that passed, or did not.
fn told(namespace: &str, allowed: bool) -> Result<Vec<Value>, String> {
    let flows = cloud("/v1/flows?limit=10000");
    let is_ours = |flow: &&Value| {
        let message = &flow["message"];
        message["src"]["ns"] == *namespace
            && message["dst"]["ns"] == *namespace
            && message["allowed"] == allowed
    };
    let flows: Vec<_> = flows.as_array().unwrap().iter().filter(is_ours).cloned().collect();
    if flows.is_empty() { Err("nothing".to_owned()) } else { Ok(flows) }
}

/// The event of this reason about the pod that calls.
fn edge(namespace: &str, reason: &str) -> Result<Value, String> {
    let told = events_about(namespace, "web");
    told.iter().find(|told| told["reason"] == *reason).cloned().ok_or(format!("{told:?}"))
}

/// Scenario: on a node without Cilium a server of Hubble appears, shows packets between two pods, goes and comes again.
/// Guarantee: the agent uses it without a restart and says so; the cloud is told of the packets, between the pods, each once,
/// and of an incident where they are dropped for long, until they pass; NetworkPolicies are told of without Cilium.
#[test]
fn a_hubble_that_comes_is_read_and_policies_need_none() {
    let namespace = Namespace::new("flows");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: let-in}\nspec: {podSelector: {}}\n";
    apply(&namespace.0, policy);
    eventually("the policy at the cloud", 30, || {
        let policies = cloud(&format!("/v1/network-policies?namespace={}", namespace.0));
        if policies.as_array().is_some_and(|found| found.len() == 1) {
            Ok(())
        } else {
            Err(policies.to_string())
        }
    });

    let node = expendable_node();
    let socket = socket_of(&node);
    says(&node, &format!("no Hubble at {SOCKET}"), 1, || {});
    for name in ["web", "db"] {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": name, "image": sample_image(), "command": ["sleep", "100000"]}],
            },
        });
        apply(&namespace.0, &manifest.to_string());
    }
    let pods = ["web", "db"].map(|name| pod(&namespace.0, name));
    let pods = pods.each_ref().map(String::as_str);
    let comes = format!("network flows are read from Hubble at {SOCKET}");
    let known = agent_log(&node).matches(&comes).count();
    let mut hubble = Hubble::start(&socket, pods);
    says(&node, &comes, known + 1, || {});
    let check = kubectl(&["exec", "-n", OPERATOR, &agent_on(&node), "--", "/kestrel-node-agent", "check"]);
    assert!(check.contains(&format!("the server of {SOCKET} answers")), "{check}");
    hubble.happen("passed 5");
    hubble.happen("dropped 2");
    let passed = eventually("what passed", 60, || told(&namespace.0, true));
    let stopped = eventually("what did not", 60, || told(&namespace.0, false));
    for (flows, count) in [(&passed, 5), (&stopped, 2)] {
        let [flow] = &flows[..] else { panic!("{flows:?}") };
        let message = &flow["message"];
        assert_eq!(
            (&message["src"]["name"], &message["dst"]["name"]),
            (&json!("web"), &json!("db")),
            "{message}"
        );
        assert_eq!((&message["port"], &message["protocol"]), (&json!(5432), &json!("TCP")), "{message}");
        let counted = message["count"].as_i64().or_else(|| message["count"].as_str()?.parse().ok());
        assert_eq!(counted, Some(count), "{message}");
    }

    drop(hubble);
    let mut hubble = Hubble::start(&socket, pods);
    says(&node, &comes, known + 2, || {});
    hubble.happen("passed 4");
    eventually("what passed after it came again", 60, || {
        let flows = told(&namespace.0, true)?;
        if flows.len() == 2 { Ok(()) } else { Err(format!("{flows:?}")) }
    });
    // Again and again, and then it passes.
    let stopped = eventually("what does not get through", 120, || {
        hubble.happen("dropped 1");
        edge(&namespace.0, "TrafficStopped")
    });
    let text = stopped["message"].as_str().unwrap();
    assert!(text.contains("does not get through to") && text.contains("TCP 5432"), "{text}");
    let over = eventually("its end", 300, || {
        hubble.happen("passed 1");
        thread::sleep(Duration::from_secs(2));
        edge(&namespace.0, "TrafficRecovered")
    });
    assert_eq!(over["uid"], stopped["uid"], "one incident");
    println!("{text}\n{}", over["message"]);
    drop(hubble);
    fs::remove_file(&socket).unwrap();
    says(&node, &format!("no network flows come from Hubble at {SOCKET} any more"), 1, || {});
}
