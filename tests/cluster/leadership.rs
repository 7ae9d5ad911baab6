//! Who leads, and what a change of the leader costs.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    kubectl::{OPERATOR, apply, cloud, eventually, kubectl, pods_of, rolled_out, sample_image},
    namespace::Namespace,
};

const LINES: u64 = 4_000;

/// A pod that writes 50 numbered lines a second.
fn writer(namespace: &Namespace) {
    let script = "i=1; while [ $i -le 4000 ]; do echo \"line $i\"; i=$((i+1)); [ $((i % 10)) != 0 ] || sleep 0.2; done; \
        exec sleep 100000";
    let container = json!({"name": "writer", "image": sample_image(), "command": ["sh", "-c", script]});
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "steady", "annotations": {"kestrel.ai/logs": "all"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    });
    apply(&namespace.0, &manifest.to_string());
}

fn lines_at_the_cloud(namespace: &Namespace, at_least: u64) -> Value {
    eventually("numbered lines at the cloud", 240, || {
        let path = format!("/v1/logs/sequence?namespace={}&pod=steady&prefix=line%20", namespace.0);
        let seen = cloud(&path);
        if seen["distinct"].as_u64() >= Some(at_least) { Ok(seen) } else { Err(seen.to_string()) }
    })
}

fn leader() -> String {
    let holder = "jsonpath={.spec.holderIdentity}";
    kubectl(&["get", "lease", "-n", OPERATOR, "kestrel-aggregator", "-o", holder])
}

/// When each connection was opened and, if it is over, closed.
fn connections() -> Vec<(Timestamp, Option<Timestamp>)> {
    let all = cloud("/v1/connections");
    let time = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let mut times: Vec<_> = ["open", "past"]
        .iter()
        .flat_map(|list| all[list].as_array().into_iter().flatten())
        .filter_map(|connection| Some((time(&connection["opened"])?, time(&connection["closed"]))))
        .collect();
    times.sort_unstable();
    times
}

/// Waits for a connection that was opened after `begun`; how long after.
fn connected_after(begun: Timestamp) -> SignedDuration {
    eventually("a connection of the new leader", 200, || {
        let opened = connections().into_iter().map(|(opened, _)| opened).find(|opened| *opened > begun);
        opened.map(|opened| opened.duration_since(begun)).ok_or_else(|| cloud("/v1/connections").to_string())
    })
}

/// Scenario: the leader's pod is killed with force while numbered lines pass.
/// Guarantee: the standby takes over within the Lease's time and a little, and no line is missing.
#[test]
fn a_killed_leader_is_replaced_in_time_and_no_line_is_missing() {
    let namespace = Namespace::new("failover");
    writer(&namespace);
    lines_at_the_cloud(&namespace, 500);
    let (killed, begun) = (leader(), Timestamp::now());
    kubectl(&["delete", "pod", "-n", OPERATOR, &killed, "--grace-period=0", "--force"]);
    let gap = connected_after(begun);
    println!("killed leader: another is connected after {:.1} s", gap.as_secs_f64());
    assert!(gap < SignedDuration::from_secs(200), "ten times the promise: {gap}");
    assert_ne!(leader(), killed);
    let seen = lines_at_the_cloud(&namespace, LINES);
    assert_eq!((&seen["min"], &seen["max"]), (&1.into(), &LINES.into()), "{seen}");
    println!("killed leader: {} repeats", seen["duplicates"]);
    rolled_out(OPERATOR, "deployment/kestrel-aggregator");
}

/// Scenario: the aggregator is rolled out while numbered lines pass.
/// Guarantee: the gap is short at every hand-over, both replicas are ready at its end, and no line is missing.
#[test]
fn a_roll_out_costs_a_short_gap_and_no_line() {
    let namespace = Namespace::new("rollout");
    writer(&namespace);
    lines_at_the_cloud(&namespace, 500);
    let (before, begun) = (pods_of("aggregator"), Timestamp::now());
    kubectl(&["rollout", "restart", "-n", OPERATOR, "deployment/kestrel-aggregator"]);
    rolled_out(OPERATOR, "deployment/kestrel-aggregator");
    connected_after(begun);
    eventually("a leader among the new pods", 60, || {
        let leader = leader();
        if pods_of("aggregator").contains(&leader) && !before.contains(&leader) {
            Ok(())
        } else {
            Err(leader)
        }
    });
    let seen = lines_at_the_cloud(&namespace, LINES);
    assert_eq!((&seen["min"], &seen["max"]), (&1.into(), &LINES.into()), "{seen}");
    let connections = connections();
    let gaps = connections
        .windows(2)
        .filter(|pair| pair[1].0 > begun)
        .filter_map(|pair| Some(pair[1].0.duration_since(pair[0].1?)));
    let gaps: Vec<_> = gaps.map(|gap| gap.as_secs_f64()).collect();
    println!("roll-out: gaps of {gaps:.2?} s, {} repeats", seen["duplicates"]);
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap < 30.0), "ten times the promise: {gaps:?}");
}
