//! Reads the Kubernetes API for the cloud: one batch of GETs, one answer.

use std::time::Duration;

use http::{Request, header};
use http_body_util::BodyExt as _;
use kestrel_proto::cloud::v1::{KubernetesApiRequest, KubernetesApiResponse, KubernetesApiResult};
use kube::{Client, client::Body};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    json,
    path::{Form, Readable},
};
use crate::excluded::Excluded;

/// The answers of a batch together, in equal shares. Below the wire's limit by
/// enough for paths and sentences.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// No more of one answer of the API server is read.
const READ_BYTES: usize = ANSWER_BYTES;
/// Paths in one request; with more, the shares would be of no use.
pub(crate) const PATHS: usize = 100;
/// A path, and a sentence of the API server, is echoed up to here.
pub(crate) const TEXT_BYTES: usize = 4 * 1024;
/// For a batch that names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// For a batch that names too much time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// How long `request` may take, from its arrival.
pub(crate) fn limit(request: &KubernetesApiRequest) -> Duration {
    match u64::try_from(request.timeout_seconds) {
        Ok(seconds @ 1..) => Duration::from_secs(seconds).min(LONGEST_TIMEOUT),
        _ => DEFAULT_TIMEOUT,
    }
}

/// Runs the GETs of `request` one after another, until the `deadline`.
pub(crate) async fn answer(
    client: &Client,
    excluded: &Excluded,
    request: KubernetesApiRequest,
    deadline: Instant,
) -> KubernetesApiResponse {
    let limit = limit(&request);
    let KubernetesApiRequest { request_id, api_paths, .. } = request;
    if api_paths.len() > PATHS {
        let global_error_message =
            format!("{} paths in one request are too many: at most {PATHS}", api_paths.len());
        return KubernetesApiResponse { request_id, results: Vec::new(), global_error_message };
    }
    let share = ANSWER_BYTES / api_paths.len().max(1);
    let mut results = Vec::with_capacity(api_paths.len());
    for path in api_paths {
        let readable = Readable::parse(&path).and_then(|readable| readable.outside(excluded));
        let outcome = match readable {
            Err(refused) => Outcome::failed(refused.status(), refused.to_string()),
            Ok(readable) => timeout_at(deadline, get(client, &readable)).await.unwrap_or_else(|_| {
                Outcome::failed(504, format!("no answer within the {} s of this request", limit.as_secs()))
            }),
        };
        results.push(outcome.result(path, share));
    }
    KubernetesApiResponse { request_id, results, global_error_message: String::new() }
}

/// What became of one GET.
struct Outcome {
    status: u16,
    data: String,
    /// Why it failed, or what is missing in `data` and how to get it.
    message: String,
    /// How to ask for less.
    narrower: &'static str,
}

impl Outcome {
    fn failed(status: u16, message: String) -> Self {
        Self { status, data: String::new(), message, narrower: "" }
    }

    fn result(self, mut api_path: String, share: usize) -> KubernetesApiResult {
        let Self { status, mut data, mut message, narrower } = self;
        let whole = data.len();
        if whole > share {
            cut(&mut data, share);
            message = format!("cut to {} of {whole} bytes: ask for less with {narrower}", data.len());
        }
        cut(&mut message, TEXT_BYTES);
        cut(&mut api_path, TEXT_BYTES);
        KubernetesApiResult {
            api_path,
            success: (200..300).contains(&status),
            response_data: data,
            error_message: message,
            status_code: status.into(),
        }
    }
}

/// Shortens a text to at most `bytes`, between two characters.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// What the API server says when it does not give what was asked for.
#[derive(Deserialize)]
struct Status {
    message: String,
}

async fn get(client: &Client, readable: &Readable) -> Outcome {
    let request = Request::get(&readable.uri).header(header::ACCEPT, accept(readable)).body(Body::empty());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Outcome::failed(400, format!("this is not a usable path: {error}")),
    };
    let unreachable = |error: kube::Error| {
        let cause = anyhow::Error::new(error);
        Outcome::failed(503, format!("the API server does not answer: {}", cause.root_cause()))
    };
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return unreachable(error),
    };
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while bytes.len() <= READ_BYTES
        && let Some(frame) = body.frame().await
    {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            // Trailers.
            Ok(Err(_)) => {}
            Err(error) => return unreachable(error),
        }
    }
    let is_cut = bytes.len() > READ_BYTES;
    bytes.truncate(READ_BYTES);
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    if !parts.status.is_success() {
        let message = serde_json::from_str(&text).map_or(text, |status: Status| status.message);
        return Outcome::failed(parts.status.as_u16(), message);
    }
    let narrower = match readable.form {
        Form::Log => "tailLines, sinceSeconds or limitBytes",
        _ => "limit, labelSelector, fieldSelector or metadata=true",
    };
    // What is cut is no JSON, from which nothing could be taken out that must not go.
    if is_cut && matches!(readable.form, Form::List | Form::Object) {
        let why = format!("more than {} MiB: ask for less with {narrower}", READ_BYTES / 1024 / 1024);
        return Outcome::failed(413, why);
    }
    let message = match is_cut {
        true => format!("cut after {READ_BYTES} bytes: ask for less with {narrower}"),
        false => String::new(),
    };
    let data = match readable.form {
        Form::Log => text,
        _ => json::strip(&text).unwrap_or(text),
    };
    Outcome { status: parts.status.as_u16(), data, message, narrower }
}

fn accept(readable: &Readable) -> &'static str {
    match (readable.form, readable.metadata_only) {
        (Form::List, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        (Form::Object, true) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        (Form::Log, _) => "*/*",
        (Form::List | Form::Object, false) => "application/json",
        (Form::Other, _) => "application/json, */*",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use serde_json::json;

    use super::*;

    /// A client of an API server that answers by path.
    fn client() -> Client {
        let service = tower::service_fn(async |request: Request<Body>| {
            let accept = request.headers()[header::ACCEPT].to_str().unwrap_or_default().to_owned();
            let (status, body) = match request.uri().path() {
                "/version" => (200, br#"{"major":"1","minor":"35"}"#.to_vec()),
                "/api/v1/namespaces/a/pods/p/log" => (200, b"one\xfftwo\0\n".to_vec()),
                "/api/v1/namespaces/a/pods/p" => {
                    let metadata = json!({"name": "p", "managedFields": [{"manager": "x"}]});
                    (200, json!({"metadata": metadata, "accept": accept}).to_string().into_bytes())
                }
                "/api/v1/pods" | "/api/v1/namespaces/a/pods/large/log" => {
                    (200, "ä".repeat(5 * 1024 * 1024).into_bytes())
                }
                "/api/v1/nodes" => std::future::pending().await,
                _ => (404, br#"{"kind":"Status","message":"pods \"q\" not found"}"#.to_vec()),
            };
            let response = http::Response::builder().status(status).body(Full::new(bytes::Bytes::from(body)));
            Ok::<_, Infallible>(response.unwrap())
        });
        Client::new(service, "default")
    }

    async fn ask(paths: &[&str], timeout_seconds: i32) -> Vec<KubernetesApiResult> {
        let api_paths = paths.iter().map(ToString::to_string).collect();
        let request = KubernetesApiRequest { request_id: "r".to_owned(), api_paths, timeout_seconds };
        let deadline = Instant::now() + limit(&request);
        let answer = answer(&client(), &Excluded::parse("bank"), request, deadline).await;
        assert_eq!(answer.request_id, "r");
        answer.results
    }

    #[tokio::test]
    async fn every_path_gets_its_own_true_answer() {
        let results = ask(
            &[
                "version",
                "api/v1/namespaces/a/pods/p",
                "api/v1/namespaces/a/pods/p?metadata=true",
                "api/v1/namespaces/a/pods/p/log",
                "api/v1/namespaces/a/pods/q",
                "api/v1/namespaces/a/secrets/s",
                "nonsense",
                "api/v1/namespaces/bank/pods/p/log",
            ],
            0,
        )
        .await;
        let codes: Vec<_> = results.iter().map(|result| (result.status_code, result.success)).collect();
        assert_eq!(codes[..4], [(200, true); 4]);
        assert_eq!(codes[4..], [(404, false), (403, false), (400, false), (403, false)]);
        assert_eq!(results[0].response_data, r#"{"major":"1","minor":"35"}"#);
        assert_eq!(results[1].response_data, r#"{"accept":"application/json","metadata":{"name":"p"}}"#);
        assert!(results[2].response_data.contains("as=PartialObjectMetadata;"), "{:?}", results[2]);
        assert_eq!(results[3].response_data, "one\u{fffd}two\0\n");
        assert_eq!(results[4].error_message, "pods \"q\" not found");
        assert!(results[5].error_message.contains("Secrets are never read"));
        assert!(results[7].error_message.contains("data.namespaces.exclude"));
    }

    #[tokio::test]
    async fn a_large_answer_is_cut_to_its_share_between_characters_and_says_so() {
        let log = "api/v1/namespaces/a/pods/large/log";
        for (paths, share) in [(&[log][..], ANSWER_BYTES), (&[log; 3][..], ANSWER_BYTES / 3)] {
            for result in ask(paths, 0).await {
                assert!(result.success && result.response_data.len() <= share);
                assert!(result.response_data.len() > share - 4 && result.response_data.ends_with('ä'));
                assert!(result.error_message.starts_with("cut "), "{}", result.error_message);
            }
        }
    }

    #[tokio::test]
    async fn of_objects_too_large_to_be_cleaned_nothing_is_told() {
        let results = ask(&["api/v1/pods"], 0).await;
        assert_eq!((results[0].status_code, results[0].success), (413, false));
        assert_eq!(results[0].response_data, "");
        assert!(results[0].error_message.starts_with("more than 8 MiB: ask for less with limit"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_for_the_batch_and_what_came_in_time_is_kept() {
        let results = ask(&["version", "api/v1/nodes", "api/v1/nodes"], 5).await;
        let codes: Vec<_> = results.iter().map(|result| result.status_code).collect();
        assert_eq!(codes, [200, 504, 504]);
        assert_eq!(results[1].error_message, "no answer within the 5 s of this request");
        let begun = Instant::now();
        ask(&["api/v1/nodes"], i32::MAX).await;
        assert_eq!(begun.elapsed(), LONGEST_TIMEOUT);
        ask(&["api/v1/nodes"], -1).await;
        assert_eq!(begun.elapsed(), LONGEST_TIMEOUT + DEFAULT_TIMEOUT);
    }
}
