//! The part of a pod that decides about it. Everything else stays in the JSON
//! text and is never written back, so that fields unknown here can't get lost.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{profile::Labels, quantity::billionths};

/// A pod as the API server sends it, defaults filled in or not.
#[derive(Debug, Default, Deserialize)]
pub struct Pod {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    pub(super) spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    generate_name: String,
    owner_references: Option<Vec<Owner>>,
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    name: String,
    controller: Option<bool>,
}

/// A pod's specification. Lists are `None` where they have to be made first.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) host_network: Option<bool>,
    os: Option<Os>,
    node_selector: Option<BTreeMap<String, String>>,
    scheduler_name: Option<String>,
    pub(super) priority_class_name: Option<String>,
    pub(super) active_deadline_seconds: Option<i64>,
    overhead: Option<BTreeMap<String, Value>>,
    affinity: Option<Value>,
    pub(super) volumes: Option<Vec<Volume>>,
    pub(super) init_containers: Option<Vec<Container>>,
    containers: Option<Vec<Container>>,
    image_pull_secrets: Option<Vec<Secret>>,
    pub(super) security_context: Option<SecurityContext>,
    /// Resources of the pod as a whole, which its containers share.
    resources: Option<Resources>,
}

#[derive(Debug, Deserialize)]
struct Os {
    name: String,
}

/// A Secret that opens a registry.
#[derive(Debug, Deserialize)]
pub(crate) struct Secret {
    #[serde(default)]
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) empty_dir: Option<EmptyDir>,
}

#[derive(Debug, Deserialize)]
pub(super) struct EmptyDir {
    #[serde(default)]
    pub(super) medium: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    restart_policy: Option<String>,
    volume_mounts: Option<Vec<Mount>>,
    pub(super) resources: Option<Resources>,
    pub(super) security_context: Option<SecurityContext>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) name: String,
    pub(super) mount_path: String,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) sub_path: String,
    #[serde(default)]
    pub(super) sub_path_expr: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Resources {
    requests: Option<BTreeMap<String, Value>>,
    limits: Option<BTreeMap<String, Value>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecurityContext {
    pub(super) run_as_user: Option<i64>,
    pub(super) run_as_group: Option<i64>,
}

/// Containers that other injectors add: what they write is not the
/// application's, and what only they mount is their own business.
const INJECTED_BY_OTHERS: [&str; 7] = [
    "consul-dataplane",
    "daprd",
    "istio-proxy",
    "kuma-sidecar",
    "linkerd-proxy",
    "otc-container",
    "vault-agent",
];

impl Pod {
    /// Its labels; `None` where the map has to be made first.
    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.metadata.labels.as_ref()
    }

    /// Its name, or what will be the start of it.
    pub(super) fn name(&self) -> &str {
        let Metadata { name, generate_name, .. } = &self.metadata;
        if name.is_empty() { generate_name } else { name }
    }

    /// Kind and name of what makes the pod.
    pub(super) fn controller(&self) -> Option<(&str, &str)> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true))?;
        Some((&owner.kind, &owner.name))
    }

    /// Takes a pod template for a pod that this makes.
    pub(crate) fn is_made_by(&mut self, kind: &str, name: &str) {
        let owner = Owner { kind: kind.to_owned(), name: name.to_owned(), controller: Some(true) };
        self.metadata.owner_references = Some(vec![owner]);
    }

    /// The value of an annotation.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

impl Spec {
    /// Whether the pod says that it is for nodes that are none: there no image
    /// lies beforehand, as no node agent runs there.
    pub(super) fn is_for_a_virtual_node(&self) -> bool {
        let selects = |key: &str, value: &str| {
            self.node_selector.as_ref().and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
        };
        self.scheduler_name.as_deref() == Some("fargate-scheduler")
            || selects("eks.amazonaws.com/compute-type", "fargate")
            || selects("type", "virtual-kubelet")
    }

    /// What the pod needs beside its containers, in billionths.
    pub(super) fn overhead(&self, resource: &str) -> i128 {
        self.overhead.as_ref().and_then(|overhead| billionths(overhead.get(resource)?)).unwrap_or_default()
    }

    /// Whether its containers share CPU or memory of the pod as a whole. What else that names, or an
    /// empty object, gives them nothing to share.
    pub(super) fn shares_resources(&self) -> bool {
        let names = |amounts: &Option<BTreeMap<String, Value>>| {
            amounts.as_ref().is_some_and(|of| of.contains_key("cpu") || of.contains_key("memory"))
        };
        self.resources.as_ref().is_some_and(|of| names(&of.requests) || names(&of.limits))
    }

    /// Whether where it runs depends on pods of other namespaces.
    pub(super) fn has_affinity_to_other_namespaces(&self) -> bool {
        let looks_beyond = |term: &Value| {
            term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
                || term["namespaceSelector"].is_object()
        };
        let Some(affinity) = &self.affinity else { return false };
        ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
            let terms = |when: &str| affinity[kind][when].as_array().into_iter().flatten();
            terms("requiredDuringSchedulingIgnoredDuringExecution").any(looks_beyond)
                || terms("preferredDuringSchedulingIgnoredDuringExecution")
                    .any(|weighted| looks_beyond(&weighted["podAffinityTerm"]))
        })
    }

    /// Whether the pod says that it is for Windows nodes.
    pub(super) fn is_windows(&self) -> bool {
        let named = self.os.as_ref().map(|os| os.name.as_str());
        let selected = self.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
        named.or(selected.map(String::as_str)) == Some("windows")
    }

    pub(super) fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes().iter().find(|volume| volume.name == name)
    }

    pub(super) fn volumes(&self) -> &[Volume] {
        self.volumes.as_deref().unwrap_or_default()
    }

    /// Secrets for pulling its images, those of its ServiceAccount among them.
    pub(super) fn pull_secrets(&self) -> &[Secret] {
        self.image_pull_secrets.as_deref().unwrap_or_default()
    }

    pub(super) fn init_containers(&self) -> &[Container] {
        self.init_containers.as_deref().unwrap_or_default()
    }

    pub(super) fn containers(&self) -> &[Container] {
        self.containers.as_deref().unwrap_or_default()
    }

    /// Init containers, then containers.
    pub(super) fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().flatten().chain(self.containers.iter().flatten())
    }

    /// The application's own containers, in spec order.
    pub(super) fn app_containers(&self) -> impl Iterator<Item = &Container> {
        self.containers
            .iter()
            .flatten()
            .filter(|container| !INJECTED_BY_OTHERS.contains(&container.name.as_str()))
    }
}

impl Resources {
    /// In billionths.
    pub(super) fn request(&self, name: &str) -> Option<i128> {
        billionths(self.requests.as_ref()?.get(name)?)
    }

    /// In billionths.
    pub(super) fn limit(&self, name: &str) -> Option<i128> {
        billionths(self.limits.as_ref()?.get(name)?)
    }
}

impl Container {
    /// Whether this init container goes on while the containers run.
    pub(super) fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }

    pub(super) fn mounts(&self) -> &[Mount] {
        self.volume_mounts.as_deref().unwrap_or_default()
    }
}
