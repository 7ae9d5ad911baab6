//! What an API server itself says of injection, as people see it: which profiles it takes, how it describes them, and
//! what it tells whoever annotates a pod that runs.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../api_server.rs"]
mod api_server;
#[path = "../installed.rs"]
mod installed;
mod running_pods;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::{Value, json};

use api_server::ApiServer;
use installed::{install, kubectl};

/// Nothing here takes that long unless it is broken.
const LIMIT: Duration = Duration::from_secs(60);

/// Standard output of `kubectl`, and what it prints beside it.
fn said(server: &ApiServer, arguments: &[&str]) -> (String, String) {
    let output = kubectl(server, arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// Asks until there is an answer. The API server takes a new definition or policy up after a moment.
fn eventually<T>(what: &str, ask: impl Fn() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(problem) => assert!(begun.elapsed() < LIMIT, "{what}: {problem}"),
        }
        sleep(Duration::from_millis(200));
    }
}

#[tokio::test]
async fn the_api_server_refuses_profiles_that_are_none_and_describes_the_others() {
    kestrel_runtime::tls::install_provider();
    let server = ApiServer::start();
    install(&server, &[]);
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("kestrel.ai", "v1alpha1", "InjectionProfile"));
    let profiles: Api<DynamicObject> = Api::all_with(server.client().await, &resource);
    let create = async |spec: Value| {
        let profile = DynamicObject::new("p", &resource).data(json!({ "spec": spec }));
        let params = PostParams { dry_run: true, ..PostParams::default() };
        profiles.create(&params, &profile).await.map_err(|error| error.to_string())
    };
    let requirement = |operator: &str, values: Value| json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}});
    eventually("the definition", || {
        let (names, problem) = said(&server, &["get", "kinj"]);
        if names.is_empty() && problem.contains("No resources found") { Ok(()) } else { Err(problem) }
    });
    create(json!({
        "namespaceSelector": {"matchLabels": {"team": "shop"}},
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
        "image": "registry.test/collector:1",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "0.1", "memory": "64Mi"}},
        "env": [{"name": "KESTREL_LOG", "value": "debug"}],
        "secretRef": {"name": "key"},
        "endpoint": "https://link.example:8443",
        "collect": {"logPaths": ["/data/*.log"], "accessLogs": true},
        "rollout": {"percent": 50},
    }))
    .await
    .unwrap();
    for (spec, expected) in [
        (json!({"enabled": 1}), "must be of type boolean"),
        (json!({"namespaceSelector": []}), "must be of type object"),
        (requirement("Like", json!(["a"])), "Unsupported value: \"Like\""),
        (requirement("In", json!([])), "In and NotIn need values, Exists and DoesNotExist take none"),
        (requirement("Exists", json!(["a"])), "In and NotIn need values, Exists and DoesNotExist take none"),
        (json!({"image": "a b"}), "spec.image"),
        (json!({"resources": {"limits": {"cpu": "-1"}}}), "cpu and memory must be quantities above 0"),
        (json!({"resources": {"requests": {"memory": "much"}}}), "cpu and memory must be quantities above 0"),
        (
            json!({"resources": {"limits": {"memory": "4Mi"}}}),
            "the collector needs a memory limit of at least 16Mi",
        ),
        (
            json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
            "a request must not be more than its limit",
        ),
        (json!({"env": [{"name": "A B"}]}), "spec.env[0].name"),
        (json!({"env": [{"value": "x"}]}), "spec.env[0].name: Required value"),
        (json!({"env": [{"name": "POD_UID", "value": "x"}]}), "this variable is set by the operator"),
        (json!({"secretRef": {}}), "spec.secretRef.name: Required value"),
        (json!({"secretRef": {"name": "../x"}}), "spec.secretRef.name"),
        (json!({"endpoint": "link:8443"}), "spec.endpoint"),
        (json!({"collect": {"logPaths": ["a"]}}), "spec.collect.logPaths[0]"),
        (json!({"collect": {"logPaths": ["/a,/b"]}}), "spec.collect.logPaths[0]"),
        (json!({"rollout": {"percent": 101}}), "should be less than or equal to 100"),
        (json!({"rollout": {"percent": -1}}), "should be greater than or equal to 0"),
    ] {
        let problem = create(spec.clone()).await.expect_err(&spec.to_string());
        assert!(problem.contains(expected), "{spec}: {problem}");
    }

    for (field, expected) in [
        ("kinj", "The first profile by name that"),
        ("kinj.spec.rollout.percent", "The share of workloads"),
        ("kinj.spec.env", "KESTREL_REDACT adds to what is redacted"),
        ("kinj.status.skipped", "by reason"),
    ] {
        let text = eventually("descriptions", || {
            let (text, problem) = said(&server, &["explain", field]);
            if text.contains("DESCRIPTION") { Ok(text) } else { Err(problem) }
        });
        // It is wrapped.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(expected), "{field}: {text}");
    }
}
