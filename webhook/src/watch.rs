//! Keeps a [`Cluster`](crate::cluster::Cluster) as the API server has it: one
//! watch for each kind of object.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use futures::StreamExt as _;
use kestrel_runtime::admin::Ready;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tracing::{info, warn};

use crate::cluster::{Key, Kind, Object, Shared};

/// The watch of one kind.
pub struct Watch {
    client: Client,
    kind: Kind,
    cluster: Arc<Shared>,
    ready: Ready,
    /// Keys that the list under way has brought.
    listed: BTreeSet<Key>,
    problem: String,
}

impl Watch {
    /// `ready` is met once all objects have been listed.
    pub fn new(client: Client, kind: Kind, cluster: Arc<Shared>, ready: Ready) -> Self {
        Self { client, kind, cluster, ready, listed: BTreeSet::new(), problem: String::new() }
    }

    /// Follows for ever.
    pub async fn follow(mut self) {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource(self.kind));
        let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event),
                Err(error) => self.complain(&error),
            }
        }
    }

    fn take(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                let object = taken_apart(object);
                self.listed.insert(object.key.clone());
                self.put(object);
            }
            Event::InitDone => {
                self.cluster.write().retain(self.kind, &self.listed);
                self.listed.clear();
                self.works();
            }
            Event::Apply(object) => self.put(taken_apart(object)),
            Event::Delete(object) => self.cluster.write().remove(self.kind, &taken_apart(object).key),
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
        self.ready.set(true);
    }

    fn complain(&mut self, error: &watcher::Error) {
        // Without its definition there is no profile.
        if self.kind == Kind::InjectionProfile && is_not_found(error) {
            self.cluster.write().retain(self.kind, &BTreeSet::new());
            self.ready.set(true);
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

fn resource(kind: Kind) -> ApiResource {
    let (group, version, kind, plural) = match kind {
        Kind::Namespace => ("", "v1", "Namespace", "namespaces"),
        Kind::InjectionProfile => ("kestrel.ai", "v1alpha1", "InjectionProfile", "injectionprofiles"),
        Kind::LimitRange => ("", "v1", "LimitRange", "limitranges"),
        Kind::ResourceQuota => ("", "v1", "ResourceQuota", "resourcequotas"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn taken_apart(object: DynamicObject) -> Object {
    let DynamicObject { metadata, data, .. } = object;
    Object {
        key: Key {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
        },
        labels: metadata.labels.unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        body: data,
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
