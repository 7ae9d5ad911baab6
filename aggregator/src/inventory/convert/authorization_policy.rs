//! Istio's AuthorizationPolicies, v1 and v1beta1, which are the same.
//!
//! The typed fields of the wire hold positive matches only: "everyone but X"
//! would arrive as "everyone". So a record whose typed fields do not hold the
//! whole spec carries it as JSON in the annotation [`SPEC`].
//!
//! Every list of such a spec is a set.

use std::collections::BTreeMap;

use kestrel_proto::cloud::v1::{self, AuthorizationPolicyAction as Action};
use kube::core::object::{NotUsed, Object};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::inventory::{Selection, Selector};

use super::{map, object_meta, sorted, sorted_messages, text};

/// Annotation of the record, not of the object: the whole spec as JSON, where
/// the typed fields lack a part of it.
const SPEC: &str = "kestrel.ai/spec";

/// Istio's AuthorizationPolicy. It may have no spec.
pub type AuthorizationPolicy = Object<Option<AuthorizationPolicySpec>, NotUsed>;

/// The spec of an [`AuthorizationPolicy`].
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct AuthorizationPolicySpec {
    typed: Spec,
    /// It is for what it names, such as a Gateway, and not for labels.
    by_name: bool,
    /// JSON of the whole, if `typed` lacks a part of it.
    whole: Option<String>,
}

impl TryFrom<Value> for AuthorizationPolicySpec {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> serde_json::Result<Self> {
        let typed = Spec::deserialize(&value)?;
        let targets = value.get("targetRefs").and_then(Value::as_array);
        let by_name = targets.is_some_and(|targets| !targets.is_empty()) || value.get("targetRef").is_some();
        let whole = canonical(value);
        let complete = canonical(serde_json::to_value(&typed)?) == whole;
        Ok(Self { typed, by_name, whole: (!complete).then(|| whole.to_string()) })
    }
}

/// What the wire has fields for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<PodSelector>,
    action: Option<String>,
    rules: Option<Vec<Rule>>,
}

/// `matchExpressions` are not Istio's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodSelector {
    match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Rule {
    from: Option<Vec<RuleFrom>>,
    to: Option<Vec<RuleTo>>,
    when: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct RuleFrom {
    source: Option<Source>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    principals: Option<Vec<String>>,
    request_principals: Option<Vec<String>>,
    namespaces: Option<Vec<String>>,
    ip_blocks: Option<Vec<String>>,
    remote_ip_blocks: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct RuleTo {
    operation: Option<Operation>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Operation {
    methods: Option<Vec<String>>,
    paths: Option<Vec<String>>,
    ports: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    key: String,
    values: Option<Vec<String>>,
    not_values: Option<Vec<String>>,
}

/// The record of an AuthorizationPolicy. `target_workloads` are left to the
/// mirror, where they follow the pods.
pub fn authorization_policy(object: &AuthorizationPolicy) -> v1::AuthorizationPolicy {
    let spec = object.spec.as_ref();
    let mut metadata = object_meta(&object.metadata);
    // The contract leaves it out here.
    metadata.resource_version.clear();
    if let Some(whole) = spec.and_then(|spec| spec.whole.clone()) {
        metadata.annotations.insert(SPEC.to_owned(), whole);
    }
    let typed = spec.map(|spec| &spec.typed);
    let types = object.types.as_ref();
    v1::AuthorizationPolicy {
        api_version: types.map_or("security.istio.io/v1beta1", |types| &types.api_version).to_owned(),
        kind: "AuthorizationPolicy".to_owned(),
        metadata: Some(metadata),
        spec: Some(v1::AuthorizationPolicySpec {
            selector: typed.and_then(|spec| spec.selector.as_ref()).map(label_selector),
            action: action(typed.and_then(|spec| spec.action.as_deref())).into(),
            rules: sorted_messages(
                typed.and_then(|spec| spec.rules.as_ref()).into_iter().flatten().map(rule),
            ),
        }),
        target_workloads: Vec::new(),
        action: 0,
    }
}

/// The pods that an AuthorizationPolicy is for: one in the namespace
/// `mesh_root` is for those of the whole mesh.
pub fn authorization_policy_selection(object: &AuthorizationPolicy, mesh_root: &str) -> Selection {
    let namespace = text(&object.metadata.namespace);
    let selector = match &object.spec {
        Some(spec) if spec.by_name => Selector::Nothing,
        Some(AuthorizationPolicySpec { typed: Spec { selector: Some(selector), .. }, .. }) => {
            Selector::new(&label_selector(selector))
        }
        _ => Selector::new(&v1::LabelSelector::default()),
    };
    Selection { namespace: (namespace != mesh_root).then_some(namespace), selector }
}

fn label_selector(selector: &PodSelector) -> v1::LabelSelector {
    v1::LabelSelector { match_labels: map(&selector.match_labels), match_expressions: Vec::new() }
}

fn action(text: Option<&str>) -> Action {
    match text {
        None | Some("ALLOW") => Action::Allow,
        Some("DENY") => Action::Deny,
        Some("AUDIT") => Action::Audit,
        Some("CUSTOM") => Action::Custom,
        Some(_) => Action::Unspecified,
    }
}

fn rule(rule: &Rule) -> v1::AuthorizationPolicyRule {
    let from = |from: &RuleFrom| v1::AuthorizationPolicyRuleFrom {
        source: from.source.as_ref().map(|source| v1::AuthorizationPolicySource {
            principals: sorted(source.principals.as_ref()),
            request_principals: sorted(source.request_principals.as_ref()),
            namespaces: sorted(source.namespaces.as_ref()),
            ip_blocks: sorted(source.ip_blocks.as_ref()),
            remote_ip_blocks: sorted(source.remote_ip_blocks.as_ref()),
        }),
    };
    let to = |to: &RuleTo| v1::AuthorizationPolicyRuleTo {
        operation: to.operation.as_ref().map(|operation| v1::AuthorizationPolicyOperation {
            methods: sorted(operation.methods.as_ref()),
            paths: sorted(operation.paths.as_ref()),
            ports: sorted(operation.ports.as_ref()),
            hosts: sorted(operation.hosts.as_ref()),
        }),
    };
    let when = |condition: &Condition| v1::AuthorizationPolicyCondition {
        key: condition.key.clone(),
        values: sorted(condition.values.as_ref()),
        not_values: sorted(condition.not_values.as_ref()),
    };
    v1::AuthorizationPolicyRule {
        from: sorted_messages(rule.from.iter().flatten().map(from)),
        to: sorted_messages(rule.to.iter().flatten().map(to)),
        when: sorted_messages(rule.when.iter().flatten().map(when)),
    }
}

/// Without nulls and with lists sorted, so that what means the same is equal.
fn canonical(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<_> = list.into_iter().map(canonical).collect();
            list.sort_by_cached_key(Value::to_string);
            Value::Array(list)
        }
        Value::Object(map) => {
            let held = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(held.map(|(key, value)| (key, canonical(value))).collect())
        }
        plain => plain,
    }
}

#[cfg(test)]
mod tests;
