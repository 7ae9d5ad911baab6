//! One watch of one resource, for the life of the process.

use std::{
    collections::HashSet,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
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
use tokio::time::timeout;
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

/// A watch that is silent for so long after an error is open: attempts that
/// fail are not further apart.
const OPEN_IF_SILENT: Duration = Duration::from_secs(60);

/// Why a watch does not work.
enum Trouble {
    Missing(Missing),
    /// The root of the error. It passes.
    Passing(String),
}

/// Why there is nothing to watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Forbidden,
    NotServed,
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
    let (mut missing, mut away) = (None, false);
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    loop {
        let patience = if away { OPEN_IF_SILENT } else { Duration::MAX };
        let event = match drain.run_until_cancelled(timeout(patience, events.next())).await {
            // A watcher never ends by itself.
            None | Some(Ok(None)) => return,
            Some(Err(_silent)) => {
                away = false;
                outage.end(&resource.plural);
                continue;
            }
            Some(Ok(Some(event))) => event,
        };
        match event {
            Ok(event) => {
                // The beginning of a list is an intention, not a success.
                if !matches!(event, Event::Init) {
                    if std::mem::take(&mut away) {
                        outage.end(&resource.plural);
                    }
                    if missing.take().is_some() {
                        info!("{} are in the inventory now", resource.plural);
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
                match judge(error) {
                    None => {}
                    Some(Trouble::Passing(why)) => {
                        away = true;
                        outage.begin(&resource.plural, &why);
                    }
                    Some(Trouble::Missing(why)) => {
                        if std::mem::take(&mut away) {
                            outage.end(&resource.plural);
                        }
                        if missing.replace(why) != Some(why) {
                            warn!("{}", remedy(&resource, why));
                        }
                        sink.skip();
                    }
                }
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
        403 => Some(Trouble::Missing(Missing::Forbidden)),
        404 => Some(Trouble::Missing(Missing::NotServed)),
        // The watch was away for too long, and lists again.
        410 => None,
        _ => Some(Trouble::Passing(anyhow::Error::from(error).root_cause().to_string())),
    }
}

fn remedy(ApiResource { group, plural: resource, .. }: &ApiResource, why: Missing) -> String {
    match why {
        Missing::Forbidden => format!(
            "{resource} are missing in the inventory, because this process may not watch them; its ClusterRole \
             needs the rule {{apiGroups: [{group:?}], resources: [{resource:?}], verbs: [get, list, watch]}}"
        ),
        Missing::NotServed => format!(
            "{resource} are missing in the inventory, because the API server does not know them in group {group:?}"
        ),
    }
}

#[cfg(test)]
mod tests;
