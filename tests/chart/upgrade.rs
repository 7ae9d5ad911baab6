//! From a release of chart 0.1 to this chart, in place.

use std::collections::BTreeSet;

use axum::http::Request;
use kube::Client;
use serde_json::Value;

use crate::{
    api_server::ApiServer,
    helm::{self, NAMESPACE, Objects, RELEASE, list, text},
};

/// Every kind of which one of the two charts makes something.
const PATHS: [&str; 18] = [
    "/api/v1/namespaces/kestrel-ai/secrets",
    "/api/v1/namespaces/kestrel-ai/services",
    "/api/v1/namespaces/kestrel-ai/serviceaccounts",
    "/api/v1/namespaces/kestrel-ai/pods",
    "/apis/apps/v1/namespaces/kestrel-ai/deployments",
    "/apis/apps/v1/namespaces/kestrel-ai/daemonsets",
    "/apis/networking.k8s.io/v1/namespaces/kestrel-ai/networkpolicies",
    "/apis/policy/v1/namespaces/kestrel-ai/poddisruptionbudgets",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kestrel-ai/roles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kestrel-ai/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/coordination.k8s.io/v1/namespaces/kestrel-ai/leases",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
];

/// What an API server does not let an upgrade change.
fn fixed(object: &Value) -> [&Value; 4] {
    // Of a Service it may.
    let selector = if object["kind"] == "Service" { &Value::Null } else { &object["spec"]["selector"] };
    [&object["apiVersion"], &object["type"], selector, &object["roleRef"]]
}

/// `tests/chart/release-0.1` makes the objects that chart 0.1 made; the cluster suite upgrades a release of it.
#[test]
fn what_both_charts_make_can_be_changed_in_place() {
    let values = helm::repository("tests/chart/values-0.1.yaml");
    let render = |chart: &str| {
        let arguments = ["--values", values.to_str().unwrap()];
        let folder = helm::repository(chart);
        Objects::parse(&helm::render_chart(&folder, helm::NEWEST, &arguments).expect("it renders"))
    };
    let (old, new) = (render("tests/chart/release-0.1"), render("charts/kestrel-operator"));
    let mut both = Vec::new();
    for before in &old.0 {
        let (kind, name) = (text(&before["kind"]), text(&before["metadata"]["name"]));
        if let Some(after) = new.find(kind, name) {
            assert_eq!(fixed(before), fixed(after), "{kind} {name}");
            both.push((kind, name));
        }
    }
    // The credentials stay where they are, and access logs come where they came; all else of the old release goes.
    both.sort_unstable();
    let expected = [
        ("Secret", "kestrel-operator-client-tls"),
        ("Secret", "kestrel-operator-jwt"),
        ("Service", "kestrel-operator-als"),
    ];
    assert_eq!(both, expected);
    for name in both {
        assert_eq!(old.get(name.0, name.1)["data"], new.get(name.0, name.1)["data"], "{name:?}");
    }
}

/// Resource and name of all that the API server has of the operator.
async fn there(client: &Client) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in PATHS {
        let found: Value = client.request(Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
        let resource = path.rsplit('/').next().unwrap();
        let all = list(&found["items"]).iter().map(|object| text(&object["metadata"]["name"]));
        names.extend(all.filter(|name| name.contains("kestrel")).map(|name| format!("{resource}/{name}")));
    }
    names
}

/// Scenario: a release of chart 0.1 is upgraded with its own values, changed, uninstalled, and all of it once more.
/// Guarantee: Helm and the API server take every step; what is left is the definition of the profiles, which would take
/// everybody's profiles with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_chart_0_1_is_upgraded_in_place_and_leaves_nothing_behind() {
    kestrel_runtime::tls::install_provider();
    let api_server = ApiServer::start();
    let client = api_server.client().await;
    let file = |path: &str| helm::repository(path).to_str().unwrap().to_owned();
    let (values, chart) = (file("tests/chart/values-0.1.yaml"), file("charts/kestrel-operator"));
    let run = |arguments: &[&str]| {
        let at = ["--namespace", NAMESPACE, "--kubeconfig", api_server.kubeconfig.to_str().unwrap()];
        helm::helm(&[arguments, &at].concat()).unwrap_or_else(|why| panic!("helm {arguments:?}: {why}"));
    };
    for _ in 0..2 {
        run(&[
            "install",
            RELEASE,
            &file("tests/chart/release-0.1"),
            "--values",
            &values,
            "--create-namespace",
        ]);
        assert!(there(&client).await.contains("deployments/kestrel-operator"));
        run(&["upgrade", RELEASE, &chart, "--values", &values]);
        let after = there(&client).await;
        assert!(
            after.contains("deployments/kestrel-aggregator")
                && after.contains("secrets/kestrel-operator-jwt")
        );
        for gone in ["deployments", "serviceaccounts", "roles", "clusterroles", "clusterrolebindings"] {
            assert!(!after.contains(&format!("{gone}/{RELEASE}")), "{gone}");
        }
        run(&[
            "upgrade",
            RELEASE,
            &chart,
            "--reuse-values",
            "--set",
            "webhook.existingSecret=mine,podLabels.a=b",
        ]);
        run(&["uninstall", RELEASE]);
        let left: Vec<_> = there(&client).await.into_iter().collect();
        assert_eq!(left, ["customresourcedefinitions/injectionprofiles.kestrel.ai"]);
    }
}
