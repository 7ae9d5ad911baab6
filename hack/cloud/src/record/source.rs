//! What log lines and signals are about.

use serde::{Deserialize, Serialize};

/// A container of a pod, or an object that has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Source {
    /// Its namespace.
    pub namespace: String,
    /// Name of the pod or other object.
    pub pod: String,
    /// Name of the container; empty for a signal.
    pub container: String,
}

/// Which sources a question is about; an absent part matches all.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Selector {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Name of the pod or other object.
    pub pod: Option<String>,
    /// What its name begins with: the pods of one workload.
    pub pod_prefix: Option<String>,
    /// Name of the container.
    pub container: Option<String>,
}

impl Selector {
    pub(super) fn matches(&self, source: &Source) -> bool {
        let is =
            |wanted: &Option<String>, value: &String| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&self.namespace, &source.namespace)
            && is(&self.pod, &source.pod)
            && is(&self.container, &source.container)
            && self.pod_prefix.as_ref().is_none_or(|prefix| source.pod.starts_with(prefix))
    }
}
