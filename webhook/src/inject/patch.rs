//! The change to a pod as a JSON patch (RFC 6902) that only adds: what is in
//! the pod stays as it is, whether it is known here or not.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use super::{
    INJECTED, INJECTED_BY, Plan, RECEIVES_ACCESS_LOGS, STATUS,
    pod::Pod,
    sidecar::{self, Container, Volume},
};

/// Local volumes that don't keep the cluster autoscaler from emptying a node.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// One `add` operation.
#[derive(Debug, PartialEq, Serialize)]
pub struct Add {
    op: &'static str,
    /// Where, as a JSON pointer (RFC 6901).
    pub path: Cow<'static, str>,
    /// What.
    pub value: Value,
}

/// What is added.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A label or an annotation.
    Text(String),
    /// The first labels of a pod.
    Labels(BTreeMap<&'static str, &'static str>),
    /// A part of a list.
    Item(Item),
    /// A list that was not there.
    List(Vec<Item>),
}

/// A part of a list.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(private_interfaces, reason = "what the collector consists of matters to nobody else")]
pub enum Item {
    /// Of the pod's volumes.
    Volume(Volume),
    /// Of its init containers.
    Container(Box<Container>),
}

/// Gives the pod what is planned. The collector comes after the pod's own init
/// containers: it starts when they are done, beside which nothing waits for
/// it, and of several sidecars it ends first, while a service mesh's proxy
/// still carries its last lines.
pub(super) fn inject(pod: &Pod, plan: Plan<'_>, status: &str) -> Vec<Add> {
    let spec = &pod.spec;
    let mut patch = Vec::new();
    let evictable = match pod.annotation(SAFE_TO_EVICT) {
        None | Some("") => sidecar::STATE_VOLUME.to_owned(),
        Some(volumes) => format!("{volumes},{}", sidecar::STATE_VOLUME),
    };
    let receives = plan.receives_access_logs.then_some(RECEIVES_ACCESS_LOGS);
    let labels = [INJECTED].into_iter().chain(receives);
    match pod.labels() {
        None => {
            add(&mut patch, "/metadata/labels", Value::Labels(labels.map(|label| (label, "true")).collect()));
        }
        Some(_) => labels.for_each(|label| {
            add(&mut patch, format!("/metadata/labels/{}", escape(label)), Value::Text("true".to_owned()));
        }),
    }
    annotate(&mut patch, pod, [(STATUS, status), (SAFE_TO_EVICT, &evictable)]);
    if !plan.profile.name.is_empty() {
        annotate(&mut patch, pod, [(INJECTED_BY, &plan.profile.name)]);
    }
    let volumes = sidecar::volumes().map(Item::Volume);
    append(&mut patch, "/spec/volumes", spec.volumes.is_some(), volumes);
    let container = Item::Container(Box::new(sidecar::container(plan)));
    append(&mut patch, "/spec/initContainers", spec.init_containers.is_some(), [container]);
    patch
}

/// Writes a status onto the pod and leaves it alone otherwise.
pub(super) fn note(pod: &Pod, status: &str) -> Vec<Add> {
    let mut patch = Vec::new();
    annotate(&mut patch, pod, [(STATUS, status)]);
    patch
}

fn add(patch: &mut Vec<Add>, path: impl Into<Cow<'static, str>>, value: Value) {
    patch.push(Add { op: "add", path: path.into(), value });
}

/// Sets annotations, except those that have the value already. Their map is
/// there: a pod without annotations asks for nothing.
fn annotate<const N: usize>(patch: &mut Vec<Add>, pod: &Pod, annotations: [(&str, &str); N]) {
    for (key, value) in annotations {
        if pod.annotation(key) != Some(value) {
            add(patch, format!("/metadata/annotations/{}", escape(key)), Value::Text(value.to_owned()));
        }
    }
}

/// Appends to a list, which is made if it is not there.
fn append<const N: usize>(patch: &mut Vec<Add>, path: &'static str, is_there: bool, items: [Item; N]) {
    if is_there {
        for item in items {
            add(patch, format!("{path}/-"), Value::Item(item));
        }
    } else {
        add(patch, path, Value::List(items.into()));
    }
}

/// A key as a part of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
