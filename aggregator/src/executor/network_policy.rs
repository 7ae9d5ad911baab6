//! Verdicts on network policies that the cloud proposes: what the API server
//! would say if they were applied. Nothing is ever stored.

use std::time::Duration;

use http::{Request, header};
use kestrel_proto::cloud::v1::NetworkPolicyWithError;
use kube::client::Body;
use serde_json::{Map, Value};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    cluster::{Cluster, Failure},
    dry_run::METADATA,
    manifest,
    refusal::MANIFEST_BYTES,
};

/// Who would own the fields; a conflict with other owners is part of the verdict.
pub(super) const FIELD_MANAGER: &str = "kestrel-operator";
/// A verdict must be there within this time.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
const TYPES: [&str; 2] = ["Ingress", "Egress"];

/// Why a policy is not accepted.
#[derive(Debug, PartialEq)]
pub(super) struct Rejected {
    /// A sentence for who proposed it.
    pub why: String,
    /// It may be accepted later as it is.
    pub passing: bool,
}

impl Rejected {
    fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), passing: false }
    }
}

/// Asks the API server what it would say to the policy, as who tries.
///
/// # Errors
/// It is not accepted, or was not tried, and why.
pub(super) async fn try_out(
    cluster: &Cluster,
    policy: &NetworkPolicyWithError,
    deadline: Instant,
) -> Result<(), Rejected> {
    let text = policy.network_policy.clone();
    // The runtime has other things to do meanwhile.
    let read = spawn_blocking(move || Proposal::read(&text)).await;
    let Proposal { namespace, name, manifest } =
        read.unwrap_or_else(|_| Err("it could not be read".to_owned())).map_err(Rejected::lasting)?;
    let request = Request::patch(format!(
        "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}\
         ?dryRun=All&fieldManager={FIELD_MANAGER}&fieldValidation=Strict"
    ))
    .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
    .header(header::ACCEPT, METADATA)
    .body(Body::from(manifest.to_string().into_bytes()))
    .map_err(|error| Rejected::lasting(format!("this is not a usable name: {error}")))?;
    match timeout_at(deadline, cluster.send_as(&cluster.trier, request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failure)) => Err(rejected(failure)),
        Err(_) => Err(Rejected {
            why: format!("there was no answer of the API server in {} s: ask again later", LIMIT.as_secs()),
            passing: true,
        }),
    }
}

fn rejected(Failure { status, message, .. }: Failure) -> Rejected {
    // As the authorizer says it; admission has other words.
    if status == 403
        && ["cannot patch resource", "cannot create resource", "cannot impersonate"]
            .iter()
            .any(|no| message.contains(no))
    {
        let why = "not tried: the owner of this cluster has not allowed dry runs of network policies (Helm: \
                   operator.networkPolicies.dryRun)";
        return Rejected { why: format!("{why}: {message}"), passing: true };
    }
    Rejected { why: message, passing: matches!(status, 401 | 429 | 500..) }
}

/// A manifest, as far as it can be judged without the API server.
#[derive(Debug)]
struct Proposal {
    namespace: String,
    name: String,
    manifest: Value,
}

impl Proposal {
    /// # Errors
    /// It is not one NetworkPolicy with a name and a namespace.
    fn read(text: &str) -> Result<Self, String> {
        if text.len() > MANIFEST_BYTES {
            return Err(format!("a policy of {} bytes is too large: at most {MANIFEST_BYTES}", text.len()));
        }
        let mut manifest: Map<String, Value> =
            manifest::parse(text).map_err(|error| format!("this is not one YAML document: {error}"))?;
        let is = |field: &str, expected: &str| match manifest.get(field).and_then(Value::as_str) {
            Some(found) if found == expected => Ok(()),
            found => Err(format!("{field} is {found:?}, and must be {expected:?}")),
        };
        is("apiVersion", "networking.k8s.io/v1")?;
        is("kind", "NetworkPolicy")?;
        let [namespace, name] = ["namespace", "name"].map(|field| {
            let found = manifest.get("metadata").and_then(|metadata| metadata[field].as_str());
            found.filter(|name| is_name(name)).map(ToOwned::to_owned).ok_or_else(|| {
                format!("metadata.{field} is {found:?}, and must be a name of letters, digits, '-' and '.'")
            })
        });
        let (namespace, name) = (namespace?, name?);
        check_types(manifest.get("spec").unwrap_or(&Value::Null))?;
        // Go writes it, and newer API servers do not know it any more.
        if manifest.get("status").is_some_and(|status| status.as_object().is_some_and(Map::is_empty)) {
            manifest.remove("status");
        }
        Ok(Self { namespace, name, manifest: manifest.into() })
    }
}

/// Whether a text can stand in a path of the API (RFC 1123).
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
}

/// Rules of a type that the policy does not name would have no effect.
fn check_types(spec: &Value) -> Result<(), String> {
    // Without them the API server takes those that have rules.
    let Some(types) = spec.get("policyTypes").and_then(Value::as_array) else { return Ok(()) };
    let types: Vec<&str> = types.iter().filter_map(Value::as_str).collect();
    if let Some(unknown) = types.iter().find(|named| !TYPES.contains(named)) {
        return Err(format!("spec.policyTypes names {unknown:?}, and may name Ingress and Egress"));
    }
    for (rules, named) in [("ingress", "Ingress"), ("egress", "Egress")] {
        let has_rules = spec[rules].as_array().is_some_and(|rules| !rules.is_empty());
        if has_rules && !types.contains(&named) {
            return Err(format!(
                "spec.{rules} has rules, but spec.policyTypes does not name {named}: they would have no effect"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::{excluded::Excluded, executor::hidden::Hashes};
    use kube::Client;

    const POLICY: &str = "# as a person writes it
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
    - ports: [{port: 80}]
status: {}
";

    /// What became of `policy`, when the API server answers with this; and what it was asked.
    async fn tried(policy: &str, code: u16, answer: Value) -> (Result<(), Rejected>, Vec<(String, Value)>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = {
            let asked = Arc::clone(&asked);
            move |request: http::Request<Body>| {
                let (asked, answer) = (Arc::clone(&asked), answer.to_string());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let what = format!("{} {}", parts.method, parts.uri);
                    asked.lock().unwrap().push((what, serde_json::from_slice(&body).unwrap()));
                    let response = http::Response::builder().status(code);
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(answer))).unwrap())
                }
            }
        };
        let client = Client::new(tower::service_fn(server), "default");
        let policy = NetworkPolicyWithError { network_policy: policy.to_owned(), ..Default::default() };
        let hashes = Hashes::new().unwrap();
        let trier = client.clone();
        let cluster = Cluster { client, trier, excluded: Excluded::default(), hashes };
        let result = try_out(&cluster, &policy, Instant::now() + LIMIT).await;
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        (result, asked)
    }

    fn status(code: u16, message: &str) -> Value {
        json!({"kind": "Status", "status": "Failure", "message": message, "reason": "", "code": code})
    }

    #[tokio::test]
    async fn a_policy_is_tried_and_never_applied() {
        let (result, asked) = tried(POLICY, 200, json!({"metadata": {"name": "web"}})).await;
        let [(what, body)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(result, Ok(()));
        let (path, query) = what.split_once('?').unwrap();
        assert_eq!(path, "PATCH /apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/web");
        for part in ["dryRun=All", "fieldManager=kestrel-operator", "fieldValidation=Strict"] {
            assert!(query.split('&').any(|found| found == part), "{query}");
        }
        assert_eq!(body["spec"]["ingress"], json!([{"ports": [{"port": 80}]}]));
        assert_eq!(body.get("status"), None, "Go writes it");
    }

    #[tokio::test]
    async fn what_the_api_server_says_is_the_verdict() {
        let (result, _) = tried(POLICY, 422, status(422, "spec.podSelector: Invalid value")).await;
        assert_eq!(result, Err(Rejected::lasting("spec.podSelector: Invalid value")));
        let (result, _) = tried(POLICY, 500, status(500, "etcdserver: leader changed")).await;
        assert!(result.is_err_and(|rejected| rejected.passing));
        let denied = "admission webhook \"x\" denied the request: \u{1b}[31mtoken=hunter2 is known";
        let why = tried(POLICY, 403, status(403, denied)).await.0.unwrap_err().why;
        assert!(why.contains("denied the request") && why.ends_with(" is known"), "{why}");
        assert!(!why.contains(['\u{1b}']) && !why.contains("hunter2"), "{why}");
    }

    #[tokio::test]
    async fn who_has_not_allowed_it_is_named_with_the_setting() {
        let rbac = "networkpolicies.networking.k8s.io \"web\" is forbidden: User \"system:serviceaccount:kestrel-ai:\
                    kestrel-dry-run\" cannot patch resource \"networkpolicies\" in API group \"networking.k8s.io\"";
        let rejected = tried(POLICY, 403, status(403, rbac)).await.0.unwrap_err();
        assert!(
            rejected.passing && rejected.why.contains("(Helm: operator.networkPolicies.dryRun)"),
            "{rejected:?}"
        );
        let nobody = "serviceaccounts \"kestrel-dry-run\" is forbidden: User \"x\" cannot impersonate resource \"serviceaccounts\"";
        assert!(tried(POLICY, 403, status(403, nobody)).await.0.unwrap_err().passing);
        let rejected = tried(POLICY, 403, status(403, "denied by a webhook")).await.0.unwrap_err();
        assert_eq!(rejected, Rejected::lasting("denied by a webhook"));
    }

    #[tokio::test]
    async fn what_is_no_policy_is_not_even_tried() {
        for (from, to, why) in [
            ("networking.k8s.io/v1", "v1", "apiVersion is Some(\"v1\")"),
            ("NetworkPolicy", "Pod", "kind is Some(\"Pod\")"),
            ("namespace: shop", "labels: {}", "metadata.namespace is None"),
            ("name: web", "name: ../../pods/x", "metadata.name is Some(\"../../pods/x\")"),
            ("[Ingress]", "[Ingress, Both]", "\"Both\""),
            ("[Ingress]", "[Egress]", "they would have no effect"),
            ("status: {}", "---\nkind: Secret", "this is not one YAML document"),
            ("status: {}", "kind: Secret", "this is not one YAML document"),
            ("spec:", "spec", "this is not one YAML document"),
            ("# as", &"#".repeat(MANIFEST_BYTES), "too large"),
        ] {
            assert!(POLICY.contains(from));
            let (result, asked) = tried(&POLICY.replacen(from, to, 1), 200, json!({})).await;
            let rejected = result.unwrap_err();
            assert!(rejected.why.contains(why) && !rejected.passing, "{rejected:?}");
            assert!(asked.is_empty(), "{asked:?}");
        }
        assert!(tried("", 200, json!({})).await.0.is_err());
    }
}
