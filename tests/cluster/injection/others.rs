//! Other injectors beside ours.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use axum::{Json, Router, http::Uri, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kestrel_runtime::tls::{self, authority::Authority, server::ServingCertificate};
use kestrel_webhook::admission::{Metrics, server::Server};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{collector, inject, status_of};
use crate::{
    kubectl::{apply, attempt, eventually, kubectl},
    namespace::Namespace,
    webhook::{created, pod, requests},
};

/// An injector of this machine: gives pods of one namespace a container and a volume of its name. The API server asks
/// webhooks in the order of their configurations' names.
struct Injector {
    configuration: String,
    drain: CancellationToken,
}

impl Injector {
    async fn start(name: &'static str, namespace: &str) -> Self {
        tls::install_provider();
        let authority = Authority::generate("test").unwrap();
        let host = own_address();
        let leaf =
            authority.server_certificate(std::slice::from_ref(&host), Duration::from_secs(3600)).unwrap();
        let certificate = Arc::new(ServingCertificate::default());
        certificate.replace(leaf);
        let router = Router::new()
            .route("/mutate", post(async move |review: Json<Value>| Json(answer(name, &review))));
        let metrics = Metrics::register(&mut Registry::default());
        let server = Server::bind(0, certificate, router, metrics).await.unwrap();
        let port = server.address().unwrap().port();
        let drain = CancellationToken::new();
        tokio::spawn(server.serve(Duration::ZERO, drain.clone()));
        let configuration = format!("{name}-{namespace}");
        let manifest = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": configuration},
            "webhooks": [{
                "name": format!("{name}.test.kestrel.ai"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "reinvocationPolicy": "IfNeeded", "failurePolicy": "Fail", "timeoutSeconds": 5,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "clientConfig": {"url": format!("https://{host}:{port}/mutate"), "caBundle": base64(authority.certificate_pem())},
            }],
        });
        let injector = Self { configuration, drain };
        apply("default", &manifest.to_string());
        injector
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _best_effort = attempt(&["delete", "mutatingwebhookconfiguration", &self.configuration]);
        self.drain.cancel();
    }
}

/// The address by which this machine reaches the API server, and the API server this machine.
fn own_address() -> String {
    let server = kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let server: Uri = server.parse().unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((server.host().unwrap(), server.port_u16().unwrap_or(443))).unwrap();
    socket.local_addr().unwrap().ip().to_string()
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// The AdmissionReview that gives a pod the container and the volume, unless it has them.
fn answer(name: &str, review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let mut containers = request["object"]["spec"]["containers"].as_array().into_iter().flatten();
    if containers.all(|container| container["name"] != name) {
        let image = &request["object"]["spec"]["containers"][0]["image"];
        let mount = json!({"name": name, "mountPath": "/other"});
        let container = json!({"name": name, "image": image, "volumeMounts": [mount]});
        let patch = json!([
            {"op": "add", "path": "/spec/containers/-", "value": container},
            {"op": "add", "path": "/spec/volumes/-", "value": {"name": name, "emptyDir": {}}},
        ]);
        response["patchType"] = "JSONPatch".into();
        response["patch"] = base64(&patch.to_string()).into();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

/// Scenario: another injector changes each pod before ours is asked, and another one after.
/// Guarantee: the pod has what all three add, the sidecar once, although ours is asked again after the last change.
#[test]
fn other_injectors_before_and_after_ours_keep_what_they_add() {
    let namespace = Namespace::new("others");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _injectors = ["a-test", "z-test"].map(|name| runtime.block_on(Injector::start(name, &namespace.0)));
    let create = || {
        let stored = created(&namespace.0, &pod("all", &inject()))?;
        let containers = stored["spec"]["containers"].as_array().unwrap();
        let has = |name: &str| containers.iter().any(|container| container["name"] == name);
        let is_whole = has("a-test") && has("z-test") && !collector(&stored).is_null();
        if is_whole { Ok(stored) } else { Err(format!("{} of {}", status_of(&stored), stored["spec"])) }
    };
    eventually("all three", 30, create);
    let before = requests();
    let stored = create().unwrap();
    assert_eq!(requests(), before + 2.0, "asked, and asked again");
    assert_eq!(stored["spec"]["initContainers"].as_array().map(Vec::len), Some(1), "{}", stored["spec"]);
}
