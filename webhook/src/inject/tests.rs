//! Decisions, from pod and cluster to reason and patch.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::cluster::{Key, Kind, Object};

fn settings() -> Settings {
    Settings {
        namespace: "kestrel-ai".to_owned(),
        image: "registry/kestrel-operator@sha256:0".to_owned(),
        pull_secrets: Vec::new(),
        link_endpoint: "https://kestrel-agent-link.kestrel-ai.svc:8443".to_owned(),
        link_ca: Some("PEM".to_owned()),
        redact: String::new(),
        default_profile: true,
    }
}

fn put(cluster: &mut Cluster, kind: Kind, namespace: &str, body: Value) {
    let key = Key { namespace: namespace.to_owned(), name: "x".to_owned() };
    cluster.put(kind, Object { key, body, ..Object::default() }).unwrap();
}

/// A cluster with these profiles.
fn cluster(settings: Settings, profiles: &Value) -> Cluster {
    let mut cluster = Cluster::new(settings);
    for (name, spec) in profiles.as_object().unwrap() {
        let key = Key { namespace: String::new(), name: name.clone() };
        let object = Object { key, body: json!({ "spec": spec }), ..Object::default() };
        cluster.put(Kind::InjectionProfile, object).unwrap();
    }
    cluster
}

fn pod(annotations: &Value, mut spec: Value) -> Pod {
    spec["containers"] = json!([{"name": "app"}]);
    serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap()
}

fn wish(value: &str) -> Value {
    json!({ INJECT: value })
}

#[test]
fn every_reason_to_leave_a_pod_alone_is_named() {
    let profiles = json!({
        "off": {"enabled": false, "podSelector": {"matchLabels": {"never": "there"}}},
        "other": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bank"}}},
        "foreign": {"image": "elsewhere/collector:1",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "lab"}}},
        "slow": {"rollout": {"percent": 0},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "none-yet"}}},
        "quiet": {"enabled": false,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "quiet"}}},
    });
    let fargate = json!({"schedulerName": "fargate-scheduler"});
    let no_default = Settings { default_profile: false, ..settings() };
    let by = |profile: &str| json!({INJECT: "true", PROFILE: profile});
    let much = json!({INJECT: "true", "kestrel.ai/collector-cpu-limit": "much"});
    let perhaps = json!({INJECT: "true", ACCESS_LOGS: "perhaps"});
    let no_ca = Settings { link_ca: None, ..settings() };
    let private = Settings { pull_secrets: vec!["registry".to_owned()], ..settings() };
    let mirror = json!({INJECT: "true", "kubernetes.io/config.mirror": "hash"});
    let sidecar = json!({"initContainers": [{"name": CONTAINER}]});
    let volume = json!({"volumes": [{"name": "kestrel-state", "emptyDir": {}}]});
    let none = || json!({});
    let windows = json!({"os": {"name": "windows"}});
    let windows_node = json!({"nodeSelector": {"kubernetes.io/os": "windows"}});
    let priority = |name: &str| json!({ "priorityClassName": name });
    let [for_cluster, for_node] = ["cluster", "node"].map(|of| priority(&format!("system-{of}-critical")));
    // Label, noted on the pod, told to its creator.
    for (annotations, spec, namespace, settings, label, noted, told) in [
        (none(), none(), "shop", settings(), "not-asked", false, false),
        (wish("false"), none(), "shop", settings(), "not-asked", false, false),
        (wish("yes"), none(), "shop", settings(), "unclear-wish", true, true),
        (wish("true"), sidecar, "shop", settings(), "already-injected", false, false),
        (mirror, none(), "shop", settings(), "mirror-pod", false, true),
        (wish("true"), json!({"hostNetwork": true}), "shop", settings(), "host-network", true, true),
        (wish("true"), windows, "shop", settings(), "windows", true, true),
        (wish("true"), windows_node, "shop", settings(), "windows", true, true),
        (wish("true"), for_cluster, "shop", settings(), "critical-priority", true, true),
        (wish("true"), for_node, "shop", settings(), "critical-priority", true, true),
        (wish("true"), none(), "kube-system", settings(), "namespace", false, true),
        (wish("true"), none(), "kestrel-ai", settings(), "namespace", false, true),
        (wish("true"), volume, "shop", settings(), "volume-name", true, true),
        (wish("true"), none(), "shop", no_ca, "no-link-authority", true, true),
        (wish("true"), none(), "shop", no_default, "no-profile", true, true),
        (wish("true"), none(), "quiet", settings(), "profile-disabled", true, true),
        (by("nowhere"), none(), "shop", settings(), "unknown-profile", true, true),
        (by("other"), none(), "shop", settings(), "profile-elsewhere", true, true),
        (wish("true"), none(), "lab", settings(), "untried-image", true, true),
        (wish("true"), none(), "shop", private, "pull-secret", true, true),
        (much, none(), "shop", settings(), "bad-annotation", true, true),
        (perhaps, none(), "shop", settings(), "bad-annotation", true, true),
        (wish("true"), fargate, "shop", settings(), "virtual-node", true, true),
        (wish("true"), none(), "none-yet", settings(), "rollout", true, true),
        (wish("true"), none(), "stopped", settings(), "stopped", true, true),
        (wish("true"), none(), "tight", settings(), "limit-range", true, true),
        (wish("true"), none(), "full", settings(), "quota", true, true),
    ] {
        let mut cluster = cluster(settings, &profiles);
        let tight = json!({"spec": {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]}});
        put(&mut cluster, Kind::LimitRange, "tight", tight);
        let full = json!({"spec": {"hard": {"limits.cpu": "0"}}});
        put(&mut cluster, Kind::ResourceQuota, "full", full);
        let bare = Workload::of("stopped", "Pod", "", &Labels::new());
        cluster.stops.hold(&bare, None, "it was killed", Timestamp::UNIX_EPOCH);
        let verdict = judge(&pod(&annotations, spec), namespace, &cluster);
        let skip = verdict.skipped.unwrap();
        assert_eq!(skip.label(), label);
        assert_eq!(verdict.patch.len(), usize::from(noted), "{skip}");
        assert_eq!(verdict.warnings.len(), usize::from(told), "{skip}");
    }
}

#[test]
fn other_systems_and_priorities_get_a_collector() {
    for spec in [
        json!({"os": {"name": "linux"}}),
        json!({"nodeSelector": {"kubernetes.io/os": "linux", "disk": "windows"}}),
        json!({"priorityClassName": "shop-critical"}),
    ] {
        assert_eq!(judge(&pod(&wish("true"), spec), "shop", &cluster(settings(), &json!({}))).skipped, None);
    }
}

#[test]
fn a_node_that_needs_a_secret_for_the_image_gets_pods_that_name_it_or_shows_that_it_does_not() {
    let settings = Settings { pull_secrets: vec!["registry".to_owned()], ..settings() };
    let image = settings.image.clone();
    let mut cluster = cluster(settings, &json!({}));
    let secret = |name: &str| json!({"imagePullSecrets": [{"name": "x"}, {"name": name}]});
    let skipped = |cluster: &Cluster, name: &str| {
        judge(&pod(&wish("true"), secret(name)), "shop", cluster).skipped.map(|skip| skip.label())
    };
    let ran = |secrets: Value| {
        let mut body = json!({"spec": secrets, "status": {"initContainerStatuses": [
            {"name": CONTAINER, "state": {"running": {}}}]}});
        body["spec"]["initContainers"] = json!([{"name": CONTAINER, "image": image}]);
        body
    };
    assert_eq!(skipped(&cluster, "registry"), None);
    put(&mut cluster, Kind::InjectedPod, "shop", ran(secret("registry")));
    assert_eq!(skipped(&cluster, "other"), Some("pull-secret"), "that pod had it");
    put(&mut cluster, Kind::InjectedPod, "shop", ran(json!({})));
    assert_eq!(skipped(&cluster, "other"), None);
}

#[test]
fn a_private_image_of_a_profile_is_for_pods_with_the_secrets_with_which_it_ran() {
    let image = "private/collector:1";
    let mut cluster = cluster(settings(), &json!({"p": {"image": image}}));
    let body = json!({
        "spec": {"imagePullSecrets": [{"name": "registry"}],
            "initContainers": [{"name": CONTAINER, "image": image}]},
        "status": {"initContainerStatuses": [{"name": CONTAINER, "state": {"running": {}}}]},
    });
    put(&mut cluster, Kind::InjectedPod, "shop", body);
    for (secrets, expected) in [(json!([]), Some("pull-secret")), (json!([{"name": "registry"}]), None)] {
        let pod = pod(&wish("true"), json!({ "imagePullSecrets": secrets }));
        let skip = judge(&pod, "bank", &cluster).skipped;
        assert_eq!(skip.as_ref().map(Skip::label), expected);
        let names_it = |skip: &Skip| skip.to_string().ends_with("(imagePullSecrets: registry)");
        assert!(skip.as_ref().is_none_or(names_it), "{skip:?}");
    }
}

#[test]
fn a_pod_decides_for_itself_whether_access_logs_are_received() {
    let receives = |profile: bool, annotation: &str| {
        let cluster = cluster(settings(), &json!({"p": {"collect": {"accessLogs": profile}}}));
        let verdict =
            judge(&pod(&json!({INJECT: "true", ACCESS_LOGS: annotation}), json!({})), "shop", &cluster);
        assert_eq!(verdict.skipped, None);
        let patch = serde_json::to_string(&verdict.patch).unwrap();
        assert_eq!(patch.contains("KESTREL_ALS_PORT"), verdict.status.ends_with("; receives access logs"));
        assert_eq!(patch.contains("KESTREL_ALS_PORT"), patch.contains("status.podIP"));
        // By this label a Telemetry selects the pod.
        let label = "\"kestrel.ai/receives-access-logs\":\"true\"";
        assert_eq!(patch.contains("KESTREL_ALS_PORT"), patch.contains(label));
        patch.contains("KESTREL_ALS_PORT")
    };
    for profile in [false, true] {
        assert!(receives(profile, "true") && !receives(profile, "false"));
    }
}

#[test]
fn who_creates_a_pod_hears_what_is_wrong_with_its_other_annotations() {
    let warnings = |logs: &str| {
        let pod = pod(&json!({INJECT: "true", LOGS: logs}), json!({}));
        judge(&pod, "shop", &cluster(settings(), &json!({}))).warnings
    };
    for logs in ["all", "errors", "off"] {
        assert!(warnings(logs).is_empty());
    }
    let expected =
        "kestrel.ai/logs is \"All\" and counts as if it was not there; it has to be all, errors or off";
    assert_eq!(warnings("All"), [expected]);
}

#[test]
fn a_profile_adds_to_what_is_redacted_in_the_whole_cluster() {
    let redact = |settings: Settings, env: &Value| {
        let cluster = cluster(settings, &json!({"p": { "env": env }}));
        let patch = judge(&pod(&wish("true"), json!({})), "shop", &cluster).patch;
        let patch = serde_json::to_value(patch).unwrap();
        let container = &patch.as_array().unwrap().last().unwrap()["value"];
        let container = container.get(0).unwrap_or(container);
        let mut found =
            container["env"].as_array().unwrap().iter().filter(|of| of["name"] == "KESTREL_REDACT");
        let value = found.next().map(|variable| variable["value"].as_str().unwrap().to_owned());
        assert!(found.next().is_none(), "{container}");
        value
    };
    let ours = || Settings { redact: "card [0-9]+$".to_owned(), ..settings() };
    let theirs =
        json!([{"name": "KESTREL_REDACT", "value": "a"}, {"name": "KESTREL_REDACT", "value": "pin=.*"}]);
    assert_eq!(redact(settings(), &json!([])), None);
    assert_eq!(redact(settings(), &theirs).as_deref(), Some("pin=.*"));
    assert_eq!(redact(ours(), &json!([])).as_deref(), Some("card [0-9]+$$"));
    assert_eq!(redact(ours(), &theirs).as_deref(), Some("card [0-9]+$$\npin=.*"));
}

#[test]
fn a_note_that_the_pod_has_already_is_not_written_again() {
    let cluster = cluster(settings(), &json!({}));
    let first = judge(&pod(&wish("yes"), json!({})), "shop", &cluster);
    let patch::Value::Text(status) = &first.patch[0].value else { panic!("{:?}", first.patch) };
    assert_eq!(
        status,
        "skipped (unclear-wish): kestrel.ai/inject is \"yes\", and only \"true\" asks for a collector"
    );
    let second = judge(&pod(&json!({INJECT: "yes", STATUS: status}), json!({})), "shop", &cluster);
    assert!(second.patch.is_empty());
}
