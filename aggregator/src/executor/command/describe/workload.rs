//! Deployments, ReplicaSets, StatefulSets and DaemonSets, in kubectl's own form.

use serde_json::Value;

use super::{
    super::{go_text, list, logs::selector, number, pairs, text},
    claim::storage_class,
    page::{Page, or_none, text_or},
};

const REVISION: [&str; 3] = ["metadata", "annotations", "deployment.kubernetes.io/revision"];

/// The pods that a workload selects, or why they are not known.
pub(super) type Pods = Result<Vec<Value>, String>;

impl Page {
    /// `sets` are all that the deployment selects.
    pub(super) fn deployment(&mut self, deployment: &Value, sets: Vec<Value>) {
        let [spec, status] = [&deployment["spec"], &deployment["status"]];
        self.name(deployment);
        self.created(deployment);
        self.marks(deployment);
        self.field(0, "Selector", selector(&spec["selector"]));
        let replicas = ["updatedReplicas", "replicas", "availableReplicas", "unavailableReplicas"];
        let [updated, total, available, unavailable] = replicas.map(|field| number(status, &[field]));
        let desired = number(spec, &["replicas"]);
        self.field(0, "Replicas", format!(
            "{desired} desired | {updated} updated | {total} total | {available} available | {unavailable} unavailable"
        ));
        self.field(0, "StrategyType", text(spec, &["strategy", "type"]));
        self.field(0, "MinReadySeconds", number(spec, &["minReadySeconds"]));
        let rolling = &spec["strategy"]["rollingUpdate"];
        if rolling.is_object() {
            let [unavailable, surge] = ["maxUnavailable", "maxSurge"].map(|field| go_text(&rolling[field]));
            self.field(
                0,
                "RollingUpdateStrategy",
                format!("{unavailable} max unavailable, {surge} max surge"),
            );
        }
        self.template(&spec["template"]);
        self.conditions(deployment, &["Type", "Status", "Reason"], 1);
        let uid = text(deployment, &["metadata", "uid"]);
        let (new, old) = new_and_old(deployment, sets.into_iter().filter(|set| is_of(set, uid)).collect());
        if !old.is_empty() || new.is_some() {
            let shown = |sets: &[Value]| {
                let shown = sets.iter().map(|set| {
                    let [created, wanted] = ["status", "spec"].map(|part| number(set, &[part, "replicas"]));
                    format!("{} ({created}/{wanted} replicas created)", text(set, &["metadata", "name"]))
                });
                or_none(shown.collect::<Vec<_>>().join(", "))
            };
            self.field(0, "OldReplicaSets", shown(&old));
            self.field(0, "NewReplicaSet", shown(new.as_slice()));
        }
    }

    pub(super) fn replica_set(&mut self, set: &Value, pods: &Pods) {
        let spec = &set["spec"];
        self.name(set);
        self.field(0, "Selector", or_none(selector(&spec["selector"])));
        self.marks(set);
        self.controller(set);
        let [current, desired] = ["status", "spec"].map(|part| number(set, &[part, "replicas"]));
        self.field(0, "Replicas", format!("{current} current / {desired} desired"));
        self.field(0, "Pods Status", phases(set, pods));
        self.template(&spec["template"]);
        self.conditions(set, &["Type", "Status", "Reason"], 1);
    }

    pub(super) fn stateful_set(&mut self, set: &Value, pods: &Pods) {
        let spec = &set["spec"];
        self.name(set);
        self.created(set);
        self.field(0, "Selector", selector(&spec["selector"]));
        self.marks(set);
        let [total, desired] = ["status", "spec"].map(|part| number(set, &[part, "replicas"]));
        self.field(0, "Replicas", format!("{desired} desired | {total} total"));
        self.field(0, "Update Strategy", text(spec, &["updateStrategy", "type"]));
        let rolling = &spec["updateStrategy"]["rollingUpdate"];
        if let Some(partition) = rolling["partition"].as_i64() {
            self.field(1, "Partition", partition);
            if !rolling["maxUnavailable"].is_null() {
                self.field(1, "MaxUnavailable", go_text(&rolling["maxUnavailable"]));
            }
        }
        self.field(0, "Pods Status", phases(set, pods));
        self.template(&spec["template"]);
        let claims = list(spec, &["volumeClaimTemplates"]);
        self.line(0, if claims.is_empty() { "Volume Claims:\t<none>" } else { "Volume Claims:" });
        for claim in claims {
            self.field(1, "Name", text(claim, &["metadata", "name"]));
            self.field(1, "StorageClass", storage_class(claim));
            self.labels("  ", "Labels", &claim["metadata"]["labels"]);
            self.labels("  ", "Annotations", &claim["metadata"]["annotations"]);
            let storage = text_or(claim, &["spec", "resources", "requests", "storage"], "<default>");
            self.field(1, "Capacity", storage);
            self.field(1, "Access Modes", go_text(&list(claim, &["spec", "accessModes"]).into()));
        }
    }

    pub(super) fn daemon_set(&mut self, set: &Value, pods: &Pods) {
        let spec = &set["spec"];
        self.name(set);
        self.field(0, "Selector", selector(&spec["selector"]));
        self.field(0, "Node-Selector", pairs(&spec["template"]["spec"]["nodeSelector"]));
        self.marks(set);
        for (what, field) in [
            ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
            ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
            ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
            ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
            ("Number of Nodes Misscheduled", "numberMisscheduled"),
        ] {
            self.line(0, &format!("{what}: {}", number(set, &["status", field])));
        }
        self.field(0, "Pods Status", phases(set, pods));
        self.template(&spec["template"]);
    }
}

/// Whether the object with this UID controls another.
fn is_of(object: &Value, uid: &str) -> bool {
    let owners = list(object, &["metadata", "ownerReferences"]);
    owners.iter().any(|owner| owner["controller"] == true && text(owner, &["uid"]) == uid)
}

/// In which phase the pods of a workload are.
fn phases(workload: &Value, pods: &Pods) -> String {
    let pods = match pods {
        Err(why) => return format!("error in fetching pods: {why}"),
        Ok(pods) => pods,
    };
    let uid = text(workload, &["metadata", "uid"]);
    let [running, waiting, succeeded, failed] = ["Running", "Pending", "Succeeded", "Failed"]
        .map(|phase| pods.iter().filter(|pod| is_of(pod, uid) && pod["status"]["phase"] == phase).count());
    format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed")
}

/// The set with the deployment's template, and the others by age. Of several with that template, it is the one of
/// the deployment's revision, or else the oldest.
fn new_and_old(deployment: &Value, mut sets: Vec<Value>) -> (Option<Value>, Vec<Value>) {
    sets.sort_by_cached_key(|set| {
        ["creationTimestamp", "name"].map(|field| text(set, &["metadata", field]).to_owned())
    });
    let wanted = unhashed(&deployment["spec"]["template"]);
    let is_new = |set: &Value| unhashed(&set["spec"]["template"]) == wanted;
    let is_current = |set: &Value| text(set, &REVISION) == text(deployment, &REVISION);
    let place =
        sets.iter().position(|set| is_new(set) && is_current(set)).or_else(|| sets.iter().position(is_new));
    let new = place.map(|place| sets.remove(place));
    (new, sets)
}

/// A template without the label that tells sets of a deployment apart.
fn unhashed(template: &Value) -> Value {
    let mut template = template.clone();
    let metadata = template["metadata"].as_object_mut();
    if let Some(labels) = metadata.and_then(|it| it.get_mut("labels")).and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    template
}
