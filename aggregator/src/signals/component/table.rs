//! What is a component, and how it is recognised.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What stops when a component does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    Dns,
    Cni,
    Mesh,
    KubeProxy,
}

impl Area {
    /// As it stands in reasons.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Cni => "CNI",
            Self::Mesh => "Mesh",
            Self::KubeProxy => "KubeProxy",
        }
    }
}

/// A part of the cluster on which everything else in it stands.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Component {
    pub(super) area: Area,
    /// What its makers call it.
    pub(super) name: &'static str,
    /// What its trouble means.
    pub(super) meaning: &'static str,
    /// The label of its workload and its pods.
    label: (&'static str, &'static str),
    /// Where it may be; empty: anywhere. A label alone could be anybody's.
    namespaces: &'static [&'static str],
}

const fn component(
    area: Area,
    name: &'static str,
    label: (&'static str, &'static str),
    namespaces: &'static [&'static str],
    meaning: &'static str,
) -> Component {
    Component { area, name, meaning, label, namespaces }
}

const SYSTEM: &[&str] = &["kube-system"];
const CILIUM: &[&str] = &["kube-system", "cilium"];
const CALICO: &[&str] = &["kube-system", "calico-system"];
const FLANNEL: &[&str] = &["kube-system", "kube-flannel"];
const NO_NAMES: &str = "names may not be resolved";
const NO_NETWORK: &str = "new pods may get no network";

/// Of two that make networks of pods, the first is asked by the kubelet.
#[rustfmt::skip]
static TABLE: [Component; 16] = [
    component(Area::Dns, "CoreDNS", ("k8s-app", "kube-dns"), SYSTEM, NO_NAMES),
    component(Area::Dns, "NodeLocal DNSCache", ("k8s-app", "node-local-dns"), SYSTEM, NO_NAMES),
    component(Area::Cni, "Amazon VPC CNI", ("k8s-app", "aws-node"), SYSTEM, NO_NETWORK),
    component(Area::Cni, "Azure CNS", ("k8s-app", "azure-cns"), SYSTEM, NO_NETWORK),
    component(Area::Cni, "Cilium", ("k8s-app", "cilium"), CILIUM, NO_NETWORK),
    component(Area::Cni, "Cilium operator", ("name", "cilium-operator"), CILIUM,
        "new nodes may get no addresses for their pods"),
    component(Area::Cni, "Calico", ("k8s-app", "calico-node"), CALICO, NO_NETWORK),
    component(Area::Cni, "Calico controllers", ("k8s-app", "calico-kube-controllers"), CALICO,
        "addresses of pods that are gone may not be given back"),
    component(Area::Cni, "Calico Typha", ("k8s-app", "calico-typha"), CALICO,
        "nodes may not hear of new routes and network policies"),
    component(Area::Cni, "Flannel", ("app", "flannel"), FLANNEL, NO_NETWORK),
    component(Area::Cni, "Weave Net", ("name", "weave-net"), SYSTEM, NO_NETWORK),
    component(Area::Cni, "kindnet", ("app", "kindnet"), SYSTEM, NO_NETWORK),
    component(Area::Mesh, "istiod", ("app", "istiod"), &[],
        "proxies may get no configuration and no certificates, and new pods no sidecars"),
    component(Area::Mesh, "ztunnel", ("app", "ztunnel"), &[], "pods of the mesh may reach nobody"),
    component(Area::Mesh, "Istio CNI", ("k8s-app", "istio-cni-node"), &[],
        "new pods of the mesh may not start"),
    component(Area::KubeProxy, "kube-proxy", ("k8s-app", "kube-proxy"), SYSTEM,
        "Services may not lead to new pods, and lead to those that are gone"),
];

/// Whatever makes the networks of pods where nothing in the table does.
static UNKNOWN_CNI: Component = component(Area::Cni, "The CNI", ("", ""), &[], NO_NETWORK);

/// What a component's signal is about: its DaemonSet or Deployment, or the node
/// on which it fails if it has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Home {
    pub(super) component: &'static Component,
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Home {
    /// That of a component's pod; `None` if it is no component's.
    pub fn of_pod(meta: &ObjectMeta) -> Option<Self> {
        let component = component_of(meta)?;
        let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
        let (kind, name) = workload(&owner.kind, &owner.name)?;
        let namespace = meta.namespace.clone().unwrap_or_default();
        Some(Self { component, kind, namespace, name: name.to_owned() })
    }

    /// That of a component's workload of `kind`; `None` if it is no component's.
    pub fn of_workload(kind: &str, meta: &ObjectMeta) -> Option<Self> {
        let kind = *KINDS.iter().find(|known| **known == kind)?;
        let (namespace, name) = (meta.namespace.clone()?, meta.name.clone()?);
        Some(Self { component: component_of(meta)?, kind, namespace, name })
    }

    /// That of a component of which only a node is known.
    pub(super) fn of_node(name: &str) -> Self {
        Self { component: &UNKNOWN_CNI, kind: "Node", namespace: String::new(), name: name.to_owned() }
    }

    /// Whether it makes the networks of a node's pods.
    pub(super) fn makes_networks(&self) -> bool {
        self.component.area == Area::Cni && self.kind == "DaemonSet"
    }
}

/// The workload of a pod that is owned so.
pub(super) fn workload<'a>(kind: &str, name: &'a str) -> Option<(&'static str, &'a str)> {
    match kind {
        "DaemonSet" => Some(("DaemonSet", name)),
        // A Deployment names its ReplicaSets so.
        "ReplicaSet" => Some(("Deployment", name.rsplit_once('-')?.0)),
        _ => None,
    }
}

/// Whether DNS may be in this namespace.
pub(super) fn is_home_of_dns(namespace: &str) -> bool {
    TABLE.iter().any(|component| component.area == Area::Dns && component.namespaces.contains(&namespace))
}

/// The kinds of workloads of which components are made.
pub(super) const KINDS: [&str; 2] = ["DaemonSet", "Deployment"];

fn component_of(meta: &ObjectMeta) -> Option<&'static Component> {
    let (labels, namespace) = (meta.labels.as_ref()?, meta.namespace.as_deref()?);
    let is_meant = |component: &&Component| {
        let (label, value) = component.label;
        labels.get(label).is_some_and(|is| is == value)
            && (component.namespaces.is_empty() || component.namespaces.contains(&namespace))
    };
    TABLE.iter().find(is_meant)
}

/// The place of a component among those that could be asked for a pod's network.
pub(super) fn precedence(component: &Component) -> usize {
    TABLE.iter().position(|known| known == component).unwrap_or(TABLE.len())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meta(namespace: &str, name: &str, labels: Value, owner: Option<(&str, &str)>) -> ObjectMeta {
        let owners = owner.map(|(kind, name)| {
            json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}])
        });
        serde_json::from_value(json!({
            "namespace": namespace, "name": name, "labels": labels, "ownerReferences": owners,
        }))
        .unwrap()
    }

    #[test]
    fn pods_and_workloads_of_a_component_have_one_home() {
        for (namespace, label, kind, workload, owner, pod, component) in [
            (
                "kube-system",
                ("k8s-app", "kube-dns"),
                "Deployment",
                "coredns",
                "coredns-5d78c9869d",
                "coredns-5d78c9869d-x2x",
                "CoreDNS",
            ),
            ("kube-system", ("k8s-app", "cilium"), "DaemonSet", "cilium", "cilium", "cilium-8k2lq", "Cilium"),
            (
                "kube-system",
                ("name", "cilium-operator"),
                "Deployment",
                "cilium-operator",
                "cilium-operator-599c",
                "cilium-operator-599c-1",
                "Cilium operator",
            ),
            (
                "kube-system",
                ("k8s-app", "aws-node"),
                "DaemonSet",
                "aws-node",
                "aws-node",
                "aws-node-1",
                "Amazon VPC CNI",
            ),
            (
                "calico-system",
                ("k8s-app", "calico-node"),
                "DaemonSet",
                "calico-node",
                "calico-node",
                "calico-node-1",
                "Calico",
            ),
            (
                "mesh",
                ("app", "istiod"),
                "Deployment",
                "istiod-1-24",
                "istiod-1-24-7f9",
                "istiod-1-24-7f9-a",
                "istiod",
            ),
        ] {
            let labels = json!({label.0: label.1, "pod-template-hash": "x"});
            let replicas = if kind == "Deployment" { "ReplicaSet" } else { kind };
            let home = Home::of_pod(&meta(namespace, pod, labels.clone(), Some((replicas, owner)))).unwrap();
            assert_eq!((home.component.name, home.kind, home.name.as_str()), (component, kind, workload));
            assert_eq!(Home::of_workload(kind, &meta(namespace, workload, labels, None)), Some(home));
        }
    }

    #[test]
    fn what_only_looks_like_a_component_is_none() {
        let dns = json!({"k8s-app": "kube-dns"});
        let set = Some(("ReplicaSet", "coredns-1"));
        assert_eq!(Home::of_pod(&meta("shop", "p", dns.clone(), set)), None, "another namespace");
        assert_eq!(Home::of_pod(&meta("kube-system", "p", json!({}), set)), None, "no label");
        assert_eq!(Home::of_pod(&meta("kube-system", "p", dns.clone(), None)), None, "a bare pod");
        assert_eq!(Home::of_pod(&meta("kube-system", "p", dns.clone(), Some(("Job", "j")))), None);
        assert_eq!(Home::of_workload("ReplicaSet", &meta("kube-system", "coredns-1", dns, None)), None);
    }
}
