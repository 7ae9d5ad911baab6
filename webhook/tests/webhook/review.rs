//! Reviews as an API server writes and reads them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kestrel_webhook::{admission, cluster::Cluster, inject::Settings};
use serde_json::{Value, json};

/// A cluster without any profile.
pub(crate) fn cluster() -> Cluster {
    Cluster::new(Settings {
        namespace: "kestrel-ai".to_owned(),
        image: "kestrel-operator:1".to_owned(),
        pull_secrets: Vec::new(),
        link_endpoint: "https://kestrel-agent-link.kestrel-ai.svc:8443".to_owned(),
        link_ca: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
        redact: String::new(),
        default_profile: true,
    })
}

/// A question about a new pod.
pub(crate) fn question(pod: &Value, namespace: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "namespace": namespace,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
        },
    })
}

/// An answer, its patch decoded (`[]` if there is none).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) patch: Value,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    pub(crate) fn read(body: &[u8]) -> Self {
        let review: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["kind"], "AdmissionReview");
        let response = &review["response"];
        assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        assert_eq!(response["allowed"], true);
        let patch = match response.get("patch") {
            None => json!([]),
            Some(patch) => {
                assert_eq!(response["patchType"], "JSONPatch");
                serde_json::from_slice(&STANDARD.decode(patch.as_str().unwrap()).unwrap()).unwrap()
            }
        };
        let warnings = response.get("warnings").cloned().unwrap_or_else(|| json!([]));
        Self { patch, warnings: serde_json::from_value(warnings).unwrap() }
    }
}

/// The answer about a new pod.
pub(crate) fn admit(pod: &Value, namespace: &str) -> Answer {
    admit_in(&cluster(), pod, namespace)
}

/// The answer about a new pod in a cluster.
pub(crate) fn admit_in(cluster: &Cluster, pod: &Value, namespace: &str) -> Answer {
    let body = question(pod, namespace).to_string();
    Answer::read(&admission::admit(body.as_bytes(), cluster).unwrap().body)
}
