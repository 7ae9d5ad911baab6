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
            self.line(0, &format!("Priority:\t{priority}"));
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
            self.line(0, &format!("Start Time:\t{}", moment(text(status, &["startTime"]))));
        }
        self.marks(pod);
        let (phase, deleted) = (text(status, &["phase"]), text(metadata, &["deletionTimestamp"]));
        if deleted.is_empty() || matches!(phase, "Failed" | "Succeeded") {
            self.line(0, &format!("Status:\t{phase}"));
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
        self.line(0, &format!("IP:\t{}", text(status, &["podIP"])));
        match list(status, &["podIPs"]) {
            [] => self.line(0, "IPs:\t<none>"),
            addresses => {
                self.line(0, "IPs:");
                addresses
                    .iter()
                    .for_each(|address| self.line(1, &format!("IP:\t{}", text(address, &["ip"]))));
            }
        }
        self.controller(pod);
        self.unless_empty(0, "NominatedNodeName", text(status, &["nominatedNodeName"]));
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
        self.line(0, &format!("QoS Class:\t{}", text(status, &["qosClass"])));
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

    fn volumes(&mut self, indent: &str, spec: &Value) {
        let volumes = list(spec, &["volumes"]);
        if volumes.is_empty() {
            self.0.push_str(&format!("{indent}Volumes:\t<none>\n"));
            return;
        }
        self.0.push_str(&format!("{indent}Volumes:\n"));
        for volume in volumes {
            let lead = if indent.is_empty() { "" } else { " " };
            self.line(1, &format!("{lead}{}:", text(volume, &["name"])));
            self.volume(volume);
        }
    }

    fn volume(&mut self, volume: &Value) {
        let is = |field: &str| volume[field].is_object();
        let optional = |of: &Value| of["optional"] == true;
        if is("hostPath") {
            let of = &volume["hostPath"];
            self.line(2, "Type:\tHostPath (bare host directory volume)");
            self.line(2, &format!("Path:\t{}", text(of, &["path"])));
            self.line(2, &format!("HostPathType:\t{}", text(of, &["type"])));
        } else if is("emptyDir") {
            let of = &volume["emptyDir"];
            self.line(2, "Type:\tEmptyDir (a temporary directory that shares a pod's lifetime)");
            self.line(2, &format!("Medium:\t{}", text(of, &["medium"])));
            let limit = text(of, &["sizeLimit"]);
            self.line(2, &format!("SizeLimit:\t{}", if limit.is_empty() { "<unset>" } else { limit }));
        } else if is("secret") {
            let of = &volume["secret"];
            self.line(2, "Type:\tSecret (a volume populated by a Secret)");
            self.line(2, &format!("SecretName:\t{}", text(of, &["secretName"])));
            self.line(2, &format!("Optional:\t{}", optional(of)));
        } else if is("configMap") {
            let of = &volume["configMap"];
            self.line(2, "Type:\tConfigMap (a volume populated by a ConfigMap)");
            self.line(2, &format!("Name:\t{}", text(of, &["name"])));
            self.line(2, &format!("Optional:\t{}", optional(of)));
        } else if is("persistentVolumeClaim") {
            let of = &volume["persistentVolumeClaim"];
            self.line(
                2,
                "Type:\tPersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
            );
            self.line(2, &format!("ClaimName:\t{}", text(of, &["claimName"])));
            self.line(2, &format!("ReadOnly:\t{}", of["readOnly"] == true));
        } else if is("projected") {
            self.line(2, "Type:\tProjected (a volume that contains injected data from multiple sources)");
            for source in list(volume, &["projected", "sources"]) {
                if source["secret"].is_object() {
                    self.line(2, &format!("SecretName:\t{}", text(source, &["secret", "name"])));
                    self.line(2, &format!("Optional:\t{}", optional(&source["secret"])));
                } else if source["downwardAPI"].is_object() {
                    self.line(2, "DownwardAPI:\ttrue");
                } else if source["configMap"].is_object() {
                    self.line(2, &format!("ConfigMapName:\t{}", text(source, &["configMap", "name"])));
                    self.line(2, &format!("Optional:\t{}", optional(&source["configMap"])));
                } else if source["serviceAccountToken"].is_object() {
                    let seconds = number(source, &["serviceAccountToken", "expirationSeconds"]);
                    self.line(2, &format!("TokenExpirationSeconds:\t{seconds}"));
                }
            }
        } else if let Some((kind, of)) =
            volume.as_object().into_iter().flatten().find(|(name, _)| *name != "name")
        {
            self.line(2, &format!("Type:\t{kind}"));
            if let Some(fields) = of.as_object() {
                self.content(2, fields, "", &[]);
            }
        }
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
