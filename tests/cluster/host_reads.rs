//! What the cloud asks of the nodes of a real cluster.

use std::{
    panic::{catch_unwind, resume_unwind},
    thread,
};

use serde_json::{Value, json};

use crate::{
    kubectl::{OPERATOR, cloud_post, eventually, kubectl, pods_of, rolled_out},
    upgrade::set_values,
};

/// What came of commands, one answer each.
fn asked(commands: &[&str]) -> Vec<Value> {
    let request = json!({"shell_command_request": {"commands": commands}});
    let answer = cloud_post("/v1/send?stream=control", &request);
    let results = answer["answer"]["message"]["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(results.len(), commands.len(), "{answer}");
    results.clone()
}

/// The same, once all are answered: an agent may be about to attach to another leader.
fn all_answered(commands: &[&str]) -> Vec<Value> {
    eventually("every answer of the node's agent", 60, || {
        let results = asked(commands);
        let is_there = |result: &Value| result["exit_code"].as_i64().unwrap_or_default() == 0;
        if results.iter().all(is_there) { Ok(results) } else { Err(format!("{results:#?}")) }
    })
}

fn nodes() -> Vec<String> {
    let names = kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// Scenario: the cloud asks each node for its sockets, tables, settings and names.
/// Guarantee: the node that was named answers, from its own kernel.
#[test]
fn every_node_answers_for_itself() {
    for node in nodes() {
        let on = |command: &str| format!("kubectl debug node/{node} -- {command}");
        let commands = [
            on("ss -tln"),
            on("ip addr"),
            on("ip route"),
            on("sysctl kernel.osrelease"),
            on("nstat -az | grep TcpExtListenDrops"),
            on("nslookup kubernetes.default"),
            on("nc -z kubernetes.default 443"),
        ];
        let results = all_answered(&commands.each_ref().map(String::as_str));
        let text = |place: usize| results[place]["stdout"].as_str().unwrap_or_default();
        // The kubelet listens on every node.
        assert!(text(0).contains("LISTEN") && text(0).contains(":10250 "), "{}", text(0));
        assert!(text(1).contains("127.0.0.1/8"), "{}", text(1));
        let kernel = kubectl(&["get", "node", &node, "-o", "jsonpath={.status.nodeInfo.kernelVersion}"]);
        assert_eq!(text(3), format!("kernel.osrelease = {kernel}\n"));
        assert_eq!(text(4).lines().count(), 1, "{}", text(4));
        assert!(text(5).contains("kubernetes.default.svc.cluster.local. "), "{}", text(5));
        assert!(text(6).contains("connected to "), "{}", text(6));
    }
}

/// What the owner of a cluster may allow beside that.
struct Allowed;

const CAPABILITIES: [&str; 4] = ["hostNetwork", "packetCapture", "firewallRules", "bpfObjects"];

impl Allowed {
    fn new() -> Self {
        Self::set(true);
        Self
    }

    fn set(is: bool) {
        let values = CAPABILITIES.map(|name| format!("nodeAgent.{name}={is}")).join(",");
        set_values(&values);
        rolled_out(OPERATOR, "daemonset/kestrel-node-agent");
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        // Another panic would be the end of the whole suite.
        let _best_effort = catch_unwind(|| Self::set(false)).map_err(|panic| {
            if !thread::panicking() {
                resume_unwind(panic);
            }
        });
    }
}

/// Scenario: the owner allows what needs capabilities, and the cloud asks each node for packets, rules of the firewall and
/// BPF programs; then the owner takes it back.
/// Guarantee: each answers from its kernel, under the container runtime's own seccomp profile, and then no more.
#[test]
fn what_an_owner_allows_is_had_of_every_kernel() {
    let allowed = Allowed::new();
    for node in nodes() {
        let on = |command: &str| format!("kubectl debug node/{node} -- {command}");
        let commands = [
            on("iptables-save"),
            on("nft list ruleset"),
            on("conntrack -L"),
            on("tcpdump -i any -c 2 tcp"),
            on("bpftool prog show"),
            on("bpftool map show"),
            on("bpftool net show"),
        ];
        let results = all_answered(&commands.each_ref().map(String::as_str));
        let text = |place: usize| results[place]["stdout"].as_str().unwrap_or_default();
        for (place, command) in commands.iter().enumerate() {
            println!("{command}\n{}", text(place).lines().take(4).collect::<Vec<_>>().join("\n"));
        }
        // They are kube-proxy's.
        for rules in [text(0), text(1)] {
            assert!(rules.contains("chain KUBE-SERVICES {"), "{rules}");
        }
        assert!(text(2).contains("ESTABLISHED"), "{}", text(2));
    }
    drop(allowed);
    let node = nodes().remove(0);
    let refused = asked(&[&format!("kubectl debug node/{node} -- nft list ruleset")]).remove(0);
    assert!(
        refused["stderr"].as_str().is_some_and(|text| text.contains("nodeAgent.firewallRules")),
        "{refused}"
    );
}

/// Scenario: a person has the agent of each node try what a process that reads the node must not be able to do.
/// Guarantee: as the service account and under the container runtime's profile that it has, such a process can't read a
/// token, reach the API server, write anywhere, start anything or outlive its deadline; outside the sandbox it could.
#[test]
fn what_reads_a_node_can_do_nothing_else_there() {
    for agent in pods_of("node-agent") {
        let check = kubectl(&["exec", "-n", OPERATOR, &agent, "--", "/kestrel-node-agent", "check"]);
        let about: Vec<_> = check.lines().filter(|line| line.contains(" sandbox: ")).collect();
        println!("{}", about.join("\n"));
        for held in [
            "a process in it can't read /var/run/secrets/kestrel/token, ",
            "a process in it can't read /proc/",
            "a process in it can't list /var/log/pods, ",
            "a process in it can't write into /var/lib/kestrel, ",
            "a process in it can't write into /dev/shm, ",
            "a process in it can't start a program, ",
            "a process in it can't make a thread, ",
            "a process in it can't connect to ",
            "a process in it can't join group ",
            "one that never ends was killed after 5 s, with what it had started",
        ] {
            let line = format!("ok      sandbox: {held}");
            assert!(about.iter().any(|about| about.starts_with(&line)), "{held}: {check}");
        }
        // The pod has no such token, and its root is read-only: neither proves anything.
        for missing in ["read /var/run/secrets/kubernetes.io/serviceaccount/token, ", "write into /tmp, "] {
            let line = format!("note    sandbox: not tried here: {missing}");
            assert!(about.iter().any(|about| about.starts_with(&line)), "{missing}: {check}");
        }
        let kernel = ["ok      sandbox: seccomp and Landlock ", "caution sandbox: seccomp alone "];
        assert!(kernel.iter().any(|line| about[0].starts_with(line)), "{check}");
        assert_eq!(about.len(), 13, "{check}");
    }
}

/// Scenario: the cloud asks nodes for what they do not give: files, changes, packets, other programs, other nodes.
/// Guarantee: each is refused with a reason, no pod is made, and no secret is shown.
#[test]
fn nothing_else_is_had_of_a_node() {
    let node = nodes().remove(0);
    let on = |command: &str| format!("kubectl debug node/{node} -- {command}");
    let before =
        kubectl(&["get", "pods", "-A", "-o", "name"]).lines().filter(|pod| pod.contains("debugger")).count();
    for (command, why) in [
        (on("cat /var/run/secrets/kestrel/token"), "refused (file)"),
        (on("chroot /host sh"), "refused (shell)"),
        (on("sysctl -w vm.swappiness=1"), "refused (write)"),
        (on("sysctl kernel./../../etc/passwd"), "refused (malformed)"),
        (on("tcpdump -i any"), "nodeAgent.packetCapture"),
        (on("nft list ruleset"), "nodeAgent.firewallRules"),
        (on("bpftool prog show"), "nodeAgent.bpfObjects"),
        (on("dig @1.1.1.1 x"), "refused (elsewhere)"),
        (on("sysctl kernel.hostname"), "every pod has its own"),
        (format!("kubectl debug node/{node} --image=busybox -- sh"), "refused (acts)"),
        ("kubectl debug node/no-such-node -- ss".to_owned(), "no-such-node"),
        ("ss -tan".to_owned(), "kubectl debug node/NAME"),
    ] {
        let result = asked(&[&command]).remove(0);
        assert_ne!(result["exit_code"].as_i64().unwrap_or_default(), 0, "{result}");
        assert_eq!(result["stdout"].as_str().unwrap_or_default(), "", "{result}");
        assert!(result["stderr"].as_str().is_some_and(|text| text.contains(why)), "{command}: {result}");
    }
    let after =
        kubectl(&["get", "pods", "-A", "-o", "name"]).lines().filter(|pod| pod.contains("debugger")).count();
    assert_eq!(before, after);
}
