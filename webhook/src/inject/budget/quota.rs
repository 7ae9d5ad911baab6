//! Beside a ResourceQuota, as the API server enforces it.

use super::{Part, amount, total};
use crate::{
    cluster::{Quota, QuotaScope},
    inject::{pod::Spec, resources::Resources},
};

/// Whether a quota with this scope counts the pod once it has a collector,
/// which has requests, so that the pod is not of the class BestEffort.
pub(super) fn counts(scope: &QuotaScope, spec: &Spec) -> bool {
    match scope.scope_name.as_str() {
        "Terminating" => spec.active_deadline_seconds.is_some(),
        "NotTerminating" => spec.active_deadline_seconds.is_none(),
        "NotBestEffort" => true,
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
        // The others count no CPU and no memory.
        _ => false,
    }
}

/// Whether the quota takes a pod with a collector of these `resources`.
///
/// # Errors
/// It does not, as far as its known usage tells.
pub(super) fn check(resources: &Resources, spec: &Spec, quota: &Quota) -> Result<(), String> {
    if let Some((name, _)) = quota.hard.iter().find(|(name, _)| name.ends_with("ephemeral-storage")) {
        return Err(format!("it wants every container to say its {name}, and the collector does not"));
    }
    let Resources::Own { cpu, memory } = resources else { return Ok(()) };
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
        let used = quota.used.get(name).copied().unwrap_or_default();
        let overhead = spec.overhead(resource);
        let wanted = total(spec, resource, part, own.amount()).saturating_add(overhead);
        if used.saturating_add(wanted) > hard {
            return Err(format!("{name} has no room for the pod with a collector, which asks for {own}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{app, cluster, fitted};
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
            (
                &full,
                &json!([]),
                &json!({"limits.ephemeral-storage": "1Gi"}),
                json!({}),
                Some(
                    "it wants every container to say its limits.ephemeral-storage, and the collector does not",
                ),
            ),
        ] {
            let found = fitted(containers, &quota(scopes, hard, &used)).err();
            assert_eq!(found, expected.map(|text| format!("ResourceQuota bounds: {text}")), "{used}");
        }
    }
}
