//! Into a LimitRange, as the API server enforces it.

use super::{Part, total};
use crate::{
    cluster::{LimitRange, LimitScope, Limits},
    inject::{
        pod::Spec,
        resources::{Need, Resources},
    },
    profile,
    quantity::Quantity,
};

/// Moves `resources` to where they are allowed.
///
/// # Errors
/// They are allowed nowhere, or the pod as a whole has no room for them.
pub(super) fn fit(
    resources: &mut Resources,
    spec: &Spec,
    LimitRange(items): &LimitRange,
) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::{
        super::tests::{app, cluster, fitted},
        *,
    };
    use crate::cluster::{Cluster, Kind};

    fn range(items: &Value) -> Cluster {
        cluster(Kind::LimitRange, json!({"spec": {"limits": items}}))
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
