use std::collections::BTreeMap;

use futures::FutureExt as _;
use serde_json::json;

use super::*;
use crate::inventory::convert;

fn pod(uid: &str, node: &str, annotations: serde_json::Value) -> Pod {
    let meta = json!({
        "name": format!("pod-{uid}"), "namespace": "shop", "uid": uid, "annotations": annotations,
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}],
    });
    serde_json::from_value(json!({"metadata": meta, "spec": {"nodeName": node, "containers": []}})).unwrap()
}

fn apply(pods: &Pods, pod: &Pod) {
    pods.apply(pod, convert::pod(pod).encode_to_vec().into());
}

fn pods() -> Pods {
    Pods::new(LogPolicy::Errors)
}

fn uids(update: &PodUpdate) -> Vec<&str> {
    update.pods.iter().map(|pod| pod.uid.as_str()).collect()
}

#[test]
fn the_policy_is_the_annotation_then_the_injection_then_the_default() {
    let policy = |annotations| log_policy(&pod("1", "n", annotations), LogPolicy::Errors);
    for (annotations, expected) in [
        (json!({}), LogPolicy::Errors),
        (json!({"kestrel.ai/logs": "all"}), LogPolicy::All),
        (json!({"kestrel.ai/logs": "off", "kestrel.ai/inject": "true"}), LogPolicy::Off),
        (json!({"kestrel.ai/logs": "errors", "kestrel.ai/inject": "true"}), LogPolicy::Errors),
        (json!({"kestrel.ai/logs": "much", "kestrel.ai/inject": "true"}), LogPolicy::All),
        (json!({"kestrel.ai/inject": "false"}), LogPolicy::Errors),
    ] {
        assert_eq!(policy(annotations.clone()), expected, "{annotations}");
    }
}

#[test]
fn an_agent_is_told_of_its_node_alone() {
    let pods = pods();
    apply(&pods, &pod("1", "a", json!({"kestrel.ai/logs": "all", "other.example/key": "value"})));
    apply(&pods, &pod("2", "b", json!({})));
    apply(
        &pods,
        &serde_json::from_value(json!({"metadata": {"uid": "3"}, "spec": {"containers": []}})).unwrap(),
    );
    let update = pods.follow("a", None).update().unwrap();
    assert!(update.snapshot);
    let [info] = &update.pods[..] else { panic!("{update:?}") };
    assert_eq!((info.uid.as_str(), info.namespace.as_str(), info.name.as_str()), ("1", "shop", "pod-1"));
    assert_eq!(info.log_policy(), LogPolicy::All);
    assert_eq!(pods.get("1").unwrap().owners[0].uid, "rs");
    assert_eq!(pods.node_of("2").as_deref(), Some("b"));
    assert!(pods.get("3").is_none(), "a pod without a node has no logs");
}

#[tokio::test]
async fn a_follower_hears_of_changes_on_its_node_and_of_nothing_else() {
    let pods = pods();
    let mut follower = pods.follow("a", None);
    assert_eq!(follower.update(), Some(PodUpdate { snapshot: true, ..Default::default() }));
    apply(&pods, &pod("9", "b", json!({})));
    assert!(follower.changed().now_or_never().is_none());
    apply(&pods, &pod("1", "a", json!({})));
    apply(&pods, &pod("2", "a", json!({})));
    follower.changed().await;
    let update = follower.update().unwrap();
    assert!(!update.snapshot);
    assert_eq!(update.pods.len(), 2);
    apply(&pods, &pod("1", "a", json!({})));
    assert!(follower.changed().now_or_never().is_none(), "nothing changed");
    apply(&pods, &pod("1", "a", json!({"kestrel.ai/logs": "off"})));
    follower.changed().await;
    assert_eq!(uids(&follower.update().unwrap()), ["1"]);
    let mut one = pods.follow("a", Some("2"));
    assert_eq!(uids(&one.update().unwrap()), ["2"]);
}

#[tokio::test]
async fn of_a_pod_with_an_incident_everything_is_sent_unless_nothing_may_be() {
    let pods = pods();
    apply(&pods, &pod("1", "a", json!({})));
    apply(&pods, &pod("2", "a", json!({"kestrel.ai/logs": "off"})));
    let mut follower = pods.follow("a", None);
    let policies = |update: PodUpdate| {
        update.pods.iter().map(|pod| (pod.uid.clone(), pod.log_policy())).collect::<BTreeMap<_, _>>()
    };
    let told = |uid: &str, policy| BTreeMap::from([(uid.to_owned(), policy)]);
    follower.update();
    pods.turned("2", true);
    assert_eq!(follower.update(), None);
    pods.turned("1", true);
    follower.changed().await;
    assert_eq!(policies(follower.update().unwrap()), told("1", LogPolicy::All));
    apply(&pods, &pod("1", "a", json!({"kestrel.ai/logs": "errors"})));
    assert_eq!(follower.update(), None, "still everything");
    pods.turned("1", false);
    follower.changed().await;
    assert_eq!(policies(follower.update().unwrap()), told("1", LogPolicy::Errors));
}

#[test]
fn a_long_list_is_told_in_parts_that_any_client_takes() {
    let pods = pods();
    let uid = |number: usize| format!("{number:0>60000}");
    for number in 0..40 {
        apply(&pods, &pod(&uid(number), "a", json!({})));
    }
    let mut follower = pods.follow("a", None);
    let parts: Vec<_> = std::iter::from_fn(|| follower.update()).collect();
    assert!(parts.iter().all(|part| part.encoded_len() < 4 * PART_BYTES));
    let first = |part: &PodUpdate| part.snapshot;
    assert!(parts.len() > 1 && first(&parts[0]) && !parts[1..].iter().any(first));
    let told: BTreeSet<_> = parts.iter().flat_map(|part| &part.pods).map(|pod| pod.uid.clone()).collect();
    assert_eq!(told, (0..40).map(uid).collect());
}

#[test]
fn deleted_pods_are_forgotten_late() {
    let pods = pods();
    let start = Instant::now();
    apply(&pods, &pod("1", "a", json!({})));
    let mut follower = pods.follow("a", None);
    follower.update();
    let mut state = pods.state();
    state.remove(&"1".into(), start);
    state.forget(start + KEPT_AFTER_DELETION - Duration::from_secs(1));
    drop(state);
    assert!(pods.get("1").is_some());
    assert_eq!(follower.update(), None);
    pods.state().forget(start + KEPT_AFTER_DELETION);
    assert!(pods.get("1").is_none());
    assert_eq!(follower.update().unwrap().removed_uids, ["1"]);
    assert!(pods.state().nodes.contains_key("a"), "it is followed");
    drop(follower);
    apply(&pods, &pod("1", "a", json!({})));
    let mut state = pods.state();
    state.remove(&"1".into(), start);
    state.forget(start + KEPT_AFTER_DELETION);
    assert!(state.nodes.is_empty());
}

#[test]
fn what_a_list_does_not_mention_is_gone() {
    let pods = pods();
    for uid in ["1", "2"] {
        apply(&pods, &pod(uid, "a", json!({})));
    }
    pods.begin();
    apply(&pods, &pod("2", "a", json!({})));
    pods.finish();
    assert!(pods.listed().now_or_never().is_some());
    pods.state().forget(Instant::now() + KEPT_AFTER_DELETION);
    assert!(pods.get("1").is_none() && pods.get("2").is_some());
}

#[test]
fn a_static_pod_is_known_by_the_uid_that_its_node_uses() {
    let pods = pods();
    let mirror = pod("api-uid", "a", json!({"kubernetes.io/config.mirror": "hash"}));
    apply(&pods, &mirror);
    let known = pods.get("hash").unwrap();
    assert_eq!((&*known.api_uid, known.info.uid.as_str()), ("api-uid", "hash"));
    pods.remove(&mirror);
    let mirror = pod("api-uid-2", "a", json!({"kubernetes.io/config.mirror": "hash"}));
    apply(&pods, &mirror);
    assert_eq!(&*pods.get("hash").unwrap().api_uid, "api-uid-2", "the mirror was made again");
    pods.remove(&mirror);
    pods.state().forget(Instant::now() + KEPT_AFTER_DELETION);
    assert!(pods.get("hash").is_none());
}
