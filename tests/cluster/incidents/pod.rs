//! Pods with which something is wrong.

use serde_json::{Value, json};

use super::{expect_story, findings, signals, story};
use crate::{
    kubectl::{apply, kubectl, sample_image},
    namespace::Namespace,
};

const POD: &str = "pod_status_change";

/// A pod of one container that runs a script, with a folder that lasts as long
/// as the pod at `/run/pod`.
fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": sample_image(), "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "folder", "mountPath": "/run/pod"}],
            }],
            "volumes": [{"name": "folder", "emptyDir": {}}],
        },
    })
}

/// Does `harm` in the container's first runs, `times` of them, then nothing.
fn at_first(times: u32, harm: &str) -> String {
    format!("echo run >>/run/pod/runs; [ $(wc -l </run/pod/runs) -gt {times} ] || {harm}; exec sleep 100000")
}

fn delete(namespace: &str, name: &str) {
    kubectl(&["delete", "pod", "-n", namespace, name, "--wait=false"]);
}

/// The message of what is wrong, when it was told first.
fn first_message(namespace: &str, name: &str) -> String {
    let told = signals(POD, namespace, name);
    let message =
        findings(&told[0]).map(|(_, _, condition)| condition["message"].as_str().unwrap().to_owned());
    message.collect()
}

fn says(namespace: &str, name: &str, parts: &[&str]) {
    let message = first_message(namespace, name);
    println!("{name}: {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

/// Scenario: an image that is nowhere; then one that is there.
/// Guarantee: one incident, whichever reason the kubelet gives at the moment, and its end.
#[test]
fn an_image_that_does_not_exist() {
    let namespace = Namespace::new("image");
    let mut manifest = pod("no-image", "exec sleep 100000");
    manifest["spec"]["containers"][0]["image"] = "localhost/no-such-image:1".into();
    apply(&namespace.0, &manifest.to_string());
    expect_story(POD, &namespace.0, "no-image", &["CREATE +ImagePull"]);
    says(&namespace.0, "no-image", &["app", "localhost/no-such-image:1"]);
    kubectl(&["set", "image", "-n", &namespace.0, "pod/no-image", &format!("app={}", sample_image())]);
    expect_story(POD, &namespace.0, "no-image", &["CREATE +ImagePull", "UPDATE -ImagePull"]);
}

/// Scenario: a container, and an init container, takes more memory than its limit, once.
/// Guarantee: told with its exit code; over when it has run for a while.
#[test]
fn out_of_memory() {
    let namespace = Namespace::new("memory");
    let greedy = at_first(1, "exec tail /dev/zero");
    let limited = |mut container: Value| {
        container["resources"] = json!({"limits": {"memory": "32Mi"}});
        container
    };
    let mut app = pod("greedy", &greedy);
    app["spec"]["containers"][0] = limited(app["spec"]["containers"][0].take());
    apply(&namespace.0, &app.to_string());
    let mut init = pod("greedy-init", "exec sleep 100000");
    let mut container = limited(init["spec"]["containers"][0].clone());
    container["name"] = "init".into();
    container["command"][2] = greedy.replace("exec sleep 100000", "true").into();
    init["spec"]["initContainers"] = json!([container]);
    apply(&namespace.0, &init.to_string());
    for name in ["greedy", "greedy-init"] {
        expect_story(POD, &namespace.0, name, &["CREATE +OutOfMemory", "UPDATE -OutOfMemory"]);
        says(&namespace.0, name, &["memory", "137"]);
    }
}

/// Scenario: a container crashes twice, the kubelet waits in between, then it runs.
/// Guarantee: one incident with exit code and last lines, and its end.
#[test]
fn a_crash_loop() {
    let namespace = Namespace::new("crash");
    let crash = at_first(2, "{ echo 'ERROR no such table: orders'; exit 3; }");
    apply(&namespace.0, &pod("crashing", &crash).to_string());
    expect_story(POD, &namespace.0, "crashing", &["CREATE +CrashLoop", "UPDATE -CrashLoop"]);
    says(&namespace.0, "crashing", &["app", "3"]);
    let told = signals(POD, &namespace.0, "crashing");
    let messages: Vec<_> =
        told.iter().flat_map(findings).map(|(_, _, condition)| condition["message"].to_string()).collect();
    assert!(messages.iter().any(|message| message.contains("no such table: orders")), "{messages:#?}");
}

/// Scenario: a readiness probe fails for a while.
/// Guarantee: told after the threshold, and its end.
#[test]
fn a_failing_probe() {
    let namespace = Namespace::new("probe");
    let mut manifest = pod("unready", "touch /run/pod/ready; exec sleep 100000");
    manifest["spec"]["containers"][0]["readinessProbe"] = json!({
        "exec": {"command": ["test", "-f", "/run/pod/ready"]}, "periodSeconds": 1, "failureThreshold": 1,
    });
    apply(&namespace.0, &manifest.to_string());
    kubectl(&["wait", "-n", &namespace.0, "pod/unready", "--for=condition=Ready", "--timeout=60s"]);
    kubectl(&["exec", "-n", &namespace.0, "unready", "--", "rm", "/run/pod/ready"]);
    expect_story(POD, &namespace.0, "unready", &["CREATE +Unready"]);
    says(&namespace.0, "unready", &["app", "ready"]);
    kubectl(&["exec", "-n", &namespace.0, "unready", "--", "touch", "/run/pod/ready"]);
    expect_story(POD, &namespace.0, "unready", &["CREATE +Unready", "UPDATE -Unready"]);
}

/// Scenario: a volume, and a variable, of a ConfigMap that is made too late.
/// Guarantee: the pod that can't be created and the container that can't be started are told, and their ends.
#[test]
fn what_a_pod_needs_is_missing() {
    let namespace = Namespace::new("config");
    let mut volume = pod("no-volume", "exec sleep 100000");
    volume["spec"]["volumes"][0] = json!({"name": "folder", "configMap": {"name": "late"}});
    apply(&namespace.0, &volume.to_string());
    let mut variable = pod("no-variable", "exec sleep 100000");
    variable["spec"]["containers"][0]["env"] =
        json!([{"name": "LATE", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "late"}}}]);
    apply(&namespace.0, &variable.to_string());
    expect_story(POD, &namespace.0, "no-volume", &["CREATE +StuckCreating"]);
    expect_story(POD, &namespace.0, "no-variable", &["CREATE +CannotStart"]);
    says(&namespace.0, "no-variable", &["late"]);
    kubectl(&["create", "configmap", "-n", &namespace.0, "late", "--from-literal=late=now"]);
    expect_story(POD, &namespace.0, "no-volume", &["CREATE +StuckCreating", "UPDATE -StuckCreating"]);
    expect_story(POD, &namespace.0, "no-variable", &["CREATE +CannotStart", "UPDATE -CannotStart"]);
}

/// Scenario: a pod that fits no node, and is deleted.
/// Guarantee: told with the scheduler's reason in full, and that it is gone.
#[test]
fn an_unschedulable_pod() {
    let namespace = Namespace::new("schedule");
    let mut manifest = pod("nowhere", "exec sleep 100000");
    manifest["spec"]["nodeSelector"] = json!({"no-node": "has-this"});
    apply(&namespace.0, &manifest.to_string());
    expect_story(POD, &namespace.0, "nowhere", &["CREATE +Unschedulable"]);
    says(&namespace.0, "nowhere", &["2 node(s) didn't match Pod's node affinity/selector"]);
    delete(&namespace.0, "nowhere");
    expect_story(POD, &namespace.0, "nowhere", &["CREATE +Unschedulable", "DELETE +Unschedulable"]);
}

/// Scenario: a pod writes more than its volume may hold.
/// Guarantee: the kubelet evicts it, and that is told with the kubelet's message.
#[test]
fn an_eviction() {
    let namespace = Namespace::new("eviction");
    let mut manifest = pod("greedy", "head -c 20000000 /dev/zero >/run/pod/big; exec sleep 100000");
    manifest["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = "1Mi".into();
    apply(&namespace.0, &manifest.to_string());
    expect_story(POD, &namespace.0, "greedy", &["CREATE +Evicted"]);
    says(&namespace.0, "greedy", &["Usage of EmptyDir volume"]);
    delete(&namespace.0, "greedy");
    expect_story(POD, &namespace.0, "greedy", &["CREATE +Evicted", "DELETE +Evicted"]);
}

/// Scenario: a deleted pod is held by a finalizer.
/// Guarantee: told with the finalizer's name, and that it is gone.
#[test]
fn a_pod_that_does_not_terminate() {
    let namespace = Namespace::new("finalizer");
    let mut manifest = pod("held", "exec sleep 100000");
    manifest["metadata"]["finalizers"] = json!(["example.com/hold"]);
    apply(&namespace.0, &manifest.to_string());
    kubectl(&["wait", "-n", &namespace.0, "pod/held", "--for=condition=Ready", "--timeout=60s"]);
    delete(&namespace.0, "held");
    expect_story(POD, &namespace.0, "held", &["CREATE +StuckTerminating"]);
    says(&namespace.0, "held", &["example.com/hold"]);
    let release = r#"{"metadata":{"finalizers":null}}"#;
    kubectl(&["patch", "pod", "-n", &namespace.0, "held", "--type=merge", "-p", release]);
    expect_story(POD, &namespace.0, "held", &["CREATE +StuckTerminating", "DELETE +StuckTerminating"]);
}

/// Scenario: a pod does its work and ends; another does so after it was deleted and made again under its name.
/// Guarantee: neither is an incident.
#[test]
fn a_pod_that_succeeds() {
    let namespace = Namespace::new("success");
    let mut manifest = pod("worker", "echo done");
    manifest["spec"]["restartPolicy"] = "Never".into();
    for _ in 0..2 {
        apply(&namespace.0, &manifest.to_string());
        let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
        kubectl(&["wait", "-n", &namespace.0, "pod/worker", succeeded, "--timeout=60s"]);
        kubectl(&["delete", "pod", "-n", &namespace.0, "worker"]);
    }
    let mut last = pod("last", "exit 1");
    last["spec"]["restartPolicy"] = "Never".into();
    apply(&namespace.0, &last.to_string());
    expect_story(POD, &namespace.0, "last", &["CREATE +Failed"]);
    assert_eq!(story(POD, &namespace.0, "worker"), [""; 0], "told before what came later");
}
