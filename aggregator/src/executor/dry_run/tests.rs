use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use kube::Client;
use tokio::time::Instant;

use super::*;
use crate::{
    excluded::Excluded,
    executor::{cluster::Cluster, command::Kinds, hidden::Hashes, rules::Rules},
    link::Nodes,
};

/// What was written, path and query and body, of an API server that answers by the name of the object.
type Writes = Arc<Mutex<Vec<(String, Value)>>>;

fn discovery(group: &str, resources: &[(&str, &str, bool)]) -> Value {
    let resources: Vec<Value> = resources
        .iter()
        .map(|(name, kind, namespaced)| {
            let scope = if *namespaced { "Namespaced" } else { "Cluster" };
            json!({"resource": name, "responseKind": {"kind": kind}, "scope": scope, "verbs": ["get", "patch"]})
        })
        .collect();
    json!({"metadata": {"name": group}, "versions": [{"version": "v1", "resources": resources}]})
}

fn discovered(groups: &[Value]) -> String {
    json!({"kind": "APIGroupDiscoveryList", "items": groups}).to_string()
}

fn status(code: u16, reason: &str, message: &str) -> (u16, String) {
    (code, json!({"kind": "Status", "code": code, "reason": reason, "message": message}).to_string())
}

/// What the API server says to a write.
fn verdict(path: &str, force: bool) -> (u16, String) {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        "owned" if !force => {
            status(409, "Conflict", "Apply failed with 1 conflict: conflict with \"helm\": .spec.replicas")
        }
        "wrong" => status(
            422,
            "Invalid",
            "Deployment.apps \"wrong\" is invalid: spec.replicas: Invalid value: -1: password=hunter2",
        ),
        "running" => {
            let why = "Forbidden: pod updates may not change fields\n- Value: \"hunter2\",\n+ Value: \"x\",";
            let message = format!("Deployment.apps \"running\" is invalid: spec.replicas: {why}");
            let causes = json!([{"reason": "FieldValueForbidden", "field": "spec.replicas", "message": why}]);
            let status =
                json!({"code": 422, "reason": "Invalid", "message": message, "details": {"causes": causes}});
            (422, status.to_string())
        }
        "foreign" => status(403, "Forbidden", "User \"x\" cannot patch resource \"deployments\""),
        "slow" => (0, String::new()),
        _ => (200, json!({"kind": "PartialObjectMetadata"}).to_string()),
    }
}

async fn serve(request: http::Request<Body>, guard: Value, writes: Writes) -> (u16, String) {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path();
    if parts.method != http::Method::GET {
        assert_eq!(parts.method, http::Method::PATCH);
        assert_eq!(parts.headers[header::CONTENT_TYPE], "application/apply-patch+yaml");
        let query = parts.uri.query().unwrap_or_default();
        assert_eq!(query.split('&').filter(|pair| *pair == "dryRun=All").count(), 1, "{query}");
        writes.lock().unwrap().push((format!("{path}?{query}"), serde_json::from_slice(&body).unwrap()));
        return verdict(path, query.contains("force=true"));
    }
    match path {
        "/api" => (
            200,
            discovered(&[discovery(
                "",
                &[("configmaps", "ConfigMap", true), ("namespaces", "Namespace", false)],
            )]),
        ),
        "/apis" => (200, discovered(&[discovery("apps", &[("deployments", "Deployment", true)])])),
        _ if path.contains("/validatingadmissionpolicies/") && !guard.is_null() => {
            (200, json!({"spec": guard["policy"]}).to_string())
        }
        _ if path.contains("/validatingadmissionpolicybindings/") && !guard.is_null() => {
            (200, json!({"spec": guard["binding"]}).to_string())
        }
        _ => status(404, "NotFound", "validatingadmissionpolicies \"kestrel-dry-run\" not found"),
    }
}

/// As the API server tells what the chart made, in the namespace `default`.
fn good_guard() -> Value {
    let account = "request.userInfo.username == 'system:serviceaccount:default:kestrel-dry-run'";
    let rule = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"], "scope": "*"});
    let all = json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [rule]});
    json!({
        "policy": {
            "failurePolicy": "Fail",
            "matchConstraints": all,
            "matchConditions": [{"name": "by-who-may-only-try", "expression": account}],
            "validations": [{"expression": DEMAND, "reason": "Forbidden", "message": "…"}],
        },
        "binding": {"policyName": GUARD, "validationActions": ["Deny"]},
    })
}

struct Rig {
    cluster: Cluster,
    kinds: Kinds,
    nodes: Nodes,
    writes: Writes,
}

impl Rig {
    fn new(guard: Value) -> Self {
        let writes = Writes::default();
        let seen = Arc::clone(&writes);
        let server = move |request: http::Request<Body>| {
            let (guard, writes) = (guard.clone(), Arc::clone(&seen));
            async move {
                let (code, text) = serve(request, guard, writes).await;
                if code == 0 {
                    std::future::pending::<()>().await;
                }
                let response = http::Response::builder().status(code);
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from(text))).unwrap())
            }
        };
        let client = Client::new(tower::service_fn(server), "default");
        let (trier, excluded) = (client.clone(), Excluded::default());
        let cluster = Cluster { client, trier, excluded, hashes: Hashes::new().unwrap() };
        Self { cluster, kinds: Kinds::default(), nodes: Nodes::default(), writes }
    }

    fn session(&self) -> Session<'_> {
        Session {
            room: Session::room(),
            cluster: &self.cluster,
            rules: Rules { dry_run: true, ..Rules::default() },
            kinds: &self.kinds,
            nodes: &self.nodes,
            deadline: Instant::now() + DEFAULT_TIMEOUT,
        }
    }

    async fn tried(&self, manifests: &[&str]) -> (Vec<YamlValidationResult>, Vec<Part>) {
        let yaml_manifests = (1..)
            .zip(manifests)
            .map(|(number, text)| YamlManifest {
                manifest_id: format!("m{number}"),
                yaml_content: (*text).to_owned(),
                namespace: "given".to_owned(),
                ..Default::default()
            })
            .collect();
        let request = YamlDryRunRequest { yaml_manifests, timeout_seconds: 5, ..Default::default() };
        let mut place = Place::alone(Instant::now() + limit_of(&request));
        let (answer, parts) = answer(&self.session(), request, &mut place).await;
        assert_eq!(answer.global_error_message, "");
        (answer.results, parts)
    }
}

fn deployment(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  replicas: 1\n"
    )
}

#[tokio::test]
async fn each_document_is_tried_where_it_would_be_and_nothing_is_written() {
    let rig = Rig::new(good_guard());
    let text = format!(
        "{}---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: 'a:b'}}}}\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: new}}}}\n",
        deployment("web")
    );
    let (results, parts) = rig.tried(&[&text]).await;
    assert!(results[0].valid && results[0].status_code == 200, "{results:?}");
    assert_eq!((results[0].manifest_id.as_str(), results[0].error_message.as_str()), ("m1", ""));
    assert_eq!(parts[0].what, "m1: Deployment shop/web, ConfigMap given/a:b, Namespace /new");
    let writes = rig.writes.lock().unwrap().clone();
    let query = "?dryRun=All&fieldManager=kestrel-operator&fieldValidation=Strict&force=false";
    let paths: Vec<&str> = writes.iter().map(|(path, _)| path.strip_suffix(query).unwrap()).collect();
    assert_eq!(
        paths,
        [
            "/apis/apps/v1/namespaces/shop/deployments/web",
            "/api/v1/namespaces/given/configmaps/a%3Ab",
            "/api/v1/namespaces/new"
        ]
    );
    assert_eq!(writes[1].1["metadata"], json!({"name": "a:b", "namespace": "given"}));
}

#[tokio::test]
async fn what_others_own_is_tried_as_if_it_were_taken_from_them_and_said() {
    let rig = Rig::new(good_guard());
    let (results, _) = rig.tried(&[&deployment("owned")]).await;
    assert!(results[0].valid && results[0].error_message.is_empty(), "{results:?}");
    assert!(
        results[0].suggested_fix.starts_with("line 5 (spec.replicas): valid, but others own"),
        "{results:?}"
    );
    assert_eq!(rig.writes.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn every_manifest_has_a_verdict_of_its_own_with_the_line() {
    let rig = Rig::new(good_guard());
    let both = format!("{}---\n# next\n{}", deployment("foreign"), deployment("wrong"));
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n";
    let unknown = deployment("x").replace("apps/v1", "apps/v1beta1");
    let manifests = [
        &deployment("wrong"),
        &both,
        secret,
        &unknown,
        "a: [",
        "",
        &deployment("web"),
        &deployment("slow"),
        &deployment("web"),
    ];
    let (results, parts) = rig.tried(&manifests).await;
    let codes: Vec<i32> = results.iter().map(|result| result.status_code).collect();
    assert_eq!(codes, [422, 403, 403, 404, 400, 400, 200, 504, 504]);
    let said = &results[0].error_message;
    assert!(
        said.starts_with("line 5 (spec.replicas): Deployment.apps") && !said.contains("hunter2"),
        "{said}"
    );
    let [first, second] = results[1].error_message.lines().collect::<Vec<_>>()[..] else {
        panic!("{results:?}")
    };
    assert!(
        first.starts_with("document 1, line 1: User")
            && second.starts_with("document 2, line 12 (spec.replicas): "),
        "{results:?}"
    );
    assert!(results[1].suggested_fix.contains("has not allowed dry runs of this kind"));
    assert!(
        results[2].error_message.starts_with("line 1: refused (secret): Secrets are not tried"),
        "{results:?}"
    );
    assert_eq!(parts[2].decision, Decision::Refused(Reason::Secret));
    assert_eq!(
        results[3].error_message,
        "line 1: the cluster has no kind Deployment in apps/v1beta1; it has one in apps/v1"
    );
    assert!(results[5].error_message.ends_with("the manifest is empty"));
    assert_eq!(results[7].error_message, "no answer within the 5 s of this request");
}

/// Between the live object and the one that would be stored is what the account may not read.
#[tokio::test]
async fn a_verdict_shows_nothing_of_the_live_object() {
    let rig = Rig::new(good_guard());
    let (results, _) = rig.tried(&[&deployment("running")]).await;
    assert_eq!(
        results[0].error_message,
        "line 5 (spec.replicas): Deployment.apps \"running\" is invalid: spec.replicas: Forbidden: pod updates may not change fields"
    );
}

#[tokio::test]
async fn nothing_is_tried_unless_it_is_switched_on_and_guarded() {
    let why = async |guard: Value, dry_run: bool| {
        let rig = Rig::new(guard);
        let session = Session { rules: Rules { dry_run, ..Rules::default() }, ..rig.session() };
        allowed(&session).await.map_err(|refused| refused.to_string())
    };
    assert_eq!(why(good_guard(), true).await, Ok(()));
    let off = why(good_guard(), false).await.unwrap_err();
    assert!(off.starts_with("refused (off): ") && off.contains("operator.executor.dryRun"), "{off}");
    assert!(
        why(Value::Null, true)
            .await
            .unwrap_err()
            .contains("there is no ValidatingAdmissionPolicy kestrel-dry-run")
    );
    for (pointer, other) in [
        ("/policy/failurePolicy", json!("Ignore")),
        ("/policy/validations/0/expression", json!("true")),
        ("/policy/matchConstraints/resourceRules/0/operations", json!(["CREATE"])),
        ("/policy/matchConstraints/resourceRules/0/resources", json!(["*"])),
        ("/policy/matchConstraints/resourceRules/0/scope", json!("Cluster")),
        ("/policy/matchConstraints/objectSelector", json!({"matchLabels": {"a": "b"}})),
        ("/policy/matchConstraints/matchPolicy", json!("Exact")),
        ("/policy/matchConditions/0/expression", json!("false")),
        ("/policy/matchConditions/0", json!({"name": "x", "expression": "request.userInfo.username == 'x'"})),
        ("/binding/validationActions", json!(["Warn"])),
        ("/binding/policyName", json!("other")),
        ("/binding/matchResources", json!({"namespaceSelector": {"matchLabels": {"a": "b"}}})),
    ] {
        let mut guard = good_guard();
        match guard.pointer_mut(pointer) {
            Some(value) => *value = other,
            None => guard["binding"]["matchResources"] = other,
        }
        assert!(why(guard, true).await.unwrap_err().contains("was changed"), "{pointer}");
    }
    let mut defaulted = good_guard();
    defaulted["binding"]["matchResources"] =
        json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}});
    assert_eq!(why(defaulted, true).await, Ok(()));
}
