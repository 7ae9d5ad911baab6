//! Beside a ResourceQuota, as the API server enforces it.

use super::{Part, amount, total};
use crate::{
    cluster::{Quota, QuotaScope},
    inject::{pod::Spec, qos, resources::Resources},
    quantity::Quantity,
};

/// The scope of quotas that count pods of which a container has requests or limits.
const NOT_BEST_EFFORT: &str = "NotBestEffort";

/// Whether a quota with this scope counts the pod once it has a collector,
/// which has requests, so that the pod is not of the class BestEffort.
pub(super) fn counts(scope: &QuotaScope, spec: &Spec) -> bool {
    match scope.scope_name.as_str() {
        "Terminating" => spec.active_deadline_seconds.is_some(),
        "NotTerminating" => spec.active_deadline_seconds.is_none(),
        NOT_BEST_EFFORT => true,
        "CrossNamespacePodAffinity" => spec.has_affinity_to_other_namespaces(),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
            let is_named = class.is_some_and(|class| scope.values.iter().any(|value| value == class));
            match scope.operator.as_str() {
                "In" => is_named,
                "NotIn" => !is_named,
                "DoesNotExist" => class.is_none(),
                _ => class.is_some(),
            }
        }
        // BestEffort, and those of other kinds of objects.
        _ => false,
    }
}

/// Whether the quota takes a pod with a collector of these `resources`.
///
/// # Errors
/// It does not, as far as its known usage tells.
pub(super) fn check(resources: &Resources, spec: &Spec, quota: &Quota) -> Result<(), String> {
    let Resources::Own { cpu, memory } = resources else { return Ok(()) };
    let used = |name: &str| quota.used.get(name).copied().unwrap_or_default();
    let counts_others = quota.scopes.iter().any(|scope| scope.scope_name == NOT_BEST_EFFORT);
    if counts_others
        && qos::is_best_effort(spec)
        && let Some(&hard) = quota.hard.get("pods")
        && used("pods").saturating_add(Quantity::ONE) > hard
    {
        return Err(
            "pods has no room for one more, and with a collector it counts this one, which is of the \
                    class BestEffort without"
                .to_owned(),
        );
    }
    for (name, resource, part, own) in [
        ("cpu", "cpu", Part::Requests, &cpu.request),
        ("requests.cpu", "cpu", Part::Requests, &cpu.request),
        ("limits.cpu", "cpu", Part::Limits, &cpu.limit),
        ("memory", "memory", Part::Requests, &memory.request),
        ("requests.memory", "memory", Part::Requests, &memory.request),
        ("limits.memory", "memory", Part::Limits, &memory.limit),
    ] {
        let Some(&hard) = quota.hard.get(name) else { continue };
        if let Some(container) =
            spec.all_containers().find(|container| amount(container, resource, part).is_none())
        {
            return Err(format!(
                "it wants every container to say its {name}, and {} does not",
                container.name
            ));
        }
        let overhead = spec.overhead(resource);
        let wanted = total(spec, resource, part, own.amount()).saturating_add(overhead);
        if used(name).saturating_add(wanted) > hard {
            return Err(format!("{name} has no room for the pod with a collector, which asks for {own}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::tests::{app, cluster, fitted},
        *,
    };
    use crate::cluster::{Cluster, Kind};

    fn quota(scopes: &Value, hard: &Value, used: &Value) -> Cluster {
        let spec = json!({"hard": hard, "scopeSelector": {"matchExpressions": scopes}});
        cluster(Kind::ResourceQuota, json!({"spec": spec, "status": {"hard": hard, "used": used}}))
    }

    #[test]
    fn a_quota_without_room_or_that_wants_more_than_is_said_keeps_the_collector_away() {
        let full = app(&json!({"cpu": "1", "memory": "1Gi"}), &json!({"cpu": "2", "memory": "2Gi"}));
        let bare = json!([{"name": "app"}]);
        let hard = json!({"requests.cpu": "2", "limits.memory": "3Gi", "pods": "9"});
        let not_best_effort = json!([{"scopeName": "NotBestEffort", "operator": "Exists"}]);
        let terminating = json!([{"scopeName": "Terminating", "operator": "Exists"}]);
        let few = json!({"pods": "2"});
        for (containers, scopes, hard, used, expected) in [
            (&full, &json!([]), &hard, json!({"requests.cpu": "995m"}), None),
            (
                &full,
                &json!([]),
                &hard,
                json!({"requests.cpu": "996m"}),
                Some("requests.cpu has no room for the pod with a collector, which asks for 5m"),
            ),
            (
                &full,
                &json!([]),
                &hard,
                json!({"limits.memory": "1Gi"}),
                Some("limits.memory has no room for the pod with a collector, which asks for 64Mi"),
            ),
            (&full, &terminating, &hard, json!({"requests.cpu": "2"}), None),
            (
                &bare,
                &not_best_effort,
                &hard,
                json!({}),
                Some("it wants every container to say its requests.cpu, and app does not"),
            ),
            // Kubernetes asks every container for CPU and memory alone.
            (&full, &json!([]), &json!({"limits.ephemeral-storage": "1Gi"}), json!({}), None),
            (&bare, &not_best_effort, &few, json!({"pods": "1"}), None),
            (&full, &not_best_effort, &few, json!({"pods": "2"}), None),
            (&bare, &json!([]), &few, json!({"pods": "2"}), None),
            (
                &bare,
                &not_best_effort,
                &few,
                json!({"pods": "2"}),
                Some(
                    "pods has no room for one more, and with a collector it counts this one, which is of the class \
                     BestEffort without",
                ),
            ),
        ] {
            let found = fitted(containers, &quota(scopes, hard, &used)).err();
            assert_eq!(found, expected.map(|text| format!("ResourceQuota bounds: {text}")), "{used}");
        }
    }

    #[test]
    fn a_quota_of_pods_that_look_at_other_namespaces_counts_what_these_ask_for() {
        let scope = QuotaScope {
            scope_name: "CrossNamespacePodAffinity".to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        };
        let near = json!({"topologyKey": "zone"});
        let beyond = json!({"topologyKey": "zone", "namespaces": ["bank"]});
        let anywhere = json!({"topologyKey": "zone", "namespaceSelector": {}});
        let (required, preferred) = (
            "requiredDuringSchedulingIgnoredDuringExecution",
            "preferredDuringSchedulingIgnoredDuringExecution",
        );
        for (affinity, expected) in [
            (json!(null), false),
            (json!({"nodeAffinity": {required: {}}}), false),
            (json!({"podAffinity": {required: [near]}}), false),
            (json!({"podAffinity": {required: [near, beyond]}}), true),
            (json!({"podAntiAffinity": {preferred: [{"weight": 1, "podAffinityTerm": anywhere}]}}), true),
            (json!({"podAntiAffinity": {preferred: [{"weight": 1, "podAffinityTerm": near}]}}), false),
        ] {
            let spec = serde_json::from_value(json!({ "affinity": affinity })).unwrap();
            assert_eq!(counts(&scope, &spec), expected, "{affinity}");
        }
    }
}
