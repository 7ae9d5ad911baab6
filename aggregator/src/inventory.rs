//! The cluster's inventory: watched once, kept in the form of the wire, and
//! told to every connection anew.

pub mod convert;
mod kind;
pub mod mirror;
pub mod pods;
mod watch;

pub use kind::Kind;
pub use mirror::{Deletion, Mirror};
pub use pods::Pods;

use anyhow::{Context as _, bail};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Namespace, Node, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, GroupVersionKind},
};
use prost::Message;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::signals::Nodes;
use convert::{AuthorizationPolicy, Workload};
use watch::{Outage, Sink, follow};

/// Watches every kind until the drain, beginning as soon as the process does:
/// a standby knows the cluster before it leads. A kind that can't be watched
/// costs only itself.
///
/// # Errors
/// A watch ended before the drain, which is a mistake in the program.
pub async fn watch(
    client: Client,
    mirror: Mirror,
    pods: Pods,
    nodes: Nodes,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let (mut watches, outage) = (JoinSet::new(), Outage::default());

    let records = Records { mirror: mirror.clone(), kind: Kind::Namespace, convert: convert::namespace };
    let (api, resource) = all::<Namespace>(&client);
    watches.spawn(follow(api, resource, records, outage.clone(), drain.clone()));

    let records = Records { mirror: mirror.clone(), kind: Kind::Node, convert: convert::node };
    let (api, resource) = all::<Node>(&client);
    watches.spawn(follow(api, resource, NodeSink { records, nodes }, outage.clone(), drain.clone()));

    let pod_records = Records { mirror: mirror.clone(), kind: Kind::Pod, convert: convert::pod };
    let (api, resource) = all::<Pod>(&client);
    watches.spawn(follow(
        api,
        resource,
        PodSink { records: pod_records, pods },
        outage.clone(),
        drain.clone(),
    ));

    for (kind, resource) in [
        (Kind::Deployment, ApiResource::erase::<Deployment>(&())),
        (Kind::StatefulSet, ApiResource::erase::<StatefulSet>(&())),
        (Kind::DaemonSet, ApiResource::erase::<DaemonSet>(&())),
        (Kind::ReplicaSet, ApiResource::erase::<ReplicaSet>(&())),
        (Kind::Job, ApiResource::erase::<Job>(&())),
        (Kind::CronJob, ApiResource::erase::<CronJob>(&())),
    ] {
        let name = resource.kind.clone();
        let convert = move |object: &Workload| convert::workload(&name, object);
        let records = Records { mirror: mirror.clone(), kind, convert };
        watches.spawn(follow(
            Api::all_with(client.clone(), &resource),
            resource,
            records,
            outage.clone(),
            drain.clone(),
        ));
    }

    let records = Records { mirror: mirror.clone(), kind: Kind::Service, convert: convert::service };
    let (api, resource) = all::<Service>(&client);
    watches.spawn(follow(api, resource, records, outage.clone(), drain.clone()));

    let records =
        Records { mirror: mirror.clone(), kind: Kind::NetworkPolicy, convert: convert::network_policy };
    let (api, resource) = all::<NetworkPolicy>(&client);
    watches.spawn(follow(api, resource, records, outage.clone(), drain.clone()));

    let records = Records { mirror, kind: Kind::AuthorizationPolicy, convert: convert::authorization_policy };
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("security.istio.io", "v1beta1", "AuthorizationPolicy"),
        "authorizationpolicies",
    );
    let api: Api<AuthorizationPolicy> = Api::all_with(client, &resource);
    watches.spawn(follow(api, resource, records, outage, drain.clone()));

    while let Some(ended) = watches.join_next().await {
        ended.context("a watch failed")?;
        if !drain.is_cancelled() {
            bail!("a watch ended before the process was asked to");
        }
    }
    Ok(())
}

fn all<K: Resource<DynamicType = ()>>(client: &Client) -> (Api<K>, ApiResource) {
    (Api::all(client.clone()), ApiResource::erase::<K>(&()))
}

/// Objects that are records of one kind and nothing else.
struct Records<F> {
    mirror: Mirror,
    kind: Kind,
    convert: F,
}

impl<K, M, F> Sink<K> for Records<F>
where
    K: Resource,
    M: Message,
    F: Fn(&K) -> M + Send + 'static,
{
    fn begin(&self) {
        self.mirror.begin(self.kind);
    }

    fn apply(&self, object: &K) {
        self.mirror.apply(self.kind, uid(object), &(self.convert)(object));
    }

    fn remove(&self, object: &K) {
        self.mirror.remove(self.kind, uid(object));
    }

    fn finish(&self) {
        self.mirror.finish(self.kind);
    }

    fn skip(&self) {
        self.mirror.skip(self.kind);
    }
}

struct NodeSink<R> {
    records: R,
    nodes: Nodes,
}

impl<R: Sink<Node>> Sink<Node> for NodeSink<R> {
    fn begin(&self) {
        self.records.begin();
        self.nodes.begin();
    }

    fn apply(&self, object: &Node) {
        self.records.apply(object);
        self.nodes.seen(object);
    }

    fn remove(&self, object: &Node) {
        self.records.remove(object);
        self.nodes.gone(object.metadata.name.as_deref().unwrap_or_default());
    }

    fn finish(&self) {
        self.records.finish();
        self.nodes.finish();
    }

    fn skip(&self) {
        self.records.skip();
    }
}

struct PodSink<F> {
    records: Records<F>,
    pods: Pods,
}

impl<F> PodSink<F> {
    fn mirror(&self) -> &Mirror {
        &self.records.mirror
    }
}

impl<F> Sink<Pod> for PodSink<F>
where
    Records<F>: Sink<Pod>,
{
    fn begin(&self) {
        self.mirror().begin(Kind::OwnerlessPod);
        self.records.begin();
        self.pods.begin();
    }

    fn apply(&self, object: &Pod) {
        match convert::ownerless_pod(object) {
            Some(workload) => self.mirror().apply(Kind::OwnerlessPod, uid(object), &workload),
            // It may have been adopted.
            None => self.mirror().remove(Kind::OwnerlessPod, uid(object)),
        }
        self.records.apply(object);
        self.pods.apply(object);
    }

    fn remove(&self, object: &Pod) {
        self.mirror().remove(Kind::OwnerlessPod, uid(object));
        self.records.remove(object);
        self.pods.remove(object);
    }

    fn finish(&self) {
        self.mirror().finish(Kind::OwnerlessPod);
        self.records.finish();
        self.pods.finish();
    }

    fn skip(&self) {
        self.mirror().skip(Kind::OwnerlessPod);
        self.records.skip();
        self.pods.skip();
    }
}

fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}
