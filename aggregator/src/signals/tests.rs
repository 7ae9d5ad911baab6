use std::time::Duration;

use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kestrel_proto::{
    cloud::v1::{Action, stream_events_request::Request},
    node::v1::LogPolicy,
};
use serde_json::json;

use super::{told::Told, *};
use crate::inventory::Sink;

/// Action and what it is about.
fn told(far: &Told) -> Vec<(Action, String)> {
    let short = |request| match request {
        Request::KubernetesEvent(event) => (event.action(), event.reason),
        Request::PodStatusChange(pod) => (pod.action(), pod.name),
        other => panic!("{other:?}"),
    };
    far.next().into_iter().map(short).collect()
}

fn later(now: Timestamp, seconds: u64) -> Timestamp {
    now + Duration::from_secs(seconds)
}

/// A pod of `node` that waits since `now` for its sandbox, or only for its image.
fn waits(name: &str, node: &str, has_sandbox: bool, is_of_host: bool, now: Timestamp) -> Pod {
    let sandbox = if has_sandbox { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": now.to_string()},
        "spec": {"nodeName": node, "hostNetwork": is_of_host, "containers": [{"name": "app"}]},
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodReadyToStartContainers", "status": sandbox, "lastTransitionTime": now.to_string()},
            ],
            "containerStatuses": [{
                "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}},
            }],
        },
    }))
    .unwrap()
}

fn no_network(pod: &str, node: &str, now: Timestamp) -> Event {
    serde_json::from_value(json!({
        "metadata": {"name": format!("{pod}.1"), "namespace": "shop", "uid": format!("event of {pod}")},
        "type": "Warning", "reason": "FailedCreatePodSandBox", "note": "no IP", "eventTime": null,
        "regarding": {"kind": "Pod", "namespace": "shop", "name": pod, "uid": pod},
        "deprecatedSource": {"component": "kubelet", "host": node},
        "deprecatedFirstTimestamp": now.to_string(), "deprecatedLastTimestamp": now.to_string(),
        "deprecatedCount": 1,
    }))
    .unwrap()
}

#[test]
fn pods_that_wait_for_the_network_of_their_node_are_no_incidents_while_its_trouble_is_told() {
    let far = Told::new();
    let signals = Signals::new(&Thresholds::default(), &far.lane(), &inventory::Pods::new(LogPolicy::Errors));
    // What is applied is seen now: nothing of it may lie in the future.
    let now = Timestamp::now() - Duration::from_secs(125);
    signals.pods.apply(&waits("early", "n1", false, false, now));
    signals.tick(later(now, 125));
    assert_eq!(told(&far), [(Action::Create, "early".to_owned())]);
    let since = later(now, 60);
    for (name, node, has_sandbox, is_of_host) in [
        ("held", "n1", false, false),
        ("elsewhere", "n2", false, false),
        ("without a need", "n1", false, true),
    ] {
        signals.pods.apply(&waits(name, node, has_sandbox, is_of_host, since));
    }
    // An image may take five times as long.
    signals.pods.apply(&waits("pulls", "n1", true, false, later(now, 160) - Duration::from_mins(10)));
    for pod in ["1", "2", "3"] {
        signals.events.apply(&no_network(pod, "n1", since));
    }
    assert_eq!(told(&far).pop(), Some((Action::Create, "CNIDegraded".to_owned())));
    signals.pods.apply(&waits("early", "n1", false, false, now));
    signals.tick(later(now, 185));
    let mut began = told(&far);
    began.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(
        began,
        ["elsewhere", "pulls", "without a need"].map(|name| (Action::Create, name.to_owned())),
        "what was open goes on"
    );
    // The network's trouble ends, and for a while the pod may still be late for it.
    signals.tick(later(now, 60 + 360));
    assert_eq!(told(&far), [(Action::Update, "CNIRecovered".to_owned())]);
    for second in 421..545 {
        signals.tick(later(now, second));
    }
    assert_eq!(told(&far), [(Action::Create, "held".to_owned())]);
}
