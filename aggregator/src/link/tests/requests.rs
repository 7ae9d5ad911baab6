//! What proxies logged to agents and collectors.

use std::time::{Instant, SystemTime};

use kestrel_als::{
    counter::{Counter, Limits},
    receive,
};
use kestrel_link::{
    connection::{self, Link},
    ship::Shipper,
};
use kestrel_proto::{
    cloud::v1::{StreamFlowsRequest, stream_flows_request},
    envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient,
    node::v1::{RequestProxy, RequestReport, RequestRow, RequestsTold},
};
use kestrel_tail::{engine::Engine, position::store::Store, redact::Redactor};
use tokio::{runtime, time::sleep};

use super::*;
use crate::als::tests::message::message;

fn report(number: u64) -> BatchContent {
    let row = RequestRow { count: 3, cluster: b"db"[..].into(), ..RequestRow::default() };
    let proxies = vec![RequestProxy { id: "envoy".to_owned(), ..RequestProxy::default() }];
    let report = RequestReport { run: 1, number, proxies, rows: vec![row] };
    BatchContent { requests: vec![report], ..BatchContent::default() }
}

/// Scenario: an agent and a collector report; the collector's stream breaks, and it reports again.
/// Guarantee: both hear when the cloud has been told, and what was reported twice is told once.
#[tokio::test]
async fn reports_are_named_when_the_cloud_has_been_told() {
    let server = server(10).await;
    let ends = CancellationToken::new();
    let telling = tokio::spawn(server.shared.requests.clone().run(ends.clone()));
    let mut agent = server.attached(AGENT).await;
    agent.content(1, report(1)).await;
    server.attached(SIDECAR).await.content(1, report(1)).await;
    let mut sidecar = server.attached(SIDECAR).await;
    sidecar.content(1, report(1)).await;
    sidecar.content(2, report(2)).await;
    for (stream, last) in [(&mut agent, 1), (&mut sidecar, 2)] {
        let told = async {
            loop {
                if let Down::RequestsTold(RequestsTold { run: 1, number }) = stream.next().await.unwrap()
                    && number == last
                {
                    return;
                }
            }
        };
        timeout(DEADLINE, told).await.unwrap();
    }
    ends.cancel();
    telling.await.unwrap();
    let tallies = server.shared.requests.tallies();
    assert_eq!(tallies.values().map(|tally| tally.aggregated).sum::<u64>(), 9);
}

/// Scenario: the link ends as soon as the cloud has been told what agents and collectors sent.
/// Guarantee: they hear both, and send nothing of it to the next leader.
#[tokio::test]
async fn what_was_told_is_named_before_the_link_ends() {
    let server = server(10).await;
    let mut streams = [server.attached(AGENT).await, server.attached(SIDECAR).await];
    for stream in &streams {
        stream.content(1, report(1)).await;
    }
    let requests = &server.shared.requests;
    let taken = async {
        while requests.tallies().values().map(|tally| tally.aggregated).sum::<u64>() < 6 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, taken).await.unwrap();
    // No session goes on in between.
    requests.settle();
    server.drain.cancel();
    for stream in &mut streams {
        let mut has_heard = false;
        let end = loop {
            match stream.next().await {
                Ok(Down::RequestsTold(RequestsTold { run: 1, number: 1 })) => has_heard = true,
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert!(has_heard && end.message().contains("the leader is changing"), "{end}");
    }
}

/// An agent's end: a receiver of access logs, and the link.
struct Sender {
    shipper: Shipper,
    events: mpsc::Receiver<kestrel_link::Event>,
    reports: mpsc::Receiver<RequestReport>,
}

impl Sender {
    /// Does what an agent does, until something is so.
    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let working = async {
            while !is_so(self) {
                tokio::select! {
                    Some(event) = self.events.recv() => drop(self.shipper.take(event)),
                    Some(report) = self.reports.recv(), if self.shipper.has_room_for_requests() => {
                        self.shipper.tell_requests(&report);
                    }
                    () = sleep(Duration::from_millis(10)) => {}
                }
                self.shipper.pump(Instant::now(), SystemTime::now());
            }
        };
        timeout(DEADLINE * 2, working).await.unwrap();
    }
}

/// Scenario: proxies log to a node's agent; the leader that has taken its counts is killed before it has told them.
/// Guarantee: the next leader tells each entry once, and the agent keeps nothing.
#[tokio::test]
async fn entries_count_once_over_a_leader_that_is_killed() {
    const SENT: u32 = 1000;
    tls::install_provider();
    let authority = Arc::new(Authority::generate("link").unwrap());
    let life = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = life.spawn({
        let authority = Arc::clone(&authority);
        async move { serving_as(config(), &authority).await }
    });
    let first = first.await.unwrap();
    let port = first.address.port();

    let receiver = receive::Config {
        port: 0,
        is_loopback: true,
        pod_address: None,
        stream_bytes_per_second: 0,
        stream_age: DEADLINE * 10,
        tls: None,
        limits: receive::Limits::NODE,
    };
    let (streams, drain) = (receive::Metrics::default(), CancellationToken::new());
    let counter = Counter::of_proxies(Limits::NODE, kestrel_als::metrics::Metrics::default());
    let (receive, reports) = receive::beside_the_link(receiver, counter, streams.clone(), drain.clone());
    let receiving = tokio::spawn(receive);
    let address = format!("http://127.0.0.1:{}", streams.port().await);
    let mut client = AccessLogServiceClient::connect(address).await.unwrap();
    // Some of these are told apart.
    let paths = || ('a'..'u').cycle().take(100).map(|letter| format!("/{letter}"));
    let messages: Vec<_> = (0..SENT / 100).map(|_| message(None, "db", paths())).collect();
    client.stream_access_logs(tokio_stream::iter(messages)).await.unwrap();
    // What was counted is then reported at once.
    drain.cancel();

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("token"), AGENT).unwrap();
    std::fs::write(path("ca.crt"), authority.certificate_pem()).unwrap();
    let (link, events) = Link::new(connection::Config {
        endpoint: format!("https://localhost:{port}").parse().unwrap(),
        authority: connection::Authority::File(path("ca.crt")),
        token_file: path("token"),
        hello: Hello { protocol_version: 1, ..hello(AGENT) },
        retry: (Duration::from_millis(10), Duration::from_millis(50)),
    });
    let linked = tokio::spawn(link.run(CancellationToken::new()));
    let engine = Engine::new(Vec::new(), Store::empty(&path("positions")), Redactor::new(Default::default()));
    let mut sender = Sender { shipper: Shipper::new(engine, Instant::now()), events, reports };
    let taken = |server: &Server| {
        let tallies = server.shared.requests.tallies();
        tallies.values().map(|tally| tally.received()).sum::<u64>()
    };
    sender.until(|_| taken(&first) == u64::from(SENT)).await;
    life.shutdown_background();
    drop(first);

    let second = async {
        loop {
            // The port is free when the last task of the first is gone.
            if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
                return serving_as(Config { port, ..config() }, &authority).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let second = timeout(DEADLINE, second).await.unwrap();
    let ends = CancellationToken::new();
    let telling = tokio::spawn(second.shared.requests.clone().run(ends.clone()));
    sender.until(|sender| sender.reports.is_closed() && !sender.shipper.has_requests()).await;
    ends.cancel();
    telling.await.unwrap();
    receiving.await.unwrap();
    let mut told = 0;
    while let Some((_, message)) = second.lanes.take(Lane::Flows) {
        let (head, body) = message.on_own_stream();
        match StreamFlowsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap().request {
            Some(stream_flows_request::Request::L7AccessLog(log)) => told += log.count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((told, taken(&second)), (SENT.into(), SENT.into()));
    drop(sender);
    linked.await.unwrap();
}
