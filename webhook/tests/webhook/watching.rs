//! What is known of the cluster, against an API server that lists and watches.

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
    routing::get,
};
use futures::{StreamExt as _, future::ready, stream};
use kestrel_runtime::admin::Readiness;
use kestrel_webhook::{
    cluster::{Kind, Shared},
    watch::Watch,
};
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};

use crate::review;

/// Objects that are listed, by resource, and events that watches are sent.
struct ApiServer {
    objects: Mutex<BTreeMap<&'static str, Vec<Value>>>,
    events: broadcast::Sender<(&'static str, Value)>,
}

impl ApiServer {
    fn new(objects: BTreeMap<&'static str, Vec<Value>>) -> Arc<Self> {
        Arc::new(Self { objects: Mutex::new(objects), events: broadcast::channel(16).0 })
    }

    fn client(self: &Arc<Self>) -> Client {
        let of = |server: &Arc<Self>| {
            let server = Arc::clone(server);
            async move |Path(resource): Path<String>, Query(query): Query<BTreeMap<String, String>>| {
                server.answer(&resource, query.contains_key("watch"))
            }
        };
        let router = Router::new()
            .route("/api/v1/{resource}", get(of(self)))
            .route("/apis/kestrel.ai/v1alpha1/{resource}", get(of(self)));
        Client::new(router, "default")
    }

    fn answer(&self, resource: &str, watch: bool) -> Response {
        let objects = self.objects.lock().unwrap();
        let Some((&resource, items)) = objects.get_key_value(resource) else {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "not found", "reason": "NotFound", "code": 404});
            return (StatusCode::NOT_FOUND, Json(status)).into_response();
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

fn profile(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "kestrel.ai/v1alpha1", "kind": "InjectionProfile", "spec": spec,
        "metadata": {"name": name, "generation": 1, "resourceVersion": "2"}})
}

fn namespace(name: &str, team: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "resourceVersion": "2", "labels": {"team": team}}})
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not {what} in time");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Both watches, which run until the runtime of the test ends.
fn follow(server: &Arc<ApiServer>) -> (Arc<Shared>, Readiness) {
    let cluster = Arc::new(Shared::new(review::cluster()));
    let readiness = Readiness::default();
    for (kind, name) in [(Kind::Namespace, "namespaces"), (Kind::InjectionProfile, "profiles")] {
        let watch = Watch::new(server.client(), kind, Arc::clone(&cluster), Some(readiness.require(name)));
        tokio::spawn(watch.follow());
    }
    (cluster, readiness)
}

#[tokio::test]
async fn namespaces_and_profiles_are_followed_and_a_broken_profile_harms_no_other() {
    let server = ApiServer::new(BTreeMap::from([
        ("namespaces", vec![namespace("shop", "a"), namespace("bank", "b")]),
        ("injectionprofiles", vec![profile("bad", &json!({"image": ""})), profile("good", &json!({}))]),
    ]));
    let (cluster, readiness) = follow(&server);
    until("listed", || readiness.missing().is_empty()).await;
    {
        let cluster = cluster.read();
        assert_eq!(cluster.namespaces["shop"]["team"], "a");
        assert_eq!(cluster.profiles.iter().map(|profile| &profile.name).collect::<Vec<_>>(), ["good"]);
    }
    until("watched", || server.events.receiver_count() == 2).await;
    for (resource, event) in [
        ("namespaces", json!({"type": "MODIFIED", "object": namespace("shop", "c")})),
        ("namespaces", json!({"type": "DELETED", "object": namespace("bank", "b")})),
        ("injectionprofiles", json!({"type": "MODIFIED", "object": profile("bad", &json!({}))})),
        ("injectionprofiles", json!({"type": "DELETED", "object": profile("good", &json!({}))})),
    ] {
        server.events.send((resource, event)).unwrap();
    }
    until("changed", || {
        let cluster = cluster.read();
        cluster.namespaces.len() == 1
            && cluster.namespaces["shop"]["team"] == "c"
            && cluster.profiles.get("good").is_none()
            && cluster.profiles.get("bad").is_some()
    })
    .await;
}

#[tokio::test]
async fn without_the_definition_of_profiles_there_are_none_and_pods_are_served() {
    let server = ApiServer::new(BTreeMap::from([("namespaces", vec![namespace("shop", "a")])]));
    let (cluster, readiness) = follow(&server);
    until("listed", || readiness.missing().is_empty()).await;
    assert_eq!(cluster.read().profiles.iter().count(), 0);
}
