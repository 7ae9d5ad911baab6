use std::time::Duration;

use kestrel_proto::cloud::v1::{Action, EventSource, ObjectReference};
use serde_json::{Value, json};

use super::*;
use crate::signals::{component::Home, told::Told};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn parse(event: Value) -> Event {
    serde_json::from_value(event).unwrap()
}

/// As the kubelet writes it (client-go's older recorder), seen through events.k8s.io/v1.
fn of_the_kubelet(
    uid: &str,
    reason: &str,
    note: &str,
    pod: &str,
    node: &str,
    last: &str,
    count: i32,
) -> Event {
    parse(json!({
        "metadata": {
            "name": format!("{pod}.17c6b3c2a1"), "namespace": "shop", "uid": uid,
            "resourceVersion": "812", "creationTimestamp": "2026-03-01T10:00:00Z",
        },
        "type": "Warning", "reason": reason, "note": note, "eventTime": null,
        "regarding": {
            "kind": "Pod", "namespace": "shop", "name": pod, "uid": format!("uid-of-{pod}"), "apiVersion": "v1",
            "resourceVersion": "800", "fieldPath": "spec.containers{app}",
        },
        "reportingController": "kubelet", "reportingInstance": node,
        "deprecatedSource": {"component": "kubelet", "host": node},
        "deprecatedFirstTimestamp": "2026-03-01T10:00:00Z", "deprecatedLastTimestamp": last,
        "deprecatedCount": count,
    }))
}

/// As the scheduler writes it (client-go's newer recorder).
fn of_the_scheduler(series: Value) -> Event {
    parse(json!({
        "metadata": {
            "name": "web.17c6b3c2a2", "namespace": "shop", "uid": "e2", "creationTimestamp": "2026-03-01T10:00:01Z",
        },
        "type": "Warning", "reason": "FailedScheduling", "action": "Scheduling",
        "note": "0/3 nodes are available: 3 Insufficient cpu.",
        "eventTime": "2026-03-01T10:00:00.250000Z", "series": series,
        "regarding": {"kind": "Pod", "namespace": "shop", "name": "web", "uid": "p", "apiVersion": "v1"},
        "reportingController": "default-scheduler", "reportingInstance": "default-scheduler-cp-1",
        "deprecatedSource": {}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null,
    }))
}

fn occurrence(event: &Event) -> Occurrence {
    Occurrence::of(event, at("2026-03-01T12:00:00Z")).unwrap()
}

#[test]
fn an_event_of_the_older_kind() {
    let event =
        of_the_kubelet("e1", "BackOff", "Back-off restarting", "web", "n1", "2026-03-01T10:05:00Z", 7);
    let it = occurrence(&event);
    assert_eq!((it.first, it.last, it.count), (at("2026-03-01T10:00:00Z"), at("2026-03-01T10:05:00Z"), 7));
    let told = it.told;
    assert_eq!(
        (told.name.as_str(), told.namespace.as_str(), told.uid.as_str()),
        ("web.17c6b3c2a1", "shop", "e1")
    );
    assert_eq!(
        (told.event_type.as_str(), told.reason.as_str(), told.message.as_str()),
        ("Warning", "BackOff", "Back-off restarting")
    );
    assert_eq!(told.source, Some(EventSource { component: "kubelet".to_owned(), host: "n1".to_owned() }));
    let about = ObjectReference {
        kind: "Pod".to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "uid-of-web".to_owned(),
        api_version: "v1".to_owned(),
        resource_version: "800".to_owned(),
        field_path: "spec.containers{app}".to_owned(),
    };
    assert_eq!(told.involved_object, Some(about));
}

#[test]
fn an_event_of_the_newer_kind_alone_and_in_a_series() {
    let alone = occurrence(&of_the_scheduler(Value::Null));
    assert_eq!(
        (alone.first, alone.last, alone.count),
        (at("2026-03-01T10:00:00.25Z"), at("2026-03-01T10:00:00.25Z"), 1)
    );
    let source = EventSource { component: "default-scheduler".to_owned(), host: String::new() };
    assert_eq!(alone.told.source, Some(source));
    let series = json!({"count": 12, "lastObservedTime": "2026-03-01T10:30:00.500000Z"});
    let series = occurrence(&of_the_scheduler(series));
    assert_eq!((series.first, series.last, series.count), (alone.first, at("2026-03-01T10:30:00.5Z"), 12));
    assert_eq!(series.key, alone.key);
}

#[test]
fn an_event_that_says_little() {
    let mut event = parse(json!({"metadata": {"uid": "e"}, "type": "Warning", "eventTime": null}));
    let now = at("2026-03-01T12:00:00Z");
    let it = Occurrence::of(&event, now).unwrap();
    assert_eq!((it.first, it.last, it.count), (now, now, 1));
    event.type_ = Some("Normal".to_owned());
    assert!(Occurrence::of(&event, now).is_none());
}

#[test]
fn what_is_told_as_one() {
    let event = |reason: &str, pod: &str| {
        occurrence(&of_the_kubelet("e", reason, "note", pod, "n1", "2026-03-01T10:05:00Z", 1)).key
    };
    let key = event("Failed", "web");
    assert_ne!(event("BackOff", "web"), key, "another reason");
    assert_ne!(event("Failed", "db"), key, "another object");
    let mut other = of_the_kubelet("e", "Failed", "another note", "web", "n1", "2026-03-01T10:05:00Z", 1);
    assert_eq!(occurrence(&other).key, key, "another wording");
    other.regarding.as_mut().unwrap().field_path = Some("spec.containers{sidecar}".to_owned());
    assert_ne!(occurrence(&other).key, key, "another container");
}

/// Action, reason, what it is about, and count.
fn told(told: &Told) -> Vec<(Action, String, String, i32)> {
    let events = told.next().into_iter().map(|request| {
        let Request::KubernetesEvent(event) = request else { panic!("{request:?}") };
        let about = event.involved_object.clone().unwrap();
        (event.action(), event.reason, format!("{} {}", about.kind, about.name), event.count)
    });
    events.collect()
}

fn signal(action: Action, reason: &str, about: &str, count: i32) -> (Action, String, String, i32) {
    (action, reason.to_owned(), about.to_owned(), count)
}

fn events(components: Components, far: &Told) -> Events {
    Events::new(components, Networkless::new(Duration::from_mins(2)), far.lane())
}

fn no_network(uid: &str, pod: &str, node: &str, last: &str, count: i32) -> Event {
    let note = "Failed to create pod sandbox: plugin type=\"cilium-cni\" failed: connection refused";
    of_the_kubelet(uid, sandbox::REASON, note, pod, node, last, count)
}

/// Where the DaemonSet of a CNI is.
fn cilium() -> Home {
    let cni = json!({"namespace": "kube-system", "name": "cilium", "labels": {"k8s-app": "cilium"}});
    Home::of_workload("DaemonSet", &serde_json::from_value(cni).unwrap()).unwrap()
}

#[test]
fn many_pods_of_a_node_without_a_network_are_one_signal_of_its_cni() {
    let far = Told::new();
    let components = Components::new(far.lane());
    components.workload(&cilium(), "uid-of-cilium", 3);
    let events = events(components, &far);
    let times =
        ["2026-03-01T10:00:00Z", "2026-03-01T10:00:05Z", "2026-03-01T10:00:10Z", "2026-03-01T10:00:15Z"];
    for (number, time) in times.iter().enumerate() {
        events.seen(&no_network(&format!("e{number}"), &format!("p{number}"), "n1", time, 1), at(time));
    }
    events.seen(&no_network("e0", "p0", "n1", times[3], 6), at(times[3]));
    assert_eq!(
        told(&far),
        [
            signal(Action::Create, sandbox::REASON, "Pod p0", 1),
            signal(Action::Create, sandbox::REASON, "Pod p1", 1),
            signal(Action::Create, "CNIDegraded", "DaemonSet cilium", 3),
            signal(Action::Update, "CNIDegraded", "DaemonSet cilium", 4),
            signal(Action::Update, "CNIDegraded", "DaemonSet cilium", 9),
        ]
    );
    // A list shows them again.
    events.begin();
    for (number, time) in times.iter().enumerate() {
        events.seen(&no_network(&format!("e{number}"), &format!("p{number}"), "n1", time, 1), at(times[3]));
    }
    events.finish();
    let now = at("2026-03-01T10:01:00Z");
    for pod in 0..4 {
        events.started("n1", &format!("uid-of-p{pod}"), now);
    }
    assert_eq!(told(&far), [signal(Action::Update, "CNIRecovered", "DaemonSet cilium", 9)]);
    events.begin();
    for (number, time) in times.iter().enumerate() {
        events.seen(&no_network(&format!("e{number}"), &format!("p{number}"), "n1", time, 1), now);
    }
    events.finish();
    assert_eq!(told(&far), [], "what is known says nothing new");
}

#[test]
fn without_the_workload_of_its_cni_the_trouble_is_the_nodes() {
    let far = Told::new();
    let components = Components::new(far.lane());
    components.workload(&cilium(), "uid-of-cilium", 3);
    let events = events(components.clone(), &far);
    let time = "2026-03-01T10:00:00Z";
    for number in 0..3 {
        events.seen(&no_network(&format!("e{number}"), &format!("p{number}"), "n1", time, 1), at(time));
    }
    components.workload_gone(&cilium(), at(time));
    assert_eq!(told(&far).pop(), Some(signal(Action::Delete, "CNIDegraded", "DaemonSet cilium", 3)));
    events.seen(&no_network("e1", "p1", "n1", time, 2), at(time));
    assert_eq!(told(&far), [signal(Action::Create, "CNIDegraded", "Node n1", 4)]);
    components.workload(&cilium(), "uid-of-cilium", 3);
    components.tick(at(time));
    assert_eq!(told(&far), [], "it is told once");
}

#[test]
fn without_a_known_cni_it_is_a_signal_of_the_node() {
    let far = Told::new();
    let events = events(Components::new(far.lane()), &far);
    let time = "2026-03-01T10:00:00Z";
    for number in 0..3 {
        events.seen(&no_network(&format!("e{number}"), &format!("p{number}"), "n1", time, 1), at(time));
    }
    events.tick(at("2026-03-01T10:05:59Z"));
    assert_eq!(told(&far).pop(), Some(signal(Action::Create, "CNIDegraded", "Node n1", 3)));
    events.tick(at("2026-03-01T10:06:00Z"));
    assert_eq!(told(&far), [signal(Action::Update, "CNIRecovered", "Node n1", 3)]);
}

#[test]
fn a_pod_with_an_address_has_a_network() {
    let far = Told::new();
    let events = events(Components::new(far.lane()), &far);
    let now = Timestamp::now();
    let time = now.to_string();
    for number in 0..3 {
        events.seen(&no_network(&format!("e{number}"), &format!("p{number}"), "n1", &time, 1), now);
    }
    let started = Started(events);
    let pod = |number, status: Value| -> Pod {
        let meta = json!({"name": format!("p{number}"), "uid": format!("uid-of-p{number}")});
        serde_json::from_value(
            json!({"metadata": meta, "spec": {"nodeName": "n1", "containers": []}, "status": status}),
        )
        .unwrap()
    };
    told(&far);
    for number in 0..3 {
        started.apply(&pod(number, json!({})));
    }
    assert_eq!(told(&far), []);
    for number in 0..3 {
        started.apply(&pod(number, json!({"podIP": "10.0.0.7"})));
    }
    assert_eq!(told(&far), [signal(Action::Update, "CNIRecovered", "Node n1", 3)]);
}
