//! Why a pod is left without a collector.

use std::fmt;

use super::{INJECT, PROFILE};
use crate::profile::NoProfile;

/// A reason. Its text completes "skipped (label): …" and names what to change, where
/// something can be.
#[derive(Debug, PartialEq, Eq)]
pub enum Skip {
    /// The annotation is absent or `false`.
    NotAsked,
    /// The annotation has this other value.
    UnclearWish(String),
    /// A container of the sidecar's name is there: injected before, in this
    /// admission (reinvocation) or because the manifest is a copy of an injected pod.
    AlreadyInjected,
    /// The API server's image of a static pod.
    Mirror,
    /// The pod shares its node's network.
    HostNetwork,
    /// The pod is for Windows nodes, where neither the collector's image runs nor
    /// its security context is valid.
    Windows,
    /// The pod is of this priority class: the cluster itself may depend on it.
    CriticalPriority(&'static str),
    /// Pods of this namespace are not changed: it is ours or the cluster's own, or was left out.
    Namespace(String),
    /// Pods with such labels are not changed.
    Labels,
    /// The pod has a volume of this name, which the sidecar needs.
    VolumeName(&'static str),
    /// The agent link's authority is not known yet, so that the collector could
    /// not tell the aggregator from a stranger.
    NoLinkAuthority,
    /// No profile gives it a collector.
    NoProfile(NoProfile),
    /// The profile's image is not the operator's own and has not run on any
    /// node: where it cannot be pulled, the pod would never start.
    UntriedImage(String),
    /// The image may need these Secrets where it does not lie yet, and the pod does not name them.
    PullSecret(String),
    /// The pod's annotation of this name says what cannot be, for this reason.
    BadAnnotation(&'static str, String),
    /// The pod is for a virtual node (Fargate, a virtual kubelet).
    VirtualNode,
    /// Collectors kept pods of this workload from starting, in this way.
    Stopped(String),
    /// The profile's roll-out has not reached the workload.
    Rollout(String),
    /// What the LimitRange of this name allows has no room for a collector.
    LimitRange(String, String),
    /// The ResourceQuota of this name would refuse the pod.
    Quota(String, String),
}

impl From<NoProfile> for Skip {
    fn from(reason: NoProfile) -> Self {
        Self::NoProfile(reason)
    }
}

impl Skip {
    /// The reason as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::UnclearWish(_) => "unclear-wish",
            Self::AlreadyInjected => "already-injected",
            Self::Mirror => "mirror-pod",
            Self::HostNetwork => "host-network",
            Self::Windows => "windows",
            Self::CriticalPriority(_) => "critical-priority",
            Self::Namespace(_) => "namespace",
            Self::Labels => "labels",
            Self::VolumeName(_) => "volume-name",
            Self::NoLinkAuthority => "no-link-authority",
            Self::NoProfile(NoProfile::Uncovered) => "no-profile",
            Self::NoProfile(NoProfile::Disabled(_)) => "profile-disabled",
            Self::NoProfile(NoProfile::Unknown(_)) => "unknown-profile",
            Self::NoProfile(NoProfile::Elsewhere(_)) => "profile-elsewhere",
            Self::UntriedImage(_) => "untried-image",
            Self::PullSecret(_) => "pull-secret",
            Self::BadAnnotation(..) => "bad-annotation",
            Self::VirtualNode => "virtual-node",
            Self::Stopped(_) => "stopped",
            Self::Rollout(_) => "rollout",
            Self::LimitRange(..) => "limit-range",
            Self::Quota(..) => "quota",
        }
    }

    /// The text of the annotation `kestrel.ai/status`.
    pub fn status(&self) -> String {
        format!("skipped ({}): {self}", self.label())
    }

    /// The label and the sentence of such a text.
    pub(crate) fn read_status(status: &str) -> Option<(&str, &str)> {
        let (label, sentence) = status.strip_prefix("skipped (")?.split_once("): ")?;
        let is_label =
            |text: &str| text.len() <= 32 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        is_label(label).then_some((label, sentence))
    }

    /// Whether the reason may be written onto the pod. Mirror pods can't be
    /// changed, and pods of excluded namespaces are left as they are.
    pub(super) fn may_be_noted(&self) -> bool {
        !matches!(
            self,
            Self::NotAsked | Self::AlreadyInjected | Self::Mirror | Self::Namespace(_) | Self::Labels
        )
    }

    /// Whether the pod's creator gets something else than was asked for.
    pub(super) fn is_news(&self) -> bool {
        !matches!(self, Self::NotAsked | Self::AlreadyInjected)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => write!(f, "{INJECT} is not \"true\""),
            Self::UnclearWish(wish) => {
                write!(f, "{INJECT} is {:?}, and only \"true\" asks for a collector", start(wish))
            }
            Self::AlreadyInjected => f.write_str("the pod has a collector already"),
            Self::Mirror => f.write_str("a static pod cannot be changed through the API server"),
            Self::HostNetwork => {
                f.write_str("the pod uses its node's network (hostNetwork), where no collector is injected")
            }
            Self::Windows => f.write_str("the pod is for Windows nodes, where the collector does not run"),
            Self::CriticalPriority(name) => {
                write!(f, "pods of priority class {name} are never given a collector")
            }
            Self::Namespace(name) => write!(
                f,
                "pods of namespace {name} are not changed: it is the operator's or the cluster's own, or the operator's \
                 values leave it out (webhook.namespaceSelector, webhook.excludedNamespaces)"
            ),
            Self::Labels => f.write_str("pods with its labels are not changed (webhook.objectSelector)"),
            Self::VolumeName(name) => {
                write!(f, "the pod has a volume {name}, a name that the collector needs; rename it")
            }
            Self::NoLinkAuthority => f.write_str(
                "the operator is still starting (the aggregator has not published the agent link's CA); \
                 create the pod again in a minute",
            ),
            Self::NoProfile(NoProfile::Uncovered) => f.write_str(
                "no InjectionProfile covers the pod, and the built-in one is off (injection.defaultProfile)",
            ),
            Self::NoProfile(NoProfile::Disabled(name)) => {
                write!(f, "InjectionProfile {name}, which covers the pod, is disabled")
            }
            Self::NoProfile(NoProfile::Unknown(name)) => {
                write!(f, "{PROFILE} names {:?}, and no usable InjectionProfile is called so", start(name))
            }
            Self::NoProfile(NoProfile::Elsewhere(name)) => {
                write!(f, "{PROFILE} names {name}, an InjectionProfile that does not cover the pod")
            }
            Self::UntriedImage(image) => {
                write!(f, "the image {image} of its InjectionProfile has not run on any node yet")
            }
            Self::PullSecret(names) => write!(
                f,
                "its node may need a Secret to pull the collector's image, and the pod does not name what is known to \
                 open its registry (imagePullSecrets: {names})"
            ),
            Self::BadAnnotation(key, problem) => write!(f, "{key}: {problem}"),
            Self::VirtualNode => f.write_str(
                "the pod is for a virtual node, where the collector's image does not lie and no node agent runs",
            ),
            Self::Stopped(why) => write!(f, "injection is stopped for its workload: {why}"),
            Self::Rollout(name) => {
                write!(f, "the roll-out of InjectionProfile {name} has not reached its workload (spec.rollout.percent)")
            }
            Self::LimitRange(name, problem) => write!(f, "LimitRange {name}: {problem}"),
            Self::Quota(name, problem) => write!(f, "ResourceQuota {name}: {problem}"),
        }
    }
}

/// The start of what a pod's owner wrote.
pub(super) fn start(text: &str) -> String {
    text.chars().take(40).collect()
}
