//! What is rendered for which Kubernetes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{self, Objects, text};

/// Kinds and names that only a Kubernetes with native sidecars gets.
const INJECTION: [(&str, &str); 12] = [
    ("ClusterRole", "kestrel-webhook"),
    ("ClusterRoleBinding", "kestrel-webhook"),
    ("CustomResourceDefinition", "injectionprofiles.kestrel.ai"),
    ("Deployment", "kestrel-webhook"),
    ("MutatingWebhookConfiguration", "kestrel-webhook"),
    ("PodDisruptionBudget", "kestrel-webhook"),
    ("Role", "kestrel-webhook"),
    ("RoleBinding", "kestrel-webhook"),
    ("Service", "kestrel-webhook"),
    ("ServiceAccount", "kestrel-webhook"),
    ("ValidatingAdmissionPolicy", "kestrel-running-pod"),
    ("ValidatingAdmissionPolicyBinding", "kestrel-running-pod"),
];

fn names(objects: &Objects) -> BTreeSet<(&str, &str)> {
    objects.0.iter().map(|object| (text(&object["kind"]), text(&object["metadata"]["name"]))).collect()
}

#[test]
fn an_older_api_server_gets_all_but_injection() {
    let newest = Objects::with(&[]);
    let with: BTreeSet<_> = names(&newest);
    let without: BTreeSet<_> = with.iter().copied().filter(|name| !INJECTION.contains(name)).collect();
    assert_eq!(with.len() - without.len(), INJECTION.len());
    for (kubernetes, expected) in [
        ("1.24.0", &without),
        ("1.27.3", &without),
        ("1.29.12", &without),
        ("1.30.0", &with),
        // As managed clusters name themselves.
        ("1.30.4-gke.1348000", &with),
        ("1.35.4", &with),
    ] {
        assert_eq!(&names(&Objects::on(kubernetes, &[])), expected, "Kubernetes {kubernetes}");
    }
}

#[test]
fn the_version_can_be_given_where_the_cluster_is_not_asked() {
    let older = Objects::with(&["kubeVersion=v1.29.4"]);
    assert_eq!(older.find("Deployment", "kestrel-webhook"), None);
    let newer = Objects::on("1.24.0", &["kubeVersion=v1.33"]);
    newer.get("Deployment", "kestrel-webhook");
}

/// A field that an API server does not know makes Helm refuse the whole chart.
#[test]
fn budgets_and_spreading_say_more_where_the_api_server_understands_it() {
    for (kubernetes, policy) in [("1.26.15", Value::Null), ("1.27.0", "AlwaysAllow".into())] {
        let objects = Objects::on(kubernetes, &[]);
        let budget = objects.get("PodDisruptionBudget", "kestrel-aggregator");
        assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], policy, "Kubernetes {kubernetes}");
        let pod = &objects.get("Deployment", "kestrel-aggregator")["spec"]["template"]["spec"];
        let keys = &pod["topologySpreadConstraints"][0]["matchLabelKeys"];
        assert_eq!(keys.is_array(), policy.is_string(), "Kubernetes {kubernetes}");
    }
}

#[test]
fn kubernetes_before_1_24_is_refused() {
    let refusal = helm::render_chart(&helm::chart(), "1.23.17", &[]).expect_err("1.23 is too old");
    assert!(refusal.contains("requires kubeVersion: >=1.24.0-0"), "{refusal}");
}

#[test]
fn parts_can_be_left_out() {
    let objects = Objects::with(&["webhook.enabled=false", "nodeAgent.enabled=false"]);
    let workloads: Vec<_> = objects.pods().map(|(name, _)| name).collect();
    assert_eq!(workloads, ["kestrel-aggregator"]);
    assert_eq!(objects.find("MutatingWebhookConfiguration", "kestrel-webhook"), None);
    assert_eq!(objects.find("ValidatingAdmissionPolicy", "kestrel-running-pod"), None);
}
