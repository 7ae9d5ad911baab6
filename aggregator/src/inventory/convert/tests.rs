use kestrel_proto::cloud::v1::OwnerReference;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn meta(name: &str) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"),
        "labels": {"app": "web", "tier": "front"},
        "creationTimestamp": "2026-11-21T10:00:05Z",
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    })
}

fn labels() -> BTreeMap<String, String> {
    [("app", "web"), ("tier", "front")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn at_ten() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_795_255_205, nanos: 0 })
}

#[test]
fn a_namespace_in_full() {
    let expected = v1::Namespace {
        name: "shop".into(),
        uid: "uid-of-shop".into(),
        labels: labels(),
        created_at: at_ten(),
        action: 0,
    };
    assert_eq!(namespace(&object(json!({"metadata": meta("shop")}))), expected);
}

#[test]
fn a_workload_in_full() {
    let template = json!({"metadata": {"creationTimestamp": null}, "spec": {"serviceAccountName": "robot", "containers": []}});
    let expected = v1::Workload {
        name: "web".into(),
        namespace: "shop".into(),
        uid: "uid-of-web".into(),
        kind: "Deployment".into(),
        labels: labels(),
        created_at: at_ten(),
        action: 0,
        service_account: "robot".into(),
    };
    let deployment = json!({"metadata": meta("web"), "spec": {"replicas": 3, "template": template}, "status": {"replicas": 3}});
    assert_eq!(workload("Deployment", &object::<Workload>(deployment)), expected);
    let cron_job =
        json!({"metadata": meta("web"), "spec": {"jobTemplate": {"spec": {"template": template}}}});
    assert_eq!(workload("CronJob", &object::<Workload>(cron_job)).service_account, "robot");
    let without = json!({"metadata": meta("web"), "spec": {"replicas": 0}});
    assert_eq!(workload("ReplicaSet", &object::<Workload>(without)).service_account, "default");
}

fn a_pod() -> Value {
    json!({
        "metadata": meta("web-1"),
        "spec": {"nodeName": "n1", "serviceAccountName": "robot", "containers": []},
        "status": {
            "phase": "Running", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00::7"}],
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
        },
    })
}

#[test]
fn a_pod_in_full() {
    let mut value = a_pod();
    value["metadata"]["ownerReferences"] = json!([
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u-rs", "controller": true, "blockOwnerDeletion": true},
        {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u-n"},
    ]);
    let owner = |api_version: &str, kind: &str, name: &str, uid: &str, controller: bool| OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        controller,
        block_owner_deletion: controller,
    };
    let expected = v1::Pod {
        name: "web-1".into(),
        namespace: "shop".into(),
        uid: "uid-of-web-1".into(),
        pod_ip: "10.1.0.7".into(),
        labels: labels(),
        phase: "Running".into(),
        owner_references: vec![
            owner("v1", "Node", "n1", "u-n", false),
            owner("apps/v1", "ReplicaSet", "web", "u-rs", true),
        ],
        created_at: at_ten(),
        action: 0,
        ready: true,
    };
    assert_eq!(pod(&object(value.clone())), expected);
    assert_eq!(ownerless_pod(&object(value.clone())), None);
    value["status"]["conditions"][1]["status"] = "False".into();
    assert!(!pod(&object(value)).ready);
}

#[test]
fn a_pod_that_nothing_owns_is_a_workload() {
    let workload = ownerless_pod(&object(a_pod())).unwrap();
    assert_eq!((workload.kind.as_str(), workload.service_account.as_str()), ("Pod", "robot"));
}

#[test]
fn a_node_in_full() {
    let mut value = json!({
        "metadata": meta("n1"),
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.168.0.1"}, {"type": "InternalIP", "address": "fd00::1"},
                {"type": "ExternalIP", "address": "203.0.113.9"},
                {"type": "Hostname", "address": "old"}, {"type": "Hostname", "address": "n1.example"},
            ],
            "capacity": {"cpu": "4", "memory": "16Gi"}, "allocatable": {"cpu": "3900m"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok",
                "lastHeartbeatTime": "2026-11-21T10:00:05Z", "lastTransitionTime": "2026-11-21T10:00:05Z",
            }],
        },
    });
    value["metadata"]["labels"] =
        json!({"node.kubernetes.io/instance-type": "m7.large", "topology.kubernetes.io/zone": "eu-1a"});
    let node_object = object(value);
    let expected = v1::Node {
        name: "n1".into(),
        uid: "uid-of-n1".into(),
        labels: [("node.kubernetes.io/instance-type", "m7.large"), ("topology.kubernetes.io/zone", "eu-1a")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        internal_ips: vec!["192.168.0.1".into(), "fd00::1".into()],
        external_ips: vec!["203.0.113.9".into()],
        hostname: "n1.example".into(),
        ready: true,
        instance_type: "m7.large".into(),
        zone: "eu-1a".into(),
        created_at: at_ten(),
        action: 0,
    };
    assert_eq!(node(&node_object), expected);
    let change = node_condition_change(&node_object);
    assert_eq!(
        change,
        v1::NodeConditionChange {
            name: expected.name,
            uid: expected.uid,
            conditions: vec![v1::NodeCondition {
                r#type: "Ready".into(),
                status: "True".into(),
                last_heartbeat_time: at_ten(),
                last_transition_time: at_ten(),
                reason: "KubeletReady".into(),
                message: "ok".into(),
            }],
            internal_ips: expected.internal_ips,
            external_ips: expected.external_ips,
            hostname: expected.hostname,
            instance_type: expected.instance_type,
            zone: expected.zone,
            capacity: [("cpu", "4"), ("memory", "16Gi")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            allocatable: [("cpu".to_owned(), "3900m".to_owned())].into(),
            created_at: at_ten(),
            condition_timestamp: None,
            action: 0,
        }
    );
}

#[test]
fn times_before_1970_and_parts_of_a_second() {
    let at = |text: &str| timestamp(text.parse().unwrap());
    assert_eq!(at("1969-12-31T23:59:59.75Z"), prost_types::Timestamp { seconds: -1, nanos: 750_000_000 });
    assert_eq!(at("1970-01-01T00:00:01.5Z"), prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
}

#[test]
fn a_service_in_full() {
    let mut value = a_service();
    value["metadata"]["annotations"] =
        json!({"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let port = |name: &str, port: i32, target_port: i32, node_port: i32| v1::ServicePort {
        name: name.into(),
        protocol: "TCP".into(),
        port,
        target_port,
        node_port,
    };
    let expected = v1::Service {
        name: "web".into(),
        namespace: "shop".into(),
        uid: "uid-of-web".into(),
        labels: labels(),
        annotations: [("note".to_owned(), "n".to_owned())].into(),
        selector: [("app".to_owned(), "web".to_owned())].into(),
        ports: vec![port("http", 80, 8080, 30080), port("https", 443, 0, 0)],
        service_type: "NodePort".into(),
        cluster_ip: "10.96.0.7".into(),
        external_ips: vec!["203.0.113.1".into(), "203.0.113.2".into()],
        created_at: at_ten(),
        action: 0,
    };
    assert_eq!(service(&object(value)), expected);
    assert_eq!(service(&object(json!({"metadata": {}}))), v1::Service::default());
}

fn a_service() -> Value {
    json!({
        "metadata": meta("web"),
        "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
            "selector": {"app": "web"}, "externalIPs": ["203.0.113.2", "203.0.113.1"],
            "ports": [
                {"name": "https", "protocol": "TCP", "port": 443, "targetPort": "tls"},
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080},
            ],
        },
    })
}

fn a_network_policy() -> Value {
    let peers = json!([
        {"podSelector": {"matchLabels": {"app": "a", "tier": "b"}}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]}},
        {"namespaceSelector": {"matchExpressions": [
            {"key": "team", "operator": "In", "values": ["a", "b", "c"]},
            {"key": "old", "operator": "DoesNotExist"},
        ]}},
    ]);
    let ports = json!([{"protocol": "TCP", "port": 1}, {"protocol": "UDP", "port": "dns"}, {"port": 9, "endPort": 12}]);
    json!({
        "metadata": meta("web"),
        "spec": {
            "podSelector": {}, "policyTypes": ["Egress", "Ingress"],
            "ingress": [{"from": peers, "ports": ports}, {"ports": ports}, {}],
            "egress": [{"to": peers}, {"to": peers, "ports": ports}],
        },
    })
}

fn an_authorization_policy() -> Value {
    let source = json!({"source": {"namespaces": ["a", "b", "c"], "notPrincipals": ["d", "e"]}});
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": meta("web"),
        "spec": {"rules": [
            {"from": [source, {"source": {"principals": ["x", "y"]}}], "when": [{"key": "k", "values": ["1", "2"]}]},
            {"to": [{"operation": {"paths": ["/b", "/a"]}}, {"operation": {"methods": ["PUT", "GET"]}}]},
            {},
        ]},
    })
}

fn a_node() -> Value {
    let condition = |name: &str| json!({"type": name, "status": "False", "reason": "R", "message": "m"});
    let conditions = ["Ready", "DiskPressure", "PIDPressure", "MemoryPressure"].map(condition);
    json!({
        "metadata": meta("n1"),
        "status": {
            "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"},
            "conditions": conditions,
        },
    })
}

/// The same object, written in another order: of maps, and of lists that are
/// sets to Kubernetes.
fn written(value: &Value, turns: &mut dyn Iterator<Item = usize>) -> String {
    let turned = |mut parts: Vec<String>, by: usize| {
        let by = by % parts.len().max(1);
        parts.rotate_left(by);
        if by % 2 == 1 {
            parts.reverse();
        }
        parts.join(",")
    };
    let by = turns.next().unwrap_or_default();
    match value {
        Value::Array(list) => {
            format!("[{}]", turned(list.iter().map(|value| written(value, turns)).collect(), by))
        }
        Value::Object(map) => {
            let entry = |(key, value): (&String, _)| {
                format!("{}:{}", Value::from(key.as_str()), written(value, turns))
            };
            format!("{{{}}}", turned(map.iter().map(entry).collect(), by))
        }
        plain => plain.to_string(),
    }
}

type Bytes = fn(&str) -> Vec<u8>;

proptest! {
    #[test]
    fn equal_objects_give_equal_bytes(turns in prop::collection::vec(0..12_usize, 200)) {
        fn bytes<T: DeserializeOwned, M: Message>(text: &str, convert: impl Fn(&T) -> M) -> Vec<u8> {
            convert(&serde_json::from_str(text).unwrap()).encode_to_vec()
        }
        let mut owned_pod = a_pod();
        let owners = ["c", "a", "b"].map(|uid| json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid}));
        owned_pod["metadata"]["ownerReferences"] = Value::from(&owners[..]);
        let conversions: [(Value, Bytes); 6] = [
            (owned_pod, |text| bytes(text, pod)),
            (a_node(), |text| bytes(text, node)),
            (a_node(), |text| bytes(text, node_condition_change)),
            (a_service(), |text| bytes(text, service)),
            (a_network_policy(), |text| bytes(text, network_policy)),
            (an_authorization_policy(), |text| bytes(text, authorization_policy)),
        ];
        for (value, bytes) in conversions {
            let turned = written(&value, &mut turns.iter().copied().cycle());
            prop_assert_eq!(bytes(&value.to_string()), bytes(&turned), "{}", turned);
        }
    }
}
