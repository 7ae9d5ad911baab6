//! What the namespace allows: the collector is fitted into its LimitRanges,
//! and a pod that its ResourceQuotas would refuse goes without.

mod quota;
mod range;

use super::{
    Skip,
    pod::{Container, Spec},
    resources::Resources,
};
use crate::cluster::Cluster;

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
        range::fit(&mut resources, spec, range)
            .map_err(|problem| Skip::LimitRange(name.to_owned(), problem))?;
    }
    for (name, quota) in cluster.quotas_of(namespace) {
        if quota.scopes.iter().all(|scope| quota::counts(scope, spec)) {
            quota::check(&resources, spec, quota).map_err(|problem| Skip::Quota(name.to_owned(), problem))?;
        }
    }
    Ok(resources)
}

/// What the pod has with the collector as its last sidecar, in billionths.
fn total(spec: &Spec, name: &str, part: Part, collector: i128) -> i128 {
    let of = |container: &Container| amount(container, name, part).unwrap_or_default();
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
fn amount(container: &Container, name: &str, part: Part) -> Option<i128> {
    let resources = container.resources.as_ref()?;
    let limit = || resources.limit(name);
    match part {
        Part::Requests => resources.request(name).or_else(limit),
        Part::Limits => limit(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cluster::{Key, Kind, Object},
        inject::{Settings, pod::Pod},
        profile,
    };

    /// A cluster with one such object in namespace `shop`.
    pub(super) fn cluster(kind: Kind, body: Value) -> Cluster {
        let mut cluster = Cluster::new(Settings::default());
        let key = Key { namespace: "shop".to_owned(), name: "bounds".to_owned() };
        cluster.put(kind, Object { key, body, ..Object::default() }).unwrap();
        cluster
    }

    pub(super) fn app(requests: &Value, limits: &Value) -> Value {
        json!([{"name": "app", "resources": {"requests": requests, "limits": limits}}])
    }

    /// CPU request and limit, memory request and limit, or the reason.
    pub(super) fn fitted(containers: &Value, cluster: &Cluster) -> Result<Value, String> {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
        let resources = Resources::of(&pod, &profile::Resources::default()).unwrap();
        let found = fit(resources, &pod.spec, "shop", cluster).map_err(|skip| skip.to_string())?;
        let found = serde_json::to_value(found).unwrap();
        let [requests, limits] = [&found["requests"], &found["limits"]];
        Ok(json!([requests["cpu"], limits["cpu"], requests["memory"], limits["memory"]]))
    }

    #[test]
    fn init_containers_count_by_the_phase_that_needs_most() {
        let container = |cpu: &str, restart: Value| json!({"name": "c", "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}});
        let spec = json!({
            "initContainers": [container("1", json!("Always")), container("6", json!(null)), container("1", json!("Always"))],
            "containers": [container("2", json!(null))],
        });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let cores = |collector: i128| {
            total(&spec, "cpu", Part::Requests, collector * crate::quantity::Quantity::ONE)
                / crate::quantity::Quantity::ONE
        };
        assert_eq!((cores(1), cores(3), cores(4)), (7, 7, 8));
    }
}
