//! `networkPolicy.create`: nothing that the operator's pods serve or use is cut off.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::helm::{Objects, list};

/// The ports that a policy opens in one direction; `None` if all are open.
fn ports(objects: &Objects, name: &str, direction: &str) -> Option<BTreeSet<u64>> {
    let rules = list(&objects.get("NetworkPolicy", name)["spec"][direction]);
    if rules.iter().any(|rule| rule == &json!({})) {
        return None;
    }
    Some(
        rules
            .iter()
            .flat_map(|rule| list(&rule["ports"]))
            .map(|port| port["port"].as_u64().unwrap())
            .collect(),
    )
}

fn open(objects: &Objects, name: &str, direction: &str) -> Vec<u64> {
    ports(objects, name, direction).expect("not all ports").into_iter().collect()
}

#[test]
fn there_is_none_by_default() {
    assert_eq!(Objects::with(&[]).of_kind("NetworkPolicy").count(), 0);
}

#[test]
fn every_workload_has_one_that_selects_it() {
    let objects = Objects::with(&["networkPolicy.create=true"]);
    for (workload, _) in objects.pods() {
        let policy = &objects.get("NetworkPolicy", workload)["spec"];
        let controller = objects.0.iter().find(|object| {
            ["Deployment", "DaemonSet"].iter().any(|kind| object["kind"] == *kind)
                && object["metadata"]["name"] == workload
        });
        assert_eq!(policy["podSelector"], controller.unwrap()["spec"]["selector"]);
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    }
    let small =
        Objects::with(&["networkPolicy.create=true", "webhook.enabled=false", "nodeAgent.enabled=false"]);
    assert_eq!(small.of_kind("NetworkPolicy").count(), 1);
}

#[test]
fn every_port_that_is_served_can_be_reached() {
    let objects = Objects::with(&[
        "networkPolicy.create=true",
        "healthcheck.port=9090",
        "operator.istio.enabled=true",
        "operator.istio.alsPort=8090",
    ]);
    for (workload, pod) in objects.pods() {
        let served = list(&pod["spec"]["containers"][0]["ports"]);
        let served: BTreeSet<_> = served.iter().map(|port| port["containerPort"].as_u64().unwrap()).collect();
        assert_eq!(ports(&objects, workload, "ingress"), Some(served), "{workload}");
    }
}

#[test]
fn what_is_used_can_be_reached() {
    let objects = Objects::with(&["networkPolicy.create=true", "server.port=50051"]);
    assert_eq!(open(&objects, "kestrel-aggregator", "egress"), [53, 443, 6443, 50051]);
    assert_eq!(open(&objects, "kestrel-webhook", "egress"), [53, 443, 6443]);
    assert_eq!(open(&objects, "kestrel-node-agent", "egress"), [53, 8443]);
    let asking =
        Objects::with(&["networkPolicy.create=true", "server.port=50051", "operator.istio.proxyStats=true"]);
    assert_eq!(open(&asking, "kestrel-aggregator", "egress"), [53, 443, 6443, 15_090, 50_051]);
    assert_eq!(asking.env("kestrel-aggregator", "KESTREL_ALS_STATS_PORT"), Some("15090"));
}

#[test]
fn relay_can_be_reached_where_hubble_is_read() {
    let set = |more: &'static str| ["networkPolicy.create=true", "operator.cilium.disableFlows=false", more];
    let objects = Objects::with(&set("server.port=50051"));
    assert_eq!(open(&objects, "kestrel-aggregator", "egress"), [53, 80, 443, 4245, 6443, 50051]);
    let objects = Objects::with(&set("operator.cilium.hubble.relay.address=relay.example:8443"));
    assert!(open(&objects, "kestrel-aggregator", "egress").contains(&8443));
    let objects = Objects::with(&set("hubble.cidr=192.0.2.0/24"));
    let rules = list(&objects.get("NetworkPolicy", "kestrel-aggregator")["spec"]["egress"]);
    assert!(rules.iter().any(|rule| rule["to"][0]["ipBlock"]["cidr"] == "192.0.2.0/24"), "{rules:?}");
}

#[test]
fn the_way_to_the_cloud_may_lead_through_a_proxy() {
    for (proxy, egress) in [
        ("server.proxy.url=http://proxy:3128", Some(vec![53, 443, 3128, 6443])),
        ("server.proxy.url=http://proxy", Some(vec![53, 80, 443, 6443])),
        // Its port is in the Secret.
        ("server.proxy.existingSecret=proxy", None),
    ] {
        let objects = Objects::with(&["networkPolicy.create=true", "server.port=50051", proxy]);
        let open = ports(&objects, "kestrel-aggregator", "egress");
        assert_eq!(open, egress.map(|ports| ports.into_iter().collect()), "{proxy}");
    }
}

#[test]
fn the_api_server_can_be_narrowed_to_an_address() {
    let objects = Objects::with(&[
        "networkPolicy.create=true",
        "k8sApiServer.cidr=192.0.2.1/32",
        "k8sApiServer.port=6443",
    ]);
    let of_webhook = list(&objects.get("NetworkPolicy", "kestrel-webhook")["spec"]["egress"]);
    let to_api: Vec<&Value> = of_webhook.iter().filter(|rule| !rule["to"].is_null()).collect();
    let expected = json!({"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"port": 6443}]});
    assert_eq!(to_api, [&expected]);
    assert_eq!(open(&objects, "kestrel-webhook", "egress"), [53, 6443]);
}
