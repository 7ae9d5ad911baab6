//! The quality-of-service class that a pod would get.

use super::pod::{Resources, Spec};

/// Whether the pod is Guaranteed: every container has limits of CPU and memory
/// and requests exactly these. A request that is not given is its limit.
pub(super) fn is_guaranteed(spec: &Spec) -> bool {
    spec.all_containers().all(|container| container.resources.as_ref().is_some_and(requests_its_limits))
}

/// Whether the pod is BestEffort: no container asks for any CPU or memory.
pub(super) fn is_best_effort(spec: &Spec) -> bool {
    let asks = |resources: &Resources| {
        let amounts = ["cpu", "memory"].map(|name| resources.request(name).max(resources.limit(name)));
        amounts.into_iter().flatten().any(|amount| amount > 0)
    };
    !spec.all_containers().any(|container| container.resources.as_ref().is_some_and(asks))
}

fn requests_its_limits(resources: &Resources) -> bool {
    ["cpu", "memory"].iter().all(|&name| {
        let limit = resources.limit(name);
        let request = resources.request(name).or(limit);
        limit.is_some_and(|limit| limit > 0) && request == limit
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn guaranteed(containers: &Value, init_containers: &Value) -> bool {
        let spec = json!({"containers": containers, "initContainers": init_containers});
        is_guaranteed(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn best_effort_is_no_container_that_asks_for_anything() {
        for (resources, expected) in [
            (json!(null), true),
            (json!({}), true),
            (json!({"requests": {"cpu": "0", "ephemeral-storage": "1Gi"}}), true),
            (json!({"requests": {"cpu": "1m"}}), false),
            (json!({"requests": {"memory": "0"}, "limits": {"memory": "1Mi"}}), false),
        ] {
            let containers = json!([{"name": "a"}, {"name": "b", "resources": resources}]);
            for spec in [json!({"containers": containers}), json!({"initContainers": containers})] {
                assert_eq!(is_best_effort(&serde_json::from_value(spec).unwrap()), expected, "{resources}");
            }
        }
    }

    #[test]
    fn guaranteed_is_every_container_with_requests_equal_to_limits() {
        let full = json!({"name": "a", "resources": {
            "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}});
        let implied = json!({"name": "b", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}});
        let burstable = json!({"name": "c", "resources": {
            "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}});
        let no_memory = json!({"name": "d", "resources": {"limits": {"cpu": "1"}}});
        let nothing = json!({"name": "e"});
        assert!(guaranteed(&json!([full, implied]), &Value::Null));
        assert!(guaranteed(&json!([full]), &json!([implied])));
        for other in [&burstable, &no_memory, &nothing] {
            assert!(!guaranteed(&json!([full, other]), &Value::Null), "{other}");
            assert!(!guaranteed(&json!([full]), &json!([other])), "{other}");
        }
    }
}
