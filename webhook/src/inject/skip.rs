//! Why a pod is left without a collector.

use std::fmt;

use super::INJECT;

/// A reason. Its text completes "skipped: …" and names what to change, where
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
    /// Pods of this namespace are never changed.
    Namespace(String),
    /// The pod has a volume of this name, which the sidecar needs.
    VolumeName(&'static str),
    /// The agent link's authority is not known yet, so that the collector could
    /// not tell the aggregator from a stranger.
    NoLinkAuthority,
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
            Self::VolumeName(_) => "volume-name",
            Self::NoLinkAuthority => "no-link-authority",
        }
    }

    /// The text of the annotation `kestrel.ai/status`.
    pub fn status(&self) -> String {
        format!("skipped: {self}")
    }

    /// Whether the reason may be written onto the pod. Mirror pods can't be
    /// changed, and pods of excluded namespaces are left as they are.
    pub(super) fn may_be_noted(&self) -> bool {
        match self {
            Self::UnclearWish(_)
            | Self::HostNetwork
            | Self::Windows
            | Self::CriticalPriority(_)
            | Self::VolumeName(_)
            | Self::NoLinkAuthority => true,
            Self::NotAsked | Self::AlreadyInjected | Self::Mirror | Self::Namespace(_) => false,
        }
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
                let wish: String = wish.chars().take(40).collect();
                write!(f, "{INJECT} is {wish:?}, and only \"true\" asks for a collector")
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
            Self::Namespace(name) => write!(f, "pods of namespace {name} are never changed"),
            Self::VolumeName(name) => {
                write!(f, "the pod has a volume {name}, a name that the collector needs; rename it")
            }
            Self::NoLinkAuthority => f.write_str(
                "the operator is still starting (the aggregator has not published the agent link's CA); \
                 create the pod again in a minute",
            ),
        }
    }
}
