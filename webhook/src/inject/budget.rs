//! What the namespace allows: the collector is fitted into its LimitRanges,
//! and a pod that its ResourceQuotas would refuse goes without.

use super::{
    Skip,
    pod::Spec,
    resources::{Need, Resources},
};
use crate::{
    cluster::{Cluster, LimitRange, LimitScope, Limits, Quota, QuotaScope},
    profile,
    quantity::Quantity,
};

/// Requests or limits.
#[derive(Clone, Copy)]
enum Part {
    Requests,
    Limits,
}

/// Makes `resources` such that the API server takes the pod.
///
/// # Errors
/// It can't be done.
pub(super) fn fit(
    mut resources: Resources,
    spec: &Spec,
    namespace: &str,
    cluster: &Cluster,
) -> Result<Resources, Skip> {
    for (name, range) in cluster.limit_ranges_of(namespace) {
        fit_range(&mut resources, spec, range)
            .map_err(|problem| Skip::LimitRange(name.to_owned(), problem))?;
    }
    for (name, quota) in cluster.quotas_of(namespace) {
        if quota.scopes.iter().all(|scope| counts(scope, spec)) {
            check_quota(&resources, spec, quota).map_err(|problem| Skip::Quota(name.to_owned(), problem))?;
        }
    }
    Ok(resources)
}

fn fit_range(resources: &mut Resources, spec: &Spec, LimitRange(items): &LimitRange) -> Result<(), String> {
    let Resources::Own { cpu, memory } = resources else {
        let gives = |limits: &Limits| {
            limits.scope == LimitScope::Container
                && limits.defaults.iter().any(|name| matches!(name.as_str(), "cpu" | "memory"))
        };
        return match items.iter().find(|limits| gives(limits)) {
            Some(_) => {
                Err("it would give the collector more than the pod as a whole may have left".to_owned())
            }
            None => Ok(()),
        };
    };
    let of_containers = || items.iter().filter(|limits| limits.scope == LimitScope::Container);
    for (name, need) in [("cpu", &mut *cpu), ("memory", &mut *memory)] {
        let is_guaranteed = need.request == need.limit;
        for limits in of_containers() {
            fit_container(need, name, limits);
        }
        if is_guaranteed {
            need.request = need.limit.clone();
        }
        // One item may undo another.
        for limits in of_containers() {
            check(need.request.amount(), need.limit.amount(), name, limits)
                .map_err(|problem| format!("no collector fits: {problem}"))?;
        }
    }
    if !profile::is_enough_memory(&memory.limit) {
        return Err(format!(
            "it allows {} of memory, and the collector needs {}",
            memory.limit,
            profile::LEAST_MEMORY
        ));
    }
    for limits in items.iter().filter(|limits| limits.scope == LimitScope::Pod) {
        for (name, need) in [("cpu", &*cpu), ("memory", &*memory)] {
            let requests = total(spec, name, Part::Requests, need.request.amount());
            let most = total(spec, name, Part::Limits, need.limit.amount());
            check(requests, most, name, limits)
                .map_err(|problem| format!("the pod would not fit: {problem}"))?;
        }
    }
    Ok(())
}

/// Moves request and limit to where one item allows them.
fn fit_container(need: &mut Need, name: &str, limits: &Limits) {
    let raise = |amount: &mut Quantity, least: &Quantity| {
        if amount.amount() < least.amount() {
            *amount = least.clone();
        }
    };
    let lower = |amount: &mut Quantity, most: &Quantity| {
        if amount.amount() > most.amount() {
            *amount = most.clone();
        }
    };
    if let Some(least) = limits.least.get(name) {
        raise(&mut need.request, least);
        raise(&mut need.limit, least);
    }
    if let Some(most) = limits.most.get(name) {
        lower(&mut need.request, most);
        lower(&mut need.limit, most);
    }
    if let Some(ratio) = limits.ratio.get(name)
        && let Some(least) = need.limit.divided_by(ratio, name)
    {
        raise(&mut need.request, &least);
        // Rounded up, it may be a little too much.
        lower(&mut need.request, &need.limit.clone());
    }
}

/// What the API server checks, of a container or of a pod.
fn check(request: i128, limit: i128, name: &str, limits: &Limits) -> Result<(), String> {
    if let Some(least) = limits.least.get(name).filter(|least| request < least.amount()) {
        return Err(format!("at least {least} of {name}"));
    }
    if let Some(most) = limits.most.get(name).filter(|most| limit > most.amount()) {
        return Err(format!("at most {most} of {name}"));
    }
    let too_far = |ratio: &&Quantity| {
        let most = request.checked_mul(ratio.amount()).map(|product| product / Quantity::ONE);
        most.is_some_and(|most| limit > most)
    };
    match limits.ratio.get(name).filter(too_far) {
        Some(ratio) => Err(format!("a limit of at most {ratio} times the request of {name}")),
        None => Ok(()),
    }
}

/// What the pod has with the collector as its last sidecar, in billionths.
fn total(spec: &Spec, name: &str, part: Part, collector: i128) -> i128 {
    let of = |container: &super::pod::Container| amount(container, name, part).unwrap_or_default();
    let (mut sidecars, mut starting) = (0_i128, 0_i128);
    for container in spec.init_containers() {
        if container.is_sidecar() {
            sidecars = sidecars.saturating_add(of(container));
        } else {
            starting = starting.max(sidecars.saturating_add(of(container)));
        }
    }
    let running = spec.containers().iter().map(of).fold(sidecars, i128::saturating_add);
    running.saturating_add(collector).max(starting)
}

/// A request that is not given is its limit.
fn amount(container: &super::pod::Container, name: &str, part: Part) -> Option<i128> {
    let resources = container.resources.as_ref()?;
    let limit = || resources.limit(name);
    match part {
        Part::Requests => resources.request(name).or_else(limit),
        Part::Limits => limit(),
    }
}

/// Whether a quota with this scope counts the pod once it has a collector,
/// which has requests, so that the pod is not of the class BestEffort.
fn counts(scope: &QuotaScope, spec: &Spec) -> bool {
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

fn check_quota(resources: &Resources, spec: &Spec, quota: &Quota) -> Result<(), String> {
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
    use proptest::{collection::vec, option, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cluster::{Key, Kind, Object},
        inject::pod::Pod,
    };

    fn cluster(kind: Kind, body: Value) -> Cluster {
        let mut cluster = Cluster::new(crate::inject::Settings::default());
        let key = Key { namespace: "shop".to_owned(), name: "bounds".to_owned() };
        cluster.put(kind, Object { key, body, ..Object::default() }).unwrap();
        cluster
    }

    fn range(items: &Value) -> Cluster {
        cluster(Kind::LimitRange, json!({"spec": {"limits": items}}))
    }

    fn quota(scopes: &Value, hard: &Value, used: &Value) -> Cluster {
        let spec = json!({"hard": hard, "scopeSelector": {"matchExpressions": scopes}});
        cluster(Kind::ResourceQuota, json!({"spec": spec, "status": {"hard": hard, "used": used}}))
    }

    fn app(requests: &Value, limits: &Value) -> Value {
        json!([{"name": "app", "resources": {"requests": requests, "limits": limits}}])
    }

    /// CPU request and limit, memory request and limit, or the reason.
    fn fitted(containers: &Value, cluster: &Cluster) -> Result<Value, String> {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
        let resources = Resources::of(&pod, &profile::Resources::default()).unwrap();
        let found = fit(resources, &pod.spec, "shop", cluster).map_err(|skip| skip.to_string())?.to_json();
        let [requests, limits] = [&found["requests"], &found["limits"]];
        Ok(json!([requests["cpu"], limits["cpu"], requests["memory"], limits["memory"]]))
    }

    #[test]
    fn the_collector_is_moved_to_where_a_limit_range_allows_it() {
        let app = app(&json!({"cpu": "1", "memory": "1Gi"}), &json!({"cpu": "2", "memory": "2Gi"}));
        let full = json!([{"name": "app", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]);
        let container = |limits: Value| {
            let mut limits = limits;
            limits["type"] = json!("Container");
            range(&json!([limits]))
        };
        for (containers, cluster, expected) in [
            (&app, range(&json!([])), json!(["5m", "100m", "16Mi", "64Mi"])),
            (
                &app,
                container(json!({"min": {"cpu": "10m", "memory": "128Mi"}})),
                json!(["10m", "100m", "128Mi", "128Mi"]),
            ),
            (
                &app,
                container(json!({"max": {"cpu": "50m", "memory": "32Mi"}})),
                json!(["5m", "50m", "16Mi", "32Mi"]),
            ),
            (
                &app,
                container(json!({"maxLimitRequestRatio": {"cpu": "3", "memory": "1.5"}})),
                json!(["34m", "100m", "44739243", "64Mi"]),
            ),
            (&full, container(json!({"max": {"cpu": "50m"}})), json!(["50m", "50m", "64Mi", "64Mi"])),
            (
                &full,
                container(json!({"min": {"memory": "1Gi"}, "maxLimitRequestRatio": {"memory": 1}})),
                json!(["100m", "100m", "1Gi", "1Gi"]),
            ),
        ] {
            assert_eq!(fitted(containers, &cluster), Ok(expected), "{cluster:?}");
        }
    }

    #[test]
    fn where_nothing_fits_the_pod_goes_without() {
        let app = app(&json!({"cpu": "1", "memory": "1Gi"}), &json!({"cpu": "2", "memory": "2Gi"}));
        for (item, expected) in [
            (
                json!({"type": "Container", "max": {"memory": "8Mi"}}),
                "it allows 8Mi of memory, and the collector needs 16Mi",
            ),
            (
                json!({"type": "Container", "max": {"cpu": "1m"}, "min": {"cpu": "2m"}}),
                "no collector fits: at least 2m of cpu",
            ),
            (json!({"type": "Pod", "max": {"cpu": "2050m"}}), "the pod would not fit: at most 2050m of cpu"),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "2"}}),
                "the pod would not fit: a limit of at most 2 times the request of cpu",
            ),
        ] {
            let problem = fitted(&app, &range(&json!([item]))).unwrap_err();
            assert_eq!(problem, format!("LimitRange bounds: {expected}"));
        }
        assert!(fitted(&app, &range(&json!([{"type": "Pod", "max": {"cpu": "2100m"}}]))).is_ok());
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

    #[test]
    fn init_containers_count_by_the_phase_that_needs_most() {
        let container = |cpu: &str, restart: Value| json!({"name": "c", "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}});
        let spec = json!({
            "initContainers": [container("1", json!("Always")), container("6", json!(null)), container("1", json!("Always"))],
            "containers": [container("2", json!(null))],
        });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let cores =
            |collector: i128| total(&spec, "cpu", Part::Requests, collector * Quantity::ONE) / Quantity::ONE;
        assert_eq!((cores(1), cores(3), cores(4)), (7, 7, 8));
    }

    proptest! {
        /// Whatever a LimitRange says, a collector that is fitted meets it, and a Guaranteed pod stays one.
        #[test]
        fn what_is_fitted_is_allowed(
            items in vec((option::of(1_u32..200), option::of(1_u32..200), option::of(1_u32..6)), 0..3),
            containers in select(vec![
                json!([{"name": "app", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]),
                json!([{"name": "app"}]),
            ]),
        ) {
            let is_guaranteed = containers[0].get("resources").is_some();
            let items = items.iter().map(|(least, most, ratio)| {
                let amounts = |amount: &Option<u32>| amount.map_or(json!({}), |amount| {
                    json!({"cpu": format!("{amount}m"), "memory": format!("{amount}Mi")})
                });
                let ratio = ratio.map_or(json!({}), |ratio| json!({"cpu": ratio, "memory": ratio.to_string()}));
                json!({"type": "Container", "min": amounts(least), "max": amounts(most),
                    "maxLimitRequestRatio": ratio})
            });
            let cluster = range(&items.collect());
            if let Ok(found) = fitted(&containers, &cluster) {
                let amount = |index: usize| Quantity::read(&found[index]).unwrap().amount();
                let (_, LimitRange(items)) = cluster.limit_ranges_of("shop").next().unwrap();
                for limits in items {
                    prop_assert_eq!(check(amount(0), amount(1), "cpu", limits), Ok(()));
                    prop_assert_eq!(check(amount(2), amount(3), "memory", limits), Ok(()));
                }
                prop_assert!(!is_guaranteed || (amount(0), amount(2)) == (amount(1), amount(3)));
            }
        }
    }
}
