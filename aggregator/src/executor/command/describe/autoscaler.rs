//! HorizontalPodAutoscalers, in kubectl's own form.

use serde_json::Value;

use super::{
    super::{go_text, list, number, text},
    page::{Page, text_or},
};

/// The kinds of metrics, and where they stand.
const METRICS: [(&str, &str); 5] = [
    ("External", "external"),
    ("Pods", "pods"),
    ("Object", "object"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

impl Page {
    /// Of `autoscaling/v2`.
    pub(super) fn autoscaler(&mut self, autoscaler: &Value) {
        let [spec, status] = [&autoscaler["spec"], &autoscaler["status"]];
        let [kind, name] = ["kind", "name"].map(|field| text(spec, &["scaleTargetRef", field]));
        self.name(autoscaler);
        self.marks(autoscaler);
        self.created(autoscaler);
        self.field(0, "Reference", format!("{kind}/{name}"));
        self.field(0, "Metrics", "( current / target )");
        let current = list(status, &["currentMetrics"]);
        for (place, metric) in list(spec, &["metrics"]).iter().enumerate() {
            self.metric(metric, current.get(place).unwrap_or(&Value::Null));
        }
        self.or_unset("Min replicas", &spec["minReplicas"], "");
        self.field(0, "Max replicas", number(spec, &["maxReplicas"]));
        if spec["behavior"].is_object() {
            self.line(0, "Behavior:");
            self.behavior("Scale Up", &spec["behavior"]["scaleUp"]);
            self.behavior("Scale Down", &spec["behavior"]["scaleDown"]);
        }
        let [current, desired] = ["currentReplicas", "desiredReplicas"].map(|field| number(status, &[field]));
        self.field(0, &format!("{kind} pods"), format!("{current} current / {desired} desired"));
        self.conditions(autoscaler, &["Type", "Status", "Reason", "Message"], 0);
    }

    fn metric(&mut self, metric: &Value, current: &Value) {
        let kind = text(metric, &["type"]);
        let Some((_, place)) = METRICS.iter().find(|(known, _)| *known == kind) else {
            return self.line(1, &format!("<unknown metric type {kind:?}>"));
        };
        let (metric, current) = (&metric[*place], &current[*place]);
        let [name, resource] = [&["metric", "name"][..], &["name"]].map(|path| text(metric, path));
        let what = match kind {
            "External" => format!("{name:?}"),
            "Pods" => format!("{name:?} on pods"),
            "Object" => {
                let [kind, of] = ["kind", "name"].map(|field| text(metric, &["describedObject", field]));
                format!("\"{name}\" on {kind}/{of}")
            }
            "Resource" => format!("resource {resource} on pods"),
            _ => format!("resource {resource} of container \"{}\" on pods", text(metric, &["container"])),
        };
        let target = &metric["target"];
        let is_average = match kind {
            "Pods" => true,
            "Object" => target["type"] == "AverageValue",
            _ => !target["averageValue"].is_null(),
        };
        let (how, field) = match (kind, is_average) {
            ("External" | "Object", true) => (" (target average value)", "averageValue"),
            ("External" | "Object", false) => (" (target value)", "value"),
            (_, true) => ("", "averageValue"),
            (_, false) => ("  (as a percentage of request)", "averageUtilization"),
        };
        let shown = |of: &Value, none: &str| match &of[field] {
            Value::Null => none.to_owned(),
            percent if field == "averageUtilization" => format!("{percent}%"),
            value => go_text(value),
        };
        let mut now = shown(&current["current"], "<unknown>");
        if now.ends_with('%') {
            now.push_str(&format!(" ({})", go_text(&current["current"]["averageValue"])));
        }
        self.field(1, &format!("{what}{how}"), format!("{now} / {}", shown(target, "<auto>")));
    }

    fn behavior(&mut self, title: &str, rules: &Value) {
        if !rules.is_object() {
            return;
        }
        self.line(1, &format!("{title}:"));
        if let Some(seconds) = rules["stabilizationWindowSeconds"].as_i64() {
            self.line(2, &format!("Stabilization Window: {seconds} seconds"));
        }
        let policies = list(rules, &["policies"]);
        if !policies.is_empty() {
            self.line(2, &format!("Select Policy: {}", text_or(rules, &["selectPolicy"], "Max")));
            self.line(2, "Policies:");
        }
        for policy in policies {
            let [value, seconds] = ["value", "periodSeconds"].map(|field| number(policy, &[field]));
            let kind = text(policy, &["type"]);
            self.line(3, &format!("- Type: {kind}\tValue: {value}\tPeriod: {seconds} seconds"));
        }
    }
}
