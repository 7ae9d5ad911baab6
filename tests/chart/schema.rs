//! What is rendered, against the schemas of the API servers that it is rendered for: a field that one does not know
//! is an error here, as it is for `kubectl apply` with strict validation.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::helm::{self, Objects, list, text};

/// Fetched by `hack/schemas`.
const VERSIONS: [&str; 3] = ["1.24.17", "1.30.14", helm::NEWEST];

/// Kinds of others, whose schemas no Kubernetes has.
const OTHERS: [&str; 2] = ["monitoring.coreos.com", "cert-manager.io"];

/// Everything that can be switched on.
const ALL: [&str; 22] = [
    "networkPolicy.create=true",
    "webhook.certManager.enabled=true",
    "link.certManager.enabled=true",
    "webhook.namespaceSelector.matchLabels.team=shop",
    "operator.networkPolicies.dryRun=true",
    "operator.executor.dryRun=true",
    "nodeAgent.runtimeSocket=/run/containerd/containerd.sock",
    "nodeAgent.seLinuxOptions.type=spc_t",
    "operator.cilium.disableFlows=false",
    "operator.cilium.hubble.tls.existingSecret=relay",
    "nodeAgent.flows.awsPolicyLog=/var/log/aws-routed-eni/network-policy-agent.log",
    "nodeAgent.kernelLog=true",
    "nodeAgent.conntrack=true",
    "nodeAgent.networkTables=true",
    "nodeAgent.hostNetwork=true",
    "nodeAgent.packetCapture=true",
    "nodeAgent.firewallRules=true",
    "nodeAgent.bpfObjects=true",
    "nodeAgent.podPressure=true",
    "nodeAgent.fileSystems={/data}",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
];

/// The definitions of one Kubernetes.
struct Schemas(Map<String, Value>);

impl Schemas {
    fn of(version: &str) -> Self {
        let folder = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .expect("HOME is set");
        let file = folder.join(format!("kestrel/schemas/v{version}.json"));
        let text = fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; run hack/schemas", file.display()));
        let mut document: Value = serde_json::from_str(&text).unwrap();
        match document["definitions"].take() {
            Value::Object(definitions) => Self(definitions),
            other => panic!("{}: no definitions but {other}", file.display()),
        }
    }

    /// What an API server would complain of in an object.
    fn complaints(&self, object: &Value) -> Vec<String> {
        let (group, version) =
            text(&object["apiVersion"]).split_once('/').unwrap_or(("", text(&object["apiVersion"])));
        if OTHERS.contains(&group) {
            return Vec::new();
        }
        let place = format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]));
        let is_it = |kind: &Value| {
            kind["group"] == group && kind["version"] == version && kind["kind"] == object["kind"]
        };
        let definition =
            self.0.values().find(|schema| list(&schema["x-kubernetes-group-version-kind"]).iter().any(is_it));
        let mut complaints = Vec::new();
        match definition {
            Some(schema) => self.check(object, schema, &place, &mut complaints),
            None => complaints.push(format!("{place}: no such kind in {group}/{version}")),
        }
        complaints
    }

    fn check(&self, value: &Value, schema: &Value, place: &str, complaints: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.trim_start_matches("#/definitions/");
            // Both may be numbers.
            if value.is_number()
                && (name.ends_with("resource.Quantity") || name.ends_with("intstr.IntOrString"))
            {
                return;
            }
            return self.check(value, &self.0[name], place, complaints);
        }
        let right = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            _ => true,
        };
        if !right {
            complaints.push(format!("{place}: {value} is no {}", schema["type"]));
            return;
        }
        for required in list(&schema["required"]) {
            if value.get(text(required)).is_none() {
                complaints.push(format!("{place}: {required} is missing"));
            }
        }
        let (known, more) = (schema["properties"].as_object(), &schema["additionalProperties"]);
        for (name, inner) in value.as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            match known.and_then(|known| known.get(name)) {
                Some(schema) => self.check(inner, schema, &place, complaints),
                None if more.is_object() => self.check(inner, more, &place, complaints),
                None if known.is_some() => complaints.push(format!("{place} is unknown")),
                None => {}
            }
        }
        for (index, inner) in list(value).iter().enumerate() {
            self.check(inner, &schema["items"], &format!("{place}[{index}]"), complaints);
        }
    }
}

#[test]
fn every_object_is_one_that_its_api_server_knows() {
    let old_values = helm::repository("tests/chart/values-0.1.yaml");
    for version in VERSIONS {
        let schemas = Schemas::of(version);
        let old_values = ["--values", old_values.to_str().unwrap()];
        let rendered = helm::render_chart(&helm::chart(), version, &old_values).unwrap();
        for objects in [Objects::on(version, &[]), Objects::on(version, &ALL), Objects::parse(&rendered)] {
            for object in &objects.0 {
                assert_eq!(schemas.complaints(object), [""; 0], "Kubernetes {version}");
            }
        }
    }
}

/// What is left out for an older API server is left out for a reason, and the check above would notice.
#[test]
fn what_is_rendered_for_the_newest_is_refused_by_the_oldest() {
    let (schemas, objects) = (Schemas::of(VERSIONS[0]), Objects::with(&[]));
    let complaints: Vec<_> = objects.0.iter().flat_map(|object| schemas.complaints(object)).collect();
    for expected in [
        "topologySpreadConstraints[0].matchLabelKeys is unknown",
        "spec.unhealthyPodEvictionPolicy is unknown",
        "webhooks[0].matchConditions is unknown",
        "no such kind in admissionregistration.k8s.io/v1",
    ] {
        assert!(
            complaints.iter().any(|complaint| complaint.contains(expected)),
            "{expected}: {complaints:#?}"
        );
    }
}

#[test]
fn mistakes_are_found() {
    let schemas = Schemas::of(helm::NEWEST);
    let service = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "labels": {"a": 1}},
        "spec": {"ports": [{"port": "80"}, {"targetPort": 80}]}});
    assert_eq!(
        schemas.complaints(&service),
        [
            "Service/x.metadata.labels.a: 1 is no \"string\"",
            "Service/x.spec.ports[0].port: \"80\" is no \"integer\"",
            "Service/x.spec.ports[1]: \"port\" is missing",
        ]
    );
}
