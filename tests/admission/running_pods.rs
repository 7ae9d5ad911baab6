//! The warning to whoever annotates a pod that runs.

use serde_json::{Value, json};

use crate::{
    api_server::ApiServer,
    eventually,
    installed::{install, kubectl},
    said,
};

fn create(server: &ApiServer, object: &Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), object.to_string()).unwrap();
    let output = kubectl(server, &["create", "-f", file.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn namespace(name: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}})
}

/// A pod with more in its metadata and in its specification.
fn pod(name: &str, namespace: &str, metadata: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    });
    for (part, more) in [("metadata", metadata), ("spec", spec)] {
        pod[part].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    pod
}

/// What is told to who would annotate the pod so.
fn warning(server: &ApiServer, namespace: &str, name: &str, wish: &str) -> Option<String> {
    let annotation = format!("kestrel.ai/inject={wish}");
    let words = ["annotate", "pod", "-n", namespace, name, &annotation, "--overwrite", "--dry-run=server"];
    let (annotated, beside) = said(server, &words);
    assert!(annotated.contains("annotated"), "{beside}");
    (!beside.is_empty()).then_some(beside)
}

fn made_by(kind: &str, name: &str) -> Value {
    let api_version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": "1", "controller": true}])
}

fn labelled(key: &str, value: &str) -> Value {
    json!({"labels": {key: value, "app.kubernetes.io/instance": "shop"}})
}

#[test]
fn who_annotates_a_running_pod_hears_what_is_sent_of_it_and_how_to_get_the_rest() {
    let server = ApiServer::start();
    install(&server, &["data.namespaces.exclude={bank}"]);
    for (name, annotations) in
        [("shop", json!({})), ("bank", json!({})), ("quiet", json!({"kestrel.ai/logs": "off"}))]
    {
        create(&server, &namespace(name, &annotations));
    }
    let none = json!({});
    let of_deployment = json!({"ownerReferences": made_by("ReplicaSet", "web-5d8f"), "labels": {"pod-template-hash": "5d8f"}});
    let own_owner = |kind: &str, name: &str| json!({ "ownerReferences": made_by(kind, name) });
    let tracked = json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}, "labels": {"app.kubernetes.io/instance": "shop"}});
    let logs = |value: &str| json!({"annotations": {"kestrel.ai/logs": value}});
    let full = "is sent in full by the node agent from now on, and what its node still has of it. Access logs that its \
                Envoy sends to the operator need no collector. Log files in its volumes, and access logs that are sent \
                to its own port 14080, need the collector.";
    let again = "create the pod again with the annotation kestrel.ai/inject=true";
    let patch = |workload: &str| {
        format!(
            "kubectl -n shop patch {workload} -p \
             '{{\"spec\":{{\"template\":{{\"metadata\":{{\"annotations\":{{\"kestrel.ai/inject\":\"true\"}}}}}}}}}}' (if Argo CD, Flux \
             or Helm applies it, change its source instead)."
        )
    };
    let cases = [
        ("bare", "shop", &none, &none, full.to_owned()),
        ("bare-2", "shop", &none, &none, again.to_owned()),
        ("deployment", "shop", &of_deployment, &none, patch("deployment/web")),
        ("stateful", "shop", &own_owner("StatefulSet", "db"), &none, patch("statefulset/db")),
        ("daemon", "shop", &own_owner("DaemonSet", "logs"), &none, patch("daemonset/logs")),
        ("job", "shop", &own_owner("Job", "once"), &none, again.to_owned()),
        (
            "argo",
            "shop",
            &labelled("argocd.argoproj.io/instance", "x"),
            &none,
            "the source of Argo CD application shop,".to_owned(),
        ),
        ("argo-2", "shop", &tracked, &none, "the source of Argo CD application shop,".to_owned()),
        (
            "flux",
            "shop",
            &labelled("kustomize.toolkit.fluxcd.io/name", "apps"),
            &none,
            "the source of Flux Kustomization apps,".to_owned(),
        ),
        (
            "flux-helm",
            "shop",
            &labelled("helm.toolkit.fluxcd.io/name", "apps"),
            &none,
            "the source of Flux HelmRelease apps,".to_owned(),
        ),
        (
            "helm",
            "shop",
            &labelled("app.kubernetes.io/managed-by", "Helm"),
            &none,
            "the source of Helm release shop,".to_owned(),
        ),
        (
            "host",
            "shop",
            &of_deployment,
            &json!({"hostNetwork": true}),
            "It is never given one, as it uses its node's network (hostNetwork).".to_owned(),
        ),
        (
            "windows",
            "shop",
            &none,
            &json!({"os": {"name": "windows"}}),
            "as it is for Windows nodes.".to_owned(),
        ),
        (
            "critical",
            "shop",
            &none,
            &json!({"priorityClassName": "system-node-critical"}),
            "as it is of priority class system-node-critical.".to_owned(),
        ),
        (
            "errors",
            "shop",
            &logs("errors"),
            &none,
            "stays as its annotation kestrel.ai/logs says.".to_owned(),
        ),
        ("nonsense", "shop", &logs("some"), &none, full.to_owned()),
        ("all", "shop", &logs("all"), &none, "in full by the node agent from now on. Access".to_owned()),
        // What it kept in the cluster until now stays there.
        ("off", "quiet", &none, &none, "in full by the node agent from now on. Access".to_owned()),
        (
            "kept",
            "bank",
            &none,
            &none,
            "What it writes stays in the cluster (data.namespaces.exclude).".to_owned(),
        ),
    ];
    for (name, namespace, metadata, spec, _) in &cases {
        create(&server, &pod(name, namespace, metadata, spec));
    }
    eventually("the policy", || warning(&server, "shop", "bare", "true").ok_or_else(|| "silence".to_owned()));
    for (name, namespace, _, _, expected) in &cases {
        let told = warning(&server, namespace, name, "true").unwrap_or_default();
        assert!(told.contains(expected), "{name}: {told}");
    }
    let told = warning(&server, "shop", "bare", "yes").unwrap();
    assert!(
        told.ends_with("kestrel.ai/inject is \"yes\", and only \"true\" asks for a collector.\n"),
        "{told}"
    );

    let carries =
        json!({"initContainers": [{"name": "kestrel-collector", "image": "c:1", "restartPolicy": "Always"}]});
    create(&server, &pod("carries", "shop", &none, &carries));
    create(&server, &pod("system", "kube-system", &none, &none));
    for (namespace, name, wish) in
        [("shop", "bare", "false"), ("shop", "carries", "true"), ("kube-system", "system", "true")]
    {
        assert_eq!(warning(&server, namespace, name, wish), None, "{name}");
    }
}
