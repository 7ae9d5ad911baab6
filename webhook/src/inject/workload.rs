//! Whose pod it is.

use std::fmt;

use super::pod::Pod;
use crate::profile::Labels;

/// Labels that name the version of the template a pod is made of.
const TEMPLATE: [&str; 3] = ["pod-template-hash", "rollouts-pod-template-hash", "controller-revision-hash"];

/// The version of the template that a pod with these labels is made of, if its workload has versions.
pub(crate) fn template(labels: &Labels) -> Option<&str> {
    TEMPLATE.iter().find_map(|label| labels.get(*label)).map(String::as_str)
}

/// What a person made, and what makes the pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Workload {
    /// The workload of a pod with these labels, whose controller is this. It
    /// is told from the names that Deployments, Argo Rollouts and CronJobs give
    /// to what they make, so that nothing has to be looked up.
    pub fn of(namespace: &str, kind: &str, name: &str, labels: &Labels) -> Self {
        let by_hash = |label: &str| name.strip_suffix(labels.get(label)?)?.strip_suffix('-');
        let by_time = || {
            let (name, minutes) = name.rsplit_once('-')?;
            (minutes.len() >= 8 && minutes.bytes().all(|b| b.is_ascii_digit())).then_some(name)
        };
        let above = match kind {
            "ReplicaSet" => by_hash("pod-template-hash")
                .map(|name| ("Deployment", name))
                .or_else(|| by_hash("rollouts-pod-template-hash").map(|name| ("Rollout", name))),
            "Job" => by_time().map(|name| ("CronJob", name)),
            _ => None,
        };
        let (kind, name) = above.unwrap_or((kind, name));
        Self { namespace: namespace.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
    }

    /// The workload of a new pod; a pod that nothing makes is its own.
    pub(super) fn of_new(pod: &Pod, namespace: &str) -> Self {
        match pod.controller() {
            Some((kind, name)) => Self::of(namespace, kind, name, pod.labels().unwrap_or(&Labels::new())),
            None => Self::of(namespace, "Pod", pod.name(), &Labels::new()),
        }
    }

    /// What makes a new pod, if it is not itself the workload.
    pub(super) fn maker_of_new(pod: &Pod, namespace: &str) -> Option<Self> {
        let (kind, name) = pod.controller()?;
        Some(Self { namespace: namespace.to_owned(), kind: kind.to_owned(), name: name.to_owned() })
    }

    /// A number below 100 that stays the same, for the share of workloads that
    /// a profile's roll-out has reached (FNV-1a).
    pub(super) fn share(&self) -> u32 {
        let bytes = self.to_string();
        let hash = bytes.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The upper bits, which differ most.
        u32::try_from((hash >> 32) % 100).unwrap_or_default()
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_what_a_person_made() {
        let labels = |label: &str| Labels::from([(label.to_owned(), "5d8f".to_owned())]);
        let (hash, rollout) = (labels("pod-template-hash"), labels("rollouts-pod-template-hash"));
        for (kind, name, labels, expected) in [
            ("ReplicaSet", "shop-5d8f", &hash, "Deployment ns/shop"),
            ("ReplicaSet", "shop-5d8f", &rollout, "Rollout ns/shop"),
            ("ReplicaSet", "shop-77", &hash, "ReplicaSet ns/shop-77"),
            ("Job", "nightly-29384756", &hash, "CronJob ns/nightly"),
            ("Job", "once-2", &hash, "Job ns/once-2"),
            ("StatefulSet", "db", &hash, "StatefulSet ns/db"),
        ] {
            assert_eq!(Workload::of("ns", kind, name, labels).to_string(), expected);
        }
    }

    #[test]
    fn shares_are_spread() {
        let below = |most: u32| {
            let names = (0..1000).map(|number| format!("app-{number}"));
            names.filter(|name| Workload::of("ns", "Deployment", name, &Labels::new()).share() < most).count()
        };
        assert_eq!((below(0), below(100)), (0, 1000));
        assert!((200..300).contains(&below(25)), "{}", below(25));
    }
}
