//! How the operator itself is watched: Prometheus's objects, and a way to mend what each alert says.

use std::{collections::BTreeSet, fs};

use crate::helm::{self, Objects, list, text};

const BOTH: [&str; 2] = ["monitoring.serviceMonitor.enabled=true", "monitoring.prometheusRule.enabled=true"];

/// A whole name, not the beginning of several.
fn is_metric(word: &str) -> bool {
    (word.starts_with("kestrel_") || word.starts_with("kube_")) && !word.contains('…')
}

/// Whether the source of the program that has the metrics of that name's beginning has its end.
fn is_counted(metric: &str) -> bool {
    let sources: &[_] = match metric.split('_').nth(1) {
        Some("uplink") => &["aggregator/src/status/gauges.rs", "aggregator/src/uplink/metrics.rs"],
        Some("link") => &["aggregator/src/link/metrics.rs"],
        Some("agent") => &["node-agent/src/metrics.rs"],
        _ => &[],
    };
    let name = metric.splitn(3, '_').nth(2).unwrap().trim_end_matches("_total");
    let has = |path| fs::read_to_string(helm::repository(path)).unwrap().contains(&format!("\"{name}\""));
    sources.iter().copied().any(has)
}

#[test]
fn nothing_of_the_prometheus_operator_is_rendered_unasked() {
    let objects = Objects::with(&[]);
    assert!(objects.0.iter().all(|object| object["apiVersion"] != "monitoring.coreos.com/v1"));
    assert_eq!(objects.find("Service", "kestrel-metrics"), None);
}

#[test]
fn every_program_is_scraped_ready_or_not() {
    let mut settings = BOTH.to_vec();
    settings.extend(["monitoring.serviceMonitor.labels.release=prometheus", "healthcheck.port=9090"]);
    let objects = Objects::with(&settings);
    let monitor = objects.get("ServiceMonitor", "kestrel-operator");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["interval"]), (&"admin".into(), &"30s".into()));
    let service = objects.get("Service", "kestrel-metrics");
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&service["metadata"]["labels"][label], value, "{label}");
    }
    // No other Service of the release is one of the monitor's.
    let component = "app.kubernetes.io/component";
    let selected = |service: &&serde_json::Value| service["metadata"]["labels"][component] == "monitoring";
    assert_eq!(objects.of_kind("Service").filter(selected).count(), 1);
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    assert_eq!(service["spec"]["ports"][0]["port"], 9090);
    for (workload, pod) in objects.pods() {
        for (label, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(&pod["metadata"]["labels"][label], value, "{workload}: {label}");
        }
    }
}

#[test]
fn every_alert_has_a_section_and_reads_metrics_that_are_agreed_on() {
    let objects = Objects::with(&BOTH);
    let runbook = fs::read_to_string(helm::repository("docs/troubleshooting.md")).unwrap();
    let agreed = fs::read_to_string(helm::repository("docs/interfaces.md")).unwrap();
    let rules = &objects.get("PrometheusRule", "kestrel-operator")["spec"]["groups"][0]["rules"];
    let mut alerts = Vec::new();
    let mut read = BTreeSet::new();
    for rule in list(rules) {
        let (alert, expression) = (text(&rule["alert"]), text(&rule["expr"]));
        assert!(runbook.contains(&format!("\n### {alert}\n")), "no section for {alert}");
        let link = format!("docs/troubleshooting.md#{}: ", alert.to_lowercase());
        assert!(text(&rule["annotations"]["runbook"]).starts_with(&link), "{alert}");
        assert!(["critical", "warning"].contains(&text(&rule["labels"]["severity"])));
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        read.extend(words.filter(|word| is_metric(word)));
        assert_eq!(
            expression.matches("namespace=\"kestrel-ai\"").count(),
            expression.matches('{').count(),
            "{expression}"
        );
        alerts.push(alert);
    }
    let section = agreed.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap();
    let named: BTreeSet<&str> = section.split('`').filter(|word| is_metric(word)).collect();
    assert_eq!(read, named, "the alerts, and the section Metrics of docs/interfaces.md");
    for metric in read.iter().filter(|metric| metric.starts_with("kestrel_")) {
        assert!(is_counted(metric), "no program has {metric}");
    }
    assert_eq!(
        alerts,
        [
            "KestrelDisconnected",
            "KestrelTokenExpiring",
            "KestrelCertificateExpiring",
            "KestrelTelemetryDropped",
            "KestrelLogGap",
            "KestrelNodeAgentMissing"
        ]
    );
}

/// A connection whose streams are refused carries nothing.
#[test]
fn a_connection_without_a_stream_counts_as_none() {
    let objects = Objects::with(&BOTH);
    let rules = &objects.get("PrometheusRule", "kestrel-operator")["spec"]["groups"][0]["rules"];
    let disconnected = list(rules).iter().find(|rule| rule["alert"] == "KestrelDisconnected").unwrap();
    let data = r#"kestrel_uplink_stream_up{namespace="kestrel-ai",stream="data"}"#;
    assert_eq!(text(&disconnected["expr"]), format!("sum({data}) < 1 or absent({data})"));
}

#[test]
fn without_agents_nobody_is_alerted_to_their_absence() {
    let mut settings = BOTH.to_vec();
    settings.push("nodeAgent.enabled=false");
    let rules = Objects::with(&settings).get("PrometheusRule", "kestrel-operator").to_string();
    assert!(!rules.contains("agent_") && !rules.contains("kube_daemonset"), "{rules}");
}
