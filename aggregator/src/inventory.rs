//! The cluster's inventory: watched once, kept in the form of the wire, and
//! told to every connection anew.

pub mod convert;
mod index;
mod integrations;
mod key;
mod kind;
pub mod mirror;
mod objects;
pub mod pods;
mod selector;
mod sink;
mod watch;

pub use index::{Relation, Resident, Selection};
pub use integrations::Integrations;
pub use kind::Kind;
pub use mirror::{Deletion, Mirror};
pub use objects::Objects;
pub use pods::Pods;
pub use selector::{Requirement, Selector};
pub(crate) use sink::{Sink, uid};
pub use watch::Watches;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{
        DaemonSet, DaemonSetStatus, Deployment, DeploymentStatus, ReplicaSet, StatefulSet, StatefulSetStatus,
    },
    batch::v1::{CronJob, CronJobStatus, Job, JobStatus},
    core::v1::{Namespace, Node, Pod, Service},
    events::v1::Event,
    networking::v1::NetworkPolicy,
};
use kube::{
    Client, Resource,
    api::{ApiResource, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    excluded::Excluded,
    signals::{
        JobSink, Judged, Nodes, Signals,
        component::Workloads,
        cron_job,
        event::{Events, Mark, Started},
        rollout,
    },
    uplink::Retry,
};
use convert::Workload;
use sink::{NamespaceSink, Outside, PodSink, Records, Takers};
use watch::{Source, follow};

/// Who takes what the watches see.
pub struct Parts {
    /// The records.
    pub mirror: Mirror,
    /// What runs where.
    pub pods: Pods,
    /// What is wrong.
    pub signals: Signals,
    /// Istio's root namespace: policies there are for the whole mesh.
    pub mesh_root: String,
    /// What the commit may tell of.
    pub integrations: Integrations,
}

/// Watches every kind until the drain, beginning as soon as the process does:
/// a standby knows the cluster before it leads. A kind that can't be watched
/// costs only itself. `retry` says how long to wait between attempts, and before
/// what is forbidden or not there is tried again.
///
/// # Errors
/// A watch ended before the drain, which is a mistake in the program.
pub async fn watch(
    client: Client,
    Parts { mirror, pods, signals, mesh_root, integrations }: Parts,
    watches: Watches,
    retry: Retry,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut tasks =
        Tasks { client: client.clone(), watches, retry, drain: drain.clone(), tasks: JoinSet::new() };

    tasks.watch(
        erased::<Namespace>(),
        vec![
            records(&mirror, Kind::Namespace, |object| Some(convert::namespace(object))),
            Box::new(NamespaceSink(pods.clone())),
        ],
    );
    tasks.watch(
        erased::<Node>(),
        vec![
            related(
                &mirror,
                Kind::Node,
                |object| Some(convert::node(object)),
                |object| Relation::Node(object),
            ),
            Box::new(signals.nodes),
        ],
    );
    tasks.watch(
        erased::<Pod>(),
        vec![
            records(&mirror, Kind::OwnerlessPod, convert::ownerless_pod),
            Box::new(PodSink { mirror: mirror.clone(), pods }),
            Box::new(signals.pods),
            Box::new(Started(signals.events)),
        ],
    );
    tasks.watch_workloads::<DeploymentStatus>(
        (Kind::Deployment, erased::<Deployment>()),
        &mirror,
        vec![
            Box::new(Judged { register: signals.deployments, subject: rollout::deployment }),
            Box::new(Workloads {
                components: signals.components.clone(),
                kind: "Deployment",
                pods: |object: &Workload<DeploymentStatus>| object.spec.replicas.unwrap_or(1),
            }),
        ],
    );
    tasks.watch_workloads::<StatefulSetStatus>(
        (Kind::StatefulSet, erased::<StatefulSet>()),
        &mirror,
        vec![Box::new(Judged { register: signals.stateful_sets, subject: rollout::stateful_set })],
    );
    tasks.watch_workloads::<DaemonSetStatus>(
        (Kind::DaemonSet, erased::<DaemonSet>()),
        &mirror,
        vec![
            Box::new(Judged { register: signals.daemon_sets, subject: rollout::daemon_set }),
            Box::new(Workloads {
                components: signals.components,
                kind: "DaemonSet",
                pods: |object: &Workload<DaemonSetStatus>| {
                    object.status.as_ref().map_or(0, |status| status.desired_number_scheduled)
                },
            }),
        ],
    );
    tasks.watch_workloads::<JobStatus>(
        (Kind::Job, erased::<Job>()),
        &mirror,
        vec![Box::new(JobSink { jobs: signals.jobs, cron_jobs: signals.cron_jobs.clone() })],
    );
    tasks.watch_workloads::<CronJobStatus>(
        (Kind::CronJob, erased::<CronJob>()),
        &mirror,
        vec![Box::new(Judged { register: signals.cron_jobs, subject: cron_job::cron_job })],
    );
    let convert = |object: &Workload| Some(convert::workload("ReplicaSet", object));
    tasks.watch(
        erased::<ReplicaSet>(),
        vec![related(&mirror, Kind::ReplicaSet, convert, |object| Relation::Controller(&object.metadata))],
    );
    tasks.watch(
        erased::<Service>(),
        vec![related(
            &mirror,
            Kind::Service,
            |object| Some(convert::service(object)),
            |object| Relation::Service(object),
        )],
    );
    tasks.watch(
        erased::<NetworkPolicy>(),
        vec![related(
            &mirror,
            Kind::NetworkPolicy,
            |object| Some(convert::network_policy(object)),
            |object| Relation::Policy(convert::network_policy_selection(object)),
        )],
    );
    tasks.follow(
        authorization_policies(),
        vec![related(
            &mirror,
            Kind::AuthorizationPolicy,
            |object| Some(convert::authorization_policy(object)),
            move |object| Relation::Policy(convert::authorization_policy_selection(object, &mesh_root)),
        )],
    );

    let look = integrations::look(client, integrations, mirror, retry);
    tasks.tasks.spawn(async move {
        let _drained = drain.run_until_cancelled(look).await;
    });
    tasks.run().await
}

/// Watches the Warning events until the drain; what of the first list is told
/// depends on `mark`. They are no inventory: nothing waits for them. Those of `excluded` namespaces
/// stay in the cluster.
///
/// # Errors
/// The watch ended before the drain, which is a mistake in the program.
pub async fn watch_events(
    client: Client,
    events: Events,
    excluded: Excluded,
    mark: impl Future<Output = Mark>,
    watches: Watches,
    retry: Retry,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let Some(mark) = drain.run_until_cancelled(mark).await else { return Ok(()) };
    events.set_mark(mark);
    let mut tasks = Tasks { client, watches, retry, drain, tasks: JoinSet::new() };
    let warnings = Source { resource: erased::<Event>(), fields: "type=Warning", versions: &[] };
    tasks.follow(warnings, vec![Box::new(Outside { excluded, sink: events })]);
    tasks.run().await
}

/// Of Istio, in the versions that it has had since 1.5.
fn authorization_policies() -> Source {
    let kind = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
    Source {
        resource: ApiResource::from_gvk_with_plural(&kind, "authorizationpolicies"),
        fields: "",
        versions: &["v1", "v1beta1"],
    }
}

struct Tasks {
    client: Client,
    watches: Watches,
    retry: Retry,
    drain: CancellationToken,
    tasks: JoinSet<()>,
}

impl Tasks {
    /// Watches a kind of workload of which there are signals.
    fn watch_workloads<Status>(
        &mut self,
        (kind, resource): (Kind, ApiResource),
        mirror: &Mirror,
        mut takers: Takers<Workload<Status>>,
    ) where
        Status: Clone + Default + DeserializeOwned + Send + Sync + 'static,
    {
        let name = resource.kind.clone();
        let convert = move |object: &Workload<Status>| Some(convert::workload(&name, object));
        let records = match kind {
            Kind::Job => related(mirror, kind, convert, |object| Relation::Controller(&object.metadata)),
            _ => records(mirror, kind, convert),
        };
        takers.insert(0, records);
        self.watch(resource, takers);
    }

    /// Watches what every cluster has.
    fn watch<K>(&mut self, resource: ApiResource, takers: Takers<K>)
    where
        K: Resource + DeserializeOwned + 'static,
    {
        self.follow(Source { resource, fields: "", versions: &[] }, takers);
    }

    fn follow<K>(&mut self, source: Source, takers: Takers<K>)
    where
        K: Resource + DeserializeOwned + 'static,
    {
        let (client, watches, drain) = (self.client.clone(), self.watches.clone(), self.drain.clone());
        self.tasks.spawn(follow(client, source, takers, watches, self.retry, drain));
    }

    async fn run(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a watch failed")?;
            if !self.drain.is_cancelled() {
                bail!("a watch ended before the process was asked to");
            }
        }
        Ok(())
    }
}

fn erased<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

fn records<K, M, F>(mirror: &Mirror, kind: Kind, convert: F) -> Box<dyn Sink<K>>
where
    K: Resource,
    M: prost::Message + 'static,
    F: Fn(&K) -> Option<M> + Send + 'static,
{
    related(mirror, kind, convert, |_| Relation::None)
}

fn related<K, M, F, R>(mirror: &Mirror, kind: Kind, convert: F, relate: R) -> Box<dyn Sink<K>>
where
    K: Resource,
    M: prost::Message + 'static,
    F: Fn(&K) -> Option<M> + Send + 'static,
    R: Fn(&K) -> Relation<'_> + Send + 'static,
{
    Box::new(Records { mirror: mirror.clone(), kind, convert, relate })
}

impl Sink<Node> for Nodes {
    fn begin(&self) {
        Self::begin(self);
    }

    fn apply(&self, object: &Node) {
        self.seen(object, Timestamp::now());
    }

    fn remove(&self, object: &Node) {
        self.gone(object.metadata.name.as_deref().unwrap_or_default(), Timestamp::now());
    }

    fn finish(&self) {
        Self::finish(self, Timestamp::now());
    }

    fn hears(&self, does: bool) {
        Self::hears(self, does, Timestamp::now());
    }
}

#[cfg(test)]
mod tests;
