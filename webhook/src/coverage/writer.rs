//! Writes statuses of profiles and Events. Every replica does: what they
//! write is the same, and whoever comes second finds it written.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Error,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::json;
use tokio::time::sleep;
use tracing::warn;

use super::{Report, Telling};
use crate::{
    cluster::{Kind, Shared},
    profile::Status,
    watch,
};

/// Under this name the statuses are ours, and Events come from us.
const NAME: &str = "kestrel-webhook";
/// Between two looks, and so between two writes of a status: one to three times
/// this, by chance, so that of two replicas mostly one writes.
const PAUSE: Duration = Duration::from_secs(1);
/// Events that are written at one look.
const MOST_EVENTS: usize = 10;
/// A status that is not what we wrote is another replica's, which may know
/// more, or a person's; it is set right this much later.
const REPAIR: Duration = Duration::from_secs(300);

/// The writer of one replica.
pub struct Writer {
    client: Client,
    cluster: Arc<Shared>,
    metrics: Metrics,
    /// The last status of each profile that this replica found right.
    wrote: BTreeMap<String, (Status, Instant)>,
    /// Nothing is to be done while the coverage is at this revision.
    settled: Option<u64>,
    problem: String,
}

/// How coverage goes, in numbers.
struct Metrics {
    events: Family<Outcome, Counter>,
    dropped: u64,
    stopped: Gauge,
    pods: Family<State, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            events: Family::default(),
            dropped: 0,
            stopped: Gauge::default(),
            pods: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("kestrel_webhook");
        registry.register(
            "events",
            "Events about pods, by outcome (written, known: another replica was faster, dropped: too many, failed)",
            metrics.events.clone(),
        );
        registry.register(
            "stopped_workloads",
            "Workloads for which injection is stopped because a collector kept a pod from starting",
            metrics.stopped.clone(),
        );
        registry.register(
            "pods",
            "Pods that have not ended and ask for a collector, by state (injected, pending: nobody was asked, skipped)",
            metrics.pods.clone(),
        );
        metrics
    }

    fn count(&self, outcome: &'static str, count: u64) {
        self.events.get_or_create(&Outcome { outcome }).inc_by(count);
    }

    fn set(&self, pods: [(&'static str, usize); 3]) {
        for (state, count) in pods {
            self.pods.get_or_create(&State { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

impl Writer {
    /// Registers its metrics under `kestrel_webhook_`.
    pub fn new(client: Client, cluster: Arc<Shared>, registry: &mut Registry) -> Self {
        let metrics = Metrics::register(registry);
        Self { client, cluster, metrics, wrote: BTreeMap::new(), settled: None, problem: String::new() }
    }

    /// Works for ever.
    pub async fn write(mut self) {
        loop {
            sleep(PAUSE.mul_f64(1.0 + 2.0 * fastrand::f64())).await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let now = Timestamp::now();
        let (revision, events, dropped, reports) = {
            let mut cluster = self.cluster.write();
            cluster.look_for_trouble(now);
            self.metrics.stopped.set(i64::try_from(cluster.stops.count()).unwrap_or(i64::MAX));
            let events = cluster.coverage.tell(MOST_EVENTS);
            let revision = cluster.coverage.revision();
            let is_settled = self.settled == Some(revision);
            let reports = if is_settled { None } else { cluster.reports(now) };
            if reports.is_some() {
                self.metrics.set(cluster.coverage.pods());
            }
            (revision, events, cluster.coverage.dropped(), reports)
        };
        self.metrics.count("dropped", dropped - self.metrics.dropped);
        self.metrics.dropped = dropped;
        let mut problems = Vec::new();
        for telling in events {
            if let Err(problem) = self.tell(telling.clone(), now).await {
                problems.push(problem);
                self.cluster.write().coverage.not_told(&telling);
            }
        }
        if let Some(reports) = reports {
            self.wrote.retain(|name, _| reports.iter().any(|report| report.profile == *name));
            let mut is_settled = true;
            for report in reports {
                match self.report(report).await {
                    Ok(settled) => is_settled &= settled,
                    Err(problem) => {
                        is_settled = false;
                        problems.push(problem);
                    }
                }
            }
            self.settled = is_settled.then_some(revision);
        }
        // Each new one once.
        let problem = problems.pop().unwrap_or_default();
        if self.problem != problem && !problem.is_empty() {
            warn!("{problem}");
        }
        self.problem = problem;
    }

    async fn tell(&self, telling: Telling, now: Timestamp) -> Result<(), String> {
        let Telling { subject, namespace, .. } = &telling;
        let described = format!("{} {namespace}/{}", subject.kind, subject.name);
        let events = Api::<Event>::namespaced(self.client.clone(), namespace);
        match events.create(&PostParams::default(), &event(telling, now)).await {
            Ok(_) => self.metrics.count("written", 1),
            Err(Error::Api(status)) if status.code == 409 => self.metrics.count("known", 1),
            Err(error) => {
                self.metrics.count("failed", 1);
                return Err(format!("an Event on {described} cannot be written: {error}"));
            }
        }
        Ok(())
    }

    /// Writes a status, if it has to be; false if that is not yet over.
    async fn report(&mut self, report: Report) -> Result<bool, String> {
        let Report { profile: name, version, observed, status } = report;
        if observed == status {
            self.wrote.insert(name, (status, Instant::now()));
            return Ok(true);
        }
        if self.wrote.get(&name).is_some_and(|(wrote, at)| *wrote == status && at.elapsed() < REPAIR) {
            return Ok(false);
        }
        let resource = watch::resource(Kind::InjectionProfile);
        let profiles = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let patch = Patch::Apply(json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "resourceVersion": version},
            "status": status,
        }));
        let params = PatchParams::apply(NAME).force();
        match profiles.patch_status(&name, &params, &patch).await {
            Ok(_) => _ = self.wrote.insert(name, (status, Instant::now())),
            // It has changed or is gone, which the watch will say.
            Err(Error::Api(refusal)) if refusal.code == 409 || refusal.code == 404 => {}
            Err(error) => {
                return Err(format!("the status of InjectionProfile {name} cannot be written: {error}"));
            }
        }
        // Until the watch has brought it back.
        Ok(false)
    }
}

fn event(telling: Telling, now: Timestamp) -> Event {
    let name = telling.name();
    let Telling { subject, namespace, reason, note, .. } = telling;
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(subject.api_version),
            kind: Some(subject.kind),
            namespace: Some(namespace),
            name: Some(subject.name),
            uid: Some(subject.uid),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(note),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        source: Some(EventSource { component: Some(NAME.to_owned()), ..EventSource::default() }),
        reporting_component: Some(NAME.to_owned()),
        reporting_instance: Some(NAME.to_owned()),
        ..Event::default()
    }
}
