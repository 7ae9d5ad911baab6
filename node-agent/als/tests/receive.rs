//! Proxies against the receiver beside the agent link, over real sockets: of every entry it is known what became of it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

#[path = "support/message.rs"]
mod message;

use std::time::Duration;

use kestrel_als::{
    Tally,
    counter::{Counter, Limits},
    metrics,
    receive::{self, Config, Metrics},
};
use kestrel_proto::{
    envoy::{
        config::core::v3::{Address, Node, SocketAddress, address},
        data::accesslog::v3::{AccessLogCommon, TcpAccessLogEntry},
        service::accesslog::v3::{
            StreamAccessLogsMessage,
            access_log_service_client::AccessLogServiceClient,
            stream_access_logs_message::{Identifier, LogEntries, TcpAccessLogEntries},
        },
    },
    node::v1::{RequestProxy, RequestReport, RequestRow},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use message::message;

/// Nothing here takes that long unless it is broken.
const LIMIT: Duration = Duration::from_secs(60);

struct Receiver {
    port: u16,
    counter: Counter,
    reports: mpsc::Receiver<RequestReport>,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

impl Receiver {
    async fn start(limits: Limits, stream_bytes_per_second: u64) -> Self {
        Self::start_within(limits, stream_bytes_per_second, receive::Limits::POD).await
    }

    async fn start_within(limits: Limits, stream_bytes_per_second: u64, receives: receive::Limits) -> Self {
        let config = Config {
            port: 0,
            is_loopback: true,
            pod_address: Some([10, 0, 0, 1].into()),
            stream_bytes_per_second,
            stream_age: LIMIT * 10,
            tls: None,
            limits: receives,
        };
        let (metrics, drain) = (Metrics::default(), CancellationToken::new());
        let counter = Counter::of_proxies(limits, metrics::Metrics::default());
        let (receive, reports) =
            receive::beside_the_link(config, counter.clone(), metrics.clone(), drain.clone());
        let task = tokio::spawn(receive);
        Self { port: metrics.port().await, counter, reports, drain, task }
    }

    /// Sends the messages as one proxy.
    async fn send(&self, messages: impl IntoIterator<Item = StreamAccessLogsMessage>) {
        let address = format!("http://127.0.0.1:{}", self.port);
        let mut client = AccessLogServiceClient::connect(address).await.unwrap();
        let (sender, outbound) = mpsc::channel(4);
        let sending = async move {
            for message in messages {
                sender.send(message).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(client.stream_access_logs(ReceiverStream::new(outbound)), sending);
        answer.unwrap();
    }

    /// Ends it; all reports that nobody has taken, and what became of entries as it knows itself.
    async fn stop(mut self) -> (Vec<RequestReport>, Tally) {
        self.drain.cancel();
        let mut reports = Vec::new();
        while let Some(report) = timeout(LIMIT, self.reports.recv()).await.unwrap() {
            reports.push(report);
        }
        timeout(LIMIT, self.task).await.unwrap().unwrap();
        let mut all = Tally::default();
        self.counter.tallies().values().for_each(|tally| all.add(*tally));
        (reports, all)
    }
}

fn identifier() -> Option<Identifier> {
    let id = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".to_owned();
    Some(Identifier { node: Some(Node { id, ..Node::default() }), log_name: "als".to_owned() })
}

/// Requests for a hundred paths, each of them of this batch alone.
fn paths(batch: usize) -> StreamAccessLogsMessage {
    message(identifier(), "db", (0..100).map(|at| word(batch * 100 + at)))
}

/// A name that no template folds.
fn word(mut number: usize) -> String {
    let mut word = String::from("/");
    for _ in 0..6 {
        word.push((b'g' + (number % 20) as u8).into());
        number /= 20;
    }
    word
}

/// What reports say of all entries, with a look at each: numbers ascend, places exist, no proxy has more folded than rows.
fn sum(reports: &[RequestReport]) -> Tally {
    let mut all = Tally::default();
    for (at, RequestReport { run, number, proxies, rows }) in reports.iter().enumerate() {
        assert_eq!((*run, *number), (reports[0].run, reports[0].number + at as u64));
        for (place, proxy) in proxies.iter().enumerate() {
            let RequestProxy { folded, malformed, unfinished, twins, over_rate, .. } = *proxy;
            let own = |row: &&RequestRow| row.proxy as usize == place;
            let counted: u64 = rows.iter().filter(own).map(|row| row.count).sum();
            let aggregated = counted.checked_sub(folded).expect("no more is folded than counted");
            all.add(Tally { aggregated, folded, malformed, unfinished, twins, over_rate });
        }
        assert!(rows.iter().all(|row| (row.proxy as usize) < proxies.len()));
    }
    all
}

#[tokio::test]
async fn sent_is_aggregated_and_folded_and_refused() {
    let receiver = Receiver::start(Limits::POD, 0).await;
    // The other logger of the proxy logs each of a hundred requests too.
    let common = AccessLogCommon { access_log_type: 6, ..AccessLogCommon::default() };
    let twin = TcpAccessLogEntry { common_properties: Some(common), connection_properties: None };
    let twins = LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: vec![twin; 100] });
    let twins = StreamAccessLogsMessage { identifier: None, log_entries: Some(twins) };
    receiver.send((0..20).map(paths).chain([twins])).await;
    let (reports, tally) = receiver.stop().await;
    assert_eq!((sum(&reports), tally.received(), tally.refused()), (tally, 2100, tally.twins));
    assert_eq!(tally.twins, 100);
    assert!(tally.folded > 0 && tally.aggregated > 0, "{tally:?}");
}

/// Scenario: ten times as much as a stream may send, of paths that are all different, and bytes that are no entry.
/// Guarantee: the bytes of rows stay within what they may take, and what became of every entry is known.
#[tokio::test]
async fn ten_times_too_much_is_counted_within_the_bytes() {
    let limits = Limits { bytes: 64 * 1024, each: 64 * 1024, ..Limits::POD };
    let receiver = Receiver::start(limits, 50_000).await;
    receiver.send((0..100).map(paths)).await;
    let (reports, tally) = receiver.stop().await;
    assert_eq!((sum(&reports), tally.received()), (tally, 10_000));
    assert!(tally.over_rate > 5000 && tally.folded > 0 && tally.aggregated > 0, "{tally:?}");
    let rows: usize = reports.iter().map(|report| report.rows.len()).sum();
    assert!(rows < 400, "{rows}");
}

/// Scenario: clients connect and say nothing, or no more than that they speak HTTP/2.
/// Guarantee: they do not keep their places, and a proxy that sends does.
#[tokio::test]
async fn a_connection_without_a_stream_is_ended() {
    let short = receive::Limits { handshake: Duration::from_millis(200), ..receive::Limits::POD };
    let receiver = Receiver::start_within(Limits::POD, 0, short).await;
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut connection = TcpStream::connect(("127.0.0.1", receiver.port)).await.unwrap();
        connection.write_all(said).await.unwrap();
        let mut heard = Vec::new();
        let _reset = timeout(LIMIT, connection.read_to_end(&mut heard)).await.expect("it is ended");
    }
    receiver.send((0..2).map(paths)).await;
    let (_, tally) = receiver.stop().await;
    assert_eq!(tally.received(), 200);
}

/// Scenario: one address has as many connections as it may, and keeps them; then it and another one connect.
/// Guarantee: it gets no more, the other one is served.
#[tokio::test]
async fn one_address_does_not_take_all_places() {
    let limits = receive::Limits { connections: 4, share: 2, handshake: LIMIT * 2, ..receive::Limits::POD };
    let receiver = Receiver::start_within(Limits::POD, 0, limits).await;
    let connect = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        let mut connection = socket.connect(([127, 0, 0, 1], receiver.port).into()).await.unwrap();
        let _gone = connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        let mut answer = [0; 9];
        let answered =
            timeout(LIMIT, connection.read_exact(&mut answer)).await.expect("it is answered or ended");
        answered.is_ok().then_some(connection)
    };
    let kept = [connect(1).await, connect(1).await];
    assert!(kept.iter().all(Option::is_some));
    assert!(connect(1).await.is_none());
    assert!(connect(2).await.is_some());
    drop(kept);
    receiver.stop().await;
}

/// Scenario: a plain Envoy, which does not say where it is, logs over the loopback a request that somebody made to its pod and that had no route.
/// Guarantee: it is the server's view, as its address is the pod's.
#[tokio::test]
async fn a_proxy_behind_the_loopback_is_where_its_pod_is() {
    let receiver = Receiver::start(Limits::POD, 0).await;
    let node = Some(Node { id: "web-1".to_owned(), ..Node::default() });
    let mut message = message(Some(Identifier { node, log_name: "als".to_owned() }), "db", ["/"]);
    let Some(LogEntries::HttpLogs(logs)) = &mut message.log_entries else { panic!("no requests") };
    let common = logs.log_entry[0].common_properties.as_mut().unwrap();
    common.upstream_cluster.clear();
    let socket = SocketAddress { address: "10.0.0.1".to_owned(), ..SocketAddress::default() };
    common.downstream_local_address =
        Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    receiver.send([message]).await;
    let (reports, _) = receiver.stop().await;
    assert!(reports[0].rows[0].at_server, "{reports:?}");
    assert_eq!(reports[0].proxies[0].address, vec![10, 0, 0, 1]);
}
