//! A real gRPC server on a real socket, which plays what Hubble does.

use std::pin::Pin;

use kestrel_proto::hubble::{
    flow::{self, Ip, LostEventSource},
    observer::{
        GetFlowsResponse,
        get_flows_response::ResponseTypes,
        observer_server::{Observer, ObserverServer},
    },
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, UnboundedReceiverStream, UnixListenerStream},
};
use tonic::Response;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

type Answers = mpsc::UnboundedSender<Result<GetFlowsResponse, Status>>;

/// Hands every request and the way to answer it to the test.
struct Played(mpsc::Sender<(GetFlowsRequest, Answers)>);

#[tonic::async_trait]
impl Observer for Played {
    type GetFlowsStream = Pin<Box<dyn Stream<Item = Result<GetFlowsResponse, Status>> + Send>>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let (answers, given) = mpsc::unbounded_channel();
        self.0.send((request.into_inner(), answers)).await.map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(given))))
    }
}

struct World {
    directory: tempfile::TempDir,
    window: Arc<Mutex<Window>>,
    registry: Registry,
    sources: Sources,
    follower: JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let window = Arc::new(Mutex::new(Window::new(100)));
        let (counts, sources, mut registry) = (Counts::default(), Sources::default(), Registry::default());
        counts.register(&mut registry);
        let follower = tokio::spawn(follow(
            directory.path().join("hubble.sock"),
            Arc::clone(&window),
            counts,
            sources.clone(),
        ));
        Self { directory, window, registry, sources, follower }
    }

    /// A server at the socket, and its requests.
    fn serve(&self) -> (JoinHandle<()>, ReceiverStream<(GetFlowsRequest, Answers)>) {
        let socket = self.directory.path().join("hubble.sock");
        let _none_before = std::fs::remove_file(&socket);
        let connections = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let (asked, requests) = mpsc::channel(1);
        let server = tonic::transport::Server::builder()
            .add_service(ObserverServer::new(Played(asked)))
            .serve_with_incoming(connections);
        (tokio::spawn(async { server.await.unwrap() }), ReceiverStream::new(requests))
    }

    /// Waits until `/metrics` has this line.
    async fn shows(&self, line: &str) {
        let shown = async {
            loop {
                let mut text = String::new();
                encode(&mut text, &self.registry).unwrap();
                if text.lines().any(|found| found == line) {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, shown).await.unwrap_or_else(|_| panic!("no {line}"));
    }
}

fn flow(time: Timestamp) -> GetFlowsResponse {
    let flow = flow::Flow {
        time: Some(time),
        verdict: Verdict::Forwarded.into(),
        ip: Some(Ip { source: "10.0.0.1".to_owned(), destination: "10.0.0.2".to_owned() }),
        ..flow::Flow::default()
    };
    GetFlowsResponse { response_types: Some(ResponseTypes::Flow(flow)), time: None }
}

async fn next(requests: &mut ReceiverStream<(GetFlowsRequest, Answers)>) -> (GetFlowsRequest, Answers) {
    timeout(DEADLINE, requests.next()).await.expect("nobody asked").unwrap()
}

#[tokio::test]
async fn a_socket_that_comes_is_read_and_after_a_restart_read_on_without_repeats() {
    let world = World::start();
    let (server, mut requests) = world.serve();
    let (request, answers) = next(&mut requests).await;
    assert!(request.follow && request.since.is_some());
    assert_eq!(request.field_mask.as_ref().unwrap().paths, FIELDS);
    assert_eq!(request.experimental.unwrap().field_mask, request.field_mask);
    assert_eq!(request.blacklist[0].reply, [true]);
    let since = request.since.unwrap();
    let later = |nanos| timestamp((since.seconds as u64) * 1_000_000_000 + (since.nanos as u64) + nanos);
    for nanos in [1, 7, 3] {
        answers.send(Ok(flow(later(nanos)))).unwrap();
    }
    let lost = LostEvent { source: LostEventSource::HubbleRingBuffer.into(), num_events_lost: 12 };
    let lost = GetFlowsResponse { response_types: Some(ResponseTypes::LostEvents(lost)), time: None };
    answers.send(Ok(lost)).unwrap();
    world.shows(r#"flows_seen_total{source="hubble"} 3"#).await;
    world.shows(r#"hubble_events_lost_total{by="ring"} 12"#).await;
    let flows: Vec<_> = world.window.lock().unwrap().close().flatten().collect();
    assert_eq!((flows.len(), flows[0].count), (1, 3));
    assert_eq!(world.sources.names().len(), 1);

    // The whole server goes, and another one takes its place.
    server.abort();
    drop((answers, requests));
    let (server, mut requests) = world.serve();
    let (request, answers) = next(&mut requests).await;
    assert_eq!(request.since, Some(later(8)), "after the last that was seen");
    // The clock was far ahead for a moment.
    answers.send(Ok(flow(timestamp(4_000_000_000_000_000_000)))).unwrap();
    world.shows(r#"flows_seen_total{source="hubble"} 4"#).await;
    server.abort();
    drop((answers, requests));
    let (_server, mut requests) = world.serve();
    let (request, _answers) = next(&mut requests).await;
    assert!(request.since.unwrap().seconds < 4_000_000_000, "what comes now is not skipped");
    world.follower.abort();
}

#[tokio::test]
async fn a_server_that_knows_no_masks_is_asked_without() {
    let world = World::start();
    let (_server, mut requests) = world.serve();
    let (request, answers) = next(&mut requests).await;
    assert!(request.field_mask.is_some());
    // As Cilium says it.
    answers.send(Err(Status::unknown("invalid fieldmask"))).unwrap();
    drop(answers);
    let (request, answers) = next(&mut requests).await;
    assert_eq!((request.field_mask, request.experimental), (None, None));
    answers.send(Ok(flow(timestamp(now())))).unwrap();
    world.shows(r#"flows_seen_total{source="hubble"} 1"#).await;
    world.follower.abort();
}

#[tokio::test]
async fn what_a_proxy_refused_is_asked_for_and_what_it_let_pass_is_not() {
    let world = World::start();
    let (_server, mut requests) = world.serve();
    let (request, _answers) = next(&mut requests).await;
    // As Cilium joins them: all parts of one filter, any of the filters.
    let is_left_out = |kind: i32, verdict: Verdict| {
        request.blacklist.iter().any(|filter| {
            filter.reply.is_empty()
                && (filter.event_type.is_empty() || filter.event_type.iter().any(|it| it.r#type == kind))
                && (filter.verdict.is_empty() || filter.verdict.contains(&verdict.into()))
        })
    };
    let (of_packets, of_proxies) = (4, 129);
    for verdict in [Verdict::Dropped, Verdict::Error] {
        assert!(!is_left_out(of_packets, verdict) && !is_left_out(of_proxies, verdict), "{verdict:?}");
    }
    for verdict in [Verdict::Forwarded, Verdict::Redirected, Verdict::Audit] {
        assert!(!is_left_out(of_packets, verdict) && is_left_out(of_proxies, verdict), "{verdict:?}");
    }
    assert!(is_left_out(of_packets, Verdict::Traced));
    world.follower.abort();
}

#[tokio::test]
async fn a_source_is_one_when_it_has_answered() {
    let world = World::start();
    let silent = UnixListener::bind(world.directory.path().join("hubble.sock")).unwrap();
    for _ in 0..2 {
        let (asked, _) = timeout(DEADLINE, silent.accept()).await.expect("nobody asked").unwrap();
        drop(asked);
        assert!(world.sources.names().is_empty(), "a socket alone is none");
    }
    drop(silent);
    let (_server, mut requests) = world.serve();
    let (_request, answers) = next(&mut requests).await;
    answers.send(Ok(flow(timestamp(now())))).unwrap();
    world.shows(r#"flows_seen_total{source="hubble"} 1"#).await;
    assert_eq!(world.sources.names().len(), 1);
    world.follower.abort();
}
