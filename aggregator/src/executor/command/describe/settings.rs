//! ConfigMaps, ServiceAccounts and Namespaces, in kubectl's own form.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    super::{go_text, list, text},
    page::{Page, text_or},
};

impl Page {
    /// Of what is no text, a hash is shown, as everywhere.
    pub(super) fn config_map(&mut self, map: &Value) {
        self.name(map);
        self.marks(map);
        self.line(0, "\nData\n====");
        for (name, value) in map["data"].as_object().into_iter().flatten() {
            self.line(0, &format!("{name}:\n----\n{}\n", go_text(value)));
        }
        self.line(0, "\nBinaryData\n====");
        for (name, value) in map["binaryData"].as_object().into_iter().flatten() {
            self.line(0, &format!("{name}: {}", go_text(value)));
        }
        self.line(0, "");
    }

    pub(super) fn service_account(&mut self, account: &Value) {
        self.name(account);
        self.marks(account);
        let secrets =
            list(account, &["imagePullSecrets"]).iter().map(|secret| text(secret, &["name"]).to_owned());
        self.lines("", "Image pull secrets", secrets);
    }

    pub(super) fn namespace(&mut self, namespace: &Value, mut quotas: Vec<Value>, limits: &[Value]) {
        self.fields(0, &namespace["metadata"], &[("Name", "name")]);
        self.marks(namespace);
        self.fields(0, &namespace["status"], &[("Status", "phase")]);
        self.conditions(namespace, &["Type", "Status", "LastTransitionTime", "Reason", "Message"], 0);
        self.line(0, if quotas.is_empty() { "\nNo resource quota." } else { "\nResource Quotas" });
        quotas.sort_by_cached_key(|quota| text(quota, &["metadata", "name"]).to_owned());
        for quota in &quotas {
            self.quota(quota);
        }
        if limits.is_empty() {
            return self.line(0, "\nNo LimitRange resource.");
        }
        self.line(0, "\nResource Limits");
        self.line(0, " Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
        self.line(0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
        for limit in limits.iter().flat_map(|range| list(range, &["spec", "limits"])) {
            let bounds = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
            let resources: BTreeSet<&String> =
                bounds.iter().filter_map(|bound| limit[bound].as_object()).flat_map(Map::keys).collect();
            for resource in resources {
                let cells = bounds.map(|bound| limit[bound][resource].as_str().unwrap_or("-"));
                self.line(0, &format!(" {}\t{resource}\t{}", text(limit, &["type"]), cells.join("\t")));
            }
        }
    }

    fn quota(&mut self, quota: &Value) {
        self.fields(1, &quota["metadata"], &[("Name", "name")]);
        let mut scopes: Vec<&str> =
            list(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
        scopes.sort_unstable();
        self.unless_empty(1, "Scopes", &scopes.join(", "));
        self.line(1, "Resource\tUsed\tHard");
        self.line(1, "--------\t---\t---");
        for (resource, hard) in quota["status"]["hard"].as_object().into_iter().flatten() {
            let used = text_or(quota, &["status", "used", resource], "0");
            self.line(1, &format!("{resource}\t{used}\t{}", go_text(hard)));
        }
    }
}
