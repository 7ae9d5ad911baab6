//! Tries manifests: what the API server would say if they were applied. Nothing is ever stored: every question says
//! `dryRun=All`, and is asked as an account that the cluster holds to it.

use std::{fmt, time::Duration};

use http::{Request, header};
use kestrel_proto::cloud::v1::{YamlDryRunRequest, YamlDryRunResponse, YamlManifest, YamlValidationResult};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::timeout_at};

use super::{
    audit::{Decision, Part},
    cluster::{Answer, Failure},
    command::{Resource, Session, Trouble},
    manifest::{self, Document, Object},
    network_policy::FIELD_MANAGER,
    percent::encode,
    places::Place,
    query::is_label,
    read::{PATHS, TEXT_BYTES, cut, limit},
    reason::{Reason, Refused},
    rules::Rules,
};

/// The ValidatingAdmissionPolicy, and its binding, without which nothing is tried.
pub const GUARD: &str = "kestrel-dry-run";
/// What it demands of each of the account's writes.
pub const DEMAND: &str = "has(request.dryRun) && request.dryRun";
/// For a request that names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Nothing of the object that would be stored has to be read.
pub(super) const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// How the API server begins what it says of fields that others own.
const CONFLICT: &str = "Apply failed with";
/// How that is told.
pub(super) const OTHERS: &str = "others own what it changes, and may change it back";

/// How long `request` may take, from its arrival.
pub(super) fn limit_of(request: &YamlDryRunRequest) -> Duration {
    limit(request.timeout_seconds, DEFAULT_TIMEOUT)
}

/// Whether a manifest would be tried, as far as it can be told without the cluster.
///
/// # Errors
/// It would not be.
pub(super) fn judge(text: &str, rules: Rules) -> Result<(), Refused> {
    if !rules.dry_run {
        return Err(Refused::new(
            Reason::Off,
            "dry runs are not switched on (Helm: operator.executor.dryRun)",
        ));
    }
    for document in manifest::read(text)? {
        if let Err(refused) = &document.object {
            let why = format!("{}{}", document.place(&refused.why), refused.why);
            return Err(Refused::new(refused.reason, why));
        }
    }
    Ok(())
}

/// Whether dry runs are switched on, and the cluster holds their account to them.
///
/// # Errors
/// One of both is not so.
pub(super) async fn allowed(session: &Session<'_>) -> Result<(), Refused> {
    let off = |why: String| {
        let how = "(Helm: operator.executor.dryRun, from Kubernetes 1.30 on)";
        Err(Refused::new(Reason::Off, format!("nothing is tried: {why} {how}")))
    };
    if !session.rules.dry_run {
        return off("the owner of this cluster has not switched dry runs on".to_owned());
    }
    let objects = tokio::try_join!(
        guard(session, "validatingadmissionpolicies"),
        guard(session, "validatingadmissionpolicybindings")
    );
    match objects {
        Ok((policy, binding))
            if guards(&policy["spec"], &binding["spec"], session.cluster.trier.default_namespace()) =>
        {
            Ok(())
        }
        Ok(_) => off(format!(
            "the ValidatingAdmissionPolicy {GUARD}, or its binding, was changed, so that it may let writes pass"
        )),
        Err(trouble) if trouble.is_not_found() => off(format!(
            "there is no ValidatingAdmissionPolicy {GUARD} with a binding, which would refuse writes"
        )),
        Err(trouble) => off(format!(
            "the ValidatingAdmissionPolicy {GUARD}, which has to refuse writes, can't be read: {}",
            trouble.line()
        )),
    }
}

async fn guard(session: &Session<'_>, resource: &str) -> Result<Value, Trouble> {
    session.object(&format!("/apis/admissionregistration.k8s.io/v1/{resource}/{GUARD}")).await
}

/// Whether they are as the chart makes them: whatever else they say may except some of the writes.
fn guards(policy: &Value, binding: &Value, namespace: &str) -> bool {
    let everything =
        json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]});
    let account = format!("request.userInfo.username == 'system:serviceaccount:{namespace}:{GUARD}'");
    let made = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [everything]},
        "matchConditions": [{"expression": account}],
        "validations": [{"expression": DEMAND}],
    });
    bare(policy) == made && bare(binding) == json!({"policyName": GUARD, "validationActions": ["Deny"]})
}

/// Without what the API server fills in, and what is there for people.
fn bare(value: &Value) -> Value {
    let says = |(field, value): &(String, Value)| match field.as_str() {
        "name" | "message" | "reason" => false,
        "matchPolicy" => value != "Equivalent",
        "scope" => value != "*",
        _ => !value.is_null() && *value != json!({}),
    };
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(field, value)| (field.clone(), bare(value))).filter(says).collect()
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

/// Tries the manifests of `request` one after another, until the deadline of `place`, which others have in between. Says of
/// each what was decided.
pub(super) async fn answer(
    session: &Session<'_>,
    request: YamlDryRunRequest,
    place: &mut Place<'_>,
) -> (YamlDryRunResponse, Vec<Part>) {
    let (seconds, deadline) = (limit_of(&request).as_secs(), place.deadline);
    let YamlDryRunRequest { request_id, yaml_manifests, .. } = request;
    if yaml_manifests.len() > PATHS {
        let why = format!("{} manifests in one request are too many: at most {PATHS}", yaml_manifests.len());
        let refused = Refused::new(Reason::TooLarge, why);
        let global_error_message = refused.to_string();
        let response = YamlDryRunResponse { request_id, results: Vec::new(), global_error_message };
        return (response, vec![Part::refused("", &refused)]);
    }
    let (mut results, mut parts) = (Vec::new(), Vec::new());
    let mut held = 0;
    for manifest in yaml_manifests {
        let mut manifest_id = manifest.manifest_id.clone();
        let work = async {
            if !results.is_empty() {
                place.pass(held).await;
            }
            verdict(session, manifest).await
        };
        let mut verdict = match timeout_at(deadline, work).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::failed(504, format!("no answer within the {seconds} s of this request")),
        };
        cut(&mut manifest_id, TEXT_BYTES);
        cut(&mut verdict.message, TEXT_BYTES);
        cut(&mut verdict.advice, TEXT_BYTES);
        let Verdict { status, message, advice, decision, objects } = verdict;
        held += message.len() + advice.len();
        let what = format!("{manifest_id}: {}", objects.join(", "));
        parts.push(Part { what, decision, status: status.into(), bytes: message.len() + advice.len() });
        results.push(YamlValidationResult {
            manifest_id,
            valid: status == 200,
            status_code: status.into(),
            error_message: message,
            suggested_fix: advice,
        });
    }
    (YamlDryRunResponse { request_id, results, global_error_message: String::new() }, parts)
}

/// What the API server would make of a manifest.
struct Verdict {
    /// That of the first document that it would not take.
    status: u16,
    /// A line for each such document.
    message: String,
    /// What to do about it, or what to know of a manifest that is valid.
    advice: String,
    decision: Decision,
    /// What was tried, for the audit.
    objects: Vec<String>,
}

impl Verdict {
    fn valid() -> Self {
        Self::failed(200, String::new())
    }

    fn failed(status: u16, message: String) -> Self {
        Self { status, message, advice: String::new(), decision: Decision::Allowed, objects: Vec::new() }
    }

    fn add(&mut self, place: &str, rejected: &Rejected) {
        if self.status == 200 {
            self.status = rejected.status;
            rejected.advice().clone_into(&mut self.advice);
            if let Some(reason) = rejected.reason {
                self.decision = Decision::Refused(reason);
            }
        }
        line(&mut self.message, &format!("{place}{}", rejected.message));
    }
}

fn line(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

/// Why a document would not be taken.
#[derive(Debug)]
struct Rejected {
    status: u16,
    message: String,
    /// It was not even tried.
    reason: Option<Reason>,
}

impl From<Refused> for Rejected {
    fn from(refused: Refused) -> Self {
        Self { status: refused.status(), message: refused.to_string(), reason: Some(refused.reason) }
    }
}

impl From<Failure> for Rejected {
    fn from(Failure { status, message, .. }: Failure) -> Self {
        Self { status, message, reason: None }
    }
}

impl From<Trouble> for Rejected {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(refused) => refused.into(),
            Trouble::Failed(failure) => failure.into(),
            Trouble::Said(why) => Failure::own(502, why).into(),
        }
    }
}

impl Rejected {
    fn advice(&self) -> &'static str {
        let says = |part| self.message.contains(part);
        match self.status {
            403 if says("cannot patch resource") || says("cannot create resource") => {
                "the owner of the cluster has not allowed dry runs of this kind: docs/security.md has those that are, and how to add one"
            }
            403 if says("cannot impersonate") => {
                "the owner of the cluster has not allowed dry runs (Helm: operator.executor.dryRun)"
            }
            404 if says("namespaces \"") => "make the namespace first, or name one that there is",
            404 => "install what defines the kind first, or name a version that the cluster has",
            409 => "the object is another one by now: leave metadata.resourceVersion and metadata.uid out",
            400 | 422 => "mend the manifest where the message says",
            429 | 500.. => "ask again later",
            _ => "",
        }
    }
}

/// The verdict on a manifest.
async fn verdict(session: &Session<'_>, manifest: YamlManifest) -> Verdict {
    let mut verdict = Verdict::valid();
    let YamlManifest { yaml_content, namespace, .. } = manifest;
    // The runtime has other things to do meanwhile.
    let documents = match spawn_blocking(move || manifest::read(&yaml_content)).await {
        Ok(Ok(documents)) => documents,
        Ok(Err(refused)) => {
            verdict.add("", &refused.into());
            return verdict;
        }
        Err(_) => return Verdict::failed(500, "the manifest could not be read".to_owned()),
    };
    for document in &documents {
        match try_out(session, document, &namespace, &mut verdict.objects).await {
            Ok(None) => {}
            Ok(Some(conflict)) => {
                if verdict.status == 200 {
                    let place = document.place(&conflict);
                    line(&mut verdict.advice, &format!("{place}valid, but {OTHERS}: {conflict}"));
                }
            }
            Err(trouble) => {
                let rejected = Rejected::from(trouble);
                verdict.add(&document.place(&rejected.message), &rejected);
            }
        }
    }
    verdict
}

/// Tries one document. What the API server says of fields that others own, if it would take it from them.
async fn try_out(
    session: &Session<'_>,
    document: &Document,
    namespace: &str,
    tried: &mut Vec<String>,
) -> Result<Option<String>, Trouble> {
    let trial = Trial::of(session, document, namespace).await?;
    tried.push(trial.to_string());
    let (_, conflict) = trial.run(session, METADATA).await?;
    Ok(conflict)
}

/// An object that is tried where it would be.
pub(super) struct Trial {
    pub resource: Resource,
    /// Empty where it has none.
    pub namespace: String,
    pub name: String,
    pub path: String,
    body: String,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.resource.kind, self.namespace, self.name)
    }
}

impl Trial {
    /// Of a document; `namespace` is filled in where it names none, else `default`.
    ///
    /// # Errors
    /// It is no object, or of a kind that the cluster does not have.
    pub(super) async fn of(
        session: &Session<'_>,
        document: &Document,
        namespace: &str,
    ) -> Result<Self, Trouble> {
        let object = document.object.as_ref().map_err(Clone::clone)?;
        let resource = resource(session, object).await?;
        let mut value = object.value.clone();
        let chosen =
            match [object.namespace.as_str(), namespace, "default"].into_iter().find(|name| !name.is_empty())
            {
                Some(chosen) if resource.namespaced => chosen,
                _ => "",
            };
        if !chosen.is_empty() {
            if !is_label(chosen) {
                let why = format!("{chosen:?} is not the name of a namespace");
                return Err(Refused::new(Reason::Malformed, why).into());
            }
            value["metadata"]["namespace"] = chosen.into();
        }
        let mut path = resource.path(Some(chosen));
        path.push('/');
        encode(&object.name, &mut path);
        let (namespace, name) = (chosen.to_owned(), object.name.clone());
        Ok(Self { resource, namespace, name, path, body: value.to_string() })
    }

    /// What the API server would store, as it is asked for with `accept`; and what it says of fields that others own, if
    /// it would take it from them.
    ///
    /// # Errors
    /// It would not store it.
    pub(super) async fn run(
        &self,
        session: &Session<'_>,
        accept: &str,
    ) -> Result<(Answer, Option<String>), Failure> {
        match self.ask(session, accept, false).await {
            // Nearly every change of what another tool made: what it would be without the conflict is the question.
            Err(failure) if failure.status == 409 && failure.message.starts_with(CONFLICT) => {
                Ok((self.ask(session, accept, true).await?, Some(failure.message)))
            }
            answer => Ok((answer?, None)),
        }
    }

    /// The one question that is asked with the rights of a write.
    async fn ask(&self, session: &Session<'_>, accept: &str, force: bool) -> Result<Answer, Failure> {
        let uri = format!(
            "{}?dryRun=All&fieldManager={FIELD_MANAGER}&fieldValidation=Strict&force={force}",
            self.path
        );
        let request = Request::patch(uri)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .header(header::ACCEPT, accept)
            .body(Body::from(self.body.as_bytes().to_vec()))
            .map_err(|error| Failure::own(400, format!("this is not a usable name: {error}")))?;
        session.cluster.send_as(&session.cluster.trier, request).await
    }
}

/// The kind of an object.
async fn resource(session: &Session<'_>, object: &Object) -> Result<Resource, Trouble> {
    let resources = session.resources().await?;
    let mut others = Vec::new();
    for known in resources.iter().filter(|known| known.kind == object.kind) {
        if known.group_version() == object.api_version {
            return Ok(known.clone());
        }
        others.push(known.group_version());
    }
    let Object { api_version, kind, .. } = object;
    let elsewhere = match others[..] {
        [] => String::new(),
        _ => format!("; it has one in {}", others.join(", ")),
    };
    Err(Failure::own(404, format!("the cluster has no kind {kind} in {api_version}{elsewhere}")).into())
}

#[cfg(test)]
mod tests;
