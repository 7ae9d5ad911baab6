//! Components on which the whole cluster stands.

use serde_json::{Value, json};

use super::{component_signals, is_one_incident, story};
use crate::kubectl::{attempt, eventually, json, kubectl};

const DNS: &str = "kube-system";

/// Puts another text in place of the Corefile, from which CoreDNS starts.
fn configure(corefile: &Value) -> Result<String, String> {
    let patch = json!({"data": {"Corefile": corefile}}).to_string();
    attempt(&["patch", "configmap", "-n", DNS, "coredns", "--type=merge", "-p", &patch])
}

/// The Corefile as it was before.
struct Corefile(Value);

impl Drop for Corefile {
    fn drop(&mut self) {
        let _best_effort = configure(&self.0);
    }
}

/// Scenario: a roll-out of CoreDNS meets a Corefile that is none, which is then mended.
/// Guarantee: one incident, of the Deployment, until its pod has run for a while; the pod and the roll-out
/// have none of their own.
#[test]
fn dns_that_can_not_start() {
    let map = json(&["get", "configmap", "-n", DNS, "coredns"]);
    let corefile = Corefile(map["data"]["Corefile"].clone());
    let known = component_signals(DNS, "coredns").len();
    let rollouts = story("workload_rollout_status", DNS, "coredns");
    configure(&".:53 {\n    no-such-plugin\n}\n".into()).unwrap();
    kubectl(&["rollout", "restart", "-n", DNS, "deployment/coredns"]);
    eventually("the trouble of DNS", 60, || {
        let told = component_signals(DNS, "coredns").split_off(known);
        if told.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
    });
    let pods = kubectl(&["get", "pods", "-n", DNS, "-l", "k8s-app=kube-dns", "-o", "name"]);
    drop(corefile);
    let told = eventually("the end of it", 150, || {
        let told = component_signals(DNS, "coredns").split_off(known);
        if told.last().unwrap()["reason"] == "DNSRecovered" { Ok(told) } else { Err(format!("{told:#?}")) }
    });
    kubectl(&["rollout", "status", "-n", DNS, "deployment/coredns", "--timeout=120s"]);
    is_one_incident(&told, "DNS");
    assert_eq!(told[0]["involved_object"]["kind"], "Deployment", "{told:#?}");
    assert!(told[0]["message"].as_str().unwrap().contains("Pod coredns-"), "{told:#?}");
    assert_eq!(story("workload_rollout_status", DNS, "coredns"), rollouts);
    for pod in pods.lines().map(|name| name.trim_start_matches("pod/")) {
        assert_eq!(story("pod_status_change", DNS, pod), [""; 0]);
    }
    assert_eq!(component_signals(DNS, "coredns").split_off(known), told, "nothing more");
}
