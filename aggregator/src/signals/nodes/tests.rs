use kestrel_proto::cloud::v1::{Action, stream_events_request::Request};
use serde_json::json;

use super::*;
use crate::signals::told::Told;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn node(name: &str, heartbeat: i64) -> core::Node {
    let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": at(heartbeat).to_string()});
    let meta = json!({"name": name, "uid": name});
    serde_json::from_value(json!({"metadata": meta, "status": {"conditions": [ready]}})).unwrap()
}

/// UID and action of every signal.
fn told(far: &Told) -> Vec<(String, Action)> {
    let signals = far.next().into_iter().map(|request| {
        let Request::NodeConditionChange(change) = request else { panic!("{request:?}") };
        (change.uid.clone(), change.action())
    });
    signals.collect()
}

fn minutes(number: i64) -> i64 {
    60 * number
}

/// Two nodes, listed.
fn listed() -> (Told, Nodes) {
    let far = Told::new();
    let nodes = Nodes::new(Thresholds::default(), far.lane());
    nodes.begin();
    nodes.seen(&node("a", 0), at(0));
    nodes.seen(&node("b", 0), at(0));
    nodes.finish(at(0));
    (far, nodes)
}

#[test]
fn one_silent_node_is_told_when_another_is_heard() {
    let (far, nodes) = listed();
    assert_eq!(nodes.count(), 2);
    for minute in 1..=16 {
        nodes.seen(&node("a", minutes(minute)), at(minutes(minute)));
        nodes.tick(at(minutes(minute)));
    }
    assert_eq!(told(&far), [("b".to_owned(), Action::Create)]);
}

#[test]
fn a_node_whose_clock_is_slow_is_heard() {
    let (far, nodes) = listed();
    for minute in 1..=60 {
        nodes.seen(&node("a", minutes(minute)), at(minutes(minute)));
        nodes.seen(&node("b", minutes(minute - 20)), at(minutes(minute)));
        nodes.tick(at(minutes(minute)));
    }
    assert_eq!(told(&far), []);
    for minute in 61..=75 {
        nodes.seen(&node("a", minutes(minute)), at(minutes(minute)));
        nodes.seen(&node("b", minutes(40)), at(minutes(minute)));
        nodes.tick(at(minutes(minute)));
    }
    assert_eq!(told(&far), [("b".to_owned(), Action::Create)], "it says nothing new");
}

#[test]
fn nodes_are_not_silent_because_nobody_can_hear_them() {
    let (far, nodes) = listed();
    nodes.tick(at(minutes(60)));
    assert_eq!(told(&far), [], "the watch is away");
    nodes.seen(&node("a", minutes(61)), at(minutes(61)));
    nodes.tick(at(minutes(61)));
    assert_eq!(told(&far), [], "b's turn comes in a moment");
    nodes.seen(&node("b", minutes(61)), at(minutes(61)));
    nodes.tick(at(minutes(65)));
    assert_eq!(told(&far), []);

    nodes.begin();
    nodes.seen(&node("a", minutes(90)), at(minutes(90)));
    nodes.tick(at(minutes(90)));
    assert_eq!(told(&far), [], "in the middle of a list");
    nodes.seen(&node("b", minutes(61)), at(minutes(90)));
    nodes.finish(at(minutes(90)));
    nodes.tick(at(minutes(90)));
    assert_eq!(told(&far), [], "the API server may have been away, and b's turn comes in a moment");
    nodes.tick(at(minutes(91)));
    assert_eq!(told(&far), [("b".to_owned(), Action::Create)]);
    nodes.gone("b", at(minutes(91)));
    assert_eq!(told(&far), [("b".to_owned(), Action::Delete)]);
}
