//! From Kubernetes objects to the records of the wire.
//!
//! `action` is left unset: the mirror knows it when it sends the record.
//!
//! Equal objects give equal bytes: maps are sorted by their type, and a list
//! whose order means nothing to Kubernetes is sorted here.

mod authorization_policy;
mod network_policy;
mod service;

pub use authorization_policy::{
    AuthorizationPolicy, AuthorizationPolicySpec, authorization_policy, authorization_policy_selection,
};
pub use network_policy::{network_policy, network_policy_selection};
pub use service::service;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    },
};
use kestrel_proto::cloud::v1;
use kube::core::object::{NotUsed, Object};
use prost::Message;
use serde::Deserialize;

/// A Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob, read only
/// as far as the wire needs it.
pub type Workload<Status = NotUsed> = Object<WorkloadSpec, Status>;

/// What `kubectl apply` writes down for itself: the whole object again, with
/// values that its owner may have removed since because they were secret.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The part of a workload's spec that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    template: PodTemplate,
    /// CronJob only
    job_template: JobTemplate,
    /// Deployment, StatefulSet, ReplicaSet
    pub(crate) replicas: Option<i32>,
    /// Deployment
    pub(crate) paused: bool,
    /// Deployment, StatefulSet, DaemonSet (s)
    pub(crate) min_ready_seconds: i32,
    /// StatefulSet, DaemonSet
    pub(crate) update_strategy: UpdateStrategy,
    /// StatefulSet
    pub(crate) ordinals: Ordinals,
    /// Job
    pub(crate) completions: Option<i32>,
    /// Job
    pub(crate) parallelism: Option<i32>,
    /// Job, CronJob
    pub(crate) suspend: bool,
}

impl WorkloadSpec {
    /// How long one pod may take to go and its successor to count as available.
    pub(crate) fn turnover(&self) -> Duration {
        let termination = self.template.spec.termination_grace_period_seconds.unwrap_or(30);
        let seconds = i64::from(self.min_ready_seconds).saturating_add(termination);
        Duration::from_secs(seconds.try_into().unwrap_or_default())
    }
}

/// How a StatefulSet or DaemonSet brings a change to its pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct UpdateStrategy {
    /// `RollingUpdate` or `OnDelete`
    pub(crate) r#type: String,
    pub(crate) rolling_update: RollingUpdate,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RollingUpdate {
    /// StatefulSet: pods with a lower ordinal keep their revision
    pub(crate) partition: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ordinals {
    /// of the first pod
    pub(crate) start: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    template: PodTemplate,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodTemplate {
    spec: PodTemplateSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodTemplateSpec {
    service_account_name: Option<String>,
    termination_grace_period_seconds: Option<i64>,
}

/// The record of a namespace.
pub fn namespace(object: &core::Namespace) -> v1::Namespace {
    let meta = &object.metadata;
    v1::Namespace {
        name: text(&meta.name),
        uid: text(&meta.uid),
        labels: map(&meta.labels),
        created_at: created(meta),
        action: 0,
    }
}

/// The record of a workload of `kind`, such as `Deployment`.
pub fn workload<Status: Clone>(kind: &str, object: &Workload<Status>) -> v1::Workload {
    let WorkloadSpec { template, job_template, .. } = &object.spec;
    let account = [template, &job_template.spec.template]
        .into_iter()
        .find_map(|template| template.spec.service_account_name.as_deref());
    workload_record(kind, &object.metadata, account)
}

/// The workload record of a pod that nothing owns; `None` if something does.
pub fn ownerless_pod(object: &core::Pod) -> Option<v1::Workload> {
    let owned = object.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    let account = object.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    (!owned).then(|| workload_record("Pod", &object.metadata, account))
}

fn workload_record(kind: &str, meta: &ObjectMeta, account: Option<&str>) -> v1::Workload {
    v1::Workload {
        name: text(&meta.name),
        namespace: text(&meta.namespace),
        uid: text(&meta.uid),
        kind: kind.to_owned(),
        labels: map(&meta.labels),
        created_at: created(meta),
        action: 0,
        service_account: account.filter(|name| !name.is_empty()).unwrap_or("default").to_owned(),
    }
}

/// The record of a pod.
pub fn pod(object: &core::Pod) -> v1::Pod {
    let meta = &object.metadata;
    let status = object.status.as_ref();
    v1::Pod {
        name: text(&meta.name),
        namespace: text(&meta.namespace),
        uid: text(&meta.uid),
        pod_ip: status.map(|status| text(&status.pod_ip)).unwrap_or_default(),
        labels: map(&meta.labels),
        phase: status.map(|status| text(&status.phase)).unwrap_or_default(),
        owner_references: owner_references(meta),
        created_at: created(meta),
        action: 0,
        ready: status
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
    }
}

/// All owner references of an object, sorted by UID, which is their key.
pub fn owner_references(meta: &ObjectMeta) -> Vec<v1::OwnerReference> {
    let convert = |owner: &OwnerReference| v1::OwnerReference {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: owner.controller.unwrap_or_default(),
        block_owner_deletion: owner.block_owner_deletion.unwrap_or_default(),
    };
    let mut owners: Vec<_> = meta.owner_references.iter().flatten().map(convert).collect();
    owners.sort_by(|a, b| a.uid.cmp(&b.uid));
    owners
}

/// The record of a node.
pub fn node(object: &core::Node) -> v1::Node {
    let meta = &object.metadata;
    v1::Node {
        name: text(&meta.name),
        uid: text(&meta.uid),
        labels: map(&meta.labels),
        internal_ips: addresses(object, "InternalIP"),
        external_ips: addresses(object, "ExternalIP"),
        hostname: addresses(object, "Hostname").pop().unwrap_or_default(),
        ready: conditions(object).any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        instance_type: label(meta, "node.kubernetes.io/instance-type"),
        zone: label(meta, "topology.kubernetes.io/zone"),
        created_at: created(meta),
        action: 0,
    }
}

/// A node as the API server shows it, in the form of a signal.
/// `condition_timestamp` is left unset like `action`.
pub fn node_condition_change(object: &core::Node) -> v1::NodeConditionChange {
    let v1::Node {
        name,
        uid,
        internal_ips,
        external_ips,
        hostname,
        instance_type,
        zone,
        created_at,
        labels: _,
        ready: _,
        action: _,
    } = node(object);
    let status = object.status.as_ref();
    let mut conditions: Vec<_> = conditions(object)
        .map(|condition| v1::NodeCondition {
            r#type: condition.type_.clone(),
            status: condition.status.clone(),
            last_heartbeat_time: time(condition.last_heartbeat_time.as_ref()),
            last_transition_time: time(condition.last_transition_time.as_ref()),
            reason: text(&condition.reason),
            message: text(&condition.message),
        })
        .collect();
    conditions.sort_by(|a, b| a.r#type.cmp(&b.r#type));
    v1::NodeConditionChange {
        name,
        uid,
        conditions,
        internal_ips,
        external_ips,
        hostname,
        instance_type,
        zone,
        capacity: quantities(status.and_then(|status| status.capacity.as_ref())),
        allocatable: quantities(status.and_then(|status| status.allocatable.as_ref())),
        created_at,
        condition_timestamp: None,
        action: 0,
    }
}

fn conditions(object: &core::Node) -> impl Iterator<Item = &core::NodeCondition> {
    object.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

fn addresses(object: &core::Node, kind: &str) -> Vec<String> {
    let addresses = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(|address| address.type_ == kind).map(|address| address.address.clone()).collect()
}

fn quantities(of: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<String, String> {
    of.into_iter().flatten().map(|(name, quantity)| (name.clone(), quantity.0.clone())).collect()
}

/// The metadata of a policy.
fn object_meta(meta: &ObjectMeta) -> v1::ObjectMeta {
    v1::ObjectMeta {
        name: text(&meta.name),
        namespace: text(&meta.namespace),
        labels: map(&meta.labels),
        annotations: annotations(meta),
        resource_version: text(&meta.resource_version),
        uid: text(&meta.uid),
    }
}

fn annotations(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let mut annotations = map(&meta.annotations);
    annotations.remove(LAST_APPLIED);
    annotations
}

/// The elements of a list whose order means nothing.
fn sorted<T: Clone + Ord>(list: Option<&Vec<T>>) -> Vec<T> {
    let mut list = list.cloned().unwrap_or_default();
    list.sort();
    list
}

/// The same for parts of a message.
fn sorted_messages<M: Message>(list: impl Iterator<Item = M>) -> Vec<M> {
    let mut list: Vec<M> = list.collect();
    list.sort_by_cached_key(Message::encode_to_vec);
    list
}

fn label(meta: &ObjectMeta, name: &str) -> String {
    meta.labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

pub(crate) fn text(field: &Option<String>) -> String {
    field.clone().unwrap_or_default()
}

fn map(field: &Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
    field.clone().unwrap_or_default()
}

pub(crate) fn created(meta: &ObjectMeta) -> Option<prost_types::Timestamp> {
    time(meta.creation_timestamp.as_ref())
}

pub(crate) fn time(field: Option<&Time>) -> Option<prost_types::Timestamp> {
    field.map(|time| timestamp(time.0))
}

/// A moment in the form of the wire.
pub fn timestamp(moment: Timestamp) -> prost_types::Timestamp {
    let nanoseconds = moment.as_nanosecond();
    // Both parts fit: a jiff timestamp lies between the years -9999 and 9999.
    prost_types::Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000) as i64,
        nanos: nanoseconds.rem_euclid(1_000_000_000) as i32,
    }
}

#[cfg(test)]
mod tests;
