//! How much of a pod's log is sent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kestrel_proto::node::v1::LogPolicy;
use tracing::warn;

use crate::excluded::Excluded;

/// What the cluster's owner decided.
#[derive(Clone, Debug)]
pub struct Policies {
    /// Of pods that say nothing else, in namespaces that say nothing else.
    pub default: LogPolicy,
    /// Namespaces of which nothing is sent, whatever pods say.
    pub excluded: Excluded,
}

impl From<LogPolicy> for Policies {
    fn from(default: LogPolicy) -> Self {
        Self { default, excluded: Excluded::default() }
    }
}

/// What a pod or a namespace says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// What it asks for.
    pub(super) policy: Option<LogPolicy>,
    /// It has said something else that nobody understands.
    pub(super) is_nonsense: bool,
}

impl Said {
    /// By its annotation, or because it has asked for the sidecar and so for all of its lines.
    pub(super) fn by(meta: &ObjectMeta) -> Self {
        let policy = match annotation(meta, LOGS) {
            Some("all") => Some(LogPolicy::All),
            Some("errors") => Some(LogPolicy::Errors),
            Some("off") => Some(LogPolicy::Off),
            _ => None,
        };
        let is_nonsense = policy.is_none() && annotation(meta, LOGS).is_some();
        let is_injected = annotation(meta, "kestrel.ai/inject") == Some("true");
        Self { policy: policy.or(is_injected.then_some(LogPolicy::All)), is_nonsense }
    }

    /// Says in the log what nobody understands, if that is news after `before`.
    pub(super) fn complain(self, before: Option<Self>, kind: &str, meta: &ObjectMeta) {
        if !self.is_nonsense || before.is_some_and(|before| before.is_nonsense) {
            return;
        }
        let [namespace, name] = [&meta.namespace, &meta.name].map(|name| name.as_deref().unwrap_or_default());
        let text = annotation(meta, LOGS).unwrap_or_default();
        warn!(
            "{kind} {name:?} (namespace {namespace:?}): {LOGS} is {text:?} and counts as if it was not there; it has to be all, errors or off"
        );
    }
}

const LOGS: &str = "kestrel.ai/logs";

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}
