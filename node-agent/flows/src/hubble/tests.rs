//! Read from a real gRPC server at the other end of a connection.

#[path = "../../tests/support/hubble.rs"]
mod played;

use kestrel_proto::hubble::{
    flow::{self, LostEventSource},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::TcpListenerStream;

use super::*;
use played::{Answers, serve};

const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    address: std::net::SocketAddr,
    requests: mpsc::Receiver<(GetFlowsRequest, Answers)>,
    window: Mutex<Window>,
    hubble: Hubble,
}

impl World {
    async fn start(hubble: Hubble) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_server, requests) = serve(TcpListenerStream::new(listener));
        Self { address, requests, window: Mutex::new(Window::new(100)), hubble }
    }

    /// What is asked, once it is answered with all of these: what was heard, and how it ended.
    async fn answer(
        &mut self,
        all: impl IntoIterator<Item = Result<GetFlowsResponse, Status>>,
    ) -> (GetFlowsRequest, Vec<News>, End) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut heard = Vec::new();
        let read = self.hubble.read(stream, "http://localhost", &self.window, |news| heard.push(news));
        let answer = async {
            let (request, answers) = self.requests.recv().await.expect("nobody asks");
            all.into_iter().for_each(|answer| answers.send(answer).unwrap());
            request
        };
        let (end, request) = timeout(DEADLINE, async { tokio::join!(read, answer) }).await.expect("no end");
        (request, heard, end)
    }

    /// How often anything was counted since it was asked last.
    fn counted(&self) -> u64 {
        self.window.lock().unwrap().close().flatten().map(|flow| flow.count).sum()
    }
}

fn flow(time: u64) -> GetFlowsResponse {
    played::flow(timestamp(time))
}

#[tokio::test]
async fn a_stream_that_broke_off_is_read_on_without_repeats() {
    let mut world = World::start(Hubble::of_node(Counts::default())).await;
    let (request, heard, end) = world.answer([]).await;
    assert!(request.follow && request.since.is_some());
    assert_eq!(request.field_mask.as_ref().unwrap().paths, FIELDS);
    assert_eq!(request.experimental.unwrap().field_mask, request.field_mask);
    assert_eq!(request.blacklist[0].reply, [true]);
    assert_eq!(heard, [News::Answers]);
    assert_eq!(end, End::Problem("it ended the stream (Unavailable)".to_owned()));

    let begin = now() - 100;
    world.answer([1, 7, 3].map(|nanos| Ok(flow(begin + nanos)))).await;
    assert_eq!(world.counted(), 3);
    // The clock was far ahead for a moment.
    let (request, ..) = world.answer([Ok(flow(4_000_000_000_000_000_000))]).await;
    assert_eq!(request.since, Some(timestamp(begin + 8)), "after the last that was seen");
    let (request, ..) = world.answer([]).await;
    assert!(request.since.unwrap().seconds < 4_000_000_000, "what comes now is not skipped");
}

/// As servers of gRPC in Go do, which say nothing of a call before they have a first message of it.
#[tokio::test]
async fn a_server_that_has_nothing_to_show_answers_nonetheless() {
    let mut world = World::start(Hubble::of_node(Counts::default())).await;
    // One that nobody takes has the next one wait without a head.
    let mut first = Hubble::of_node(Counts::default());
    let (stream, window) = (TcpStream::connect(world.address).await.unwrap(), Mutex::new(Window::new(1)));
    let stuck = first.read(stream, "http://localhost", &window, |_| {});
    let heard = Notify::new();
    let stream = TcpStream::connect(world.address).await.unwrap();
    let read = world.hubble.read(stream, "http://localhost", &world.window, |_| heard.notify_one());
    let answers = async {
        heard.notified().await;
        let (_, answers) = world.requests.recv().await.unwrap();
        let (_, more) = world.requests.recv().await.unwrap();
        for answers in [answers, more] {
            answers.send(Ok(flow(now()))).unwrap();
        }
    };
    timeout(DEADLINE, async { tokio::join!(stuck, read, answers) }).await.expect("no end");
    assert_eq!(world.counted(), 1);
}

#[tokio::test]
async fn of_relay_the_last_seconds_are_read_again_and_counted_once() {
    let mut world = World::start(Hubble::of_relay(Counts::default())).await;
    let begin = now();
    world.answer([10, 30, 20].map(|nanos| Ok(flow(begin + nanos)))).await;
    assert_eq!(world.counted(), 3);
    // Another node's came late.
    let (request, ..) = world.answer([10, 15, 20, 30, 40].map(|nanos| Ok(flow(begin + nanos)))).await;
    assert!(request.since.is_some_and(|since| (since.seconds as u64) < begin / 1_000_000_000 + 1));
    assert_eq!(world.counted(), 2);
}

#[tokio::test]
async fn a_server_that_knows_fewer_fields_is_asked_for_those_and_another_for_all() {
    let mut world = World::start(Hubble::of_node(Counts::default())).await;
    let asked = |request: GetFlowsRequest| request.field_mask.map_or(0, |mask| mask.paths.len());
    let (request, _, end) = world.answer([Ok(flow(now())), Err(Status::unknown("broken"))]).await;
    assert_eq!(
        (asked(request), end),
        (16, End::Problem("broken (Unknown)".to_owned())),
        "it has shown a flow"
    );
    for (fields, expected) in [(16, End::Fields), (14, End::Fields), (12, End::Fields)] {
        let (request, _, end) = world.answer([Err(Status::unknown("invalid fieldmask"))]).await;
        assert_eq!((asked(request), end), (fields, expected));
    }
    let (request, _, end) = world.answer([Err(Status::unknown("broken"))]).await;
    assert_eq!((asked(request), end), (0, End::Problem("broken (Unknown)".to_owned())));
    world.hubble.forget_version();
    let (request, _, end) = world.answer([Err(Status::not_found("no ring"))]).await;
    assert_eq!((asked(request), end), (16, End::Problem("no ring (NotFound)".to_owned())));
}

#[tokio::test]
async fn what_is_missing_is_told_and_counted() {
    let lost = |source: LostEventSource, events| {
        let lost = LostEvent { source: source.into(), num_events_lost: events };
        Ok(GetFlowsResponse { response_types: Some(ResponseTypes::LostEvents(lost)), time: None })
    };
    let nodes = |state: NodeState, names: &[&str]| {
        let node_names = names.iter().map(ToString::to_string).collect();
        let nodes = NodeStatusEvent { state_change: state.into(), node_names, message: String::new() };
        Ok(GetFlowsResponse { response_types: Some(ResponseTypes::NodeStatus(nodes)), time: None })
    };
    let counts = Counts::default();
    let mut world = World::start(Hubble::of_relay(counts.clone())).await;
    let (_, heard, _) = world
        .answer([
            nodes(NodeState::NodeConnected, &["n1"]),
            lost(LostEventSource::HubbleRingBuffer, 12),
            lost(LostEventSource::PerfEventRingBuffer, 5),
            nodes(NodeState::NodeUnavailable, &["n2", "n3"]),
            nodes(NodeState::NodeGone, &["n3"]),
            nodes(NodeState::NodeConnected, &["n2"]),
        ])
        .await;
    let [News::Answers, News::Missing(lost), News::Missing(unreached), News::Well(_)] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert!(
        lost.starts_with("Hubble lost 12 events") && unreached.contains("2 of its nodes (n2, n3)"),
        "{heard:?}"
    );
    assert_eq!(counts.told(), ["5 lost by hubble (perf_ring)", "12 lost by hubble (ring)"]);
}

#[tokio::test]
async fn a_node_of_relay_that_knows_fewer_fields_is_asked_for_those() {
    let mut world = World::start(Hubble::of_relay(Counts::default())).await;
    let nodes = NodeStatusEvent {
        state_change: NodeState::NodeError.into(),
        node_names: vec!["n1".to_owned()],
        message: "invalid fieldmask".to_owned(),
    };
    let refused = GetFlowsResponse { response_types: Some(ResponseTypes::NodeStatus(nodes)), time: None };
    let before = flow(now());
    let (_, heard, end) = world.answer([Ok(before.clone()), Ok(refused)]).await;
    assert_eq!((heard, end), (vec![News::Answers], End::Fields));
    let (request, ..) = world.answer([]).await;
    assert_eq!(request.field_mask.unwrap().paths.len(), KNOWN[1]);
    assert!(
        request.since.is_some_and(|since| (since.seconds, since.nanos) > time_of(&before)),
        "what was counted is not asked for"
    );
}

fn time_of(response: &GetFlowsResponse) -> (i64, i32) {
    match &response.response_types {
        Some(ResponseTypes::Flow(flow::Flow { time: Some(time), .. })) => (time.seconds, time.nanos),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_says_how_it_is() {
    let world = World::start(Hubble::of_relay(Counts::default())).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(status(stream, "http://localhost").await.unwrap().num_connected_nodes, Some(3));
}

#[test]
fn what_a_proxy_refused_is_asked_for_and_what_it_let_pass_is_not() {
    let request = Hubble::of_node(Counts::default()).request();
    // As Cilium joins them: all parts of one filter, any of the filters.
    let of_protocol = |kind: i32, verdict: Verdict, protocol: &str| {
        request.blacklist.iter().any(|filter| {
            filter.reply.is_empty()
                && (filter.event_type.is_empty() || filter.event_type.iter().any(|it| it.r#type == kind))
                && (filter.verdict.is_empty() || filter.verdict.contains(&verdict.into()))
                && (filter.protocol.is_empty() || filter.protocol.iter().any(|it| it == protocol))
        })
    };
    let is_left_out = |kind, verdict| of_protocol(kind, verdict, "http");
    let (of_packets, of_proxies) = (4, 129);
    for verdict in [Verdict::Dropped, Verdict::Error] {
        assert!(!is_left_out(of_packets, verdict) && !is_left_out(of_proxies, verdict), "{verdict:?}");
    }
    for verdict in [Verdict::Forwarded, Verdict::Redirected, Verdict::Audit] {
        assert!(!is_left_out(of_packets, verdict) && is_left_out(of_proxies, verdict), "{verdict:?}");
    }
    assert!(is_left_out(of_packets, Verdict::Traced));
    assert!(
        !of_protocol(of_proxies, Verdict::Forwarded, "dns"),
        "nothing else tells what name servers answer"
    );
}

/// Messages of any length, cut into frames anywhere, come out whole.
#[tokio::test]
async fn a_long_message_is_put_together() {
    let mut world = World::start(Hubble::of_node(Counts::default())).await;
    let mut long = flow(now());
    let Some(ResponseTypes::Flow(flow)) = &mut long.response_types else { panic!() };
    flow.source =
        Some(flow::Endpoint { labels: vec!["k8s:app=web".to_owned(); 20_000], ..Default::default() });
    let short = self::flow(now());
    world.answer([short.clone(), long.clone(), short.clone(), long, short].map(Ok)).await;
    assert_eq!(world.counted(), 5);
}
