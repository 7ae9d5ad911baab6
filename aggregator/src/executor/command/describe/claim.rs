//! PersistentVolumeClaims, in kubectl's own form.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::{age, go_text, list, text},
    page::{Page, text_or},
};

const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

impl Page {
    /// `pods` are all of its namespace.
    pub(super) fn claim(&mut self, claim: &Value, pods: &[Value]) {
        let [metadata, spec, status] = ["metadata", "spec", "status"].map(|part| &claim[part]);
        self.name(claim);
        self.field(0, "StorageClass", storage_class(claim));
        self.field(
            0,
            "Status",
            match metadata["deletionTimestamp"].as_str() {
                None => text(status, &["phase"]).to_owned(),
                deleted => format!("Terminating (lasts {})", age(deleted)),
            },
        );
        self.fields(0, spec, &[("Volume", "volumeName")]);
        self.marks(claim);
        self.field(0, "Finalizers", go_text(&list(metadata, &["finalizers"]).into()));
        let modes = list(status, &["accessModes"]);
        let modes: Vec<&str> = MODES
            .iter()
            .filter(|(mode, _)| modes.iter().any(|of| of == mode))
            .map(|(_, short)| *short)
            .collect();
        let (capacity, modes) = match text(spec, &["volumeName"]) {
            "" => ("", String::new()),
            _ => (text_or(status, &["capacity", "storage"], "0"), modes.join(",")),
        };
        self.field(0, "Capacity", capacity);
        self.field(0, "Access Modes", modes);
        self.unless_empty(0, "VolumeMode", text(spec, &["volumeMode"]));
        let source = &spec["dataSource"];
        if source.is_object() {
            self.line(0, "DataSource:");
            self.unless_empty(1, "APIGroup", text(source, &["apiGroup"]));
            self.fields(1, source, &[("Kind", "kind"), ("Name", "name")]);
        }
        self.lines("", "Used By", users(claim, pods));
        let times = ["LastProbeTime", "LastTransitionTime"];
        self.conditions(claim, &["Type", "Status", times[0], times[1], "Reason", "Message"], 5);
    }
}

/// The class of a claim, which was once an annotation.
pub(super) fn storage_class(claim: &Value) -> &str {
    let class = text(claim, &["spec", "storageClassName"]);
    text_or(claim, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"], class)
}

/// The names of the pods that have the claim as a volume, or own it.
fn users<'a>(claim: &Value, pods: &'a [Value]) -> BTreeSet<&'a str> {
    let [name, owners] = [&claim["metadata"]["name"], &claim["metadata"]["ownerReferences"]];
    let is_user = |pod: &&Value| {
        let volumes = list(pod, &["spec", "volumes"]);
        volumes.iter().any(|volume| &volume["persistentVolumeClaim"]["claimName"] == name)
            || list(owners, &[]).iter().any(|owner| owner["uid"] == pod["metadata"]["uid"])
    };
    pods.iter().filter(is_user).map(|pod| text(pod, &["metadata", "name"])).collect()
}
