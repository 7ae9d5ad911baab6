//! Which kinds the cluster has, and by which words they are asked for.

use serde::Deserialize;
use serde_json::Value;

/// A kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Its plural, as it stands in paths.
    pub name: String,
    pub singular: String,
    pub kind: String,
    pub namespaced: bool,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
}

impl Resource {
    /// Where its objects are: of a namespace, or of all.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let mut path = self.root();
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path = format!("{path}/namespaces/{namespace}");
        }
        format!("{path}/{}", self.name)
    }

    fn root(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    pub(crate) fn group_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `pods`, `deployments.apps`: as errors name it.
    pub(crate) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.name.clone(),
            group => format!("{}.{group}", self.name),
        }
    }

    /// `pod`, `deployment.apps`: as `-o name` shows it.
    pub(crate) fn singular_qualified(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.group.as_str() {
            "" => kind,
            group => format!("{kind}.{group}"),
        }
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// What the API server says of its groups in one answer (aggregated discovery).
#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Name,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Name {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Served>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    resource: String,
    #[serde(default)]
    response_kind: Kind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

/// Reads an aggregated answer; `None` if it is an older one.
pub(crate) fn aggregated(text: &str) -> Option<Vec<Resource>> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value["kind"] != "APIGroupDiscoveryList" {
        return None;
    }
    let groups: Groups = serde_json::from_value(value).ok()?;
    let mut resources = Vec::new();
    for group in groups.items {
        for version in group.versions {
            for served in version.resources {
                let singular = match served.singular_resource {
                    singular if singular.is_empty() => served.response_kind.kind.to_lowercase(),
                    singular => singular,
                };
                resources.push(Resource {
                    group: group.metadata.name.clone(),
                    version: version.version.clone(),
                    name: served.resource,
                    singular,
                    kind: served.response_kind.kind,
                    namespaced: served.scope == "Namespaced",
                    short: served.short_names,
                    categories: served.categories,
                    verbs: served.verbs,
                });
            }
        }
    }
    Some(resources)
}

/// Versions of groups, the preferred one first: `("apps", "v1")`.
pub(crate) fn group_versions(text: &str) -> Vec<(String, String)> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let groups = value["groups"].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for group in groups {
        let name = group["name"].as_str().unwrap_or_default();
        let preferred = group["preferredVersion"]["version"].as_str().unwrap_or_default();
        let versions = group["versions"].as_array().cloned().unwrap_or_default();
        let others = versions
            .iter()
            .filter_map(|version| version["version"].as_str())
            .filter(|version| *version != preferred);
        all.extend(
            std::iter::once(preferred).chain(others).map(|version| (name.to_owned(), version.to_owned())),
        );
    }
    all
}

/// Reads what an older API server says of one version of a group.
pub(crate) fn of_version(text: &str, group: &str, version: &str) -> Vec<Resource> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let served = value["resources"].as_array().cloned().unwrap_or_default();
    served
        .iter()
        .filter(|served| !text(&served["name"]).contains('/'))
        .map(|served| Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            name: text(&served["name"]),
            singular: match text(&served["singularName"]) {
                singular if singular.is_empty() => text(&served["kind"]).to_lowercase(),
                singular => singular,
            },
            kind: text(&served["kind"]),
            namespaced: served["namespaced"] == true,
            short: texts(&served["shortNames"]),
            categories: texts(&served["categories"]),
            verbs: texts(&served["verbs"]),
        })
        .collect()
}

/// The kind that a word names: a plural, a singular, a kind, a short name, each with `.group` or
/// `.version.group` behind it.
pub(crate) fn find<'a>(resources: &'a [Resource], word: &str) -> Option<&'a Resource> {
    let word = word.to_lowercase();
    let (name, rest) = word.split_once('.').map_or((word.as_str(), None), |(name, rest)| (name, Some(rest)));
    let named = |resource: &Resource| {
        resource.name == name
            || resource.singular == name
            || resource.short.iter().any(|short| short == name)
            || resource.kind.to_lowercase() == name
    };
    let fits = |resource: &&Resource| match rest {
        None => true,
        Some(rest) => {
            resource.group == rest
                // Such as deploy.apps for a group that begins so.
                || resource.group.strip_prefix(rest).is_some_and(|more| more.starts_with('.'))
                || rest.strip_prefix(resource.version.as_str()).is_some_and(|after| {
                    after.strip_prefix('.').unwrap_or(after) == resource.group
                })
        }
    };
    let by = |test: &dyn Fn(&Resource) -> bool| {
        resources.iter().filter(fits).find(|resource| test(resource) && resource.can("get"))
    };
    // A plural goes before a short name of another kind.
    by(&|resource| resource.name == name || resource.singular == name)
        .or_else(|| by(&named))
        .or_else(|| resources.iter().filter(fits).find(|resource| named(resource)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_kinds_as_those_of_kubectl_do() {
        let list = r#"{"kind":"APIGroupDiscoveryList","items":[
            {"metadata":{},"versions":[{"version":"v1","resources":[
                {"resource":"pods","responseKind":{"kind":"Pod"},"scope":"Namespaced","singularResource":"pod","shortNames":["po"],"verbs":["get","list"],"categories":["all"]},
                {"resource":"events","responseKind":{"kind":"Event"},"scope":"Namespaced","singularResource":"event","shortNames":["ev"],"verbs":["get","list"]}]}]},
            {"metadata":{"name":"metrics.k8s.io"},"versions":[{"version":"v1beta1","resources":[
                {"resource":"pods","responseKind":{"kind":"PodMetrics"},"scope":"Namespaced","verbs":["get","list"]}]}]},
            {"metadata":{"name":"events.k8s.io"},"versions":[{"version":"v1","resources":[
                {"resource":"events","responseKind":{"kind":"Event"},"scope":"Namespaced","singularResource":"event","verbs":["get","list"]}]}]}]}"#;
        let resources = aggregated(list).unwrap();
        let path = |word: &str| find(&resources, word).map(|resource| resource.path(Some("a")));
        for word in ["pods", "pod", "po", "Pod", "PODS", "pods.v1.", "pods.v1"] {
            assert_eq!(path(word).as_deref(), Some("/api/v1/namespaces/a/pods"), "{word}");
        }
        for word in ["pods.metrics.k8s.io", "pods.v1beta1.metrics.k8s.io", "podmetrics", "pods.metrics"] {
            assert_eq!(
                path(word).as_deref(),
                Some("/apis/metrics.k8s.io/v1beta1/namespaces/a/pods"),
                "{word}"
            );
        }
        assert_eq!(path("events").as_deref(), Some("/api/v1/namespaces/a/events"));
        assert_eq!(
            path("events.events.k8s.io").as_deref(),
            Some("/apis/events.k8s.io/v1/namespaces/a/events")
        );
        assert_eq!(path("nothing"), None);
        assert_eq!(aggregated(r#"{"kind":"APIGroupList","groups":[]}"#), None);
    }

    #[test]
    fn older_api_servers_are_understood() {
        let groups = r#"{"groups":[{"name":"apps","versions":[{"version":"v1"},{"version":"v1beta1"}],"preferredVersion":{"version":"v1"}}]}"#;
        let both = [("apps", "v1"), ("apps", "v1beta1")]
            .map(|(group, version)| (group.to_owned(), version.to_owned()));
        assert_eq!(group_versions(groups), both);
        let list = r#"{"resources":[{"name":"deployments","singularName":"","namespaced":true,"kind":"Deployment","verbs":["get"],"shortNames":["deploy"]},
            {"name":"deployments/scale","kind":"Scale","verbs":["get"]}]}"#;
        let resources = of_version(list, "apps", "v1");
        assert_eq!(resources.len(), 1);
        assert_eq!(find(&resources, "deploy").unwrap().singular_qualified(), "deployment.apps");
    }
}
