//! An InjectionProfile for one test.

use serde_json::{Value, json};

use crate::kubectl::{apply, attempt, json};

/// Its name; deleted when the test ends.
pub(crate) struct Profile(pub(crate) String);

impl Profile {
    /// Covers one namespace; `prefix` orders those of one namespace.
    pub(crate) fn of_namespace(prefix: &str, namespace: &str, spec: &Value) -> Self {
        let name = format!("{prefix}-{namespace}");
        let mut spec = spec.clone();
        spec["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
        let profile = json!({
            "apiVersion": "kestrel.ai/v1alpha1", "kind": "InjectionProfile", "metadata": {"name": name}, "spec": spec,
        });
        apply("default", &profile.to_string());
        Self(name)
    }

    pub(crate) fn get(&self) -> Value {
        json(&["get", "kinj", &self.0])
    }

    /// Whether a condition says this; else the status.
    pub(crate) fn condition(&self, kind: &str, status: &str, reason: &str) -> Result<(), String> {
        let found = self.get();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_said = conditions.iter().any(|condition| {
            condition["type"] == kind
                && condition["status"] == status
                && condition["reason"] == reason
                && condition["observedGeneration"] == found["metadata"]["generation"]
        });
        if is_said { Ok(()) } else { Err(found["status"].to_string()) }
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _best_effort = attempt(&["delete", "kinj", &self.0, "--wait=false"]);
    }
}
