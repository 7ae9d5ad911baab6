//! What Helm, Argo CD and Flux find of an object that the webhook changes while it runs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kestrel_runtime::tls::authority::Authority;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    api_server::ApiServer,
    helm::{self, NAMESPACE, Objects, RELEASE},
};

const NAME: &str = "kestrel-webhook";

/// Scenario: the webhook has put its authority into its configuration; then Helm upgrades the release, and Argo CD and
/// Flux apply what they render, again and again.
/// Guarantee: the authority stays and is the webhook's alone; what is applied once more changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_authority_in_the_configuration_is_nobodys_drift() {
    kestrel_runtime::tls::install_provider();
    let api_server = ApiServer::start();
    let client = api_server.client().await;
    let run = |arguments: &[&str]| {
        let chart = helm::chart();
        let at = ["--namespace", NAMESPACE, "--kubeconfig", api_server.kubeconfig.to_str().unwrap()];
        helm::helm(&[arguments, &[RELEASE, chart.to_str().unwrap()], &at].concat()).unwrap();
    };
    run(&["install", "--create-namespace"]);
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration");
    let configurations = Api::<DynamicObject>::all_with(client, &ApiResource::from_gvk(&kind));
    let apply = async |manager: &str, manifest: &Value| {
        let params = PatchParams::apply(manager).force();
        configurations.patch(NAME, &params, &Patch::Apply(manifest)).await.unwrap()
    };

    // As the webhook does it.
    let bundle = STANDARD.encode(Authority::generate("test").unwrap().certificate_pem());
    let trust = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [{"name": "inject.kestrel.ai", "clientConfig": {"caBundle": bundle}}],
    });
    apply(NAME, &trust).await;
    let bundle_of = |found: &DynamicObject| found.data["webhooks"][0]["clientConfig"]["caBundle"].clone();

    run(&["upgrade", "--set", "webhook.timeoutSeconds=7"]);
    let upgraded = configurations.get(NAME).await.unwrap();
    assert_eq!(upgraded.data["webhooks"][0]["timeoutSeconds"], 7);
    assert_eq!(bundle_of(&upgraded), bundle.as_str());

    let rendered = Objects::with(&["webhook.timeoutSeconds=8"]);
    let manifest = rendered.get("MutatingWebhookConfiguration", NAME);
    for manager in ["argocd-controller", "kustomize-controller"] {
        let first = apply(manager, manifest).await;
        assert_eq!(first.data["webhooks"][0]["timeoutSeconds"], 8);
        assert_eq!(bundle_of(&first), bundle.as_str());
        let again = apply(manager, manifest).await;
        assert_eq!(again.metadata.resource_version, first.metadata.resource_version, "{manager}");
    }
    let found = configurations.get(NAME).await.unwrap();
    let entries = found.metadata.managed_fields.unwrap_or_default();
    let owners: Vec<_> = entries
        .iter()
        .filter(|entry| serde_json::to_string(entry).unwrap().contains("f:caBundle"))
        .filter_map(|entry| entry.manager.as_deref())
        .collect();
    assert_eq!(owners, [NAME]);
}
