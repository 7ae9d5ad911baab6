use futures::FutureExt as _;
use serde_json::json;

use super::*;
use crate::{excluded::Excluded, inventory::convert};

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

fn namespace(annotations: serde_json::Value) -> Namespace {
    serde_json::from_value(json!({"metadata": {"name": "shop", "annotations": annotations}})).unwrap()
}

/// What is asked for of the pod.
fn policy(pods: &Pods, uid: &str) -> LogPolicy {
    pods.get(uid).unwrap().info.log_policy()
}

#[test]
fn the_policy_is_the_pods_then_its_namespaces_then_the_default() {
    for (of_the_pod, of_the_namespace, expected) in [
        (json!({}), json!({}), LogPolicy::Errors),
        (json!({"kestrel.ai/logs": "all"}), json!({"kestrel.ai/logs": "off"}), LogPolicy::All),
        (json!({"kestrel.ai/logs": "off", "kestrel.ai/inject": "true"}), json!({}), LogPolicy::Off),
        (json!({"kestrel.ai/logs": "errors", "kestrel.ai/inject": "true"}), json!({}), LogPolicy::Errors),
        (json!({"kestrel.ai/logs": "much", "kestrel.ai/inject": "true"}), json!({}), LogPolicy::All),
        (json!({"kestrel.ai/logs": "much"}), json!({"kestrel.ai/logs": "off"}), LogPolicy::Off),
        (json!({"kestrel.ai/inject": "false"}), json!({"kestrel.ai/logs": "all"}), LogPolicy::All),
        (json!({"kestrel.ai/inject": "true"}), json!({"kestrel.ai/logs": "errors"}), LogPolicy::All),
        (json!({}), json!({"kestrel.ai/logs": "much"}), LogPolicy::Errors),
    ] {
        let pods = pods();
        apply(&pods, &pod("1", "n", of_the_pod.clone()));
        pods.apply_namespace(&namespace(of_the_namespace.clone()));
        assert_eq!(policy(&pods, "1"), expected, "{of_the_pod} in {of_the_namespace}");
    }
}

#[tokio::test]
async fn what_a_namespace_says_reaches_the_nodes_of_its_pods() {
    let pods = pods();
    pods.apply_namespace(&namespace(json!({"kestrel.ai/logs": "all"})));
    apply(&pods, &pod("1", "a", json!({})));
    let (mut here, mut elsewhere) = (pods.follow("a", None), pods.follow("b", None));
    assert_eq!(here.update().unwrap().pods[0].log_policy(), LogPolicy::All);
    elsewhere.update();
    pods.apply_namespace(&namespace(json!({"kestrel.ai/logs": "all", "other": "value"})));
    assert!(here.changed().now_or_never().is_none(), "nothing changed");
    pods.apply_namespace(&namespace(json!({})));
    here.changed().await;
    assert_eq!(here.update().unwrap().pods[0].log_policy(), LogPolicy::Errors);
    assert!(elsewhere.changed().now_or_never().is_none());
}

#[test]
fn nothing_is_sent_of_an_excluded_namespace_whatever_its_pods_say() {
    let excluded = Excluded::parse("bank,shop");
    let pods = Pods::new(Policies { default: LogPolicy::All, excluded });
    apply(&pods, &pod("1", "a", json!({"kestrel.ai/logs": "all", "kestrel.ai/inject": "true"})));
    pods.turned("1", true);
    let info = pods.follow("a", None).update().unwrap().pods.remove(0);
    assert_eq!((info.log_policy(), info.look_back_from), (LogPolicy::Off, None));
    assert!(pods.keeps("shop") && !pods.keeps("other"));
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
async fn of_a_pod_with_an_incident_everything_is_sent_until_some_time_after() {
    let pods = pods();
    apply(&pods, &pod("1", "a", json!({})));
    apply(&pods, &pod("2", "a", json!({"kestrel.ai/logs": "off"})));
    apply(&pods, &pod("3", "a", json!({"kestrel.ai/logs": "all"})));
    let mut follower = pods.follow("a", None);
    let mut told = || {
        let update = follower.update()?;
        let told = update.pods.iter().map(|pod| (pod.uid.clone(), pod.log_policy(), pod.look_back_from));
        Some(told.collect::<Vec<_>>())
    };
    told();
    pods.turned("2", true);
    pods.turned("3", true);
    assert_eq!(told(), None, "nothing may be sent, or everything is");
    let before = Timestamp::now();
    pods.turned("1", true);
    let [(uid, LogPolicy::All, Some(from))] = &told().unwrap()[..] else { panic!("told otherwise") };
    let looks_back = before.as_second() - from.seconds;
    assert!(uid == "1" && (240..=300).contains(&looks_back), "{looks_back} s");
    apply(&pods, &pod("1", "a", json!({"kestrel.ai/logs": "errors"})));
    assert_eq!(told(), None, "still everything");

    let end = Instant::now();
    pods.turned("1", false);
    pods.calm(end + LINGERS / 2);
    pods.turned("1", true);
    pods.turned("1", false);
    pods.calm(end + LINGERS / 2);
    assert_eq!(told(), None, "the end has to last");
    pods.calm(Instant::now() + LINGERS);
    assert_eq!(told().unwrap(), [("1".to_owned(), LogPolicy::Errors, None)]);
    assert!(pods.state().troubled.len() == 2 && pods.state().ended.is_empty());
}

#[test]
fn a_running_pod_that_begins_to_ask_is_sent_from_the_start_of_its_files() {
    let everything = Some(convert::timestamp(Timestamp::UNIX_EPOCH));
    for (before, after, expected) in [
        (json!({}), json!({"kestrel.ai/inject": "true"}), (LogPolicy::All, everything)),
        (json!({}), json!({"kestrel.ai/logs": "all"}), (LogPolicy::All, everything)),
        (json!({"kestrel.ai/logs": "all"}), json!({"kestrel.ai/inject": "true"}), (LogPolicy::All, None)),
        (json!({"kestrel.ai/logs": "off"}), json!({"kestrel.ai/logs": "all"}), (LogPolicy::All, None)),
        (json!({}), json!({"kestrel.ai/logs": "off"}), (LogPolicy::Off, None)),
    ] {
        let pods = pods();
        apply(&pods, &pod("1", "a", before.clone()));
        let mut follower = pods.follow("a", None);
        assert_eq!(follower.update().unwrap().pods[0].look_back_from, None);
        apply(&pods, &pod("1", "a", after.clone()));
        let info = pods.get("1").unwrap().info;
        assert_eq!((info.log_policy(), info.look_back_from), expected, "{before} to {after}");
        apply(&pods, &pod("1", "a", after.clone()));
        assert_eq!(pods.get("1").unwrap().info.look_back_from, expected.1, "the same is asked for again");
        pods.state().pods.get_mut(&"1".into()).unwrap().asked = Instant::now().checked_sub(LOOKS_BACK_WITHIN);
        assert_eq!(pods.get("1").unwrap().info.look_back_from, None, "an agent that comes late");
    }
    let pods = pods();
    apply(&pods, &pod("1", "a", json!({"kestrel.ai/inject": "true"})));
    assert_eq!(pods.get("1").unwrap().info.look_back_from, None, "it asked from the beginning");
}

#[test]
fn who_comes_late_is_not_asked_for_what_was_before() {
    let pods = pods();
    apply(&pods, &pod("1", "a", json!({})));
    let long_ago = Instant::now().checked_sub(LOOKS_BACK_WITHIN).unwrap();
    pods.state().turned("1".into(), true, (long_ago, Timestamp::now()));
    let info = pods.follow("a", None).update().unwrap().pods.remove(0);
    assert_eq!((info.log_policy(), info.look_back_from), (LogPolicy::All, None));
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
