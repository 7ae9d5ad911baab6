//! The rights that the aggregator needs, and whether this account has them.

pub(crate) mod beyond;

use std::{fmt, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

/// Questions to the API server at a time.
const AT_A_TIME: usize = 8;
/// It must answer each within this time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Verbs on resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Right {
    /// In the own namespace only.
    pub own: bool,
    pub group: &'static str,
    pub resources: &'static [&'static str],
    /// Of this object only.
    pub name: Option<&'static str>,
    pub verbs: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];

const fn cluster(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Right {
    Right { own: false, group, resources, name: None, verbs }
}

const fn create(group: &'static str, resources: &'static [&'static str]) -> Right {
    Right { own: true, group, resources, name: None, verbs: &["create"] }
}

const fn keep(
    group: &'static str,
    resources: &'static [&'static str],
    name: &'static str,
    verbs: &'static [&'static str],
) -> Right {
    Right { own: true, group, resources, name: Some(name), verbs }
}

/// The one that a cluster's owner may withhold (`podLogs.onRequest: false`).
pub(crate) const ON_REQUEST: Right = cluster("", &["pods/log"], &["get"]);

/// What a cluster's owner may add (`operator.networkPolicies.dryRun: true`).
pub(crate) const DRY_RUN: Right = cluster("networking.k8s.io", &["networkpolicies"], &["create", "patch"]);

/// Needed only where the cluster has Istio.
pub(crate) const ISTIO: Right = cluster("security.istio.io", &["authorizationpolicies"], READ);

/// Needed only where access logs may be received.
pub(crate) const ALS: Right =
    keep("discovery.k8s.io", &["endpointslices"], "kestrel-operator-als", &["patch"]);

/// Needed only where the agent link has an authority of its own.
pub(crate) const AUTHORITY: Right = keep("", &["secrets"], "kestrel-agent-link", &["get", "update"]);

/// Those of the table in `docs/security.md`.
pub(crate) const RIGHTS: [Right; 19] = [
    cluster("", &["namespaces", "nodes", "pods", "services"], READ),
    cluster("events.k8s.io", &["events"], READ),
    cluster("events.k8s.io", &["events"], &["create"]),
    cluster("apps", &["deployments", "statefulsets", "daemonsets", "replicasets"], READ),
    cluster("batch", &["jobs", "cronjobs"], READ),
    cluster("networking.k8s.io", &["networkpolicies"], READ),
    ISTIO,
    cluster("authentication.k8s.io", &["tokenreviews"], &["create"]),
    create("coordination.k8s.io", &["leases"]),
    keep("coordination.k8s.io", &["leases"], "kestrel-aggregator", &["get", "update"]),
    create("discovery.k8s.io", &["endpointslices"]),
    keep("discovery.k8s.io", &["endpointslices"], "kestrel-agent-link", &["patch"]),
    ALS,
    create("", &["secrets", "configmaps"]),
    AUTHORITY,
    keep("", &["secrets"], "kestrel-operator-jwt-runtime", &["get", "update"]),
    keep("", &["configmaps"], "kestrel-agent-link-ca", &["patch"]),
    keep("", &["configmaps"], "kestrel-executor", &["get"]),
    keep("", &["serviceaccounts"], "kestrel-executor", &["impersonate"]),
];

/// What the chart gives beside them where a value asks for it, and what OpenShift asks for.
pub(crate) const OPTIONAL: [Right; 2] = [
    keep("", &["serviceaccounts"], "kestrel-dry-run", &["impersonate"]),
    create("discovery.k8s.io", &["endpointslices/restricted"]),
];

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.verbs.join(", "), self.resources.join(", "))?;
        if !self.group.is_empty() {
            write!(f, " ({})", self.group)?;
        }
        match self.name {
            Some(name) => write!(f, " named {name}"),
            None => Ok(()),
        }
    }
}

impl Right {
    /// The verbs on resources that this account lacks, a few words each.
    ///
    /// # Errors
    /// The API server gives no answer.
    pub(crate) async fn missing(&self, client: &Client, namespace: &str) -> Result<Vec<String>, String> {
        let questions = self.resources.iter().flat_map(|resource| {
            self.verbs.iter().map(move |verb| (*resource, *verb, self.review(resource, verb, namespace)))
        });
        let api = Api::<SelfSubjectAccessReview>::all(client.clone());
        let answers: Vec<_> = stream::iter(questions)
            .map(|(resource, verb, review)| {
                let api = api.clone();
                async move {
                    match timeout(TIMEOUT, api.create(&PostParams::default(), &review)).await {
                        Ok(Ok(answer)) if answer.status.as_ref().is_some_and(|status| status.allowed) => {
                            Ok(None)
                        }
                        Ok(Ok(_)) => Ok(Some(format!("{verb} of {resource}"))),
                        Ok(Err(error)) => Err(anyhow::Error::new(error).root_cause().to_string()),
                        Err(_) => Err("no answer in 10 s".to_owned()),
                    }
                }
            })
            .buffered(AT_A_TIME)
            .collect()
            .await;
        answers.into_iter().filter_map(Result::transpose).collect()
    }

    fn review(&self, resource: &str, verb: &str, namespace: &str) -> SelfSubjectAccessReview {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (resource, None),
        };
        let attributes = ResourceAttributes {
            namespace: self.own.then(|| namespace.to_owned()),
            group: Some(self.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            name: self.name.map(ToOwned::to_owned),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    type Row = (String, String, String, String, String);

    fn rows<'a>(
        scope: &str,
        group: &str,
        resources: impl Iterator<Item = &'a str> + Clone,
        name: &str,
        verbs: impl Iterator<Item = &'a str> + Clone,
    ) -> Vec<Row> {
        let row = |resource: &str, verb: &str| [scope, group, resource, name, verb].map(str::to_owned).into();
        resources.flat_map(|resource| verbs.clone().map(move |verb| row(resource, verb))).collect()
    }

    /// The chart's tests compare the table with what is rendered.
    #[test]
    fn what_is_asked_for_is_the_table_of_the_security_page() {
        let page = include_str!("../../docs/security.md");
        let lines = page.lines().filter(|line| line.starts_with("| `kestrel-aggregator` |"));
        let documented: BTreeSet<Row> = lines
            .flat_map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                let [_, scope, group, resources, name, verbs, _] = cells[..] else { panic!("{line}") };
                rows(scope, group, resources.split(", "), name, verbs.split(", "))
            })
            .collect();
        let asked: BTreeSet<Row> = RIGHTS
            .iter()
            .flat_map(|right| {
                let scope = if right.own { "own" } else { "cluster" };
                let group = if right.group.is_empty() { "core" } else { right.group };
                let (resources, verbs) = (right.resources.iter().copied(), right.verbs.iter().copied());
                rows(scope, group, resources, right.name.unwrap_or_default(), verbs)
            })
            .collect();
        assert_eq!(asked, documented);
    }

    #[test]
    fn a_subresource_is_asked_for_apart() {
        let review = ON_REQUEST.review("pods/log", "get", "ns").spec.resource_attributes.unwrap();
        assert_eq!((review.resource.as_deref(), review.subresource.as_deref()), (Some("pods"), Some("log")));
        assert_eq!(review.namespace, None);
    }
}
