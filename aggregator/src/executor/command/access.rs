//! `kubectl auth can-i`: what the account that reads for the cloud may do.

use std::collections::BTreeMap;

use http::{Request, header};
use kube::client::Body;
use serde_json::{Value, json};

use super::{
    Output,
    kubectl::Kubectl,
    list,
    session::{Session, Trouble},
    table, text,
    work::Work,
};
use crate::executor::cluster::Failure;

/// Steps for each verb of each resource and name: a rule that names many of both would be millions of rows.
const STEPS: usize = 64;

/// Reviews are asked for by a POST, of nothing but these two kinds; nothing is stored.
async fn review(session: &Session<'_>, kind: &str, spec: Value) -> Result<Value, Trouble> {
    let path = format!("/apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Body::from(body.to_string().into_bytes()))
        .map_err(|error| Failure::own(400, format!("this is not a usable question: {error}")))?;
    let answer = session.cluster.send(request).await?;
    Ok(session.cluster.cleaned_echo(&answer.text)?)
}

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let all = command.arguments.has("all-namespaces");
    if command.arguments.has("list") {
        return rules(session, command).await;
    }
    let mut output = Output::default();
    let (verb, what) = (command.words[0].as_str(), command.words[1].as_str());
    let attributes = if what.starts_with('/') {
        json!({"nonResourceAttributes": {"verb": verb, "path": what}})
    } else {
        let (kind, name) = match what.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (what, command.words.get(2).map(String::as_str)),
        };
        // As kubectl does, a kind that the cluster does not have is asked for all the same.
        let (group, resource, namespaced) = match session.resource(kind).await {
            Ok(resource) => (resource.group, resource.name, resource.namespaced),
            Err(_) if kind == "*" => ("*".to_owned(), kind.to_owned(), true),
            Err(_) => {
                output.warn(&format!("the server doesn't have a resource type '{kind}'\n"));
                let (name, group) = kind.split_once('.').unwrap_or((kind, ""));
                (group.to_owned(), name.to_owned(), true)
            }
        };
        if !namespaced && !all {
            output.warn(&format!(
                "resource '{resource}' is not namespace scoped{}\n",
                match group.as_str() {
                    "" => String::new(),
                    group => format!(" in group '{group}'"),
                }
            ));
        }
        let namespace = if all || !namespaced { "" } else { command.namespace() };
        json!({"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "namespace": namespace,
            "name": name.unwrap_or_default(), "subresource": command.arguments.value("subresource").unwrap_or_default(),
        }})
    };
    let review = review(session, "SelfSubjectAccessReview", attributes).await?;
    let allowed = review["status"]["allowed"] == true;
    if !command.arguments.has("quiet") {
        let reason = text(&review, &["status", "reason"]);
        let because = if reason.is_empty() || allowed { String::new() } else { format!(" - {reason}") };
        output.stdout = format!("{}{because}\n", if allowed { "yes" } else { "no" });
    }
    output.code = i32::from(!allowed);
    Ok(output)
}

/// `--list`.
async fn rules(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let review = review(session, "SelfSubjectRulesReview", json!({"namespace": command.namespace()})).await?;
    let mut output = Output::default();
    if review["status"]["incomplete"] == true {
        let why = text(&review, &["status", "evaluationError"]);
        output.warn(&format!("the list may be incomplete: {why}"));
    }
    let headers = !command.arguments.has("no-headers");
    let shown = session.apart(move |work| rules_shown(&review, headers, work));
    output.stdout = shown.await?.map_err(Trouble::Said)?;
    Ok(output)
}

/// A row for each resource, object and path, as kubectl takes rules apart: the verbs of a resource or object are together,
/// those of a path are not.
fn rules_shown(review: &Value, headers: bool, work: &Work) -> Result<String, String> {
    let words = |rule, field| list(rule, &[field]).iter().filter_map(Value::as_str);
    let mut verbs_of: BTreeMap<[&str; 3], Vec<&str>> = BTreeMap::new();
    for rule in list(review, &["status", "resourceRules"]) {
        let all: Vec<&str> = words(rule, "resourceNames").collect();
        let names = if all.is_empty() { &[""][..] } else { &all };
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                for (name, verb) in
                    names.iter().flat_map(|name| words(rule, "verbs").map(move |verb| (*name, verb)))
                {
                    work.take(STEPS)?;
                    let verbs = verbs_of.entry([group, resource, name]).or_default();
                    if !verbs.contains(&verb) {
                        verbs.push(verb);
                    }
                }
            }
        }
    }
    let of_resources = verbs_of.into_iter();
    let mut rows: Vec<(String, [&str; 4])> = of_resources
        .map(|([group, resource, name], verbs)| (verbs.join(" "), [group, resource, name, ""]))
        .collect();
    for rule in list(review, &["status", "nonResourceRules"]) {
        for path in words(rule, "nonResourceURLs") {
            for verb in words(rule, "verbs") {
                work.take(STEPS)?;
                rows.push((verb.to_owned(), ["", "", "", path]));
            }
        }
    }
    // By what kubectl sorts them by: rules as Go writes them.
    rows.sort_by_cached_key(|(verbs, of)| format!("[{verbs}][{}]", of.join("][")));
    let rows = rows.into_iter().map(|(verbs, [group, resource, name, path])| {
        let resource = match (group, resource.split_once('/')) {
            ("", _) => resource.to_owned(),
            (group, Some((resource, sub))) => format!("{resource}.{group}/{sub}"),
            (group, None) => format!("{resource}.{group}"),
        };
        [resource, format!("[{path}]"), format!("[{name}]"), format!("[{verbs}]")]
    });
    let head = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"].map(str::to_owned);
    Ok(table::columns(headers.then_some(head).into_iter().chain(rows)))
}
