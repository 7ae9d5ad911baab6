//! As much of an API server as watches and what follows from them need: objects that are listed and
//! watched, statuses that are applied, Events.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, patch, post},
};
use futures::{StreamExt as _, future::ready, stream};
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};

/// Pods without the label of injected ones, as a resource.
pub(crate) const OTHER_PODS: &str = "other pods";

/// Objects that are listed, by resource, and events that watches are sent.
pub(crate) struct ApiServer {
    objects: Mutex<BTreeMap<&'static str, Vec<Value>>>,
    pub(crate) events: broadcast::Sender<(&'static str, Value)>,
    /// Statuses that were applied, in order.
    pub(crate) statuses: Mutex<Vec<Value>>,
    /// Events that were created, by name.
    pub(crate) told: Mutex<BTreeMap<String, Value>>,
}

impl ApiServer {
    pub(crate) fn new(objects: BTreeMap<&'static str, Vec<Value>>) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::new(objects),
            events: broadcast::channel(64).0,
            statuses: Mutex::default(),
            told: Mutex::default(),
        })
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let of = |server: &Arc<Self>| {
            let server = Arc::clone(server);
            async move |Path(resource): Path<String>, Query(query): Query<BTreeMap<String, String>>| {
                let others = query.get("labelSelector").is_some_and(|labels| labels.contains("!="));
                let resource = if others { OTHER_PODS } else { &resource };
                server.answer(resource, query.contains_key("watch"))
            }
        };
        let (applied, told) = (Arc::clone(self), Arc::clone(self));
        let router = Router::new()
            .route("/api/v1/{resource}", get(of(self)))
            .route("/apis/kestrel.ai/v1alpha1/{resource}", get(of(self)))
            .route(
                "/apis/kestrel.ai/v1alpha1/injectionprofiles/{name}/status",
                patch(async move |Path(name): Path<String>, body: String| applied.apply(&name, &body)),
            )
            .route(
                "/api/v1/namespaces/{namespace}/events",
                post(async move |Json(event): Json<Value>| told.tell(event)),
            );
        Client::new(router, "default")
    }

    /// Changes or adds an object, and tells the watches.
    pub(crate) fn put(&self, resource: &'static str, mut object: Value) {
        let mut objects = self.objects.lock().unwrap();
        let items = objects.entry(resource).or_default();
        let name = object["metadata"]["name"].clone();
        items.retain(|item| item["metadata"]["name"] != name);
        // No test needs versions in order.
        object["metadata"]["resourceVersion"] = json!(format!("1{}", self.statuses.lock().unwrap().len()));
        items.push(object.clone());
        self.events.send((resource, json!({"type": "MODIFIED", "object": object}))).unwrap();
    }

    fn apply(&self, name: &str, body: &str) -> Response {
        let applied: Value = serde_json::from_str(body).unwrap();
        let profiles = self.objects.lock().unwrap()["injectionprofiles"].clone();
        let found = profiles.into_iter().find(|profile| profile["metadata"]["name"] == name);
        let Some(mut profile) = found else { return failure(StatusCode::NOT_FOUND, "NotFound") };
        if profile["metadata"]["resourceVersion"] != applied["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        profile["status"] = applied["status"].clone();
        self.statuses.lock().unwrap().push(applied["status"].clone());
        self.put("injectionprofiles", profile.clone());
        Json(profile).into_response()
    }

    fn tell(&self, event: Value) -> Response {
        let name = event["metadata"]["name"].as_str().unwrap().to_owned();
        let mut told = self.told.lock().unwrap();
        if told.contains_key(&name) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        told.insert(name, event.clone());
        (StatusCode::CREATED, Json(event)).into_response()
    }

    fn answer(&self, resource: &str, watch: bool) -> Response {
        let objects = self.objects.lock().unwrap();
        let Some((&resource, items)) = objects.get_key_value(resource) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        if !watch {
            return Json(json!({"kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": "1"}, "items": items}))
            .into_response();
        }
        let events = stream::unfold(self.events.subscribe(), async |mut events| {
            let event = events.recv().await.ok()?;
            Some((event, events))
        });
        let mine = events.filter_map(move |(of, event)| {
            ready((of == resource).then(|| Ok::<_, Infallible>(format!("{event}\n"))))
        });
        Body::from_stream(mine).into_response()
    }
}

fn failure(status: StatusCode, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": status.as_u16()});
    (status, Json(body)).into_response()
}

pub(crate) fn profile(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "kestrel.ai/v1alpha1", "kind": "InjectionProfile", "spec": spec,
        "metadata": {"name": name, "generation": 1, "resourceVersion": "2"}})
}

pub(crate) fn namespace(name: &str, team: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "resourceVersion": "2", "labels": {"team": team}}})
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not {what} in time");
        sleep(Duration::from_millis(5)).await;
    }
}
