//! The Kubernetes API as the executor reads it: bounded answers, pages followed, and nothing handed on that
//! was not cleaned.

use http::{Request, header};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Value, value::RawValue};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

use super::{
    hidden::{Hashes, Hide},
    json::{self, Holds, Page},
    log,
    path::{Form, Readable},
    status::Status,
    terminal::printable,
};
use crate::excluded::Excluded;

/// No more of one answer of the API server is read.
pub(super) const READ_BYTES: usize = 8 * 1024 * 1024;
/// A text that takes milliseconds to be looked at.
const LARGE: usize = 256 * 1024;
/// Objects in a page, for who names no number …
const PAGE: u32 = 500;
/// … and how many times fewer, where so many are too large.
const SMALLER: u32 = 8;

/// The cluster, with what is known of what has to stay in it.
pub(super) struct Cluster {
    pub client: Client,
    /// The account that tries what would be written, and can do nothing else.
    pub trier: Client,
    pub excluded: Excluded,
    pub hashes: Hashes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// As the API server says it; 503 where it says nothing, 413 where it says too much.
    pub status: u16,
    pub message: String,
    /// In one word, where the API server said it.
    pub reason: Option<String>,
}

impl Failure {
    pub(super) fn own(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), reason: None }
    }
}

/// An answer as it came.
pub(super) struct Answer {
    pub text: String,
    /// There was more.
    pub is_cut: bool,
}

/// Runs what looks at every byte of a text: of a large one, so that it keeps no other task of the runtime waiting.
pub(super) fn apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_others =
        Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if has_others && bytes > LARGE { block_in_place(work) } else { work() }
}

/// How to ask for less.
pub(super) fn narrower(form: Form) -> &'static str {
    match form {
        Form::Log => "tailLines, sinceSeconds or limitBytes",
        _ => "limit, labelSelector, fieldSelector or metadata=true",
    }
}

impl Cluster {
    /// One GET, of which at most [`READ_BYTES`] are read.
    ///
    /// # Errors
    /// The API server does not answer, or not with what was asked for.
    pub(super) async fn get(&self, uri: &str, accept: &str) -> Result<Answer, Failure> {
        let request = Request::get(uri).header(header::ACCEPT, accept).body(Body::empty());
        let request =
            request.map_err(|error| Failure::own(400, format!("this is not a usable path: {error}")))?;
        self.send(request).await
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Answer, Failure> {
        self.send_as(&self.client, request).await
    }

    /// The same as somebody else.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn send_as(&self, client: &Client, request: Request<Body>) -> Result<Answer, Failure> {
        let unreachable = |error: kube::Error| {
            let cause = anyhow::Error::new(error);
            Failure::own(503, format!("the API server does not answer: {}", cause.root_cause()))
        };
        let (parts, mut body) = client.send(request).await.map_err(unreachable)?.into_parts();
        let mut bytes = Vec::new();
        while bytes.len() <= READ_BYTES
            && let Some(frame) = body.frame().await
        {
            // Trailers are no data.
            if let Ok(data) = frame.map_err(unreachable)?.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        let is_cut = bytes.len() > READ_BYTES;
        bytes.truncate(READ_BYTES);
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        if !parts.status.is_success() {
            let Status { message, reason } = Status::read(&text).unwrap_or_else(|| {
                // A redirect comes without a body; it is not followed, as it could lead anywhere.
                let place = parts.headers.get(header::LOCATION).and_then(|place| place.to_str().ok());
                let message = match place {
                    Some(place) => format!("{}: it is at {place}", parts.status),
                    None if text.is_empty() => parts.status.to_string(),
                    None => text,
                };
                Status { message, reason: String::new() }
            });
            let message = self.cleaned_lines(message);
            return Err(Failure { status: parts.status.as_u16(), message, reason: Some(reason) });
        }
        Ok(Answer { text, is_cut })
    }

    /// The pages of a list, one after another while `each` wants more. Who names a `limit` gets one page.
    ///
    /// # Errors
    /// As [`Self::get`]; an object that is too large by itself.
    pub(super) async fn pages(
        &self,
        readable: &Readable,
        accept: &str,
        mut each: impl FnMut(&Page<'_>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let asked = readable.query.value("limit").is_some();
        let mut limit = PAGE;
        let mut next = String::new();
        loop {
            let mut page = readable.clone();
            if !asked {
                page.query.pairs.push(("limit", limit.to_string()));
            }
            if !next.is_empty() {
                // A token carries the version of the list; who began in its midst named the one before.
                page.query.pairs.retain(|(key, _)| *key != "continue" && !key.starts_with("resourceVersion"));
                page.query.pairs.push(("continue", next.clone()));
            }
            let answer = self.get(&page.uri(), accept).await?;
            if answer.is_cut {
                if asked || limit == 1 {
                    let why = format!(
                        "more than {} MiB: ask for less with {}",
                        READ_BYTES >> 20,
                        narrower(Form::List)
                    );
                    return Err(Failure::own(413, why));
                }
                limit = (limit / SMALLER).max(1);
                continue;
            }
            next = apart(answer.text.len(), || {
                let page: Page<'_> = serde_json::from_str(&answer.text).map_err(|error| {
                    Failure::own(502, format!("the API server's list can't be read: {error}"))
                })?;
                Ok(if each(&page)? { page.metadata.next } else { String::new() })
            })?;
            if asked || next.is_empty() {
                return Ok(());
            }
        }
    }

    /// One object or an item of a list, as the cloud may see it.
    ///
    /// # Errors
    /// It is no JSON.
    pub(super) fn cleaned(&self, written: &RawValue, holds: Holds) -> Result<Value, Failure> {
        self.cleaned_text(written.get(), holds)
    }

    pub(super) fn cleaned_text(&self, written: &str, holds: Holds) -> Result<Value, Failure> {
        apart(written.len(), || self.cleaned_object(written, holds, Hide::Hashed(&self.hashes)))
    }

    /// The same of an object that repeats what was asked, and is not one that the cluster keeps.
    pub(super) fn cleaned_echo(&self, written: &str) -> Result<Value, Failure> {
        self.cleaned_object(written, Holds::Nothing, Hide::Marked)
    }

    fn cleaned_object(&self, written: &str, holds: Holds, hide: Hide<'_>) -> Result<Value, Failure> {
        let mut object: Value = serde_json::from_str(written)
            .map_err(|error| Failure::own(502, format!("the API server's answer can't be read: {error}")))?;
        json::clean(&mut object, holds, hide);
        if object["metadata"]["namespace"].as_str().is_some_and(|namespace| self.excluded.has(namespace)) {
            json::withhold_messages(&mut object);
        }
        Ok(object)
    }

    /// Text as the cloud may see it.
    pub(super) fn cleaned_lines(&self, text: String) -> String {
        apart(text.len(), || json::text_of(&text)).unwrap_or(text)
    }

    /// A log, as it was asked for, as the cloud may see it.
    pub(super) fn cleaned_log(&self, log: Answer, asked: &Readable) -> String {
        let may_be_cut = log.is_cut || asked.query.may_cut(log.text.len());
        apart(log.text.len(), || log::shown(log.text, may_be_cut))
    }

    /// What the API server says of its kinds and of itself: nothing in it is secret, but what describes a
    /// kind was written by somebody.
    pub(super) fn cleaned_schema(&self, text: String) -> String {
        let escaped = ["\\u000", "\\u001", "\\u007", "\\u008", "\\u009", "\\u20", "\\ufe"];
        let text = match printable(&text) {
            std::borrow::Cow::Owned(shown) => shown,
            std::borrow::Cow::Borrowed(_) => text,
        };
        if !escaped.iter().any(|sign| text.contains(sign)) {
            return text;
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(mut value) => {
                json::clean(&mut value, Holds::Nothing, Hide::Marked);
                value.to_string()
            }
            Err(_) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_large_text_keeps_no_other_task_waiting() {
        let (says, hears) = std::sync::mpsc::channel();
        let large = tokio::spawn(async move {
            let other = tokio::spawn(async move { says.send(()) });
            let heard = apart(LARGE + 1, || hears.recv_timeout(std::time::Duration::from_secs(60)));
            other.await.unwrap().unwrap();
            heard
        });
        assert_eq!(large.await.unwrap(), Ok(()), "the only worker runs other tasks meanwhile");
    }
}
