//! The webhook under a cluster that goes on without it, and through a change of its certificate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kestrel_runtime::tls;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::interval};

use crate::{
    kubectl::{
        OPERATOR, apply, attempt, eventually, json, kubectl, metric, pods_of, rolled_out, sample_image,
    },
    namespace::Namespace,
};

/// How often the webhook has been asked.
pub(crate) fn requests() -> f64 {
    pods_of("webhook").iter().map(|pod| metric(pod, "kestrel_webhook_requests_total")).sum()
}

pub(crate) fn pod(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "containers": [{
                "name": "app", "image": sample_image(), "command": ["sleep", "100000"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

/// Creates a pod as a dry run through all admission; what the API server would have stored.
pub(crate) fn created(namespace: &str, pod: &Value) -> Result<Value, String> {
    created_with(namespace, pod, &[])
}

/// The same, with more words for `kubectl`.
fn created_with(namespace: &str, pod: &Value, words: &[&str]) -> Result<Value, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pod.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let create = ["create", "-n", namespace, "-f", path, "--dry-run=server", "-o", "json"];
    attempt(&[&create, words].concat()).map(|text| serde_json::from_str(&text).unwrap())
}

/// For how long the API server waits for the webhook.
fn timeout() -> Duration {
    let configuration = json(&["get", "mutatingwebhookconfiguration", "kestrel-webhook"]);
    Duration::from_secs(configuration["webhooks"][0]["timeoutSeconds"].as_u64().unwrap())
}

pub(crate) fn has_sidecar(pod: &Value) -> bool {
    pod["spec"]["initContainers"][0]["name"] == "kestrel-collector"
}

/// Scenario: pods without the annotation are created.
/// Guarantee: the webhook is not even called.
#[test]
fn a_pod_that_did_not_ask_never_reaches_the_webhook() {
    let namespace = Namespace::new("unasked");
    let before = requests();
    for number in 0..5 {
        apply(&namespace.0, &pod(&format!("plain-{number}"), &json!({})).to_string());
    }
    assert_eq!(requests(), before);
    assert!(has_sidecar(
        &created(&namespace.0, &pod("asked", &json!({"kestrel.ai/inject": "true"}))).unwrap()
    ));
    assert_eq!(requests(), before + 1.0, "the counter does count");
}

/// Scenario: all webhook pods are deleted at once.
/// Guarantee: pods are created all the while, annotated or not, and none waits for longer than the webhook's timeout.
#[test]
fn pods_are_created_while_the_webhook_is_gone() {
    let namespace = Namespace::new("without");
    let longest = format!("{}s", timeout().as_secs() + 1);
    let selector = "app.kubernetes.io/component=webhook";
    kubectl(&["delete", "pod", "-n", OPERATOR, "-l", selector, "--force", "--grace-period=0"]);
    for number in 0..10 {
        let annotations = if number % 2 == 0 { json!({"kestrel.ai/inject": "true"}) } else { json!({}) };
        let pod = pod(&format!("pod-{number}"), &annotations);
        created_with(&namespace.0, &pod, &["--request-timeout", &longest]).unwrap();
    }
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    eventually("the sidecar again", 30, || {
        let stored = created(&namespace.0, &pod("after", &json!({"kestrel.ai/inject": "true"})))?;
        if has_sidecar(&stored) { Ok(()) } else { Err("created without the sidecar".to_owned()) }
    });
}

/// Scenario: the webhook's authority is replaced (its Secret is deleted) while pods are created.
/// Guarantee: no creation fails and every annotated pod carries the sidecar, before, during and after.
#[test]
fn a_new_certificate_costs_no_pod_its_sidecar() {
    let namespace = Namespace::new("rotation");
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    let bundle = || {
        let configuration = json(&["get", "mutatingwebhookconfiguration", "kestrel-webhook"]);
        configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()
    };
    let authority = || {
        attempt(&["get", "secret", "-n", OPERATOR, "kestrel-webhook-ca", "-o", "jsonpath={.data.ca\\.crt}"])
    };
    let (old_bundle, old_authority) = (bundle(), authority().unwrap());
    kubectl(&["delete", "secret", "-n", OPERATOR, "kestrel-webhook-ca"]);
    let mut count = 0;
    let mut create_one = || {
        count += 1;
        let annotated = pod(&format!("pod-{count}"), &json!({"kestrel.ai/inject": "true"}));
        let stored = created(&namespace.0, &annotated).unwrap();
        assert!(has_sidecar(&stored), "pod {count} was created without the sidecar");
    };
    eventually("a new authority in the bundle", 90, || {
        create_one();
        let changed = bundle() != old_bundle && authority().is_ok_and(|now| now != old_authority);
        if changed { Ok(()) } else { Err("still the old one".to_owned()) }
    });
    // All replicas must show the new certificate while the old authority may still be trusted.
    eventually("new certificates in use", 90, || {
        create_one();
        let logs = pods_of("webhook").into_iter().map(|pod| kubectl(&["logs", "-n", OPERATOR, &pod]));
        let shown: Vec<_> = logs.map(|log| log.matches("shows a certificate").count()).collect();
        if shown.iter().all(|&times| times >= 2) { Ok(()) } else { Err(format!("{shown:?} certificates")) }
    });
    for _ in 0..20 {
        create_one();
    }
    println!("{count} pods were created around the rotation, all with the sidecar");
}

/// Creates annotated pods as dry runs, 50 a second, until `done`. How many, and how long the slowest took.
async fn create_steadily(namespace: String, done: Arc<AtomicBool>) -> (usize, Duration) {
    tls::install_provider();
    let client = Client::try_default().await.unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let mut ticks = interval(Duration::from_millis(20));
    let (mut creations, mut count) = (JoinSet::new(), 0);
    while !done.load(Ordering::Relaxed) {
        ticks.tick().await;
        count += 1;
        let pod = pod(&format!("pod-{count}"), &json!({"kestrel.ai/inject": "true"}));
        let (pods, params) = (pods.clone(), params.clone());
        creations.spawn(async move {
            let (pod, begun) = (serde_json::from_value(pod).unwrap(), Instant::now());
            let stored = pods.create(&params, &pod).await.unwrap();
            let stored = serde_json::to_value(stored).unwrap();
            assert!(has_sidecar(&stored), "{} was created without the sidecar", stored["metadata"]["name"]);
            begun.elapsed()
        });
    }
    let slowest = creations.join_all().await.into_iter().max().unwrap_or_default();
    (count, slowest)
}

/// Scenario: the webhook is rolled out anew while 50 annotated pods a second are created.
/// Guarantee: no creation fails or waits for longer than the webhook's timeout, and every pod carries the sidecar.
#[test]
fn a_roll_out_of_the_webhook_costs_no_pod_its_sidecar() {
    let namespace = Namespace::new("rollout");
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let creating = runtime.spawn(create_steadily(namespace.0.clone(), Arc::clone(&done)));
    kubectl(&["rollout", "restart", "-n", OPERATOR, "deployment/kestrel-webhook"]);
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    done.store(true, Ordering::Relaxed);
    let (count, slowest) = runtime.block_on(creating).unwrap();
    assert!(count > 50, "{count} pods are no load");
    println!("{count} pods were created during the roll-out, the slowest in {slowest:?}");
    assert!(slowest < timeout(), "{slowest:?}");
}
