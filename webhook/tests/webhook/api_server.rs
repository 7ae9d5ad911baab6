//! As much of an API server as the certificate's keeper needs: one webhook
//! configuration and one Secret, with versions, conflicts, apply and watches.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::stream;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) const CONFIGURATION: &str = "kestrel-webhook";
pub(crate) const SECRET: &str = "kestrel-webhook-ca";

/// Object by name; `None` where there is none.
#[derive(Default)]
struct Objects {
    configuration: Option<Value>,
    secret: Option<Value>,
    version: u64,
}

#[derive(Clone)]
pub(crate) struct ApiServer(Arc<Shared>);

struct Shared {
    objects: Mutex<Objects>,
    changes: watch::Sender<u64>,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    watch: bool,
}

fn failure(status: StatusCode, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": status.as_u16()});
    (status, Json(body)).into_response()
}

impl ApiServer {
    /// With the configuration as a chart makes it, and no Secret.
    pub(crate) fn new() -> Self {
        let server = Self(Arc::new(Shared { objects: Mutex::default(), changes: watch::channel(0).0 }));
        server.change(|objects| {
            objects.configuration = Some(json!({
                "metadata": {"name": CONFIGURATION},
                "webhooks": [{
                    "name": "inject.kestrel.ai",
                    "admissionReviewVersions": ["v1"],
                    "clientConfig": {"url": "https://localhost/mutate"},
                    "sideEffects": "None",
                }],
            }));
        });
        server
    }

    pub(crate) fn client(&self) -> Client {
        let router = Router::new()
            .route("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", get(list))
            .route(
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}",
                get(read_configuration).patch(apply_configuration),
            )
            .route("/api/v1/namespaces/{namespace}/secrets", get(list).post(create_secret))
            .route("/api/v1/namespaces/{namespace}/secrets/{name}", get(read_secret).put(replace_secret))
            .with_state(self.clone());
        Client::new(router, "kestrel-ai")
    }

    /// What the API server trusts, as PEM text.
    pub(crate) fn bundle(&self) -> String {
        let objects = self.objects();
        let bundle = &objects.configuration.as_ref().unwrap()["webhooks"][0]["clientConfig"]["caBundle"];
        String::from_utf8(STANDARD.decode(bundle.as_str().unwrap_or_default()).unwrap()).unwrap()
    }

    pub(crate) fn remove_bundle(&self) {
        self.change(|objects| {
            let webhook = &mut objects.configuration.as_mut().unwrap()["webhooks"][0];
            webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        });
    }

    pub(crate) fn delete_secret(&self) {
        self.change(|objects| objects.secret = None);
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.objects.lock().unwrap()
    }

    /// Changes something, gives what is there a new version and tells the watches.
    fn change(&self, change: impl FnOnce(&mut Objects)) {
        let mut objects = self.objects();
        change(&mut objects);
        objects.version += 1;
        let version = objects.version;
        let Objects { configuration, secret, .. } = &mut *objects;
        for object in configuration.iter_mut().chain(secret) {
            object["metadata"]["resourceVersion"] = Value::from(version.to_string());
        }
        self.0.changes.send_replace(version);
    }
}

async fn read_configuration(State(server): State<ApiServer>, Path(name): Path<String>) -> Response {
    match &server.objects().configuration {
        Some(object) if name == CONFIGURATION => Json(object).into_response(),
        _ => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn apply_configuration(State(server): State<ApiServer>, body: String) -> Response {
    let applied: Value = serde_json::from_str(&body).unwrap();
    let current = server.objects().configuration.clone().unwrap();
    if applied["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] {
        return failure(StatusCode::CONFLICT, "Conflict");
    }
    let fields = applied["webhooks"][0].as_object().unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["clientConfig", "name"], "nothing else is ours");
    server.change(|objects| {
        objects.configuration.as_mut().unwrap()["webhooks"][0]["clientConfig"]["caBundle"] =
            fields["clientConfig"]["caBundle"].clone();
    });
    Json(server.objects().configuration.clone()).into_response()
}

async fn read_secret(State(server): State<ApiServer>) -> Response {
    match &server.objects().secret {
        Some(object) => Json(object).into_response(),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn create_secret(State(server): State<ApiServer>, Json(secret): Json<Value>) -> Response {
    if server.objects().secret.is_some() {
        return failure(StatusCode::CONFLICT, "AlreadyExists");
    }
    server.change(|objects| objects.secret = Some(secret));
    read_secret(State(server)).await
}

async fn replace_secret(State(server): State<ApiServer>, Json(secret): Json<Value>) -> Response {
    let version =
        server.objects().secret.as_ref().map(|secret| secret["metadata"]["resourceVersion"].clone());
    if version.as_ref() != Some(&secret["metadata"]["resourceVersion"]) {
        return failure(StatusCode::CONFLICT, "Conflict");
    }
    server.change(|objects| objects.secret = Some(secret));
    read_secret(State(server)).await
}

/// Lists nothing, and as a watch reports something at every change: what the
/// keeper makes of a change is to look.
async fn list(State(server): State<ApiServer>, Query(listing): Query<Listing>) -> Response {
    if !listing.watch {
        let version = server.objects().version.to_string();
        return Json(json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": version}, "items": []}))
        .into_response();
    }
    let events = stream::unfold(server.0.changes.subscribe(), async |mut changes| {
        changes.changed().await.ok()?;
        let version = changes.borrow_and_update().to_string();
        let event = json!({"type": "MODIFIED", "object": {"kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "changed", "resourceVersion": version}}});
        Some((Ok::<_, Infallible>(format!("{event}\n")), changes))
    });
    Body::from_stream(events).into_response()
}
