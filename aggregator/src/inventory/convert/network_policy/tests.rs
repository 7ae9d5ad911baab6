use serde_json::{Value, json};

use super::*;

fn record(spec: Value) -> v1::NetworkPolicySpec {
    let meta = json!({"name": "p", "namespace": "shop"});
    network_policy(&serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()).spec.unwrap()
}

fn selector(labels: &[(&str, &str)]) -> v1::LabelSelector {
    v1::LabelSelector {
        match_labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        match_expressions: Vec::new(),
    }
}

#[test]
fn a_network_policy_in_full() {
    let object = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "42",
            "labels": {"team": "a"},
            "annotations": {"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        },
        "spec": {
            "podSelector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["front", "edge"]},
                    {"key": "old", "operator": "DoesNotExist"},
                ],
            },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.2.0.0/16", "10.1.0.0/16"]}}],
                "ports": [{"protocol": "TCP", "port": 8000, "endPort": 8080}, {"protocol": "UDP", "port": "dns"}],
            }],
            "egress": [{"to": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "b"}}}], "ports": [{}]}],
        },
    });
    let requirement = |key: &str, operator: &str, values: &[&str]| v1::LabelSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let port = |protocol: &str, port_value, end_port| v1::NetworkPolicyPort {
        protocol: protocol.into(),
        port_value,
        end_port,
    };
    let block =
        v1::IpBlock { cidr: "10.0.0.0/8".into(), except: vec!["10.1.0.0/16".into(), "10.2.0.0/16".into()] };
    let spec = v1::NetworkPolicySpec {
        pod_selector: Some(v1::LabelSelector {
            match_expressions: vec![
                requirement("old", "DoesNotExist", &[]),
                requirement("tier", "In", &["edge", "front"]),
            ],
            ..selector(&[("app", "web")])
        }),
        ingress: vec![v1::NetworkPolicyIngressRule {
            from: vec![v1::NetworkPolicyPeer { ip_block: Some(block), ..Default::default() }],
            ports: vec![
                port("TCP", Some(PortValue::Port(8000)), 8080),
                port("UDP", Some(PortValue::PortName("dns".into())), 0),
            ],
        }],
        egress: vec![v1::NetworkPolicyEgressRule {
            to: vec![v1::NetworkPolicyPeer {
                pod_selector: Some(selector(&[])),
                namespace_selector: Some(selector(&[("team", "b")])),
                ip_block: None,
            }],
            ports: vec![port("", None, 0)],
        }],
        policy_types: vec!["Egress".into(), "Ingress".into()],
    };
    let metadata = v1::ObjectMeta {
        name: "web".into(),
        namespace: "shop".into(),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        annotations: [("note".to_owned(), "n".to_owned())].into(),
        resource_version: "42".into(),
        uid: "u".into(),
    };
    let expected = v1::NetworkPolicy {
        api_version: "networking.k8s.io/v1".into(),
        kind: "NetworkPolicy".into(),
        metadata: Some(metadata),
        spec: Some(spec),
        target_workloads: vec![],
        action: 0,
    };
    assert_eq!(network_policy(&serde_json::from_value(object).unwrap()), expected);
}

#[test]
fn an_absent_selector_of_a_peer_is_not_an_empty_one() {
    let spec = record(json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}));
    assert_eq!(spec.pod_selector, Some(selector(&[])));
    let peer = &spec.ingress[0].from[0];
    assert_eq!((&peer.pod_selector, &peer.namespace_selector), (&None, &Some(selector(&[]))));
}

#[test]
fn a_policy_without_a_selector_is_for_every_pod() {
    assert_eq!(record(json!({"policyTypes": ["Ingress"]})).pod_selector, Some(selector(&[])));
}
