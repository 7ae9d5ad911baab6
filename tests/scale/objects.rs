//! The objects of a large cluster, in number, size and relations as they are in one.

use serde_json::{Value, json};

/// The operator's namespace.
pub(crate) const OPERATOR: &str = "kestrel-ai";
/// The node agents' ServiceAccount.
pub(crate) const AGENT: &str = "kestrel-node-agent";

const NAMESPACES: usize = 100;
const CREATED: &str = "2026-01-01T00:00:00Z";

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) pods: usize,
    /// half of them Deployments, half of them their ReplicaSets
    pub(crate) workloads: usize,
    pub(crate) services: usize,
}

impl Size {
    /// With so many nodes, ten pods on each.
    pub(crate) fn of(nodes: usize) -> Self {
        Self { nodes, pods: 10 * nodes, workloads: nodes, services: nodes }
    }
}

/// An object as etcd keeps it.
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) content: Value,
}

/// A namespaced or cluster-scoped object's place.
struct Place<'a> {
    /// the part of etcd's key
    key: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

/// All objects, what others refer to first. The first pod of each node is the node's agent.
pub(crate) fn objects(size: Size) -> impl Iterator<Item = Object> {
    let namespaces = (0..NAMESPACES).map(|number| namespace_object(&namespace(number)));
    let operator = [namespace_object(OPERATOR)];
    let nodes = (0..size.nodes).map(node);
    let deployments = (0..size.workloads / 2).map(deployment);
    let replica_sets = (0..size.workloads / 2).map(replica_set);
    let services = (0..size.services).map(service);
    let pods = (0..size.pods).map(move |number| pod(number, size));
    namespaces.chain(operator).chain(nodes).chain(deployments).chain(replica_sets).chain(services).chain(pods)
}

fn namespace(number: usize) -> String {
    format!("team-{}", number % NAMESPACES)
}

/// The UID of the object of this kind with this number.
pub(crate) fn uid(kind: u8, number: usize) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}

/// Namespace and name of a pod.
pub(crate) fn pod_name(number: usize, size: Size) -> (String, String) {
    if number < size.nodes {
        return (OPERATOR.to_owned(), format!("kestrel-node-agent-{number:05}"));
    }
    let workload = number % (size.workloads / 2);
    (namespace(workload), format!("service-{workload}-7d4b9c6f5d-{number:05}"))
}

/// The name of the node that a pod runs on.
pub(crate) fn node_name(number: usize, size: Size) -> String {
    format!("ip-10-0-{}.eu-central-1.compute.internal", number % size.nodes)
}

fn object(place: Place<'_>, api: &str, kind: &str, uid: String, parts: Value) -> Object {
    let inside = place.namespace.map(|name| format!("{name}/")).unwrap_or_default();
    let key = format!("/registry/{}/{inside}{}", place.key, place.name);
    let mut content = parts;
    content["apiVersion"] = json!(api);
    content["kind"] = json!(kind);
    let meta = &mut content["metadata"];
    meta["name"] = json!(place.name);
    meta["uid"] = json!(uid);
    meta["creationTimestamp"] = json!(CREATED);
    if let Some(namespace) = place.namespace {
        meta["namespace"] = json!(namespace);
    }
    Object { key, content }
}

fn namespace_object(name: &str) -> Object {
    let number = name.bytes().fold(0, |number, byte| number * 31 % (1 << 40) + usize::from(byte));
    let parts = json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    object(Place { key: "namespaces", namespace: None, name }, "v1", "Namespace", uid(1, number), parts)
}

fn node(number: usize) -> Object {
    let name = format!("ip-10-0-{number}.eu-central-1.compute.internal");
    let labels = json!({
        "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "m6i.2xlarge", "topology.kubernetes.io/zone": "eu-central-1a",
        "topology.kubernetes.io/region": "eu-central-1", "eks.amazonaws.com/nodegroup": "workers",
    });
    let healthy = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": format!("kubelet says: {reason}"),
            "lastTransitionTime": CREATED,
        })
    };
    let status = json!({
        "capacity": {"cpu": "8", "memory": "32Gi", "pods": "58", "ephemeral-storage": "80Gi"},
        "allocatable": {"cpu": "7910m", "memory": "30Gi", "pods": "58", "ephemeral-storage": "76Gi"},
        "addresses": [
            {"type": "InternalIP", "address": format!("10.0.{}.{}", number / 250, number % 250)},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [
            healthy("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            healthy("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            healthy("PIDPressure", "False", "KubeletHasSufficientPID"),
            healthy("Ready", "True", "KubeletReady"),
        ],
        "images": (0..20).map(|image| json!({
            "names": [format!("registry.example/team/image-{image}@sha256:{:064}", image)], "sizeBytes": 123_456_789,
        })).collect::<Vec<_>>(),
    });
    let parts = json!({"metadata": {"labels": labels}, "spec": {}, "status": status});
    object(Place { key: "minions", namespace: None, name: &name }, "v1", "Node", uid(2, number), parts)
}

fn deployment(number: usize) -> Object {
    let (namespace, name) = (namespace(number), format!("service-{number}"));
    let spec = json!({
        "replicas": 18, "selector": {"matchLabels": {"app.kubernetes.io/name": name}}, "template": template(&name),
    });
    let status = json!({
        "observedGeneration": 1, "replicas": 18, "readyReplicas": 18, "availableReplicas": 18, "updatedReplicas": 18,
        "conditions": [
            {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "lastTransitionTime": CREATED},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastTransitionTime": CREATED},
        ],
    });
    let meta = json!({"labels": labels(&name), "generation": 1, "managedFields": managed_fields()});
    let parts = json!({"metadata": meta, "spec": spec, "status": status});
    let place = Place { key: "deployments", namespace: Some(&namespace), name: &name };
    object(place, "apps/v1", "Deployment", uid(3, number), parts)
}

fn replica_set(number: usize) -> Object {
    let (namespace, app) = (namespace(number), format!("service-{number}"));
    let name = format!("{app}-7d4b9c6f5d");
    let spec = json!({
        "replicas": 18, "selector": {"matchLabels": {"app.kubernetes.io/name": app}}, "template": template(&app),
    });
    let status =
        json!({"observedGeneration": 1, "replicas": 18, "readyReplicas": 18, "availableReplicas": 18});
    let owner = owner("apps/v1", "Deployment", &app, uid(3, number));
    let meta = json!({
        "labels": labels(&app), "generation": 1, "ownerReferences": [owner], "managedFields": managed_fields(),
    });
    let parts = json!({"metadata": meta, "spec": spec, "status": status});
    let place = Place { key: "replicasets", namespace: Some(&namespace), name: &name };
    object(place, "apps/v1", "ReplicaSet", uid(4, number), parts)
}

fn service(number: usize) -> Object {
    let (namespace, name) = (namespace(number), format!("service-{number}"));
    let spec = json!({
        "type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "None",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        "selector": {"app.kubernetes.io/name": name},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    });
    let meta = json!({"labels": labels(&name), "managedFields": managed_fields()});
    let parts = json!({"metadata": meta, "spec": spec, "status": {"loadBalancer": {}}});
    let place = Place { key: "services/specs", namespace: Some(&namespace), name: &name };
    object(place, "v1", "Service", uid(5, number), parts)
}

/// A pod that runs.
pub(crate) fn pod(number: usize, size: Size) -> Object {
    let (namespace, name) = pod_name(number, size);
    let workload = number % (size.workloads / 2);
    let (app, owner, account) = if number < size.nodes {
        (AGENT.to_owned(), owner("apps/v1", "DaemonSet", AGENT, uid(6, 0)), AGENT)
    } else {
        let app = format!("service-{workload}");
        let owner = owner("apps/v1", "ReplicaSet", &format!("{app}-7d4b9c6f5d"), uid(4, workload));
        (app, owner, "default")
    };
    let mut spec = template(&app)["spec"].take();
    spec["nodeName"] = json!(node_name(number, size));
    spec["serviceAccountName"] = json!(account);
    let meta = json!({
        "labels": labels(&app), "ownerReferences": [owner], "managedFields": managed_fields(),
        "annotations": {"kubectl.kubernetes.io/restartedAt": CREATED, "prometheus.io/scrape": "true"},
    });
    let parts = json!({"metadata": meta, "spec": spec, "status": pod_status(number, true)});
    let place = Place { key: "pods", namespace: Some(&namespace), name: &name };
    object(place, "v1", "Pod", uid(7, number), parts)
}

/// The status of a pod that runs; one that is not ready has a container that keeps crashing.
pub(crate) fn pod_status(number: usize, is_ready: bool) -> Value {
    let condition = |kind: &str, is_true: bool| {
        let status = if is_true { "True" } else { "False" };
        json!({"type": kind, "status": status, "lastTransitionTime": CREATED})
    };
    let container = |name: &str, is_ready: bool| {
        let state = if is_ready {
            json!({"running": {"startedAt": CREATED}})
        } else {
            json!({"waiting": {
                "reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container=app pod=web",
            }})
        };
        let exit = json!({"terminated": {
            "exitCode": 1, "reason": "Error", "startedAt": CREATED, "finishedAt": CREATED,
            "containerID": format!("containerd://{number:064x}"),
        }});
        json!({
            "name": name, "ready": is_ready, "started": is_ready, "restartCount": if is_ready { 0 } else { 7 },
            "image": format!("registry.example/team/{name}:1.2.3"), "state": state,
            "imageID": format!("registry.example/team/{name}@sha256:{number:064x}"),
            "containerID": format!("containerd://{number:064x}"),
            "lastState": if is_ready { json!({}) } else { exit },
        })
    };
    let ip = format!("10.{}.{}.{}", 64 + number / 62_500, number / 250 % 250, number % 250);
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.0.0.1", "startTime": CREATED,
        "qosClass": "Burstable",
        "conditions": [
            condition("PodReadyToStartContainers", true), condition("Initialized", true),
            condition("Ready", is_ready), condition("ContainersReady", is_ready), condition("PodScheduled", true),
        ],
        "containerStatuses": [container("app", is_ready), container("proxy", true)],
    })
}

fn labels(app: &str) -> Value {
    json!({
        "app.kubernetes.io/name": app, "app.kubernetes.io/instance": "production", "team": "checkout",
        "app.kubernetes.io/version": "1.2.3", "pod-template-hash": "7d4b9c6f5d",
    })
}

fn template(app: &str) -> Value {
    let container = |name: &str| {
        let variables: Vec<Value> = (0..8)
            .map(|number| json!({"name": format!("SETTING_{number}"), "value": "a value of some length"}))
            .collect();
        let probe = json!({
            "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
            "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
        });
        json!({
            "name": name, "image": format!("registry.example/team/{name}:1.2.3"), "imagePullPolicy": "IfNotPresent",
            "env": variables, "readinessProbe": probe, "livenessProbe": probe,
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    };
    let spec = json!({
        "containers": [container("app"), container("proxy")], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "securityContext": {},
        "enableServiceLinks": true,
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
    });
    json!({"metadata": {"labels": labels(app)}, "spec": spec})
}

fn owner(api: &str, kind: &str, name: &str, uid: String) -> Value {
    json!({
        "apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true,
    })
}

/// About 1.5 KB, as a controller and a kubelet leave them.
fn managed_fields() -> Value {
    let container = json!({
        ".": {}, "f:env": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:livenessProbe": {}, "f:name": {},
        "f:ports": {}, "f:readinessProbe": {}, "f:resources": {}, "f:terminationMessagePath": {},
    });
    let metadata =
        json!({"f:labels": {".": {}, "f:team": {}, "f:pod-template-hash": {}}, "f:ownerReferences": {}});
    let spec = json!({
        "f:containers": {"k:{\"name\":\"app\"}": container, "k:{\"name\":\"proxy\"}": container}, "f:dnsPolicy": {},
        "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {}, "f:tolerations": {},
    });
    let status = json!({"f:status": {
        "f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}},
        "f:containerStatuses": {}, "f:hostIP": {}, "f:phase": {}, "f:podIP": {}, "f:startTime": {},
    }});
    let by = |manager: &str, fields: Value| {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "v1", "time": CREATED, "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        })
    };
    json!([
        by("kube-controller-manager", json!({"f:metadata": metadata, "f:spec": spec})),
        by("kubelet", status)
    ])
}
