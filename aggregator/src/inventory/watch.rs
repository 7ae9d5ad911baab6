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
/// So often in a row a list in one stream fails, or a watch breaks before it
/// brought anything; then the list is asked for in pages, the watch begins anew.
const ENOUGH: usize = 3;
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
        begun: 0,
        restarts: 0,
        refused: None,
        alone: None,
        tried: Some(0),
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
    /// Watches that were answered since one brought anything.
    begun: usize,
    /// How often it could not go on from where it was, since a watch worked.
    restarts: usize,
    /// How the last failure was refused, if it was.
    refused: Option<u16>,
    /// Since when it fails while all other watches work.
    alone: Option<Instant>,
    /// Place of the last version of its kind that was tried since it was there.
    tried: Option<usize>,
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
            // A list that leads to no watch is no progress.
            if self.restarts == 0 && (lived >= WORKED || matches!(result, Ok(Progress::Page))) {
                backoff.clone_from(&fresh);
            }
            match result {
                Ok(Progress::Page | Progress::NoStream) => {}
                // It is renewed at once, unless it was cut short.
                Ok(Progress::Ended) if lived >= WORKED => {}
                Ok(Progress::Ended) => sleep(backoff.next(Duration::ZERO)).await,
                Err(failure) => {
                    self.failures += 1;
                    let wait = self.judge(&failure);
                    if self.failures == 0 {
                        backoff.clone_from(&fresh);
                    }
                    sleep(wait.max(backoff.next(Duration::ZERO))).await;
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
                self.begun += 1;
                self.stream(body).await?;
                Ok(Progress::Ended)
            }
        }
    }

    /// What to do about a failure; returns the least time to wait.
    fn judge(&mut self, failure: &Failure) -> Duration {
        debug!("{}: {failure}", self.source.resource.plural);
        let is_repeated = failure.code().is_some() && self.refused == failure.code();
        self.refused = failure.code();
        if failure.code() == Some(404) {
            return self.is_absent(is_repeated);
        }
        let resource = &self.source.resource;
        self.watches.failed(resource);
        match (failure.code(), &self.position) {
            // Once may be an API server that has just begun.
            (Some(403), _) if is_repeated => {
                self.sink.skip();
                self.watches.is_forbidden(resource);
                self.begin_anew();
                return self.retry.absent;
            }
            // What it goes on from is not known any more.
            (Some(400 | 403 | 410 | 422), _) => self.begin_anew(),
            (_, Position::At(_)) if self.begun >= ENOUGH => self.begin_anew(),
            (_, Position::Start) if self.failures >= ENOUGH => self.position = Position::Page(None),
            _ => {}
        }
        // Once is a connection's end.
        if self.failures > 1 {
            let is_alone = self.watches.is_troubled(&self.source.resource, &failure.to_string());
            self.alone = is_alone.then(|| self.alone.unwrap_or_else(Instant::now));
            if !self.source.versions.is_empty()
                && self.alone.is_some_and(|since| since.elapsed() >= self.retry.absent)
            {
                // A broken conversion of an add-on's API holds nothing up.
                self.sink.skip();
            }
        }
        match failure {
            Failure::Refused { retry_after: Some(wait), .. } => (*wait).min(MOST_RETRY_AFTER),
            _ => Duration::ZERO,
        }
    }

    fn begin_anew(&mut self) {
        if !matches!(self.position, Position::Start) {
            self.restarts += 1;
        }
        (self.position, self.begun) = (Position::Start, 0);
    }

    /// The resource is not served, or not in this version. That is an answer.
    fn is_absent(&mut self, is_repeated: bool) -> Duration {
        (self.position, self.failures, self.begun, self.restarts) = (Position::Start, 0, 0, 0);
        self.alone = None;
        let versions = self.source.versions;
        if let Some(best) = versions.first() {
            let next = self.tried.map_or(0, |last| last + 1);
            if let Some(version) = versions.get(next) {
                self.tried = Some(next);
                self.source.use_version(version);
                return Duration::ZERO;
            }
            self.tried = Some(0);
            self.source.use_version(best);
            // All objects went with it.
            self.sink.begin();
            self.sink.finish();
        } else if is_repeated {
            self.sink.skip();
        } else {
            return Duration::ZERO;
        }
        self.watches.is_not_served(&self.source.resource, !versions.is_empty());
        self.retry.absent
    }

    /// A request brought something: a watch, or a part of a list, which counts
    /// for nothing if the watches after it are refused.
    fn works(&mut self, is_watch: bool) {
        if is_watch {
            self.restarts = 0;
            self.sink.hears(true);
        }
        (self.failures, self.begun, self.refused, self.alone, self.tried) =
            (self.restarts, 0, None, None, None);
        if self.restarts == 0 {
            self.watches.works(&self.source.resource, is_watch);
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
        let began_as_watch = matches!(self.position, Position::At(_));
        let mut works = false;
        loop {
            let is_watch = matches!(self.position, Position::At(_));
            let patience = match (is_watch, works) {
                (false, _) => LIST_SILENCE,
                (true, false) => WORKED,
                (true, true) => SILENCE,
            };
            let line = match timeout(patience, lines.next()).await {
                Ok(Some(line)) => {
                    let line = line.map_err(Failure::broken)?;
                    match serde_json::from_str(&line) {
                        Ok(event) => Some(self.line(&event)?),
                        // The connection's end, in the middle of a line.
                        Err(error) if error.is_eof() => None,
                        Err(error) => return Err(Failure::broken(error)),
                    }
                }
                Ok(None) => None,
                // Nothing has happened in the cluster.
                Err(_silence) if is_watch && !works => Some(()),
                Err(_silence) => None,
            };
            match line {
                None if began_as_watch && !works => {
                    return Err(Failure::Broken("a watch ended at once".to_owned()));
                }
                None => return Ok(()),
                Some(()) if is_watch && !works => {
                    works = true;
                    self.works(true);
                }
                Some(()) => {}
            }
        }
    }

    fn line(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        let text = line.object.get();
        match line.change {
            Change::Added | Change::Modified | Change::Deleted => {
                let (outline, object) = self.object(text);
                match object {
                    Some(object) if line.change == Change::Deleted => self.sink.remove(&object),
                    Some(object) => self.sink.apply(&object),
                    // It is left out, and may have been known.
                    None => {
                        let identity = outline.as_ref().and_then(|outline| outline.identity().ok());
                        identity.iter().for_each(|object| self.sink.remove(object));
                    }
                }
                if let (Position::At(seen), Some(outline)) = (&mut self.position, outline) {
                    *seen = outline.metadata.resource_version;
                }
            }
            Change::Bookmark => {
                let Bookmark { metadata } = serde_json::from_str(text).map_err(Failure::broken)?;
                if let Position::At(seen) = &mut self.position {
                    *seen = metadata.resource_version;
                } else if metadata.ends_the_list() {
                    self.works(false);
                    self.listed(metadata.resource_version);
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

    /// An object, if it can be decoded, and its outline.
    fn object<'a>(&mut self, text: &'a str) -> (Option<Outline<'a>>, Option<K>) {
        let outline: serde_json::Result<Outline<'a>> = serde_json::from_str(text);
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
        (outline.ok(), object.ok())
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
