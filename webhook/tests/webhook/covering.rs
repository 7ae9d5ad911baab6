//! Statuses of profiles and Events, written by two replicas at once.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kestrel_webhook::{
    cluster::{Kind, Shared},
    coverage::writer::Writer,
    watch::Watch,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};

use crate::{
    listing::{ApiServer, OTHER_PODS, namespace, profile, until},
    review,
};

/// A pod of a ReplicaSet that asks for a collector.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "2",
            "creationTimestamp": Timestamp::now().to_string(),
            "labels": {"pod-template-hash": "5d8f"}, "annotations": {"kestrel.ai/inject": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f",
                "uid": "uid-web", "controller": true}],
        },
    })
}

/// The same pod with a collector in this state.
fn injected(name: &str, state: &Value) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["annotations"]["kestrel.ai/injected-by"] = json!("a");
    pod["spec"] = json!({"initContainers": [{"name": "kestrel-collector", "image": "collector:1"}]});
    pod["status"] = json!({"initContainerStatuses": [{"name": "kestrel-collector", "state": state}]});
    pod
}

/// Watches and writes until the runtime of the test ends.
fn replica(server: &Arc<ApiServer>) -> (Arc<Shared>, Registry) {
    let cluster = Arc::new(Shared::new(review::cluster()));
    for kind in
        [Kind::Namespace, Kind::InjectionProfile, Kind::InjectedPod, Kind::OtherPod, Kind::FailedCreation]
    {
        tokio::spawn(Watch::new(server.client(), kind, Arc::clone(&cluster), None).follow());
    }
    let mut registry = Registry::default();
    let writer = Writer::new(server.client(), Arc::clone(&cluster), &mut registry);
    tokio::spawn(writer.write());
    (cluster, registry)
}

#[tokio::test(start_paused = true)]
async fn replicas_write_every_status_and_every_event_once() {
    let server = ApiServer::new(BTreeMap::from([
        ("namespaces", vec![namespace("shop", "a")]),
        ("injectionprofiles", vec![profile("a", &json!({}))]),
        ("pods", vec![injected("one", &json!({"running": {}}))]),
        (OTHER_PODS, vec![pod("missed"), pod("missed-too")]),
        ("events", vec![]),
    ]));
    let replicas = [replica(&server), replica(&server)];
    let written = |count: usize, what: (u64, u64)| {
        let statuses = server.statuses.lock().unwrap();
        assert!(statuses.len() <= count, "{statuses:#?}");
        statuses.last().is_some_and(|status| {
            (status["injected"].as_u64(), status["pending"].as_u64()) == (Some(what.0), Some(what.1))
        })
    };
    until("written", || written(1, (1, 2))).await;
    assert_eq!(server.statuses.lock().unwrap()[0]["conditions"][0]["reason"], "Ready");
    until("told", || server.told.lock().unwrap().len() == 1).await;

    server.put("pods", injected("two", &json!({"waiting": {"reason": "ImagePullBackOff", "message": "m"}})));
    until("written again", || written(2, (2, 2))).await;
    until("stopped", || {
        replicas.iter().all(|(cluster, _)| cluster.read().stops.count() == 1)
            && server.told.lock().unwrap().len() == 2
    })
    .await;
    let counted = |outcome: &str| -> usize {
        let number = |(_, registry): &(_, Registry)| {
            let mut metrics = String::new();
            encode(&mut metrics, registry).unwrap();
            let name = format!("kestrel_webhook_events_total{{outcome=\"{outcome}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok()).unwrap_or(0)
        };
        replicas.iter().map(number).sum()
    };
    until("known", || (counted("written"), counted("known")) == (2, 2)).await;
    let mut metrics = String::new();
    encode(&mut metrics, &replicas[0].1).unwrap();
    for (state, count) in [("injected", 2), ("pending", 2), ("skipped", 0)] {
        let line = format!("kestrel_webhook_pods{{state=\"{state}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let told = server.told.lock().unwrap();
    for event in told.values() {
        assert_eq!(event["involvedObject"]["uid"], "uid-web");
        assert_eq!((&event["type"], &event["metadata"]["namespace"]), (&json!("Warning"), &json!("shop")));
    }
    let reasons: Vec<_> = told.values().map(|event| event["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"CollectorMissing") && reasons.contains(&"InjectionStopped"), "{reasons:?}");
    assert_eq!(server.statuses.lock().unwrap().len(), 2);
}
