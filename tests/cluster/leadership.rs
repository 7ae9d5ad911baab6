//! Who leads, and what a change of the leader costs.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    kubectl::{OPERATOR, apply, cloud, eventually, kubectl, pods_of, rolled_out, sample_image},
    namespace::Namespace,
    process,
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

/// The pod of the leading aggregator.
pub(crate) fn leader() -> String {
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

/// Sends a signal to a pod's process; deletes the pod with force where that can't be done.
fn signal(signal: &str, pod: &str) {
    match process::of_pod("/kestrel-aggregator", pod) {
        Some(process) => process::signal(signal, &process),
        None => {
            println!("the process of {pod} is on another machine: deleted with force instead");
            delete_with_force(pod);
        }
    }
}

fn delete_with_force(pod: &str) {
    kubectl(&["delete", "pod", "-n", OPERATOR, pod, "--grace-period=0", "--force"]);
}

/// Scenario: while numbered lines pass, the leader's pod is deleted with force, then a leader's
/// process is killed, then one hangs until another leads and wakes up again.
/// Guarantee: a leader is connected within the Lease's time and a little, one at a time, and no
/// line is missing.
#[test]
fn a_leader_that_is_lost_is_replaced_in_time_and_no_line_is_missing() {
    let namespace = Namespace::new("failover");
    writer(&namespace);
    for (name, lose) in [
        ("deleted with force", delete_with_force as fn(&str)),
        ("killed", |pod| signal("KILL", pod)),
        ("hanging", |pod| signal("STOP", pod)),
    ] {
        let seen = lines_at_the_cloud(&namespace, 1);
        let (lost, begun) = (leader(), Timestamp::now());
        lose(&lost);
        let gap = connected_after(begun);
        println!("leader {name}: one is connected after {:.1} s", gap.as_secs_f64());
        assert!(gap < SignedDuration::from_secs(200), "ten times the promise: {gap}");
        if name == "hanging" {
            assert_ne!(leader(), lost);
            signal("CONT", &lost);
        }
        lines_at_the_cloud(&namespace, seen["distinct"].as_u64().unwrap() + 500);
        rolled_out(OPERATOR, "deployment/kestrel-aggregator");
    }
    let seen = lines_at_the_cloud(&namespace, LINES);
    assert_eq!((&seen["min"], &seen["max"]), (&1.into(), &LINES.into()), "{seen}");
    println!("after three leaders: {} repeats", seen["duplicates"]);
    eventually("one connection", 60, || {
        let open = cloud("/v1/connections")["open"].as_array().map_or(0, Vec::len);
        if open == 1 { Ok(()) } else { Err(format!("{open} connections")) }
    });
}

/// Scenario: a person asks each replica how it is, and one whether an installation would work.
/// Guarantee: one says that it leads and is connected, the other who leads; all is well, in a dozen lines.
#[test]
fn every_replica_says_how_it_is() {
    let leader = leader();
    let aggregators = pods_of("aggregator");
    assert_eq!(aggregators.len(), 2);
    for pod in aggregators {
        let program =
            |command| kubectl(&["exec", "-n", OPERATOR, &pod, "--", "/kestrel-aggregator", command]);
        let status = program("status");
        println!("{status}");
        let connected = status.contains("connected to kestrel-cloud") && status.contains("data open");
        assert!(status.contains(if pod == leader { "leads since" } else { &leader }), "{status}");
        assert_eq!(connected && !status.contains("not connected"), pod == leader, "{status}");
        assert!(status.lines().count() <= 12 && status.contains("problem     none"), "{status}");
        if pod == leader {
            let check = program("check");
            println!("{check}");
            assert!(check.lines().count() > 10 && !check.contains("FAILED"), "{check}");
        }
    }
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
