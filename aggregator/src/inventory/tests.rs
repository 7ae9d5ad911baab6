//! The inventory against an API server of a few lines.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kestrel_proto::cloud::v1::{Action, StreamDataRequest, stream_data_request::Request as Record};
use kube::{Client, client::Body};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::{
    signals::{Signals, thresholds::Thresholds},
    uplink::{lanes::Lanes, metrics::Metrics},
};

fn object(name: &str) -> Value {
    json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {}})
}

/// Answers lists (of namespaces in two pages), keeps watches open, and sends
/// `events` on the watch of namespaces. Jobs are forbidden, CronJobs unknown.
fn api_server(events: mpsc::UnboundedReceiver<Value>) -> Client {
    let mut events = Some(events);
    let whole = |text: String| Full::from(text).boxed_unsync();
    let refusal = move |code: u16, reason: &str| {
        whole(json!({"code": code, "reason": reason, "message": "no", "status": "Failure"}).to_string())
    };
    let list = move |items: &[Value], next: &str| {
        whole(json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": items}).to_string())
    };
    let answer = move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let resource = request.uri().path().rsplit('/').next().unwrap_or_default();
        let (status, body) = match (resource, query) {
            ("jobs", _) => (403, refusal(403, "Forbidden")),
            ("cronjobs", _) => (404, refusal(404, "NotFound")),
            (_, query) if query.contains("sendInitialEvents=true") => (422, refusal(422, "Invalid")),
            (_, query) if query.contains("watch=true") => {
                let events = if resource == "namespaces" { events.take() } else { None };
                let line = |event| Ok(Frame::data(Bytes::from(format!("{event}\n"))));
                let lines = events.map(|events| UnboundedReceiverStream::new(events).map(line).boxed());
                (
                    200,
                    StreamBody::new(lines.unwrap_or_else(|| futures::stream::pending().boxed()))
                        .boxed_unsync(),
                )
            }
            ("namespaces", query) if query.contains("continue=") => (200, list(&[object("b")], "")),
            ("namespaces", _) => (200, list(&[object("a")], "more")),
            _ => (200, list(&[], "")),
        };
        std::future::ready(Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()))
    };
    Client::new(tower::service_fn(answer), "default")
}

async fn next(mirror: &Mirror) -> Option<(String, Action)> {
    let frame = loop {
        tokio::time::timeout(Duration::from_secs(20), mirror.due()).await.unwrap();
        if let Some((frame, _)) = mirror.next() {
            break frame;
        }
    };
    match StreamDataRequest::decode(frame).unwrap().request.unwrap() {
        Record::Namespace(it) => Some((it.name.clone(), it.action())),
        Record::InventoryCommit(_) => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_cannot_be_watched_costs_only_itself() {
    let (events, events_received) = mpsc::unbounded_channel();
    let mirror = Mirror::default();
    let drain = CancellationToken::new();
    let pods = Pods::new(kestrel_proto::node::v1::LogPolicy::Errors);
    let signals = Signals::new(&Thresholds::default(), &Lanes::new(Metrics::default()).signals(), &pods);
    let parts = Parts {
        mirror: mirror.clone(),
        pods: pods.clone(),
        signals,
        mesh_root: "istio-system".to_owned(),
        integrations: Integrations::default(),
    };
    let second = Duration::from_secs(1);
    let retry = Retry { first: second, most: second, absent: second };
    let (api_server, watches) = (api_server(events_received), Watches::default());
    let task = tokio::spawn(watch(api_server, parts, watches.clone(), retry, drain.clone()));
    mirror.restart();
    let record = |name: &str, action| Some((name.to_owned(), action));
    assert_eq!(next(&mirror).await, record("a", Action::Create));
    assert_eq!(next(&mirror).await, record("b", Action::Create));
    assert_eq!(next(&mirror).await, None, "the commit");
    pods.listed().await;
    let missing: Vec<_> = watches.missing().into_iter().map(|(resource, _)| resource).collect();
    assert_eq!((watches.count(), missing), ((10, 12), vec!["cronjobs".to_owned(), "jobs".to_owned()]));
    let mut changed = object("b");
    changed["metadata"]["labels"] = json!({"team": "shop"});
    for event in [("MODIFIED", changed), ("DELETED", object("a")), ("ADDED", object("c"))] {
        events.send(json!({"type": event.0, "object": event.1})).unwrap();
    }
    assert_eq!(next(&mirror).await, record("b", Action::Update));
    assert_eq!(next(&mirror).await, record("a", Action::Delete));
    assert_eq!(next(&mirror).await, record("c", Action::Create));
    drain.cancel();
    task.await.unwrap().unwrap();
}
