//! What is known of the cluster, against an API server that lists and watches.

use std::{collections::BTreeMap, sync::Arc};

use kestrel_runtime::admin::Readiness;
use kestrel_webhook::{
    cluster::{Kind, Shared},
    watch::Watch,
};
use serde_json::json;

use crate::{
    listing::{ApiServer, namespace, profile, until},
    review,
};

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
