//! The query API: plain HTTP and JSON, for people and tests on this machine.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/summary` | figures of everything |
//! | `GET /v1/{pods,nodes,namespaces,workloads,services,network-policies,authorization-policies}` | latest state of the objects; `namespace`, `name` |
//! | `GET /v1/signals`, `/v1/flows`, `/v1/answers`, `/v1/stats` | newest arrivals; `namespace`, `name`, `kind`, `request_id`, `limit` |
//! | `GET /v1/logs` | containers and newest lines; `namespace`, `pod`, `pod_prefix`, `container`, `contains`, `limit` |
//! | `GET /v1/logs/sequence` | completeness of a numbered series; as above and `prefix` |
//! | `POST /v1/logs/sequence` | `{"prefix": "line "}`: follow this series from now on |
//! | `GET`, `POST /v1/signals/sequence` | the same of Kubernetes events; `pod` is the object that they are about; `signal ` is followed from the start |
//! | `GET /v1/connections` | connections, streams with their openings, and refusals |
//! | `POST /v1/send` | a server message as JSON; its answer; `stream`, `timeout` (seconds) |
//! | `GET /v1/watch` | server-sent events, one for each thing that arrives |
//! | `GET`, `POST /v1/faults` | what is broken on purpose: the options of `kestrel-dev-cloud fault` as JSON, such as `{"resets": ["logs=UNAVAILABLE@now"], "door": "silent", "for": "2m"}` |

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event as Sent, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::{Stream as Items, StreamExt as _, future};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::{
    faults::Faults,
    hub::{Event, Hub, SendError},
    record::{Arrival, Record, sequence::Sequences, source::Selector},
    server::MAX_MESSAGE_BYTES,
    wire::Stream,
};

/// The path of each kind of object.
const OBJECTS: [(&str, &str); 7] = [
    ("pods", "pod"),
    ("nodes", "node"),
    ("namespaces", "namespace"),
    ("workloads", "workload"),
    ("services", "service"),
    ("network-policies", "network_policy"),
    ("authorization-policies", "authorization_policy"),
];

pub(crate) async fn serve(listener: TcpListener, hub: Arc<Hub>) -> anyhow::Result<()> {
    let stop = hub.stop.clone();
    let router = Router::new()
        .route("/v1/summary", get(summary))
        .route("/v1/{things}", get(things))
        .route("/v1/logs", get(logs))
        .route("/v1/{things}/sequence", get(sequence).post(track))
        .route("/v1/connections", get(connections))
        .route("/v1/send", post(send))
        .route("/v1/watch", get(watch))
        .route("/v1/faults", get(faults).post(set_faults))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
        .with_state(hub);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .context("the query API stopped")
}

/// An answer that is not 200: a code and a sentence.
struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// A JSON body, whatever its content type says: `kubectl create --raw` names none.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let problem = |sentence| Problem(StatusCode::BAD_REQUEST, sentence);
        let bytes = Bytes::from_request(request, state).await.map_err(|error| problem(error.body_text()))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| problem(format!("not the JSON that is wanted: {error}")))
    }
}

async fn summary(State(hub): State<Arc<Hub>>) -> Json<Value> {
    Json(hub.read(|record| {
        let kinds = record.signals.iter().fold(serde_json::Map::new(), |mut kinds, signal| {
            let count = kinds.entry(signal.message.kind()).or_insert(json!(0));
            *count = json!(count.as_u64().unwrap_or(0) + 1);
            kinds
        });
        json!({
            "started": record.started(),
            "connections": record.connections.counts(),
            "inventory": {
                "objects": record.inventory.counts(),
                "refused": record.inventory.refused(),
                "commits": record.inventory.commits(),
            },
            "signals": { "total": record.signals.total(), "kept": kinds },
            "flows": { "total": record.flows.total() },
            "logs": {
                "lines": record.logs.total(),
                "containers": record.logs.containers(&Selector::default()).len(),
                "kept_bytes": record.logs.bytes(),
                "uncounted": record.logs.uncounted(),
            },
            "answers": { "total": record.answers.total() },
            "messages": record.tallies(),
        })
    }))
}

#[derive(Deserialize)]
struct Filter {
    namespace: Option<String>,
    name: Option<String>,
    kind: Option<String>,
    request_id: Option<String>,
    limit: Option<usize>,
}

impl Filter {
    fn matches(&self, arrival: &Arrival) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&self.namespace, &arrival.facts.namespace)
            && is(&self.name, &arrival.facts.name)
            && is(&self.kind, arrival.message.kind())
            && is(&self.request_id, &arrival.facts.request_id)
    }

    /// The newest matches, oldest first.
    fn newest<'a>(&self, arrivals: impl DoubleEndedIterator<Item = &'a Arc<Arrival>>) -> Vec<Arc<Arrival>> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut found: Vec<_> = arrivals.rev().filter(|a| self.matches(a)).take(limit).cloned().collect();
        found.reverse();
        found
    }
}

async fn things(
    State(hub): State<Arc<Hub>>,
    Path(things): Path<String>,
    Query(filter): Query<Filter>,
) -> Result<Json<Value>, Problem> {
    let found = match things.as_str() {
        "signals" => hub.read(|record| filter.newest(record.signals.iter())),
        "flows" => hub.read(|record| filter.newest(record.flows.iter())),
        "answers" => hub.read(|record| filter.newest(record.answers.iter())),
        "stats" => hub.read(|record| filter.newest(record.stats.iter())),
        _ => {
            let Some((_, kind)) = OBJECTS.iter().find(|(path, _)| *path == things) else {
                let known: Vec<&str> = OBJECTS.iter().map(|(path, _)| *path).collect();
                let sentence = format!("no {things} here; objects are {}", known.join(", "));
                return Err(Problem(StatusCode::NOT_FOUND, sentence));
            };
            hub.read(|record| {
                let limit = filter.limit.unwrap_or(usize::MAX);
                let objects = record.inventory.of_kind(kind).filter(|object| filter.matches(object));
                objects.take(limit).cloned().collect()
            })
        }
    };
    // Outside the lock, so that the streams do not wait for a large answer.
    Ok(Json(found.iter().map(|arrival| arrival.json()).collect()))
}

#[derive(Deserialize)]
struct LogQuery {
    #[serde(flatten)]
    selector: Selector,
    contains: Option<String>,
    limit: Option<usize>,
}

async fn logs(State(hub): State<Arc<Hub>>, Query(query): Query<LogQuery>) -> Json<Value> {
    let contains = query.contains.unwrap_or_default();
    let limit = query.limit.unwrap_or(100);
    let (containers, lines) = hub.read(|record| {
        let lines = record.logs.lines(&query.selector, &contains, limit);
        (record.logs.containers(&query.selector), lines)
    });
    let lines: Vec<Value> = lines
        .into_iter()
        .map(|(container, line)| {
            let mut json = json!(line);
            if let (Some(json), Value::Object(container)) = (json.as_object_mut(), json!(container)) {
                json.extend(container);
            }
            json
        })
        .collect();
    Json(json!({ "containers": containers, "lines": lines }))
}

#[derive(Deserialize)]
struct SequenceQuery {
    #[serde(flatten)]
    selector: Selector,
    prefix: String,
    limit: Option<usize>,
}

/// The series in logs or signals.
fn sequences<'a>(record: &'a mut Record, things: &str) -> Result<&'a mut Sequences, Problem> {
    match things {
        "logs" => Ok(&mut record.logs.sequences),
        "signals" => Ok(&mut record.signal_sequences),
        _ => Err(Problem(StatusCode::NOT_FOUND, "only logs and signals are numbered".to_owned())),
    }
}

async fn sequence(
    State(hub): State<Arc<Hub>>,
    Path(things): Path<String>,
    Query(query): Query<SequenceQuery>,
) -> Result<Json<Value>, Problem> {
    let limit = query.limit.unwrap_or(100);
    let report =
        hub.change(|record| Ok(sequences(record, &things)?.report(&query.prefix, &query.selector, limit)))?;
    report.map(|report| Json(json!(report))).map_err(|sentence| Problem(StatusCode::NOT_FOUND, sentence))
}

#[derive(Deserialize, Serialize)]
struct Track {
    prefix: String,
}

async fn track(
    State(hub): State<Arc<Hub>>,
    Path(things): Path<String>,
    Body(track): Body<Track>,
) -> Result<Json<Track>, Problem> {
    let tracked = hub.change(|record| Ok(sequences(record, &things)?.track(&track.prefix)))?;
    tracked.map(|()| Json(track)).map_err(|sentence| Problem(StatusCode::CONFLICT, sentence))
}

async fn connections(State(hub): State<Arc<Hub>>) -> Json<Value> {
    Json(hub.read(|record| {
        let connections = &record.connections;
        json!({
            "counts": connections.counts(),
            "streams": Stream::ALL.map(|stream| (stream, connections.stream(stream))).into_iter().collect::<BTreeMap<_, _>>(),
            "openings": connections.openings(),
            "open": connections.open_now().collect::<Vec<_>>(),
            "past": connections.past(),
            "refusals": connections.refusals(),
        })
    }))
}

#[derive(Deserialize)]
struct SendQuery {
    stream: Option<Stream>,
    timeout: Option<u64>,
}

async fn send(
    State(hub): State<Arc<Hub>>,
    Query(query): Query<SendQuery>,
    Body(message): Body<Value>,
) -> Result<Json<Value>, Problem> {
    let limit = Duration::from_secs(query.timeout.unwrap_or(60));
    let sent = hub.send(&message, query.stream, limit).await.map_err(|error| {
        let code = match error {
            SendError::Malformed(_) => StatusCode::BAD_REQUEST,
            SendError::NoStream(_) | SendError::Stuck(_) => StatusCode::SERVICE_UNAVAILABLE,
            SendError::NoAnswer { .. } => StatusCode::GATEWAY_TIMEOUT,
        };
        Problem(code, error.to_string())
    })?;
    Ok(Json(json!({
        "request_id": sent.request_id,
        "stream": sent.stream,
        "milliseconds": u64::try_from(sent.elapsed.as_millis()).unwrap_or(u64::MAX),
        "answer": sent.answer.map(|answer| answer.json()),
    })))
}

async fn watch(State(hub): State<Arc<Hub>>) -> Sse<impl Items<Item = Result<Sent, Infallible>>> {
    let events = BroadcastStream::new(hub.watch())
        .take_until(hub.stop.clone().cancelled_owned())
        .map(|event| match event {
            Ok(Event::Arrival(arrival)) => arrival.json(),
            Ok(Event::Note { at, kind, text }) => json!({ "at": at, "kind": kind, "text": text }),
            Err(BroadcastStreamRecvError::Lagged(count)) => json!({
                "at": jiff::Timestamp::now(),
                "kind": "skipped",
                "text": format!("{count} events came faster than they were read"),
            }),
        })
        .filter_map(|json| future::ready(Sent::default().json_data(json).ok().map(Ok)));
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn faults(State(hub): State<Arc<Hub>>) -> Json<Faults> {
    Json(hub.faults().clone())
}

async fn set_faults(State(hub): State<Arc<Hub>>, Body(faults): Body<Faults>) -> Json<Faults> {
    hub.set_faults(faults);
    Json(hub.faults().clone())
}
