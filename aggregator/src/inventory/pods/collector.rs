//! Pods that carry a collector, and how it does as far as the API server knows.

use k8s_openapi::api::core::v1::Pod;

use super::Pods;

/// The name of the collector's container.
pub const CONTAINER: &str = "kestrel-collector";

/// How a pod's collector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Collector {
    is_running: bool,
    has_run: bool,
    /// So has the pod.
    has_ended: bool,
}

/// A pod that carries a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The UID that its node knows it by.
    pub uid: String,
    /// Its collector runs.
    pub is_running: bool,
    /// Its collector runs or has run.
    pub has_run: bool,
    /// The pod has ended or is deleted.
    pub has_ended: bool,
}

impl Collector {
    /// That of a pod; `None` if it has none, or one that does not attach here: it has nothing to collect, or its
    /// profile sends it elsewhere.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
        let container = containers.iter().find(|container| container.name == CONTAINER)?;
        let value = |name: &str| {
            container.env.iter().flatten().find(|variable| variable.name == name)?.value.as_deref()
        };
        let is_ours = |endpoint: &str| endpoint.starts_with("https://kestrel-agent-link.");
        let reads_nothing = value("KESTREL_LOG_SOURCES") == Some("[]") && value("KESTREL_ALS_PORT").is_none();
        if reads_nothing || !value("KESTREL_LINK_ENDPOINT").is_none_or(is_ours) {
            return None;
        }
        let status = pod.status.as_ref();
        let statuses = status.and_then(|status| status.init_container_statuses.as_ref());
        let status_of = statuses.into_iter().flatten().find(|status| status.name == CONTAINER);
        let state = status_of.and_then(|status| status.state.as_ref());
        let is_running = state.is_some_and(|state| state.running.is_some());
        let has_run = is_running
            || state.is_some_and(|state| state.terminated.is_some())
            || status_of.is_some_and(|status| status.restart_count > 0);
        let phase = status.and_then(|status| status.phase.as_deref());
        Some(Self { is_running, has_run, has_ended: matches!(phase, Some("Succeeded" | "Failed")) })
    }
}

impl Pods {
    /// The pods that carry a collector with something to collect.
    pub fn collected(&self) -> Vec<Collected> {
        let state = self.state();
        let carrying = state.pods.iter().filter_map(|(uid, entry)| Some((uid, entry, entry.collector?)));
        carrying
            .map(|(uid, entry, Collector { is_running, has_run, has_ended })| Collected {
                uid: uid.to_string(),
                is_running,
                has_run,
                has_ended: has_ended || entry.deleted,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;
    use kestrel_proto::node::v1::LogPolicy;
    use serde_json::{Value, json};

    use super::*;
    use crate::{excluded::Excluded, inventory::pods::Policies};

    fn pod(uid: &str, sources: &str, state: &Value, phase: &str) -> Pod {
        let env = json!([{"name": "KESTREL_LOG_SOURCES", "value": sources}]);
        let status = json!({"name": CONTAINER, "state": state, "image": "", "imageID": "", "ready": true,
            "restartCount": 0});
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "shop", "uid": uid},
            "spec": {"nodeName": "n1", "containers": [], "initContainers": [{"name": CONTAINER, "env": env}]},
            "status": {"phase": phase, "initContainerStatuses": [status]},
        }))
        .unwrap()
    }

    #[test]
    fn pods_with_something_to_collect_are_known_with_how_their_collector_does() {
        let pods = Pods::new(Policies { default: LogPolicy::Errors, excluded: Excluded::parse("") });
        let apply = |pod: &Pod| pods.apply(pod, [].into());
        apply(&pod("u1", "[1]", &json!({"running": {}}), "Running"));
        apply(&pod("u2", "[1]", &json!({"terminated": {"exitCode": 0}}), "Succeeded"));
        apply(&pod("u3", "[1]", &json!({"waiting": {}}), "Pending"));
        apply(&pod("u4", "[]", &json!({"running": {}}), "Running"));
        for (uid, endpoint) in
            [("u6", "https://other:8443"), ("u7", "https://kestrel-agent-link.ns.svc:8443")]
        {
            let mut pod = pod(uid, "[1]", &json!({"running": {}}), "Running");
            let env = &mut pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0].env;
            env.as_mut().unwrap().push(EnvVar {
                name: "KESTREL_LINK_ENDPOINT".to_owned(),
                value: Some(endpoint.to_owned()),
                ..EnvVar::default()
            });
            apply(&pod);
        }
        let mut receives = pod("u8", "[]", &json!({"running": {}}), "Running");
        let env = &mut receives.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0].env;
        let port = EnvVar {
            name: "KESTREL_ALS_PORT".to_owned(),
            value: Some("14080".to_owned()),
            ..EnvVar::default()
        };
        env.as_mut().unwrap().push(port);
        apply(&receives);
        let gone = pod("u5", "[1]", &json!({"running": {}}), "Running");
        apply(&gone);
        pods.remove(&gone);
        let mut found = pods.collected();
        found.sort_by(|one, other| one.uid.cmp(&other.uid));
        let found: Vec<_> =
            found.iter().map(|pod| (&*pod.uid, pod.is_running, pod.has_run, pod.has_ended)).collect();
        assert_eq!(
            found,
            [
                ("u1", true, true, false),
                ("u2", false, true, true),
                ("u3", false, false, false),
                ("u5", true, true, true),
                ("u7", true, true, false),
                ("u8", true, true, false)
            ]
        );
    }
}
