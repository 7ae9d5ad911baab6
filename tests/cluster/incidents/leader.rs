//! What a leader tells of that which was before it.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{events_about, signals};
use crate::{
    kubectl::{OPERATOR, apply, attempt, eventually, json, kubectl, rolled_out},
    namespace::Namespace,
};

/// The aggregator has no pods.
struct Nobody;

impl Nobody {
    fn leads() -> Self {
        let nobody = Self;
        scale("0").unwrap();
        let ended = ["--for=delete", "-l", "app.kubernetes.io/component=aggregator", "--timeout=60s"];
        kubectl(&[["wait", "pods", "-n", OPERATOR].as_slice(), &ended].concat());
        nobody
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        let _best_effort = scale("2");
    }
}

fn scale(replicas: &str) -> Result<String, String> {
    let replicas = format!("--replicas={replicas}");
    attempt(&["scale", "-n", OPERATOR, "deployment/kestrel-aggregator", &replicas])
}

fn warn(namespace: &str, about: &str, at: Timestamp) {
    let at = at.strftime("%FT%TZ").to_string();
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{about}.1")}, "type": "Warning",
        "reason": "Overheated", "message": "It has too many degrees", "count": 1,
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": about},
        "source": {"component": "thermometer"}, "firstTimestamp": at, "lastTimestamp": at,
    });
    apply(namespace, &event.to_string());
}

/// Scenario: warnings of two hours ago and of now are there when a leader begins, of which an earlier
/// one has told some.
/// Guarantee: the old ones are not told (again); what happened while nobody led is, and how every node is.
#[test]
fn warnings_that_are_older_than_the_leader() {
    let namespace = Namespace::new("older");
    let is_told = |about: &str| {
        eventually(&format!("the warning of {about}"), 60, || {
            if events_about(&namespace.0, about).is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
        });
    };
    let nodes = json(&["get", "nodes"]);
    let nodes = nodes["items"].as_array().unwrap().iter();
    let nodes: Vec<_> = nodes.map(|node| node["metadata"]["name"].as_str().unwrap()).collect();
    let of_node = |node: &&str| signals("node_condition_change", "", node).len();
    let long_ago = Timestamp::now() - SignedDuration::from_hours(2);
    warn(&namespace.0, "known", long_ago);
    is_told("known");
    let nobody = Nobody::leads();
    let before: Vec<_> = nodes.iter().map(of_node).collect();
    warn(&namespace.0, "old", long_ago);
    warn(&namespace.0, "missed", Timestamp::now());
    drop(nobody);
    rolled_out(OPERATOR, "deployment/kestrel-aggregator");
    is_told("missed");
    warn(&namespace.0, "last", Timestamp::now());
    is_told("last");
    let told = ["known", "old", "missed", "last"].map(|about| events_about(&namespace.0, about).len());
    assert_eq!(told, [1, 0, 1, 1]);
    eventually("the first reports of all nodes", 60, || {
        let now: Vec<_> = nodes.iter().map(of_node).collect();
        if now.iter().zip(&before).all(|(now, before)| now > before) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}
