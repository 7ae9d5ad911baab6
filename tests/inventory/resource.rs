//! The resources that the inventory is made of, and random objects of them.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// A resource of the API, and the member of the envelope that carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource {
    api: &'static str,
    plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) record: &'static str,
}

pub(crate) const POD: Resource = resource("api/v1", "pods", "Pod", "pod");
pub(crate) const NAMESPACE: Resource = resource("api/v1", "namespaces", "Namespace", "namespace");

/// Istio's, which is served from the middle on.
pub(crate) const AUTHORIZATION_POLICY: Resource = resource(
    "apis/security.istio.io/v1",
    "authorizationpolicies",
    "AuthorizationPolicy",
    "authorization_policy",
);

pub(crate) const REPLICA_SET: Resource = resource("apis/apps/v1", "replicasets", "ReplicaSet", "workload");
pub(crate) const JOB: Resource = resource("apis/batch/v1", "jobs", "Job", "workload");

pub(crate) const ALL: [Resource; 12] = [
    POD,
    NAMESPACE,
    resource("api/v1", "nodes", "Node", "node"),
    resource("apis/apps/v1", "deployments", "Deployment", "workload"),
    resource("apis/apps/v1", "statefulsets", "StatefulSet", "workload"),
    resource("apis/apps/v1", "daemonsets", "DaemonSet", "workload"),
    REPLICA_SET,
    JOB,
    resource("apis/batch/v1", "cronjobs", "CronJob", "workload"),
    resource("api/v1", "services", "Service", "service"),
    resource("apis/networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", "network_policy"),
    AUTHORIZATION_POLICY,
];

const fn resource(
    api: &'static str,
    plural: &'static str,
    kind: &'static str,
    record: &'static str,
) -> Resource {
    Resource { api, plural, kind, record }
}

impl Resource {
    pub(crate) fn api_version(&self) -> &'static str {
        self.api.trim_start_matches("apis/").trim_start_matches("api/")
    }

    /// The path of all objects.
    pub(crate) fn path(&self) -> String {
        format!("/{}/{}", self.api, self.plural)
    }

    /// The path of the objects among which one in `namespace` is.
    pub(crate) fn path_in(&self, namespace: &str) -> String {
        match self.kind {
            "Namespace" | "Node" => self.path(),
            _ => format!("/{}/namespaces/{namespace}/{}", self.api, self.plural),
        }
    }

    /// An object that the API server takes.
    pub(crate) fn object(&self, name: &str, random: &mut Rng) -> Value {
        let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
        let metadata = json!({
            "name": name, "annotations": annotations, "labels": labels(random), "ownerReferences": owners(random),
        });
        json!({"apiVersion": self.api_version(), "kind": self.kind, "metadata": metadata, "spec": self.spec(random)})
    }

    fn spec(&self, random: &mut Rng) -> Value {
        let labels = json!({"app": "web"});
        let selector = json!({"matchLabels": labels});
        let containers = json!([{"name": "web", "image": "web"}]);
        let account = random.choice([json!(null), json!("robot")]);
        let pod = json!({"containers": containers, "serviceAccountName": account});
        let template = json!({"metadata": {"labels": labels}, "spec": pod});
        let mut job = json!({"template": template});
        job["template"]["spec"]["restartPolicy"] = json!("Never");
        match self.kind {
            "Pod" => pod,
            "Deployment" | "DaemonSet" | "ReplicaSet" => json!({"selector": selector, "template": template}),
            "StatefulSet" => json!({"selector": selector, "template": template, "serviceName": "web"}),
            "Job" => job,
            "CronJob" => json!({"schedule": "0 * * * *", "jobTemplate": {"spec": job}}),
            "Service" => service(random),
            "NetworkPolicy" => network_policy(random),
            "AuthorizationPolicy" => authorization_policy(random),
            _ => json!({}),
        }
    }

    /// A status, which the inventory may show or not.
    pub(crate) fn status(&self, random: &mut Rng) -> Option<Value> {
        let ready = json!([{"type": "Ready", "status": random.choice(["True", "False", "Unknown"])}]);
        Some(match self.kind {
            "Pod" => {
                let ip = format!("10.1.{}.{}", random.u8(..), random.u8(..));
                let phase = random.choice(["Pending", "Running", "Succeeded", "Failed", "Unknown"]);
                json!({"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": ready})
            }
            "Node" => {
                let address =
                    |kind: &str, number: u8| json!({"type": kind, "address": format!("10.0.0.{number}")});
                let kinds = ["InternalIP", "ExternalIP", "Hostname"];
                let addresses: Vec<Value> =
                    kinds.into_iter().map(|kind| address(kind, random.u8(..))).collect();
                json!({"addresses": addresses, "conditions": ready})
            }
            "Deployment" | "StatefulSet" | "ReplicaSet" => json!({"replicas": random.u8(..)}),
            _ => return None,
        })
    }
}

/// What a merge patch makes of labels: some set, some gone.
pub(crate) fn labels(random: &mut Rng) -> Value {
    let names = ["app", "tier", "node.kubernetes.io/instance-type", "topology.kubernetes.io/zone"];
    let label = |name: &str| {
        let value = random.choice([json!("a"), json!("b"), json!(""), Value::Null]);
        (name.to_owned(), value.unwrap_or_default())
    };
    names.map(label).into_iter().collect::<Map<_, _>>().into()
}

/// Up to two owners; nothing checks that they exist.
pub(crate) fn owners(random: &mut Rng) -> Value {
    let mut owner = |kind: &str, is_controller| {
        let (name, uid) = (format!("web-{}", random.u8(..9)), random.u32(..).to_string());
        json!({
            "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid,
            "controller": is_controller, "blockOwnerDeletion": is_controller,
        })
    };
    let owners = [owner("ReplicaSet", Some(true)), owner("DaemonSet", None)];
    json!(owners[..random.usize(..3)])
}

fn service(random: &mut Rng) -> Value {
    let port = |number: u16, target: Value| json!({"name": format!("port-{number}"), "port": number, "targetPort": target});
    json!({
        "type": random.choice(["ClusterIP", "NodePort"]), "selector": {"app": "a"}, "externalIPs": ["192.0.2.2", "192.0.2.1"],
        "ports": [port(1 + random.u16(..1000), json!(8080)), port(1001, json!("http"))],
    })
}

/// One label and a condition on another.
fn selector(random: &mut Rng) -> Value {
    let condition = random.choice([
        json!({"key": "tier", "operator": "In", "values": ["b", "a"]}),
        json!({"key": "tier", "operator": "NotIn", "values": ["b"]}),
        json!({"key": "tier", "operator": "Exists"}),
        json!({"key": "tier", "operator": "DoesNotExist"}),
    ]);
    random
        .choice([json!({}), json!({"matchLabels": {"app": "a"}, "matchExpressions": [condition]})])
        .unwrap_or_default()
}

fn network_policy(random: &mut Rng) -> Value {
    let peers = json!([
        {"podSelector": selector(random)}, {"namespaceSelector": selector(random)},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.2.0.0/16", "10.1.0.0/16"]}},
    ]);
    let ports = json!([
        {"port": 1 + random.u16(..1000), "protocol": "UDP"}, {"port": "http"}, {"port": 2000, "endPort": 3000},
    ]);
    json!({
        "podSelector": selector(random), "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers, "ports": ports}, {"ports": ports}], "egress": [{"to": peers}],
    })
}

fn authorization_policy(random: &mut Rng) -> Value {
    let rules = json!([
        {"from": [{"source": {"principals": ["b", "a"], "namespaces": ["red"], "ipBlocks": ["10.0.0.0/8"]}}]},
        {"to": [{"operation": {"methods": ["GET", "POST"], "paths": ["/a"], "ports": ["80"], "hosts": ["a.example"]}}]},
        {"from": [{"source": {"requestPrincipals": ["*"], "remoteIpBlocks": ["192.0.2.0/24"]}}],
         "when": [{"key": "request.headers[a]", "values": ["b"], "notValues": ["c"]}]},
    ]);
    let selector = random.choice([json!(null), json!({"matchLabels": {"app": "a"}})]);
    let action = random.choice([json!(null), json!("ALLOW"), json!("DENY"), json!("AUDIT"), json!("CUSTOM")]);
    json!({"selector": selector, "action": action, "rules": rules})
}

/// Makes the API server serve Istio's AuthorizationPolicy.
pub(crate) fn authorization_policy_definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let names = json!({
        "kind": "AuthorizationPolicy", "listKind": "AuthorizationPolicyList", "plural": "authorizationpolicies",
        "singular": "authorizationpolicy",
    });
    json!({
        "metadata": {"name": "authorizationpolicies.security.istio.io"},
        "spec": {
            "group": "security.istio.io", "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    })
}
