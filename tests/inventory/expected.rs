//! What the cloud must have: the contract's records, made from a fresh list in
//! the plainest way.

use std::collections::BTreeMap;

use axum::http::Request;
use kestrel_dev_cloud::Record;
use kube::Client;
use serde_json::{Value, json};

use crate::resource::{self, Resource};

/// Records by the member of the envelope and UID.
pub(crate) type Records = BTreeMap<(String, String), Value>;

/// What must be there.
pub(crate) async fn expected(client: &Client) -> Records {
    let mut records = Records::new();
    for resource in resource::ALL {
        let request = Request::get(resource.path()).body(Vec::new()).unwrap();
        let list: Value = client.request(request).await.unwrap();
        for object in list["items"].as_array().unwrap() {
            let uid = text(&object["metadata"]["uid"]);
            records.insert((resource.record.to_owned(), uid.clone()), record(resource, object));
            if resource.kind == "Pod" && object["metadata"]["ownerReferences"].is_null() {
                records.insert(("workload".to_owned(), uid), workload("Pod", object, &object["spec"]));
            }
        }
    }
    records
}

/// What the cloud has.
pub(crate) fn found(record: &Record) -> Records {
    let kinds = record.inventory.counts().into_keys().map(str::to_owned).collect::<Vec<_>>();
    let arrivals = kinds.iter().flat_map(|kind| record.inventory.of_kind(kind));
    let without_action = |mut message: Value| {
        message.as_object_mut().unwrap().remove("action");
        message
    };
    arrivals
        .map(|arrival| {
            let key = (arrival.message.kind().to_owned(), arrival.facts.uid.clone());
            (key, without_action(arrival.message.json()))
        })
        .collect()
}

fn record(resource: Resource, object: &Value) -> Value {
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    match resource.kind {
        "Namespace" => json!({
            "name": meta["name"], "uid": meta["uid"], "labels": map(&meta["labels"]),
            "created_at": meta["creationTimestamp"],
        }),
        "Node" => json!({
            "name": meta["name"], "uid": meta["uid"], "labels": map(&meta["labels"]),
            "internal_ips": addresses(status, "InternalIP"), "external_ips": addresses(status, "ExternalIP"),
            "hostname": addresses(status, "Hostname").pop().unwrap_or_default(), "ready": is_ready(status),
            "instance_type": text(&meta["labels"]["node.kubernetes.io/instance-type"]),
            "zone": text(&meta["labels"]["topology.kubernetes.io/zone"]), "created_at": meta["creationTimestamp"],
        }),
        "Pod" => json!({
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"], "labels": map(&meta["labels"]),
            "pod_ip": text(&status["podIP"]), "phase": text(&status["phase"]), "ready": is_ready(status),
            "owner_references": all(&meta["ownerReferences"]).map(owner).collect::<Vec<_>>(),
            "created_at": meta["creationTimestamp"],
        }),
        "CronJob" => workload("CronJob", object, &spec["jobTemplate"]["spec"]["template"]["spec"]),
        kind => workload(kind, object, &spec["template"]["spec"]),
    }
}

fn workload(kind: &str, object: &Value, pod: &Value) -> Value {
    let meta = &object["metadata"];
    let account = pod["serviceAccountName"].as_str().unwrap_or("default");
    json!({
        "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"], "kind": kind,
        "labels": map(&meta["labels"]), "created_at": meta["creationTimestamp"], "service_account": account,
    })
}

fn owner(owner: &Value) -> Value {
    json!({
        "api_version": owner["apiVersion"], "kind": owner["kind"], "name": owner["name"], "uid": owner["uid"],
        "controller": owner["controller"] == true, "block_owner_deletion": owner["blockOwnerDeletion"] == true,
    })
}

fn addresses(status: &Value, kind: &str) -> Vec<String> {
    let of_kind = all(&status["addresses"]).filter(|address| address["type"] == kind);
    of_kind.map(|address| text(&address["address"])).collect()
}

fn is_ready(status: &Value) -> bool {
    all(&status["conditions"]).any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn map(value: &Value) -> Value {
    if value.is_null() { json!({}) } else { value.clone() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
