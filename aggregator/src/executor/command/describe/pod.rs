//! Pods and templates of them, in kubectl's own form.

use serde_json::Value;

use super::{
    super::{age, list, logs::selector, number, table, text},
    page::{Page, moment, or_none},
};

/// A template of pods, as a revision of a roll-out shows it.
pub(in super::super) fn template(template: &Value) -> String {
    let mut page = Page::default();
    page.template(template);
    table::align(&page.0, 0, 2)
}

impl Page {
    pub(super) fn template(&mut self, template: &Value) {
        let (metadata, spec) = (&template["metadata"], &template["spec"]);
        self.line(0, "Pod Template:");
        self.labels("  ", "Labels", &metadata["labels"]);
        if metadata["annotations"].as_object().is_some_and(|map| !map.is_empty()) {
            self.annotations("  ", &metadata["annotations"]);
        }
        self.unless_empty(1, "Service Account", text(spec, &["serviceAccountName"]));
        if !list(spec, &["initContainers"]).is_empty() {
            self.containers("  ", "Init Containers", list(spec, &["initContainers"]), &[], &Value::Null);
        }
        self.containers("  ", "Containers", list(spec, &["containers"]), &[], &Value::Null);
        self.volumes("  ", spec);
        self.spread("  ", spec);
        self.unless_empty(1, "Priority Class Name", text(spec, &["priorityClassName"]));
        self.labels("  ", "Node-Selectors", &spec["nodeSelector"]);
        self.tolerations("  ", spec);
    }

    pub(super) fn pod(&mut self, pod: &Value) {
        let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
        self.name(pod);
        if let Some(priority) = spec["priority"].as_i64() {
            self.field(0, "Priority", priority);
        }
        for (title, field) in [
            ("Priority Class Name", "priorityClassName"),
            ("Runtime Class Name", "runtimeClassName"),
            ("Service Account", "serviceAccountName"),
        ] {
            self.unless_empty(0, title, text(spec, &[field]));
        }
        self.line(
            0,
            &match text(spec, &["nodeName"]) {
                "" => "Node:\t<none>".to_owned(),
                node => format!("Node:\t{node}/{}", text(status, &["hostIP"])),
            },
        );
        if !text(status, &["startTime"]).is_empty() {
            self.field(0, "Start Time", moment(text(status, &["startTime"])));
        }
        self.marks(pod);
        let (phase, deleted) = (text(status, &["phase"]), text(metadata, &["deletionTimestamp"]));
        if deleted.is_empty() || matches!(phase, "Failed" | "Succeeded") {
            self.field(0, "Status", phase);
        } else {
            self.line(0, &format!("Status:\tTerminating (lasts {})", age(Some(deleted))));
            let grace = number(metadata, &["deletionGracePeriodSeconds"]);
            self.line(0, &format!("Termination Grace Period:\t{grace}s"));
        }
        self.unless_empty(0, "Reason", text(status, &["reason"]));
        self.unless_empty(0, "Message", text(status, &["message"]));
        let profile = &spec["securityContext"]["seccompProfile"];
        self.unless_empty(0, "SeccompProfile", text(profile, &["type"]));
        self.unless_empty(0, "LocalhostProfile", text(profile, &["localhostProfile"]));
        self.field(0, "IP", text(status, &["podIP"]));
        match list(status, &["podIPs"]) {
            [] => self.field(0, "IPs", "<none>"),
            addresses => {
                self.line(0, "IPs:");
                addresses.iter().for_each(|address| self.field(1, "IP", text(address, &["ip"])));
            }
        }
        self.controller(pod);
        self.unless_empty(0, "NominatedNodeName", text(status, &["nominatedNodeName"]));
        if spec["resources"].is_object() {
            self.line(0, "Resources:");
            self.resources(1, &spec["resources"]);
        }
        for (title, containers, statuses) in [
            ("Init Containers", "initContainers", "initContainerStatuses"),
            ("Containers", "containers", "containerStatuses"),
            ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
        ] {
            let all = list(spec, &[containers]);
            if !all.is_empty() || containers == "containers" {
                self.containers("", title, all, list(status, &[statuses]), pod);
            }
        }
        let conditions = list(status, &["conditions"]);
        let gates = list(spec, &["readinessGates"]);
        if !gates.is_empty() {
            self.0.push_str("Readiness Gates:\n  Type\tStatus\n");
            for gate in gates {
                let kind = text(gate, &["conditionType"]);
                let state = conditions
                    .iter()
                    .find(|it| it["type"] == kind)
                    .map_or("<none>", |it| text(it, &["status"]));
                self.line(1, &format!("{kind} \t{state} "));
            }
        }
        if !conditions.is_empty() {
            self.0.push_str("Conditions:\n  Type\tStatus\n");
            conditions.iter().for_each(|it| {
                self.line(1, &format!("{} \t{} ", text(it, &["type"]), text(it, &["status"])))
            });
        }
        self.volumes("", spec);
        self.field(0, "QoS Class", text(status, &["qosClass"]));
        self.labels("", "Node-Selectors", &spec["nodeSelector"]);
        self.tolerations("", spec);
        self.spread("", spec);
    }

    fn spread(&mut self, indent: &str, spec: &Value) {
        let mut constraints: Vec<&Value> = list(spec, &["topologySpreadConstraints"]).iter().collect();
        if constraints.is_empty() {
            return;
        }
        constraints.sort_by_key(|constraint| text(constraint, &["topologyKey"]));
        let shown = |constraint: &Value| {
            let [key, otherwise] =
                ["topologyKey", "whenUnsatisfiable"].map(|field| text(constraint, &[field]));
            let skew = number(constraint, &["maxSkew"]);
            let of = match &constraint["labelSelector"] {
                Value::Null => String::new(),
                labels => format!(" for selector {}", or_none(selector(labels))),
            };
            format!("{key}:{otherwise} when max skew {skew} is exceeded{of}")
        };
        self.lines(indent, "Topology Spread Constraints", constraints.into_iter().map(shown));
    }

    fn tolerations(&mut self, indent: &str, spec: &Value) {
        let mut tolerations: Vec<&Value> = list(spec, &["tolerations"]).iter().collect();
        tolerations.sort_by_key(|toleration| text(toleration, &["key"]));
        let shown = |toleration: &Value| {
            let [key, value, effect] = ["key", "value", "effect"].map(|field| text(toleration, &[field]));
            let mut shown = key.to_owned();
            if !value.is_empty() {
                shown.push_str(&format!("={value}"));
            }
            if !effect.is_empty() {
                shown.push_str(&format!(":{effect}"));
            }
            if toleration["operator"] == "Exists" && value.is_empty() {
                shown.push_str(if key.is_empty() && effect.is_empty() { "op=Exists" } else { " op=Exists" });
            }
            if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
                shown.push_str(&format!(" for {seconds}s"));
            }
            shown
        };
        self.lines(indent, "Tolerations", tolerations.into_iter().map(shown));
    }
}
