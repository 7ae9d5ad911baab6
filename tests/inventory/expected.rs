//! What the cloud must have: the contract's records, made from a fresh list in
//! the plainest way.

use std::collections::BTreeMap;

use axum::http::Request;
use kestrel_dev_cloud::Record;
use kube::Client;
use serde_json::{Map, Value, json};

use crate::{
    resource::{self, Resource},
    targets::targets,
};

/// Records by the member of the envelope and UID.
pub(crate) type Records = BTreeMap<(String, String), Value>;

/// What must be there.
pub(crate) async fn expected(client: &Client) -> Records {
    let mut lists = Vec::new();
    for resource in resource::ALL {
        let request = Request::get(resource.path()).body(Vec::new()).unwrap();
        let list: Value = client.request(request).await.unwrap();
        lists.push((resource, list["items"].as_array().unwrap().clone()));
    }
    let of_kinds = |kinds: &[&str]| -> Vec<Value> {
        lists
            .iter()
            .filter(|(resource, _)| kinds.contains(&resource.kind))
            .flat_map(|(_, list)| list.clone())
            .collect()
    };
    let (pods, controllers) = (of_kinds(&["Pod"]), of_kinds(&["ReplicaSet", "Job"]));
    let mut records = Records::new();
    for (resource, object) in
        lists.iter().flat_map(|(resource, list)| list.iter().map(move |object| (*resource, object)))
    {
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let mut message = record(resource, object);
        let selector = match resource.kind {
            "NetworkPolicy" => Some(&spec["podSelector"]),
            "AuthorizationPolicy" => Some(&spec["selector"]),
            _ => None,
        };
        if let Some(selector) = selector {
            message["target_workloads"] = targets(&meta["namespace"], selector, &pods, &controllers);
        }
        let uid = text(&meta["uid"]);
        records.insert((resource.record.to_owned(), uid.clone()), sets(message));
        if resource.kind == "Pod" && meta["ownerReferences"].is_null() {
            records.insert(("workload".to_owned(), uid), workload("Pod", object, spec));
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
        sets(message)
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
        "Service" => json!({
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"], "labels": map(&meta["labels"]),
            "annotations": annotations(meta), "selector": map(&spec["selector"]),
            "ports": all(&spec["ports"]).map(service_port).collect::<Vec<_>>(), "service_type": spec["type"],
            "cluster_ip": text(&spec["clusterIP"]), "external_ips": list(&spec["externalIPs"]),
            "created_at": meta["creationTimestamp"],
        }),
        "NetworkPolicy" => policy(resource, meta, network_policy(spec)),
        "AuthorizationPolicy" => policy(resource, meta, authorization_policy(spec)),
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

fn service_port(port: &Value) -> Value {
    json!({
        "name": text(&port["name"]), "protocol": port["protocol"], "port": port["port"],
        "target_port": port["targetPort"].as_u64().unwrap_or(0), "node_port": port["nodePort"].as_u64().unwrap_or(0),
    })
}

fn policy(resource: Resource, meta: &Value, spec: Value) -> Value {
    let is_istio = resource.kind == "AuthorizationPolicy";
    let metadata = json!({
        "name": meta["name"], "namespace": meta["namespace"], "labels": map(&meta["labels"]),
        "annotations": annotations(meta), "uid": meta["uid"],
        "resource_version": if is_istio { "" } else { meta["resourceVersion"].as_str().unwrap() },
    });
    json!({
        "api_version": resource.api_version(), "kind": resource.kind, "metadata": metadata, "spec": spec,
    })
}

fn network_policy(spec: &Value) -> Value {
    let rules = |rules: &Value, peers: &str| -> Vec<Value> {
        let rule = |rule: &Value| {
            let ports: Vec<Value> = all(&rule["ports"]).map(policy_port).collect();
            json!({peers: all(&rule[peers]).map(peer).collect::<Vec<_>>(), "ports": ports})
        };
        all(rules).map(rule).collect()
    };
    json!({
        "pod_selector": selector(&spec["podSelector"]), "policy_types": spec["policyTypes"],
        "ingress": rules(&spec["ingress"], "from"), "egress": rules(&spec["egress"], "to"),
    })
}

fn peer(peer: &Value) -> Value {
    let mut message = json!({});
    for (field, name) in [("podSelector", "pod_selector"), ("namespaceSelector", "namespace_selector")] {
        if peer[field].is_object() {
            message[name] = selector(&peer[field]);
        }
    }
    if let Some(block) = peer["ipBlock"].as_object() {
        message["ip_block"] = json!({"cidr": block["cidr"], "except": list(&peer["ipBlock"]["except"])});
    }
    message
}

fn policy_port(port: &Value) -> Value {
    let mut message =
        json!({"protocol": port["protocol"], "end_port": port["endPort"].as_u64().unwrap_or(0)});
    let field = if port["port"].is_string() { "port_name" } else { "port" };
    message[field] = port["port"].clone();
    message
}

fn selector(selector: &Value) -> Value {
    let requirement = |requirement: &Value| json!({"key": requirement["key"], "operator": requirement["operator"], "values": list(&requirement["values"])});
    let requirements: Vec<Value> = all(&selector["matchExpressions"]).map(requirement).collect();
    json!({"match_labels": map(&selector["matchLabels"]), "match_expressions": requirements})
}

fn authorization_policy(spec: &Value) -> Value {
    let action = spec["action"].as_str().unwrap_or("ALLOW");
    let lists = |value: &Value, names: &[(&str, &str)]| -> Value {
        names
            .iter()
            .map(|(field, name)| ((*name).to_owned(), list(&value[*field])))
            .collect::<Map<_, _>>()
            .into()
    };
    let from = |from: &Value| {
        let names = [
            ("principals", "principals"),
            ("requestPrincipals", "request_principals"),
            ("namespaces", "namespaces"),
            ("ipBlocks", "ip_blocks"),
            ("remoteIpBlocks", "remote_ip_blocks"),
        ];
        json!({"source": lists(&from["source"], &names)})
    };
    let to = |to: &Value| {
        let names = ["methods", "paths", "ports", "hosts"].map(|name| (name, name));
        json!({"operation": lists(&to["operation"], &names)})
    };
    let when = |when: &Value| json!({"key": when["key"], "values": list(&when["values"]), "not_values": list(&when["notValues"])});
    let rule = |rule: &Value| {
        json!({
            "from": all(&rule["from"]).map(from).collect::<Vec<_>>(), "to": all(&rule["to"]).map(to).collect::<Vec<_>>(),
            "when": all(&rule["when"]).map(when).collect::<Vec<_>>(),
        })
    };
    let mut message = json!({
        "action": format!("AUTHORIZATION_POLICY_ACTION_{action}"),
        "rules": all(&spec["rules"]).map(rule).collect::<Vec<_>>(),
    });
    if spec["selector"].is_object() {
        message["selector"] = selector(&spec["selector"]);
    }
    message
}

/// All but what `kubectl apply` writes down for itself.
fn annotations(meta: &Value) -> Value {
    let mut annotations = map(&meta["annotations"]);
    annotations.as_object_mut().unwrap().remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations
}

/// Lists are compared as sets.
fn sets(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(sets).collect();
            list.sort_by_cached_key(Value::to_string);
            list.into()
        }
        Value::Object(map) => {
            map.into_iter().map(|(name, value)| (name, sets(value))).collect::<Map<_, _>>().into()
        }
        plain => plain,
    }
}

fn addresses(status: &Value, kind: &str) -> Vec<String> {
    let of_kind = all(&status["addresses"]).filter(|address| address["type"] == kind);
    of_kind.map(|address| text(&address["address"])).collect()
}

fn is_ready(status: &Value) -> bool {
    all(&status["conditions"]).any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

pub(crate) fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn list(value: &Value) -> Value {
    if value.is_null() { json!([]) } else { value.clone() }
}

fn map(value: &Value) -> Value {
    if value.is_null() { json!({}) } else { value.clone() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
