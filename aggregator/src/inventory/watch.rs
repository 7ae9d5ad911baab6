//! One watch of one resource, for the life of the process.

use std::{fmt::Debug, pin::pin};

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
    Other,
}

/// Lists in pages and watches until the drain; begins again by itself whatever
/// happens, with a growing pause. Trouble is told once, with the remedy.
pub(super) async fn follow<K>(
    api: Api<K>,
    resource: ApiResource,
    sink: impl Sink<K>,
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
                if !matches!(event, Event::Init) && trouble.take().is_some() {
                    info!("{} are watched again", resource.plural);
                }
                match event {
                    Event::Init => sink.begin(),
                    Event::InitApply(object) | Event::Apply(object) => sink.apply(&object),
                    Event::Delete(object) => sink.remove(&object),
                    Event::InitDone => sink.finish(),
                }
            }
            Err(error) => {
                let found = judge(&error);
                if found.as_ref().is_some_and(|found| *found != Trouble::Other) {
                    sink.skip();
                }
                if found.is_some() && found != trouble {
                    report(&resource, found.as_ref(), &error);
                    trouble = found;
                } else {
                    debug!("{}: {error}", resource.plural);
                }
            }
        }
    }
}

/// `None`: it belongs to a watch's life.
fn judge(error: &watcher::Error) -> Option<Trouble> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) => status,
        // 410: the watch was away for too long, and lists again.
        WatchError(status) if status.code == 410 => return None,
        WatchError(status) => status,
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => {
            return Some(Trouble::Other);
        }
    };
    Some(match status.code {
        403 => Trouble::Forbidden,
        404 => Trouble::NotServed,
        _ => Trouble::Other,
    })
}

fn report(
    ApiResource { group, plural: resource, .. }: &ApiResource,
    trouble: Option<&Trouble>,
    error: &watcher::Error,
) {
    match trouble {
        Some(Trouble::Forbidden) => warn!(
            "{resource} are missing in the inventory, because this process may not watch them; its ClusterRole \
             needs the rule {{apiGroups: [{group:?}], resources: [{resource:?}], verbs: [get, list, watch]}}"
        ),
        Some(Trouble::NotServed) => warn!(
            "{resource} are missing in the inventory, because the API server does not know them in group {group:?}"
        ),
        _ => warn!(
            "{resource} can't be watched at present, and what changes is not seen until they can: {error}"
        ),
    }
}

#[cfg(test)]
mod tests;
