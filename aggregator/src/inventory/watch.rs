//! One watch of one resource: the protocol of lists and watches, and what to
//! do when it fails. Each object is decoded alone and handed on; none is kept.

mod decode;
mod request;
mod state;

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use kestrel_runtime::backoff::Backoff;
use kube::{Client, Resource, client::Body, core::Status};
use serde::de::DeserializeOwned;
use tokio::{
    task::coop::consume_budget,
    time::{Instant, sleep, timeout},
};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    io::StreamReader,
    sync::CancellationToken,
};
use tracing::{debug, warn};

use super::sink::Sink;
use crate::uplink::Retry;
use decode::{Bookmark, Change, Line, Outline, Page};
use request::Failure;

pub(super) use request::Source;
pub use state::Watches;

/// A watch without even a bookmark is renewed: they come every minute, and a
/// connection that died silently looks the same.
const SILENCE: Duration = Duration::from_secs(90);
/// A list in one stream that pauses for so long has no end: the API server
/// does not know how to mark it.
const LIST_SILENCE: Duration = Duration::from_secs(20);
/// No object is larger: etcd takes 1.5 MiB by default.
const LINE_BYTES: usize = 32 * 1024 * 1024;
/// A request that worked for so long is no failure.
const WORKED: Duration = Duration::from_secs(5);
/// The API server is not left alone for longer, whatever it says.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Objects of one watch that are named, each once, because they can't be decoded.
const NAMED: usize = 20;

/// Watches until the drain; begins again by itself whatever happens. Trouble is
/// told once, with the remedy.
pub(super) async fn follow<K>(
    client: Client,
    source: Source,
    sink: impl Sink<K>,
    watches: Watches,
    retry: Retry,
    drain: CancellationToken,
) where
    K: Resource + DeserializeOwned,
{
    let watch = Watch {
        client,
        source,
        sink,
        watches,
        retry,
        position: Position::Start,
        failures: 0,
        tried: 0,
        unreadable: HashSet::new(),
        object: std::marker::PhantomData::<fn() -> K>,
    };
    // Nothing of a watch has to be brought to an end.
    let _drained = drain.run_until_cancelled(watch.run()).await;
}

/// What the next request asks for.
#[derive(Debug)]
enum Position {
    /// All objects in one stream, and after them what changes.
    Start,
    /// All objects in pages; `None`: the first.
    Page(Option<String>),
    /// What changed since this resource version.
    At(String),
}

struct Watch<K, S> {
    client: Client,
    source: Source,
    sink: S,
    watches: Watches,
    retry: Retry,
    position: Position,
    /// Failures since the last request that worked.
    failures: usize,
    /// Versions of a kind that is not there that were tried before this one.
    tried: usize,
    /// Names of the objects that can't be decoded.
    unreadable: HashSet<String>,
    object: std::marker::PhantomData<fn() -> K>,
}

impl<K, S> Watch<K, S>
where
    K: Resource + DeserializeOwned,
    S: Sink<K>,
{
    async fn run(mut self) {
        let fresh = Backoff::new(self.retry.first, self.retry.most);
        let mut backoff = fresh.clone();
        loop {
            let begun = Instant::now();
            let result = self.request().await;
            let lived = begun.elapsed();
            self.sink.hears(false);
            if lived >= WORKED || matches!(result, Ok(Progress::Page)) {
                backoff.clone_from(&fresh);
            }
            match result {
                Ok(Progress::Page | Progress::NoStream) => {}
                // It is renewed at once, unless it was cut short.
                Ok(Progress::Ended) if lived >= WORKED => {}
                Ok(Progress::Ended) => sleep(backoff.next(Duration::ZERO)).await,
                Err(failure) => {
                    self.failures += 1;
                    sleep(self.judge(&failure).max(backoff.next(Duration::ZERO))).await;
                }
            }
        }
    }

    /// The next request, to its end.
    async fn request(&mut self) -> Result<Progress, Failure> {
        let resource = &self.source.resource;
        match &self.position {
            Position::Start => {
                self.watches.list_begins(resource);
                self.sink.begin();
                match self.source.watch(&self.client, None).await {
                    Ok(body) => self.stream(body).await?,
                    // It does not know such streams, or not of this resource.
                    Err(failure) if matches!(failure.code(), Some(400 | 422)) => debug!("{failure}"),
                    Err(failure) => return Err(failure),
                }
                if matches!(self.position, Position::At(_)) {
                    return Ok(Progress::Ended);
                }
                self.position = Position::Page(None);
                Ok(Progress::NoStream)
            }
            Position::Page(token) => {
                if token.is_none() {
                    // What the stream before it showed may be gone.
                    self.sink.begin();
                }
                let page = self.source.page(&self.client, token.clone()).await?;
                self.page(&page).await?;
                Ok(Progress::Page)
            }
            Position::At(version) => {
                let body = self.source.watch(&self.client, Some(version)).await?;
                self.stream(body).await?;
                Ok(Progress::Ended)
            }
        }
    }

    /// What to do about a failure; returns the least time to wait.
    fn judge(&mut self, failure: &Failure) -> Duration {
        let resource = &self.source.resource;
        debug!("{}: {failure}", resource.plural);
        if failure.code() == Some(404) {
            return self.is_absent();
        }
        self.watches.failed(resource);
        match failure.code() {
            Some(403) => {
                self.position = Position::Start;
                self.sink.skip();
                self.watches.is_forbidden(resource);
                return self.retry.absent;
            }
            // What it goes on from is not known any more.
            Some(400 | 410 | 422) => self.position = Position::Start,
            // Once is a connection's end.
            _ if self.failures > 1 => {
                self.watches.is_troubled(resource, &failure.to_string());
                if !self.source.versions.is_empty() {
                    // A broken conversion of an add-on's API holds nothing up.
                    self.sink.skip();
                }
            }
            _ => {}
        }
        match failure {
            Failure::Refused { retry_after: Some(wait), .. } => (*wait).min(MOST_RETRY_AFTER),
            _ => Duration::ZERO,
        }
    }

    /// The resource is not served, or not in this version.
    fn is_absent(&mut self) -> Duration {
        let was_there = matches!(std::mem::replace(&mut self.position, Position::Start), Position::At(_));
        let versions = self.source.versions;
        self.tried = if was_there { 0 } else { self.tried + 1 };
        if let Some(version) = versions.get(self.tried) {
            self.source.use_version(version);
            return Duration::ZERO;
        }
        self.tried = 0;
        if let Some(best) = versions.first() {
            self.source.use_version(best);
            // All objects went with it.
            self.sink.begin();
            self.sink.finish();
        } else {
            self.sink.skip();
        }
        self.watches.is_not_served(&self.source.resource, !versions.is_empty());
        self.retry.absent
    }

    /// A request is answered: by a watch, or by a part of a list.
    fn works(&mut self, is_watch: bool) {
        (self.failures, self.tried) = (0, 0);
        self.watches.works(&self.source.resource, is_watch);
        if is_watch {
            self.sink.hears(true);
        }
    }

    async fn page(&mut self, text: &[u8]) -> Result<(), Failure> {
        let Page { metadata, items } = serde_json::from_slice(text).map_err(Failure::broken)?;
        self.works(false);
        for item in items.into_iter().flatten() {
            if let (_, Some(object)) = self.object(item.get()) {
                self.sink.apply(&object);
            }
            consume_budget().await;
        }
        let named = |text: Option<String>| text.filter(|text| !text.is_empty());
        match (named(metadata.token), named(metadata.resource_version)) {
            (Some(token), _) => self.position = Position::Page(Some(token)),
            (None, Some(version)) => self.listed(version),
            (None, None) => return Err(Failure::Broken("a list has no resource version".to_owned())),
        }
        Ok(())
    }

    /// Reads lines until the stream ends or falls silent.
    async fn stream(&mut self, body: Body) -> Result<(), Failure> {
        let reader = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
        let mut lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LINE_BYTES));
        if matches!(self.position, Position::At(_)) {
            self.works(true);
        }
        loop {
            let patience = if matches!(self.position, Position::Start) { LIST_SILENCE } else { SILENCE };
            let Ok(Some(line)) = timeout(patience, lines.next()).await else { return Ok(()) };
            let line = line.map_err(Failure::broken)?;
            match serde_json::from_str(&line) {
                Ok(line) => self.line(&line)?,
                // The connection's end, in the middle of a line.
                Err(error) if error.is_eof() => return Ok(()),
                Err(error) => return Err(Failure::broken(error)),
            }
        }
    }

    fn line(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        let text = line.object.get();
        match line.change {
            Change::Added | Change::Modified | Change::Deleted => {
                let (version, object) = self.object(text);
                match object {
                    Some(object) if line.change == Change::Deleted => self.sink.remove(&object),
                    Some(object) => self.sink.apply(&object),
                    None => {}
                }
                if let (Position::At(seen), Some(version)) = (&mut self.position, version) {
                    *seen = version;
                }
            }
            Change::Bookmark => {
                let Bookmark { metadata } = serde_json::from_str(text).map_err(Failure::broken)?;
                if let Position::At(seen) = &mut self.position {
                    *seen = metadata.resource_version;
                } else if metadata.ends_the_list() {
                    self.listed(metadata.resource_version);
                    self.works(true);
                }
            }
            Change::Error => {
                let status: Status = serde_json::from_str(text).map_err(Failure::broken)?;
                return Err(status.into());
            }
        }
        Ok(())
    }

    fn listed(&mut self, version: String) {
        self.sink.finish();
        self.watches.list_is_complete(&self.source.resource);
        self.position = Position::At(version);
    }

    /// An object, if it can be decoded, and its resource version.
    fn object(&mut self, text: &str) -> (Option<String>, Option<K>) {
        let outline: serde_json::Result<Outline<'_>> = serde_json::from_str(text);
        let object = outline
            .as_ref()
            .map_err(ToString::to_string)
            .and_then(|outline| outline.object(text).map_err(|error| error.to_string()));
        if let Err(error) = &object {
            let resource = &self.source.resource;
            self.watches.is_unreadable(resource);
            let name = outline.as_ref().map(|outline| outline.metadata.full_name()).unwrap_or_default();
            if self.unreadable.len() < NAMED && self.unreadable.insert(name.clone()) {
                let kind = &resource.kind;
                warn!("{kind} {name:?} is left out of the inventory, as it can't be decoded: {error}");
            }
        }
        (outline.ok().map(|outline| outline.metadata.resource_version), object.ok())
    }
}

/// What came of a request.
enum Progress {
    /// The list has to be asked for in pages.
    NoStream,
    /// A page of it.
    Page,
    /// A watch came to its end.
    Ended,
}

#[cfg(test)]
mod tests;
