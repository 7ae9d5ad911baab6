//! A way to the API server on which lists and watches meet every fault.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse as _, Response},
};
use fastrand::Rng;
use futures::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use kube::Client;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::sleep};
use tokio_stream::wrappers::ReceiverStream;

/// Objects of a page, so that a few make a list of several pages.
const PAGE: u32 = 7;

/// What a request can meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// The page's token, or the version to watch from, is too old: 410.
    Expired,
    /// 429, with the time to wait.
    TooManyRequests,
    /// 500.
    InternalError,
    /// The API server does not know `sendInitialEvents`: 422.
    NoStreamingList,
    /// A list as it was some time ago.
    Stale,
    /// The connection ends in the middle of the body.
    Cut,
    /// A watch ends with an event that says 410.
    ExpiredWithin,
    /// The body comes in small pieces.
    Slow,
}

/// The proxy. It ends when this is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    upstream: Client,
    state: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Nothing is broken any more.
    over: bool,
    seed: u64,
    /// Each resource's own, so that its series of faults is the seed's.
    random: BTreeMap<String, Rng>,
    /// First pages as they were, by URI.
    lists: BTreeMap<String, Bytes>,
    injected: BTreeMap<Fault, u32>,
}

impl Proxy {
    /// A proxy whose faults follow from `seed`.
    pub(crate) async fn start(upstream: Client, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { upstream, state: Mutex::new(Faults { seed, ..Faults::default() }) });
        let app = axum::Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, server }
    }

    /// A client whose requests come here.
    pub(crate) fn client(&self) -> Client {
        let uri = format!("http://{}", self.address).parse().unwrap();
        Client::try_from(kube::Config::new(uri)).unwrap()
    }

    /// Ends the faults; returns how often each was met.
    pub(crate) fn end_faults(&self) -> BTreeMap<Fault, u32> {
        let mut state = self.shared.state();
        state.over = true;
        state.injected.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Faults> {
        self.state.lock().unwrap()
    }
}

impl Faults {
    /// What this request meets, and a number for it to use as it likes.
    fn draw(&mut self, path: &str, query: &BTreeMap<String, String>, uri: &str) -> (Option<Fault>, usize) {
        use Fault::*;
        let seed = path.bytes().fold(self.seed, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        let random = self.random.entry(path.to_owned()).or_insert_with(|| Rng::with_seed(seed));
        let (fault, number) = (random.u8(..), random.usize(..4000));
        if self.over {
            return (None, number);
        }
        let is_watch = query.contains_key("watch");
        let fault = match fault % 16 {
            0 => TooManyRequests,
            1 => InternalError,
            2 | 3 if is_watch || query.contains_key("continue") => Expired,
            4 | 5 if query.contains_key("sendInitialEvents") => NoStreamingList,
            4 | 5 if is_watch => ExpiredWithin,
            4..=7 if !is_watch && self.lists.contains_key(uri) => Stale,
            6..=9 => Cut,
            10 | 11 => Slow,
            _ => return (None, number),
        };
        *self.injected.entry(fault).or_default() += 1;
        (Some(fault), number)
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let mut query: BTreeMap<String, String> = serde_urlencoded::from_str(query).unwrap();
    query.entry("limit".to_owned()).and_modify(|limit| *limit = PAGE.to_string());
    let uri = format!("{path}?{}", serde_urlencoded::to_string(&query).unwrap());
    let (fault, number) = shared.state().draw(path, &query, &uri);
    match fault {
        Some(Fault::Expired) => return refusal(410, "Expired"),
        Some(Fault::TooManyRequests) => return refusal(429, "TooManyRequests"),
        Some(Fault::InternalError) => return refusal(500, "InternalError"),
        Some(Fault::NoStreamingList) => return refusal(422, "Invalid"),
        Some(Fault::Stale) => {
            return Body::from(shared.state().lists.get(&uri).unwrap().clone()).into_response();
        }
        Some(Fault::Cut | Fault::ExpiredWithin | Fault::Slow) | None => {}
    }
    let request = axum::http::Request::get(&uri).body(kube::client::Body::empty()).unwrap();
    let (head, body) = shared.upstream.send(request).await.unwrap().into_parts();
    let body = if query.contains_key("watch") {
        body.into_data_stream().boxed()
    } else {
        let list = body.collect().await.unwrap().to_bytes();
        if head.status == StatusCode::OK && !query.contains_key("continue") && number % 2 == 0 {
            shared.state().lists.insert(uri, list.clone());
        }
        futures::stream::iter([Ok(list)]).boxed()
    };
    let (pieces, broken) = mpsc::channel(1);
    tokio::spawn(pour(body, fault, number, pieces));
    (head.status, Body::from_stream(ReceiverStream::new(broken))).into_response()
}

/// Passes a body on until its end or its fault, the first `number` bytes in any case.
async fn pour(
    mut body: impl Stream<Item = kube::Result<Bytes>> + Unpin,
    fault: Option<Fault>,
    number: usize,
    to: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut passed = 0;
    loop {
        let next = tokio::select! {
            next = body.next() => next,
            () = to.closed() => None,
        };
        let Some(Ok(mut bytes)) = next else { return };
        passed += bytes.len();
        let is_over = passed > number;
        match fault {
            Some(Fault::Cut) if is_over => {
                bytes.truncate(bytes.len() - (passed - number));
                let _closed = to.send(Ok(bytes)).await;
                let _closed = to.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                return;
            }
            Some(Fault::ExpiredWithin) if is_over && bytes.ends_with(b"\n") => {
                let event = json!({ "type": "ERROR", "object": status(410, "Expired") });
                let _closed = to.send(Ok(bytes)).await;
                let _closed = to.send(Ok(format!("{event}\n").into())).await;
                return;
            }
            Some(Fault::Slow) => {
                while !bytes.is_empty() {
                    let _closed = to.send(Ok(bytes.split_to(bytes.len().min(500)))).await;
                    sleep(Duration::from_millis(1)).await;
                }
            }
            _ => {
                let _closed = to.send(Ok(bytes)).await;
            }
        }
    }
}

fn refusal(code: u16, reason: &str) -> Response {
    let body = axum::Json(status(code, reason));
    (StatusCode::from_u16(code).unwrap(), [(RETRY_AFTER, "1")], body).into_response()
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault that was asked for", "reason": reason, "code": code,
    })
}
