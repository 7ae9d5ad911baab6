//! The annotation, as a user meets it: roll-outs, jobs, file logs.

mod certificates;
mod coverage;
mod memory;
mod others;
pub(crate) mod profile;
mod stored;
mod trouble;
mod workloads;

use serde_json::{Value, json};

use crate::{
    kubectl::{apply, cloud, eventually, json, kubectl, rolled_out, sample_image, warnings},
    namespace::Namespace,
};

/// The annotations that ask for the sidecar.
fn inject() -> Value {
    json!({"kestrel.ai/inject": "true"})
}

/// The sidecar of a pod; null if it has none.
fn collector(pod: &Value) -> &Value {
    let mut containers = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    containers.find(|container| container["name"] == "kestrel-collector").unwrap_or(&Value::Null)
}

/// Whether a pod is Ready, or has ended well.
fn is_up(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let is_ready = conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    (is_ready && pod["metadata"]["deletionTimestamp"].is_null()) || pod["status"]["phase"] == "Succeeded"
}

/// A pod in a few words, for whom a test failed.
fn status_of(pod: &Value) -> String {
    let waiting = [&pod["status"]["initContainerStatuses"], &pod["status"]["containerStatuses"]]
        .into_iter()
        .flat_map(|statuses| statuses.as_array().into_iter().flatten())
        .filter(|status| status["ready"] != true)
        .map(|status| format!("{} {}", status["name"], status["state"]));
    let status = &pod["metadata"]["annotations"]["kestrel.ai/status"];
    format!(
        "{} {} {status} {}",
        pod["metadata"]["name"],
        pod["status"]["phase"],
        waiting.collect::<Vec<_>>().join(" ")
    )
}

/// A pod template with a container that writes `lines to a file only` in an emptyDir.
fn file_writer(annotations: &Value, script: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "shop"}, "annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 15,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
            "containers": [{
                "name": "shop", "image": sample_image(), "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

/// Messages of a container's lines at the cloud that contain `text`.
fn messages(namespace: &str, container: &str, text: &str) -> Vec<Value> {
    let answer = cloud(&format!("/v1/logs?namespace={namespace}&container={container}&contains={text}"));
    answer["lines"].as_array().cloned().unwrap_or_default()
}

/// Scenario: a Deployment's template is annotated while it runs.
/// Guarantee: the new pod has the sidecar, Ready; what the app writes only to a file arrives
/// under the app's container, and the pod says what happened to it.
#[test]
fn an_annotated_rollout_carries_the_sidecar_and_its_file_lines_arrive() {
    let namespace = Namespace::new("rollout");
    let script =
        "i=0; while true; do i=$((i+1)); echo \"order-$i placed\" >> /data/orders.log; sleep 1; done";
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "template": file_writer(&json!({}), script)},
    });
    apply(&namespace.0, &deployment.to_string());
    rolled_out(&namespace.0, "deployment/shop");
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"kestrel.ai/inject": "true"}}}}});
    kubectl(&["patch", "-n", &namespace.0, "deployment/shop", "--type=merge", "-p", &patch.to_string()]);
    rolled_out(&namespace.0, "deployment/shop");

    let pod = eventually("one pod with the sidecar", 60, || {
        let list = json(&["get", "pods", "-n", &namespace.0]);
        match list["items"].as_array().unwrap().as_slice() {
            [pod] => Ok(pod.clone()),
            pods => Err(format!("{} pods", pods.len())),
        }
    });
    assert_eq!(pod["metadata"]["labels"]["kestrel.ai/injected"], "true");
    let sidecar = &pod["status"]["initContainerStatuses"][0];
    assert_eq!(
        (&sidecar["name"], &sidecar["ready"]),
        (&"kestrel-collector".into(), &true.into()),
        "{sidecar}"
    );
    let name = pod["metadata"]["name"].as_str().unwrap();
    let line = eventually("a line of the file at the cloud", 90, || {
        messages(&namespace.0, "shop", "order-").first().cloned().ok_or_else(|| "no line".to_owned())
    });
    assert_eq!((&line["pod"], &line["namespace"]), (&name.into(), &namespace.0.as_str().into()));
    assert!(line["message"].as_str().unwrap().ends_with("placed"), "{line}");
}

/// Scenario: a Job's pod asks for the sidecar and ends right after its last line.
/// Guarantee: the Job completes, and the last line arrives.
#[test]
fn a_job_with_the_sidecar_completes_and_its_last_line_arrives() {
    let namespace = Namespace::new("job");
    let mut template = file_writer(
        &json!({"kestrel.ai/inject": "true"}),
        "for i in 1 2 3; do echo \"step-$i done\" >> /data/job.log; sleep 1; done; echo last-step >> /data/job.log",
    );
    template["spec"]["restartPolicy"] = "Never".into();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "import"},
        "spec": {"backoffLimit": 0, "template": template},
    });
    apply(&namespace.0, &job.to_string());
    kubectl(&["wait", "-n", &namespace.0, "--for=condition=Complete", "job/import", "--timeout=90s"]);
    eventually("the last line at the cloud", 60, || {
        let count = messages(&namespace.0, "shop", "last-step").len();
        if count > 0 { Ok(()) } else { Err("not there".to_owned()) }
    });
}

/// Scenario: pods that must be left alone although they ask.
/// Guarantee: no sidecar, and the pod says why.
#[test]
fn a_pod_that_can_not_have_the_sidecar_says_why() {
    let namespace = Namespace::new("skipped");
    let mut template = file_writer(&json!({"kestrel.ai/inject": "true"}), "exec sleep 100000");
    template["spec"]["hostNetwork"] = true.into();
    template["apiVersion"] = "v1".into();
    template["kind"] = "Pod".into();
    template["metadata"]["name"] = "host".into();
    apply(&namespace.0, &template.to_string());
    let pod = json(&["get", "pod", "-n", &namespace.0, "host"]);
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
    let status = pod["metadata"]["annotations"]["kestrel.ai/status"].as_str().unwrap_or_default();
    assert!(status.contains("hostNetwork"), "{status:?}");
}

/// Scenario: a person annotates pods that run already: one that nothing makes, one of a Deployment, and one of a
/// Helm release; and one that never gets a sidecar.
/// Guarantee: the answer says what is sent from then on, that a running pod gets no sidecar, and what to do, each
/// for its own maker, or why nothing can be done; nothing is restarted, and all lines arrive, also those from before.
#[test]
fn annotating_a_running_pod_is_answered_and_sends_all_its_lines() {
    let namespace = Namespace::new("running");
    let script =
        "echo \"INFO before-1\"; i=0; while true; do i=$((i+1)); echo \"INFO quiet-$i\"; sleep 1; done";
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [{
        "name": "app", "image": sample_image(), "command": ["sh", "-c", script],
    }]});
    let pod = |name: &str, labels: &Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    let release = json!({"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": "shop"});
    for manifest in [pod("runs", &json!({})), pod("released", &release), deployment] {
        apply(&namespace.0, &manifest.to_string());
    }
    for pod in ["pod/runs", "pod/released"] {
        kubectl(&["wait", "-n", &namespace.0, "--for=condition=Ready", pod, "--timeout=60s"]);
    }
    rolled_out(&namespace.0, "deployment/web");
    let annotate = |select: &[&str]| {
        let args = [&["annotate", "pod", "-n", &namespace.0], select, &["kestrel.ai/inject=true"]].concat();
        let warning = warnings(&args);
        println!("{warning}");
        assert!(warning.contains("runs already and cannot be given a collector"), "{warning:?}");
        assert!(warning.contains("stdout and stderr is sent in full"), "{warning:?}");
        warning
    };
    let warning = warnings(&["annotate", "pod", "-n", &namespace.0, "runs", "kestrel.ai/inject=True"]);
    assert!(warning.contains("\"True\", and only \"true\" asks for a collector"), "{warning:?}");
    kubectl(&["annotate", "pod", "-n", &namespace.0, "runs", "kestrel.ai/inject-"]);
    let warning = annotate(&["runs"]);
    assert!(warning.contains("create the pod again"), "{warning:?}");
    let warning = annotate(&["-l", "app=web"]);
    assert!(warning.contains(&format!("kubectl -n {} patch deployment/web", namespace.0)), "{warning:?}");
    let mut host = pod("host", &json!({}));
    host["spec"]["hostNetwork"] = true.into();
    apply(&namespace.0, &host.to_string());
    let warning = annotate(&["host"]);
    assert!(warning.contains("never given one, as it uses its node's network"), "{warning:?}");
    let warning = annotate(&["released"]);
    assert!(warning.contains("the source of Helm release shop"), "{warning:?}");
    for text in ["quiet-", "before-1"] {
        eventually("harmless lines at the cloud, from now and from before", 60, || {
            let lines = messages(&namespace.0, "app", text);
            let pods = ["runs", "released"].map(|pod| lines.iter().any(|line| line["pod"] == pod));
            if pods == [true, true] { Ok(()) } else { Err(format!("{text} {pods:?}")) }
        });
    }
    let pod = json(&["get", "pod", "-n", &namespace.0, "runs"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}
