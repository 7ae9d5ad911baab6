//! The change to a pod as a JSON patch (RFC 6902) that only adds: what is in
//! the pod stays as it is, whether it is known here or not.

use serde::Serialize;
use serde_json::{Value, json};

use super::{INJECTED, INJECTED_BY, Plan, STATUS, pod::Pod, sidecar};

/// Local volumes that don't keep the cluster autoscaler from emptying a node.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// One `add` operation.
#[derive(Debug, PartialEq, Serialize)]
pub struct Add {
    op: &'static str,
    /// Where, as a JSON pointer (RFC 6901).
    pub path: String,
    /// What.
    pub value: Value,
}

/// Gives the pod what is planned. The collector comes after the pod's own init
/// containers: it starts when they are done, beside which nothing waits for
/// it, and of several sidecars it ends first, while a service mesh's proxy
/// still carries its last lines.
pub(super) fn inject(pod: &Pod, plan: &Plan<'_>) -> Vec<Add> {
    let spec = &pod.spec;
    let mut patch = Vec::new();
    let evictable = match pod.annotation(SAFE_TO_EVICT) {
        None | Some("") => sidecar::STATE_VOLUME.to_owned(),
        Some(volumes) => format!("{volumes},{}", sidecar::STATE_VOLUME),
    };
    match pod.labels() {
        None => add(&mut patch, "/metadata/labels".to_owned(), json!({INJECTED: "true"})),
        Some(_) => add(&mut patch, format!("/metadata/labels/{}", escape(INJECTED)), Value::from("true")),
    }
    annotate(&mut patch, pod, [(STATUS, &plan.status()), (SAFE_TO_EVICT, &evictable)]);
    if !plan.profile.name.is_empty() {
        annotate(&mut patch, pod, [(INJECTED_BY, &plan.profile.name)]);
    }
    append(&mut patch, "/spec/volumes", spec.volumes.as_deref(), sidecar::volumes());
    append(
        &mut patch,
        "/spec/initContainers",
        spec.init_containers.as_deref(),
        vec![sidecar::container(plan)],
    );
    patch
}

/// Writes a status onto the pod and leaves it alone otherwise.
pub(super) fn note(pod: &Pod, status: &str) -> Vec<Add> {
    let mut patch = Vec::new();
    annotate(&mut patch, pod, [(STATUS, status)]);
    patch
}

fn add(patch: &mut Vec<Add>, path: String, value: Value) {
    patch.push(Add { op: "add", path, value });
}

/// Sets annotations, except those that have the value already. Their map is
/// there: a pod without annotations asks for nothing.
fn annotate<const N: usize>(patch: &mut Vec<Add>, pod: &Pod, annotations: [(&str, &str); N]) {
    for (key, value) in annotations {
        if pod.annotation(key) != Some(value) {
            add(patch, format!("/metadata/annotations/{}", escape(key)), Value::from(value));
        }
    }
}

/// Appends to a list, which is made if it is not there.
fn append<T>(patch: &mut Vec<Add>, path: &str, list: Option<&[T]>, items: Vec<Value>) {
    if list.is_none() {
        add(patch, path.to_owned(), Value::from(items));
    } else {
        for item in items {
            add(patch, format!("{path}/-"), item);
        }
    }
}

/// A key as a part of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
