//! `InjectionProfile` (`kestrel.ai/v1alpha1`, of the cluster): what a collector
//! is made of in some namespaces or for some pods. Pure; its schema is
//! `charts/kestrel-operator/files/injectionprofiles.yaml`.

mod check;
mod profiles;
mod selector;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use self::check::{LEAST_MEMORY, is_enough_memory};
pub use self::{
    check::RESERVED,
    profiles::{Conflict, NoProfile, Profiles},
    selector::{Labels, Selector},
};

/// A profile under its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Unique in the cluster; empty for the built-in one.
    pub name: String,
    /// `metadata.generation`: the version of the specification.
    pub generation: i64,
    /// What its owner wants.
    pub spec: Spec,
}

/// `spec` of a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Whether the pods that it covers get a collector.
    pub enabled: bool,
    /// Namespaces that it covers, by their labels.
    pub namespace_selector: Selector,
    /// Pods that it covers in them, by their labels.
    pub pod_selector: Selector,
    /// Image that holds `/kestrel-collector`; the operator's own if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Requests and limits of CPU and memory.
    pub resources: Resources,
    /// Environment variables; of several with one name the last one counts.
    pub env: Vec<Variable>,
    /// A Secret of the pod's namespace, whose keys are environment variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Address that the collector sends to, `https://host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What is collected.
    pub collect: Collect,
    /// How far it has been rolled out.
    pub rollout: Rollout,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            enabled: true,
            namespace_selector: Selector::default(),
            pod_selector: Selector::default(),
            image: None,
            resources: Resources::default(),
            env: Vec::new(),
            secret_ref: None,
            endpoint: None,
            collect: Collect::default(),
            rollout: Rollout::default(),
        }
    }
}

/// How many of the workloads that it covers get collectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// 0 to 100. A larger share adds workloads and takes none away.
    pub percent: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { percent: 100 }
    }
}

/// Requests and limits, as quantities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What the scheduler sets aside.
    pub requests: Amounts,
    /// What may be used at most.
    pub limits: Amounts,
}

/// Quantities of CPU and memory; what is not set has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Amounts {
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variable {
    /// Not one of [`RESERVED`].
    pub name: String,
    /// As in a pod: `$(NAME)` stands for another variable.
    #[serde(default)]
    pub value: String,
}

/// A Secret in the pod's own namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretRef {
    /// Its name. Where it does not exist, the collector runs without it.
    pub name: String,
}

/// Where a collector receives access logs, on the loopback. Users tell their Envoys, so it never changes.
pub const ALS_PORT: u16 = 14080;

/// What is collected of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Collect {
    /// Whether the collector also receives the access logs of the pod's own Envoy, on [`ALS_PORT`] of the loopback.
    pub access_logs: bool,
    /// Paths or patterns inside the containers; with none, every log file of
    /// every emptyDir volume that the application writes to.
    pub log_paths: Vec<String>,
}

/// `status` of a profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation that the rest speaks of.
    pub observed_generation: i64,
    /// Pods that carry a collector by this profile.
    pub injected: u32,
    /// Pods that asked for one and run without.
    pub pending: u32,
    /// Pods that asked for one and were left alone, by reason.
    pub skipped: BTreeMap<String, u32>,
    /// `Ready`, and `Conflict` where another profile covers the same pods.
    pub conditions: Vec<Condition>,
}

/// One condition, as Kubernetes has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready` or `Conflict`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Since when the status is what it is (RFC 3339).
    pub last_transition_time: String,
    /// The generation that it speaks of.
    pub observed_generation: i64,
}

impl Profile {
    /// A profile from its parts.
    ///
    /// # Errors
    /// What is wrong with the specification, and where.
    pub fn read(name: String, generation: i64, spec: &serde_json::Value) -> Result<Self, String> {
        if !spec.is_object() {
            return Err("spec: missing, or no object".to_owned());
        }
        let spec = Spec::deserialize(spec).map_err(|error| format!("spec: {error}"))?;
        spec.check()?;
        Ok(Self { name, generation, spec })
    }

    /// Whether it covers a pod with these labels in a namespace with those.
    pub fn covers(&self, namespace: &Labels, pod: &Labels) -> bool {
        self.spec.namespace_selector.matches(namespace) && self.spec.pod_selector.matches(pod)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    const SCHEMA: &str = include_str!("../../charts/kestrel-operator/files/injectionprofiles.yaml");

    /// A profile that says everything that one can say.
    fn full() -> Value {
        let selector = json!({
            "matchLabels": {"team": "shop"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}],
        });
        json!({
            "spec": {
                "enabled": false,
                "namespaceSelector": selector,
                "podSelector": selector,
                "image": "registry/collector:1",
                "resources": {
                    "requests": {"cpu": "5m", "memory": "16Mi"},
                    "limits": {"cpu": "100m", "memory": "64Mi"},
                },
                "env": [{"name": "KESTREL_LOG", "value": "debug"}],
                "secretRef": {"name": "proxy"},
                "endpoint": "https://link:8443",
                "collect": {"accessLogs": true, "logPaths": ["/var/log/app/*.log"]},
                "rollout": {"percent": 10},
            },
            "status": {
                "observedGeneration": 1, "injected": 1, "pending": 1, "skipped": {"host-network": 1},
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Ready", "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
                }],
            },
        })
    }

    /// Every property of a schema with its type, as `.spec.env[].name string`.
    fn properties(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        assert!(
            schema["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{path} is not described"
        );
        found.insert(format!("{path} {}", schema["type"].as_str().unwrap()));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            properties(property, &format!("{path}.{name}"), found);
        }
        if let Some(items) = schema.get("items") {
            match items.get("properties") {
                Some(_) => properties(items, &format!("{path}[]"), found),
                None => _ = found.insert(format!("{path}[] {}", items["type"].as_str().unwrap())),
            }
        }
        if let Some(values) = schema.get("additionalProperties") {
            found.insert(format!("{path}{{}} {}", values["type"].as_str().unwrap()));
        }
    }

    /// The same of a value; the keys of maps of text or numbers are no properties.
    fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        let kind = match value {
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            _ => "object",
        };
        found.insert(format!("{path} {kind}"));
        for item in value.as_array().into_iter().flatten() {
            fields(item, &format!("{path}[]"), found);
        }
        for (key, field) in value.as_object().into_iter().flatten() {
            let is_map = path.ends_with("matchLabels") || path.ends_with("skipped");
            fields(field, &if is_map { format!("{path}{{}}") } else { format!("{path}.{key}") }, found);
        }
    }

    #[test]
    fn type_and_schema_name_the_same_fields() {
        let crd: Value = serde_saphyr::from_str(SCHEMA).unwrap();
        let version = &crd["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"]["properties"];
        let full = full();
        let spec = serde_json::to_value(Spec::deserialize(&full["spec"]).unwrap()).unwrap();
        let status = serde_json::to_value(Status::deserialize(&full["status"]).unwrap()).unwrap();
        assert_eq!(spec, full["spec"], "the type keeps everything");
        assert_eq!(status, full["status"], "the type keeps everything");
        for (part, value) in [("spec", spec), ("status", status)] {
            let (mut described, mut known) = (BTreeSet::new(), BTreeSet::new());
            properties(&schema[part], part, &mut described);
            fields(&value, part, &mut known);
            assert_eq!(described, known);
        }
    }

    #[test]
    fn the_schema_has_the_names_and_columns_that_users_know() {
        let crd: Value = serde_saphyr::from_str(SCHEMA).unwrap();
        assert_eq!(crd["spec"]["scope"], "Cluster");
        assert_eq!(crd["spec"]["names"]["shortNames"], json!(["kinj"]));
        assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        let columns: Vec<_> = crd["spec"]["versions"][0]["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(columns, ["Enabled", "Injected", "Ready", "Age"]);
    }

    #[test]
    fn the_schema_refuses_the_variables_that_the_collector_is_identified_by() {
        for name in RESERVED {
            assert!(SCHEMA.contains(&format!("'{name}'")), "{name} is not in the schema");
        }
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let profile = Profile::read("p".to_owned(), 1, &json!({})).unwrap();
        assert_eq!(profile.spec, Spec::default());
        assert!(profile.spec.enabled && profile.covers(&Labels::new(), &Labels::new()));
    }
}
