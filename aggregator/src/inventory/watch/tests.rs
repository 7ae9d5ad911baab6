//! A watch against an API server that answers by a script: what it asks for,
//! and what its sink is told.

mod absence;
mod trouble;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ApiResource;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

const RETRY: Retry =
    Retry { first: Duration::from_secs(1), most: Duration::from_secs(9), absent: Duration::from_secs(60) };

/// A request, as far as it matters.
#[derive(Debug, PartialEq)]
enum Ask {
    /// All objects in one stream.
    All,
    /// A page of a list: the first, or that of the token.
    Page(&'static str),
    /// What changed since.
    Since(&'static str),
    /// As `All`, of this version of the API.
    AllOf(&'static str),
}

enum Answer {
    Refuse(u16, Value),
    RetryAfter(u64),
    /// Objects, token of the next page, resource version.
    List(Vec<Value>, &'static str, &'static str),
    /// These lines, then the regular end.
    Stream(Vec<Value>),
    /// These bytes, then a broken connection.
    Cut(String),
    /// These lines, then nothing more.
    Open(Vec<Value>),
}

type Told = mpsc::UnboundedReceiver<String>;

struct Ear {
    told: mpsc::UnboundedSender<String>,
    hears: Arc<Mutex<Vec<bool>>>,
}

impl Ear {
    fn hear(&self, what: String) {
        // The test may have ended.
        let _gone = self.told.send(what);
    }
}

impl Sink<Namespace> for Ear {
    fn begin(&self) {
        self.hear("begin".to_owned());
    }

    fn apply(&self, object: &Namespace) {
        assert!(object.metadata.managed_fields.is_none());
        self.hear(object.metadata.name.clone().unwrap_or_default());
    }

    fn remove(&self, object: &Namespace) {
        self.hear(format!("-{}", object.metadata.name.as_deref().unwrap_or_default()));
    }

    fn finish(&self) {
        self.hear("finish".to_owned());
    }

    fn skip(&self) {
        self.hear("skip".to_owned());
    }

    fn hears(&self, does: bool) {
        self.hears.lock().unwrap().push(does);
    }
}

fn object(name: &str, version: &str) -> Value {
    let fields = [json!({"manager": "kubectl", "fieldsV1": {"f:metadata": {}}})];
    json!({"metadata": {"name": name, "managedFields": fields, "uid": name, "resourceVersion": version}})
}

fn event(change: &str, object: Value) -> Value {
    json!({"type": change, "object": object})
}

fn added(name: &str, version: &str) -> Value {
    event("ADDED", object(name, version))
}

fn bookmark(version: &str) -> Value {
    event("BOOKMARK", json!({"kind": "Namespace", "metadata": {"resourceVersion": version}}))
}

fn end_of_list(version: &str) -> Value {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    event("BOOKMARK", json!({"metadata": {"resourceVersion": version, "annotations": annotations}}))
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Because", "message": "no"})
}

fn refuse(code: u16) -> Answer {
    Answer::Refuse(code, status(code))
}

fn asked(request: &Request<Body>) -> (bool, Option<String>, Option<String>, String) {
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    if query.contains("sendInitialEvents=true") {
        assert!(query.contains("resourceVersionMatch=NotOlderThan") && query.contains("allowWatchBookmarks"));
        assert_eq!(value("resourceVersion").unwrap(), "", "of now");
    }
    let version = request.uri().path().rsplit('/').nth(1).unwrap_or_default().to_owned();
    let is_watch = query.contains("watch=true");
    assert_eq!(value("limit"), (!is_watch).then(|| "500".to_owned()));
    (is_watch, value("continue"), value("resourceVersion"), version)
}

fn body(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn frames(text: String) -> impl futures::Stream<Item = io::Result<Frame<Bytes>>> {
    stream::iter([Ok(Frame::data(Bytes::from(text)))])
}

fn response(answer: Answer) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    let whole = |text: String| Full::from(text).map_err(|never| match never {}).boxed_unsync();
    let (code, retry_after, body) = match answer {
        Answer::Refuse(code, status) => (code, None, whole(status.to_string())),
        Answer::RetryAfter(seconds) => (429, Some(seconds), whole("Too many requests".to_owned())),
        Answer::List(items, next, version) => {
            let meta = json!({"resourceVersion": version, "continue": next});
            (200, None, whole(json!({"metadata": meta, "items": items}).to_string()))
        }
        Answer::Stream(lines) => (200, None, whole(body(&lines))),
        Answer::Cut(text) => {
            let cut = stream::iter([Err(io::ErrorKind::ConnectionReset.into())]);
            (200, None, StreamBody::new(frames(text).chain(cut)).boxed_unsync())
        }
        Answer::Open(lines) => {
            (200, None, StreamBody::new(frames(body(&lines)).chain(stream::pending())).boxed_unsync())
        }
    };
    let mut response = Response::builder().status(code);
    if let Some(seconds) = retry_after {
        response = response.header("retry-after", seconds);
    }
    response.body(body).unwrap()
}

/// A watch of namespaces that gets these answers to these requests, in this
/// order, and nothing after them.
struct Scene {
    told: Told,
    /// Whether the sink was told that changes are seen.
    hears: Arc<Mutex<Vec<bool>>>,
    watches: Watches,
    left: Arc<Mutex<VecDeque<(Ask, Answer)>>>,
    drain: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    fn new(script: impl IntoIterator<Item = (Ask, Answer)>) -> Self {
        Self::of(&[], script)
    }

    fn of(versions: &'static [&'static str], script: impl IntoIterator<Item = (Ask, Answer)>) -> Self {
        Self::with(Watches::default(), versions, script)
    }

    /// With these others.
    fn with(
        watches: Watches,
        versions: &'static [&'static str],
        script: impl IntoIterator<Item = (Ask, Answer)>,
    ) -> Self {
        let left = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let script = left.clone();
        let answer = move |request: Request<Body>| {
            let (is_watch, token, since, version) = asked(&request);
            let next = script.lock().unwrap().pop_front();
            async move {
                let Some((expected, answer)) = next else { return std::future::pending().await };
                match expected {
                    Ask::All => assert!(is_watch && since.as_deref() == Some(""), "{request:?}"),
                    Ask::AllOf(of) => assert!(is_watch && version == of, "{request:?}"),
                    Ask::Page(of) => {
                        assert_eq!((is_watch, token.unwrap_or_default()), (false, of.to_owned()))
                    }
                    Ask::Since(of) => assert_eq!((is_watch, since.as_deref()), (true, Some(of))),
                }
                Ok::<_, Infallible>(response(answer))
            }
        };
        let (ear, told) = mpsc::unbounded_channel();
        let hears = Arc::default();
        let ear = Ear { told: ear, hears: Arc::clone(&hears) };
        let drain = CancellationToken::new();
        let resource = ApiResource::erase::<Namespace>(&());
        let source = Source { resource, fields: "", versions };
        let client = Client::new(tower::service_fn(answer), "default");
        let task = tokio::spawn(follow(client, source, ear, watches.clone(), RETRY, drain.clone()));
        Self { told, hears, watches, left, drain, task }
    }

    /// The next things that the sink is told are these.
    async fn tells(&mut self, expected: &[&str]) {
        for (number, expected) in expected.iter().enumerate() {
            let what = timeout(Duration::from_secs(600), self.told.recv()).await.expect("nothing is told");
            assert_eq!(what.as_deref(), Some(*expected), "number {number}");
        }
    }

    /// The script is at its end, and nothing more was told.
    async fn ends(mut self) {
        // Until it asks for what the script does not have.
        sleep(SILENCE * 2).await;
        assert!(self.left.lock().unwrap().is_empty(), "not everything was asked for");
        assert_eq!(self.told.try_recv().ok(), None);
        self.drain.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_one_stream_that_goes_on_and_is_resumed_from_the_last_version() {
    let first = [
        added("a", "3"),
        added("b", "2"),
        end_of_list("7"),
        added("c", "8"),
        event("DELETED", object("a", "9")),
    ];
    let mut scene = Scene::new([
        (Ask::All, Answer::Stream(first.into())),
        (Ask::Since("9"), Answer::Stream(vec![bookmark("12")])),
        (Ask::Since("12"), Answer::Stream(vec![event("MODIFIED", object("b", "13"))])),
        (Ask::Since("13"), Answer::Open(vec![])),
        // It was silent for longer than bookmarks are apart.
        (Ask::Since("13"), Answer::Open(vec![])),
    ]);
    scene.tells(&["begin", "a", "b", "finish", "c", "-a", "b"]).await;
    assert_eq!((scene.watches.count(), scene.watches.missing()), ((1, 1), vec![]));
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn sinks_know_whether_changes_are_seen() {
    let mut scene = Scene::new([
        (Ask::All, refuse(422)),
        (Ask::Page(""), Answer::List(vec![object("a", "1")], "", "5")),
        (Ask::Since("5"), Answer::Stream(vec![added("b", "6")])),
        (Ask::Since("6"), refuse(500)),
        (Ask::Since("6"), Answer::Stream(vec![event("ERROR", status(410))])),
        (Ask::All, Answer::Open(vec![added("c", "7"), end_of_list("7")])),
    ]);
    scene.tells(&["begin", "begin", "a", "finish", "b", "begin", "c", "finish"]).await;
    sleep(WORKED * 2).await;
    // No list in a stream, a page, a watch that ends, one that is refused, another that
    // brings nothing, and a list that becomes a watch.
    assert_eq!(*scene.hears.lock().unwrap(), [false, false, true, false, false, false, true]);
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_can_not_stream_a_list_gives_it_in_pages() {
    // 422: before 1.27, or without the feature gate. 400: a proxy's refusal.
    for code in [422, 400] {
        let mut scene = Scene::new([
            (Ask::All, refuse(code)),
            (Ask::Page(""), Answer::List(vec![object("a", "1")], "more", "5")),
            (Ask::Page("more"), Answer::List(vec![object("b", "2")], "", "5")),
            (Ask::Since("5"), Answer::Open(vec![added("c", "6")])),
        ]);
        scene.tells(&["begin", "begin", "a", "b", "finish", "c"]).await;
        scene.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_ends_a_streamed_list_gives_it_in_pages() {
    for stream in [Answer::Open as fn(_) -> _, Answer::Stream] {
        let mut scene = Scene::new([
            (Ask::All, stream(vec![added("old", "1"), bookmark("4")])),
            (Ask::Page(""), Answer::List(vec![object("a", "1")], "", "5")),
            (Ask::Since("5"), Answer::Open(vec![])),
        ]);
        scene.tells(&["begin", "old", "begin", "a", "finish"]).await;
        scene.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_begins_anew_without_an_outage() {
    let gone = || Answer::Stream(vec![event("ERROR", status(410))]);
    for answer in [refuse(410), gone()] {
        let mut scene = Scene::new([
            (Ask::All, Answer::Stream(vec![added("a", "1"), end_of_list("2")])),
            (Ask::Since("2"), answer),
            (Ask::All, Answer::Open(vec![added("b", "3"), end_of_list("4")])),
        ]);
        scene.tells(&["begin", "a", "finish", "begin", "b", "finish"]).await;
        assert_eq!(scene.watches.count(), (1, 1));
        scene.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_begins_the_list_anew_and_a_failed_page_does_not() {
    let mut scene = Scene::new([
        (Ask::All, refuse(422)),
        (Ask::Page(""), Answer::List(vec![object("a", "1")], "more", "5")),
        (Ask::Page("more"), refuse(500)),
        (Ask::Page("more"), refuse(410)),
        (Ask::All, refuse(422)),
        (Ask::Page(""), Answer::List(vec![object("b", "1")], "", "6")),
        (Ask::Since("6"), Answer::Open(vec![])),
    ]);
    scene.tells(&["begin", "begin", "a", "begin", "begin", "b", "finish"]).await;
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_in_the_middle_of_an_event_loses_nothing() {
    let half = added("c", "4").to_string();
    let half = &half[..half.len() / 2];
    let list = body(&[added("a", "1"), end_of_list("2"), added("b", "3")]);
    let mut scene = Scene::new([
        (Ask::All, Answer::Cut(body(&[added("x", "1")]) + half)),
        (Ask::All, Answer::Cut(list + half)),
        (Ask::Since("3"), Answer::Cut(half.to_owned())),
        (Ask::Since("3"), Answer::Open(vec![added("c", "4")])),
    ]);
    scene.tells(&["begin", "x", "begin", "a", "finish", "b", "c"]).await;
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_asks_for_a_pause_gets_it() {
    let begun = Instant::now();
    let mut scene =
        Scene::new([(Ask::All, Answer::RetryAfter(30)), (Ask::All, Answer::Open(vec![end_of_list("1")]))]);
    scene.tells(&["begin", "begin", "finish"]).await;
    assert!(begun.elapsed() >= Duration::from_secs(30));
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_can_not_be_decoded_costs_only_itself() {
    let mut bad = object("bad", "2");
    bad["metadata"]["labels"] = json!("none");
    let mut scene = Scene::new([
        (Ask::All, refuse(422)),
        (Ask::Page(""), Answer::List(vec![object("a", "1"), bad.clone(), object("b", "1")], "", "5")),
        (Ask::Since("5"), Answer::Stream(vec![event("MODIFIED", bad)])),
        (Ask::Since("2"), Answer::Open(vec![added("c", "6")])),
    ]);
    scene.tells(&["begin", "begin", "a", "b", "finish", "-bad", "c"]).await;
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_can_not_be_decoded_any_more_is_gone_when_it_is_deleted() {
    let mut bad = object("a", "3");
    bad["metadata"]["labels"] = json!("none");
    let mut scene = Scene::new([
        (Ask::All, Answer::Stream(vec![added("a", "1"), end_of_list("2"), event("DELETED", bad)])),
        (Ask::Since("3"), Answer::Open(vec![])),
    ]);
    scene.tells(&["begin", "a", "finish", "-a"]).await;
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_can_not_be_streamed_to_its_end_comes_in_pages() {
    for broken in [|| Answer::Cut(body(&[added("x", "1")])), || refuse(504)] {
        let mut scene = Scene::new([
            (Ask::All, broken()),
            (Ask::All, broken()),
            (Ask::All, broken()),
            (Ask::Page(""), Answer::List(vec![object("a", "1")], "", "5")),
            (Ask::Since("5"), Answer::Open(vec![])),
        ]);
        while timeout(SILENCE, scene.told.recv()).await.unwrap().unwrap() != "finish" {}
        scene.ends().await;
    }
}

#[test]
fn which_object_it_is_can_be_said_of_every_kind() {
    use crate::inventory::convert::{AuthorizationPolicy, Workload};
    use k8s_openapi::api::{core::v1::*, events::v1::Event, networking::v1::NetworkPolicy};
    fn identified<K: Resource + DeserializeOwned>() {
        let text = r#"{"metadata": {"name": "n", "namespace": "s", "uid": "u", "labels": 1}}"#;
        let outline: Outline<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(outline.identity::<K>().unwrap().meta().uid.as_deref(), Some("u"));
    }
    identified::<Namespace>();
    identified::<Node>();
    identified::<Pod>();
    identified::<Service>();
    identified::<Event>();
    identified::<NetworkPolicy>();
    identified::<Workload>();
    identified::<AuthorizationPolicy>();
}
