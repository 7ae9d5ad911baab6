//! Keeps a [`Cluster`](crate::cluster::Cluster) as the API server has it: one
//! watch for each kind of object.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, TryStreamExt as _, future::Either};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kestrel_runtime::admin::Ready;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    cluster::{Key, Kind, Object, Owner, Shared},
    inject::{INJECT, INJECTED},
};

/// Objects that an answer to a list holds at most: it lies in memory as a whole, which whole pods fill soonest.
const PAGE: u32 = 50;
const PAGE_OF_PODS: u32 = 10;
const PAGE_OF_METADATA: u32 = 250;
/// Between looks whether another watch has listed its objects.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The watch of one kind.
pub struct Watch {
    client: Client,
    kind: Kind,
    cluster: Arc<Shared>,
    ready: Option<Ready>,
    /// Keys that the list under way has brought.
    listed: BTreeSet<Key>,
    problem: String,
}

impl Watch {
    /// `ready`, if given, is met once all objects have been listed.
    pub fn new(client: Client, kind: Kind, cluster: Arc<Shared>, ready: Option<Ready>) -> Self {
        Self { client, kind, cluster, ready, listed: BTreeSet::new(), problem: String::new() }
    }

    /// Follows for ever.
    pub async fn follow(mut self) {
        // Namespaces say about which pods the webhook is asked, also of those that only look injected.
        let is_of_pods = matches!(self.kind, Kind::InjectedPod | Kind::OtherPod);
        while is_of_pods && !self.cluster.read().knows_all(Kind::Namespace) {
            sleep(LOOK_EVERY).await;
        }
        let mut events = pin!(self.events().default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event),
                Err(error) => self.complain(&error),
            }
        }
    }

    fn events(&self) -> impl Stream<Item = watcher::Result<Event<Object>>> + use<> {
        let config = selection(self.kind);
        if self.kind == Kind::OtherPod {
            let pods = Api::<PartialObjectMeta<Pod>>::all(self.client.clone());
            let taken = |pod: PartialObjectMeta<Pod>| taken_apart(pod.metadata, Value::Null);
            Either::Left(watcher(pods, config).map_ok(move |event| each(event, taken)))
        } else {
            let objects = Api::<DynamicObject>::all_with(self.client.clone(), &resource(self.kind));
            let taken = |object: DynamicObject| taken_apart(object.metadata, object.data);
            Either::Right(watcher(objects, config).map_ok(move |event| each(event, taken)))
        }
    }

    fn take(&mut self, event: Event<Object>) {
        match event {
            Event::Init => self.listed.clear(),
            // Most pods ask for nothing; their names are not kept either.
            Event::InitApply(object) | Event::Apply(object)
                if self.kind == Kind::OtherPod && !object.annotations.contains_key(INJECT) =>
            {
                self.cluster.write().remove(self.kind, &object.key);
            }
            Event::InitApply(object) => {
                self.listed.insert(object.key.clone());
                self.put(object);
            }
            Event::InitDone => {
                self.cluster.write().retain(self.kind, &self.listed);
                self.listed.clear();
                self.works();
            }
            Event::Apply(object) => self.put(object),
            Event::Delete(object) => self.cluster.write().remove(self.kind, &object.key),
        }
    }

    fn put(&self, object: Object) {
        let name = object.key.name.clone();
        if let Err(problem) = self.cluster.write().put(self.kind, object) {
            warn!("InjectionProfile {name} cannot be used and covers no pod: {problem}");
        }
    }

    fn works(&mut self) {
        if !self.problem.is_empty() {
            info!("{} are watched", resource(self.kind).plural);
            self.problem.clear();
        }
        self.meet();
    }

    fn meet(&self) {
        if let Some(ready) = &self.ready {
            ready.set(true);
        }
    }

    fn complain(&mut self, error: &watcher::Error) {
        // Without its definition there is no profile.
        if self.kind == Kind::InjectionProfile && is_not_found(error) {
            self.cluster.write().retain(self.kind, &BTreeSet::new());
            self.meet();
        }
        let problem = error.to_string();
        if self.problem != problem {
            warn!(
                "{} cannot be watched, what is known of them may be old: {problem}",
                resource(self.kind).plural
            );
            self.problem = problem;
        }
    }
}

/// Where objects of a kind are found.
pub(crate) fn resource(kind: Kind) -> ApiResource {
    let (group, version, kind, plural) = match kind {
        Kind::Namespace => ("", "v1", "Namespace", "namespaces"),
        Kind::InjectionProfile => ("kestrel.ai", "v1alpha1", "InjectionProfile", "injectionprofiles"),
        Kind::LimitRange => ("", "v1", "LimitRange", "limitranges"),
        Kind::ResourceQuota => ("", "v1", "ResourceQuota", "resourcequotas"),
        Kind::InjectedPod | Kind::OtherPod => ("", "v1", "Pod", "pods"),
        Kind::FailedCreation => ("", "v1", "Event", "events"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Which objects of the kind's resource are looked at, chosen by the API server.
fn selection(kind: Kind) -> watcher::Config {
    let all = watcher::Config::default().page_size(PAGE);
    let alive = "status.phase!=Succeeded,status.phase!=Failed";
    match kind {
        Kind::InjectedPod => all.page_size(PAGE_OF_PODS).labels(&format!("{INJECTED}=true")).fields(alive),
        Kind::OtherPod => all.page_size(PAGE_OF_METADATA).labels(&format!("{INJECTED}!=true")).fields(alive),
        Kind::FailedCreation => all.fields("reason=FailedCreate"),
        _ => all,
    }
}

fn each<K>(event: Event<K>, taken: impl Fn(K) -> Object) -> Event<Object> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(taken(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(taken(object)),
        Event::Delete(object) => Event::Delete(taken(object)),
    }
}

fn taken_apart(metadata: ObjectMeta, body: Value) -> Object {
    let mut owners = metadata.owner_references.into_iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true));
    Object {
        key: Key {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
        },
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        version: metadata.resource_version.unwrap_or_default(),
        created: metadata.creation_timestamp.map(|time| time.0),
        controller: controller.map(|owner| Owner {
            api_version: owner.api_version,
            kind: owner.kind,
            name: owner.name,
            uid: owner.uid,
        }),
        body,
        seen: Timestamp::now(),
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
