//! NetworkPolicies.
//!
//! Rules, peers, ports and requirements are sets: any rule allows, any peer
//! matches, every requirement must hold.

use k8s_openapi::{
    api::networking::v1 as networking,
    apimachinery::pkg::{apis::meta::v1 as meta, util::intstr::IntOrString},
};
use kestrel_proto::cloud::v1::{self, network_policy_port::PortValue};

use crate::inventory::{Selection, Selector};

use super::{map, object_meta, sorted, sorted_messages, text};

/// The record of a NetworkPolicy. `target_workloads` are left to the mirror,
/// where they follow the pods.
pub fn network_policy(object: &networking::NetworkPolicy) -> v1::NetworkPolicy {
    v1::NetworkPolicy {
        api_version: "networking.k8s.io/v1".to_owned(),
        kind: "NetworkPolicy".to_owned(),
        metadata: Some(object_meta(&object.metadata)),
        spec: Some(object.spec.as_ref().map(spec).unwrap_or_default()),
        target_workloads: Vec::new(),
        action: 0,
    }
}

/// The pods that a NetworkPolicy is for.
pub fn network_policy_selection(object: &networking::NetworkPolicy) -> Selection {
    let selector = object.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    Selection {
        namespace: Some(text(&object.metadata.namespace)),
        selector: Selector::new(&selector.map(label_selector).unwrap_or_default()),
    }
}

fn spec(spec: &networking::NetworkPolicySpec) -> v1::NetworkPolicySpec {
    let ingress = |rule: &networking::NetworkPolicyIngressRule| v1::NetworkPolicyIngressRule {
        from: peers(&rule.from),
        ports: ports(&rule.ports),
    };
    let egress = |rule: &networking::NetworkPolicyEgressRule| v1::NetworkPolicyEgressRule {
        to: peers(&rule.to),
        ports: ports(&rule.ports),
    };
    v1::NetworkPolicySpec {
        // An absent one means the same as an empty one here: every pod.
        pod_selector: Some(spec.pod_selector.as_ref().map(label_selector).unwrap_or_default()),
        ingress: sorted_messages(spec.ingress.iter().flatten().map(ingress)),
        egress: sorted_messages(spec.egress.iter().flatten().map(egress)),
        policy_types: sorted(spec.policy_types.as_ref()),
    }
}

fn peers(peers: &Option<Vec<networking::NetworkPolicyPeer>>) -> Vec<v1::NetworkPolicyPeer> {
    let convert = |peer: &networking::NetworkPolicyPeer| v1::NetworkPolicyPeer {
        pod_selector: peer.pod_selector.as_ref().map(label_selector),
        namespace_selector: peer.namespace_selector.as_ref().map(label_selector),
        ip_block: peer
            .ip_block
            .as_ref()
            .map(|block| v1::IpBlock { cidr: block.cidr.clone(), except: sorted(block.except.as_ref()) }),
    };
    sorted_messages(peers.iter().flatten().map(convert))
}

fn ports(ports: &Option<Vec<networking::NetworkPolicyPort>>) -> Vec<v1::NetworkPolicyPort> {
    let convert = |port: &networking::NetworkPolicyPort| v1::NetworkPolicyPort {
        protocol: text(&port.protocol),
        port_value: port.port.as_ref().map(|port| match port {
            IntOrString::Int(number) => PortValue::Port(*number),
            IntOrString::String(name) => PortValue::PortName(name.clone()),
        }),
        end_port: port.end_port.unwrap_or_default(),
    };
    sorted_messages(ports.iter().flatten().map(convert))
}

fn label_selector(selector: &meta::LabelSelector) -> v1::LabelSelector {
    let requirement = |requirement: &meta::LabelSelectorRequirement| v1::LabelSelectorRequirement {
        key: requirement.key.clone(),
        operator: requirement.operator.clone(),
        values: sorted(requirement.values.as_ref()),
    };
    v1::LabelSelector {
        match_labels: map(&selector.match_labels),
        match_expressions: sorted_messages(selector.match_expressions.iter().flatten().map(requirement)),
    }
}

#[cfg(test)]
mod tests;
