//! What profiles, Events and the breaker say.

use serde_json::{Value, json};

use super::{inject, is_up, profile::Profile, status_of};
use crate::{
    kubectl::{
        OPERATOR, apply, attempt, eventually, json, kubectl, metric, pods_of, rolled_out, sample_image,
    },
    namespace::Namespace,
    webhook::{created, has_sidecar, pod},
};

/// Waits for an Event with this reason on an object of this name; its message.
pub(super) fn event(namespace: &str, reason: &str, name: &str) -> String {
    eventually(&format!("the Event {reason} on {name}"), 180, || {
        let fields = format!("reason={reason}");
        let events = json(&["get", "events", "-n", namespace, "--field-selector", &fields]);
        let events = events["items"].as_array().unwrap();
        let named =
            |event: &&Value| event["involvedObject"]["name"].as_str().is_some_and(|on| on.starts_with(name));
        let found = events.iter().find(named).map(|event| event["message"].as_str().unwrap().to_owned());
        found.ok_or_else(|| format!("{} others", events.len()))
    })
}

fn status(namespace: &str, pod: &str) -> String {
    status_of(&json(&["get", "pod", "-n", namespace, pod]))
}

/// Scenario: two profiles cover a namespace with a pod that carries the sidecar, one that is left alone, and one
/// that was annotated when it ran already; then the first profile is disabled.
/// Guarantee: the first by name counts them, the second says who wins, and Events say why; of the disabled one its
/// condition and new pods say so.
#[test]
fn a_profile_says_what_became_of_its_pods() {
    let namespace = Namespace::new("coverage");
    let first = Profile::of_namespace("a", &namespace.0, &json!({}));
    let second = Profile::of_namespace("b", &namespace.0, &json!({}));
    eventually("a pod by the first profile", 30, || {
        let stored = created(&namespace.0, &pod("first", &inject()))?;
        let by = &stored["metadata"]["annotations"]["kestrel.ai/injected-by"];
        if *by == *first.0 { Ok(()) } else { Err(by.to_string()) }
    });
    let mut host = pod("host", &inject());
    host["spec"]["hostNetwork"] = true.into();
    for pod in [pod("carries", &inject()), host, pod("late", &json!({}))] {
        apply(&namespace.0, &pod.to_string());
    }
    kubectl(&["annotate", "pod", "-n", &namespace.0, "late", "kestrel.ai/inject=true"]);
    eventually("the counts", 60, || {
        let found = first.get();
        let status = &found["status"];
        let counts = (&status["injected"], &status["pending"], &status["skipped"]);
        let is_right = counts == (&json!(1), &json!(1), &json!({"host-network": 1}))
            && status["observedGeneration"] == found["metadata"]["generation"];
        if is_right { Ok(()) } else { Err(status.to_string()) }
    });
    let skipped = event(&namespace.0, "CollectorSkipped", "host");
    assert!(skipped.contains("hostNetwork"), "{skipped}");
    let missing = event(&namespace.0, "CollectorMissing", "late");
    println!("{skipped}\n{missing}");
    eventually("the conflict", 30, || {
        second.condition("Conflict", "True", "Overlap")?;
        first.condition("Ready", "True", "Ready")
    });
    let line = kubectl(&["get", "kinj", &first.0]);
    assert!(line.contains("ENABLED") && line.contains("INJECTED"), "{line}");

    kubectl(&["patch", "kinj", &first.0, "--type=merge", "-p", r#"{"spec": {"enabled": false}}"#]);
    eventually("disabled", 30, || {
        first.condition("Ready", "False", "Disabled")?;
        let stored = created(&namespace.0, &pod("refused", &inject()))?;
        if has_sidecar(&stored) { Err("the sidecar".to_owned()) } else { Ok(()) }
    });
}

/// Scenario: a pod of a namespace that is never changed asks for the sidecar.
/// Guarantee: it runs without, and an Event says why.
#[test]
fn a_pod_of_the_clusters_own_namespace_is_told_that_it_is_left_alone() {
    let name = format!("test-excluded-{}", std::process::id());
    apply("kube-system", &pod(&name, &inject()).to_string());
    let told = event("kube-system", "CollectorSkipped", &name);
    kubectl(&["delete", "pod", "-n", "kube-system", &name, "--force", "--grace-period=0"]);
    assert!(told.contains("pods of namespace kube-system are not changed"), "{told}");
}

/// Has two replicas again when it goes.
struct NoWebhook;

impl NoWebhook {
    fn new() -> Self {
        kubectl(&["scale", "-n", OPERATOR, "deployment/kestrel-webhook", "--replicas=0"]);
        let gone = Self;
        // One that ends still answers for some seconds.
        let selector = "app.kubernetes.io/component=webhook";
        kubectl(&["wait", "-n", OPERATOR, "--for=delete", "pod", "-l", selector, "--timeout=90s"]);
        gone
    }
}

impl Drop for NoWebhook {
    fn drop(&mut self) {
        let _best_effort = attempt(&["scale", "-n", OPERATOR, "deployment/kestrel-webhook", "--replicas=2"]);
    }
}

/// Scenario: no replica of the webhook runs while annotated pods are created.
/// Guarantee: the pods run, and later the profile counts them as pending.
#[test]
fn pods_that_nobody_looked_at_are_pending() {
    let namespace = Namespace::new("pending");
    let profile = Profile::of_namespace("a", &namespace.0, &json!({}));
    let gone = NoWebhook::new();
    for name in ["one", "two"] {
        apply(&namespace.0, &pod(name, &inject()).to_string());
        kubectl(&[
            "wait",
            "-n",
            &namespace.0,
            "--for=condition=Ready",
            &format!("pod/{name}"),
            "--timeout=60s",
        ]);
    }
    drop(gone);
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    eventually("two pending pods", 60, || {
        let status = &profile.get()["status"];
        if status["pending"] == 2 { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Scenario: a profile names an image that holds no collector.
/// Guarantee: pods go without until the image has run once. Then the first pod of a Deployment does not start; the
/// Deployment's next one has no sidecar and is Ready, an Event says why, and a new template is tried again.
#[test]
fn a_collector_that_does_not_start_stops_injection_for_its_workload() {
    let namespace = Namespace::new("breaker");
    let profile = Profile::of_namespace("a", &namespace.0, &json!({"image": sample_image()}));
    eventually("an image that is not tried", 30, || profile.condition("Ready", "False", "UntriedImage"));
    let stored = created(&namespace.0, &pod("early", &inject())).unwrap();
    assert!(!has_sidecar(&stored), "{}", status_of(&stored));

    let mut tries = pod("tries", &json!({}));
    tries["metadata"]["labels"] = json!({"kestrel.ai/injected": "true"});
    tries["spec"]["containers"][0]["name"] = "kestrel-collector".into();
    apply(&namespace.0, &tries.to_string());
    eventually("an image that is tried", 60, || {
        profile.condition("Ready", "True", "Ready")?;
        let stored = created(&namespace.0, &pod("late", &inject()))?;
        if has_sidecar(&stored) { Ok(()) } else { Err(status_of(&stored)) }
    });
    let template = pod("", &inject());
    let mut template = json!({"metadata": template["metadata"], "spec": template["spec"]});
    template["metadata"] = json!({"annotations": inject(), "labels": {"app": "web"}});
    template["spec"]["terminationGracePeriodSeconds"] = 0.into();
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    apply(&namespace.0, &deployment.to_string());
    let told = event(&namespace.0, "InjectionStopped", "web-");
    println!("{told}");
    assert!(told.contains(&format!("Deployment {}/web", namespace.0)), "{told}");
    eventually("every replica knows", 30, || {
        let stopped: Vec<_> =
            pods_of("webhook").iter().map(|pod| metric(pod, "kestrel_webhook_stopped_workloads")).collect();
        if stopped.len() == 2 && stopped.iter().all(|&count| count >= 1.0) {
            Ok(())
        } else {
            Err(format!("{stopped:?}"))
        }
    });
    let selector = ["-n", namespace.0.as_str(), "-l", "app=web"];
    kubectl(&[&["delete", "pod", "--force", "--grace-period=0"], &selector[..]].concat());
    rolled_out(&namespace.0, "deployment/web");
    let newest = json(&[&["get", "pods"], &selector[..]].concat());
    let newest = newest["items"].as_array().unwrap().iter().find(|pod| is_up(pod)).unwrap().clone();
    assert!(!has_sidecar(&newest));
    let name = newest["metadata"]["name"].as_str().unwrap();
    let told = status(&namespace.0, name);
    assert!(told.contains("skipped (stopped)"), "{told}");

    let change = r#"{"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}}"#;
    kubectl(&["patch", "-n", &namespace.0, "deployment/web", "-p", change]);
    eventually("a pod of the new template with the sidecar", 60, || {
        let pods = json(&["get", "pods", "-n", &namespace.0, "-l", "app=web,version=2"]);
        let pod = pods["items"].get(0).ok_or("no pod")?;
        if has_sidecar(pod) { Ok(()) } else { Err(status_of(pod)) }
    });
}
