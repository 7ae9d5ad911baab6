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

pub(crate) const ALL: [Resource; 9] = [
    POD,
    NAMESPACE,
    resource("api/v1", "nodes", "Node", "node"),
    resource("apis/apps/v1", "deployments", "Deployment", "workload"),
    resource("apis/apps/v1", "statefulsets", "StatefulSet", "workload"),
    resource("apis/apps/v1", "daemonsets", "DaemonSet", "workload"),
    resource("apis/apps/v1", "replicasets", "ReplicaSet", "workload"),
    resource("apis/batch/v1", "jobs", "Job", "workload"),
    resource("apis/batch/v1", "cronjobs", "CronJob", "workload"),
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
        json!({"metadata": metadata, "spec": self.spec(random)})
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
