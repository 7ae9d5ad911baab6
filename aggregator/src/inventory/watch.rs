//! One watch of one resource, for the life of the process.

use std::{
    collections::HashSet,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use kube::{
    Api, Resource,
    api::ApiResource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// What takes the objects of a watch. It keeps no object.
pub(super) trait Sink<K>: Send + 'static {
    /// A list begins: what it does not mention is gone when it ends.
    fn begin(&self);
    /// The object is so.
    fn apply(&self, object: &K);
    /// The object is gone.
    fn remove(&self, object: &K);
    /// The list is complete.
    fn finish(&self);
    /// There is no list at present, and nobody shall wait for it.
    fn skip(&self);
}

/// Why a watch does not work.
#[derive(Clone, PartialEq, Eq)]
enum Trouble {
    Forbidden,
    NotServed,
    /// The root of the error. It passes.
    Other(String),
}

/// The resources whose watches have passing trouble. An API server that is
/// away gives all of them the same, which is said once.
#[derive(Clone, Default)]
pub(super) struct Outage(Arc<Mutex<Troubled>>);

#[derive(Default)]
struct Troubled {
    resources: HashSet<String>,
    said: HashSet<String>,
}

impl Outage {
    fn begin(&self, resource: &str, why: &str) {
        let mut troubled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubled.resources.insert(resource.to_owned());
        // As many sentences as resources are enough for anything.
        if troubled.said.len() < troubled.resources.len() && troubled.said.insert(why.to_owned()) {
            warn!(
                "what changes in the cluster is not seen at present, as {resource} can't be watched: {why}"
            );
        }
    }

    fn end(&self, resource: &str) {
        let mut troubled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if troubled.resources.remove(resource) && troubled.resources.is_empty() {
            troubled.said.clear();
            info!("what changes in the cluster is seen again");
        }
    }
}

/// Lists in pages and watches until the drain; begins again by itself whatever
/// happens, with a growing pause. Trouble is told once, with the remedy.
pub(super) async fn follow<K>(
    api: Api<K>,
    resource: ApiResource,
    sink: impl Sink<K>,
    outage: Outage,
    drain: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut trouble = None;
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    // A watcher never ends by itself.
    while let Some(Some(event)) = drain.run_until_cancelled(events.next()).await {
        match event {
            Ok(event) => {
                // The beginning of a list is an intention, not a success.
                if !matches!(event, Event::Init) {
                    match trouble.take() {
                        None => {}
                        Some(Trouble::Other(_)) => outage.end(&resource.plural),
                        Some(_) => info!("{} are in the inventory now", resource.plural),
                    }
                }
                match event {
                    Event::Init => sink.begin(),
                    Event::InitApply(object) | Event::Apply(object) => sink.apply(&object),
                    Event::Delete(object) => sink.remove(&object),
                    Event::InitDone => sink.finish(),
                }
            }
            Err(error) => {
                debug!("{}: {error}", resource.plural);
                let Some(found) = judge(error) else { continue };
                if trouble.as_ref() == Some(&found) {
                    continue;
                }
                match &found {
                    Trouble::Other(why) => outage.begin(&resource.plural, why),
                    lasting => {
                        outage.end(&resource.plural);
                        sink.skip();
                        warn!("{}", remedy(&resource, lasting));
                    }
                }
                trouble = Some(found);
            }
        }
    }
}

/// `None`: it belongs to a watch's life.
fn judge(error: watcher::Error) -> Option<Trouble> {
    use watcher::Error::{InitialListFailed, WatchError, WatchStartFailed};
    let code = match &error {
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) => {
            status.code
        }
        WatchError(status) => status.code,
        _ => 0,
    };
    match code {
        403 => Some(Trouble::Forbidden),
        404 => Some(Trouble::NotServed),
        // The watch was away for too long, and lists again.
        410 => None,
        _ => Some(Trouble::Other(anyhow::Error::from(error).root_cause().to_string())),
    }
}

fn remedy(ApiResource { group, plural: resource, .. }: &ApiResource, trouble: &Trouble) -> String {
    match trouble {
        Trouble::Forbidden => format!(
            "{resource} are missing in the inventory, because this process may not watch them; its ClusterRole \
             needs the rule {{apiGroups: [{group:?}], resources: [{resource:?}], verbs: [get, list, watch]}}"
        ),
        _ => format!(
            "{resource} are missing in the inventory, because the API server does not know them in group {group:?}"
        ),
    }
}

#[cfg(test)]
mod tests;
