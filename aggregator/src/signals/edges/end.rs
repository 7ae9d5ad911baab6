//! One end of an edge.

/// A workload, pod, Service or node by its name. Anything outside of the cluster is none: who scans the cluster from
/// there is stopped rightly, and all of the internet would be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct End {
    pub(super) namespace: String,
    pub(super) kind: String,
    pub(super) name: String,
}

impl End {
    /// `None`: it is nothing in the cluster, or no name that Kubernetes would give.
    pub fn new(namespace: &str, kind: &str, name: &str) -> Option<Self> {
        /// Names of resources are DNS names (253 bytes).
        const MOST_BYTES: usize = 253;
        let is_label = |text: &str| {
            text.len() <= MOST_BYTES
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        let is_outside = matches!(kind, "" | "Unmanaged" | "Unknown");
        if is_outside || name.is_empty() || ![namespace, name].into_iter().all(is_label) {
            return None;
        }
        let is_word = kind.len() <= 64 && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_one = is_word && !namespace.contains('.');
        let [namespace, kind, name] = [namespace, kind, name].map(str::to_owned);
        is_one.then_some(Self { namespace, kind, name })
    }

    /// As sentences name it.
    pub(super) fn told(&self) -> String {
        let Self { namespace, kind, name } = self;
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    }

    /// The group and version of its kind, as far as it is one of Kubernetes' own.
    pub(super) fn api_version(&self) -> &'static str {
        match self.kind.as_str() {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => "apps/v1",
            "Job" | "CronJob" => "batch/v1",
            "Pod" | "Service" | "ServiceAccount" | "Node" | "ReplicationController" => "v1",
            _ => "",
        }
    }

    /// What it can be known by again: `NAMESPACE.KIND.NAME`.
    pub(super) fn key(&self) -> String {
        let Self { namespace, kind, name } = self;
        format!("{namespace}.{kind}.{name}")
    }

    /// The end that has this key.
    pub(super) fn of_key(key: &str) -> Option<Self> {
        let mut parts = key.splitn(3, '.');
        Self::new(parts.next()?, parts.next()?, parts.next()?)
    }
}
