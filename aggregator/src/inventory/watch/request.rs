//! The requests of a watch, and why one fails.

use std::time::Duration;

use http::{Request, Response, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, Limited};
use kube::{
    Client, Resource as _,
    api::{ApiResource, DynamicObject, ListParams, WatchParams},
    client::Body,
    core::{GroupVersionKind, Request as Api, Status},
};
use tokio::time::timeout;

/// Objects in a page of a list.
const PAGE: u32 = 500;
/// A page that is larger is not held: 128 KiB an object.
const PAGE_BYTES: usize = 64 * 1024 * 1024;
/// What a refusal says beyond this is not read.
const REFUSAL_BYTES: usize = 64 * 1024;
/// The API server must begin to answer, and end a page, within this time.
const ANSWER: Duration = Duration::from_secs(60);
/// Seconds after which the API server ends a watch. They differ, so that the
/// watches are not all renewed at once.
const LIFE: std::ops::Range<u32> = 240..290;

/// What is watched, in all namespaces.
#[derive(Clone, Debug)]
pub(in crate::inventory) struct Source {
    /// The kind.
    pub(in crate::inventory) resource: ApiResource,
    /// Only objects with these fields, as in `type=Warning`; empty: all.
    pub(in crate::inventory) fields: &'static str,
    /// The versions of a kind that a cluster need not have, best first; empty:
    /// every cluster has it.
    pub(in crate::inventory) versions: &'static [&'static str],
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The API server says no.
    #[error("{message} ({code})")]
    Refused {
        code: u16,
        message: String,
        /// It wants to be left alone for so long.
        retry_after: Option<Duration>,
    },
    /// The way to it, or what came over it.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    pub(super) fn broken(error: impl Into<anyhow::Error>) -> Self {
        Self::Broken(error.into().root_cause().to_string())
    }

    /// The code of a refusal.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Broken(_) => None,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        Self::Refused {
            code: status.code,
            retry_after: (seconds > 0).then(|| Duration::from_secs(u64::from(seconds))),
            message: if status.message.is_empty() { status.reason } else { status.message },
        }
    }
}

impl Source {
    pub(super) fn use_version(&mut self, version: &str) {
        let ApiResource { group, plural, kind, .. } = &self.resource;
        let of_version = GroupVersionKind::gvk(group, version, kind);
        self.resource = ApiResource::from_gvk_with_plural(&of_version, plural);
    }

    /// Everything that happens after the resource version `from`, or first all
    /// objects as they are and then what happens (KEP-3157): of now, not of
    /// whatever a lagging API server has in its cache.
    pub(super) async fn watch(&self, client: &Client, from: Option<&str>) -> Result<Body, Failure> {
        let parameters = WatchParams {
            field_selector: self.selector(),
            timeout: Some(fastrand::u32(LIFE)),
            send_initial_events: from.is_none(),
            ..WatchParams::default()
        };
        let request = self.api().watch(&parameters, from.unwrap_or_default());
        send(client, request.map_err(Failure::broken)?).await
    }

    /// The page of a list that `token` names, or its first.
    pub(super) async fn page(&self, client: &Client, token: Option<String>) -> Result<Vec<u8>, Failure> {
        let parameters = ListParams {
            field_selector: self.selector(),
            limit: Some(PAGE),
            continue_token: token,
            ..ListParams::default()
        };
        let request = self.api().list(&parameters).map_err(Failure::broken)?;
        let body = Limited::new(send(client, request).await?, PAGE_BYTES);
        let whole = timeout(ANSWER, body.collect()).await.map_err(|_late| no_answer())?;
        Ok(whole.map_err(|error| Failure::Broken(format!("a page of a list: {error}")))?.to_bytes().into())
    }

    fn api(&self) -> Api {
        Api::new(DynamicObject::url_path(&self.resource, None))
    }

    fn selector(&self) -> Option<String> {
        (!self.fields.is_empty()).then(|| self.fields.to_owned())
    }
}

async fn send(client: &Client, request: Request<Vec<u8>>) -> Result<Body, Failure> {
    let answer = timeout(ANSWER, client.send(request.map(Body::from))).await.map_err(|_late| no_answer())?;
    let answer = answer.map_err(Failure::broken)?;
    if answer.status().is_success() { Ok(answer.into_body()) } else { Err(refusal(answer).await) }
}

/// A refusal of the API server is a `Status`; that of a proxy, or of the API
/// server's own overload protection, is any text.
async fn refusal(answer: Response<Body>) -> Failure {
    let code = answer.status().as_u16();
    let header = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = timeout(ANSWER, Limited::new(answer.into_body(), REFUSAL_BYTES).collect()).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let (message, in_body) = match serde_json::from_slice::<Status>(&body).map(Failure::from) {
        Ok(Failure::Refused { message, retry_after, .. }) => (message, retry_after),
        _ => (String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned(), None),
    };
    Failure::Refused { code, message, retry_after: header.map(Duration::from_secs).or(in_body) }
}

fn no_answer() -> Failure {
    Failure::Broken(format!("no answer in {} s", ANSWER.as_secs()))
}
