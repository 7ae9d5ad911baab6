//! The link over real sockets and real TLS. Only the API server's review of
//! tokens is played: a token says itself what its review gives.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::{authentication::v1::TokenReviewStatus, core::v1::Pod};
use kestrel_proto::{
    cloud::v1::{NodeCondition, PodLogs, StreamLogsRequest, stream_logs_request},
    node::v1::{
        AgentMessage, AggregatorMessage, Batch, BatchContent, Compression, Hello, HostReport, LogChunk,
        LogGap, LogLevel, LogPolicy, Role, agent_link_client::AgentLinkClient, agent_message::Message as Up,
        aggregator_message::Message as Down,
    },
};
use kestrel_runtime::tls::{
    self,
    authority::Authority,
    client::{Connector, Target},
};
use prost::Message as _;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Endpoint};

use super::{columns::Line, review::Review, *};
use crate::{
    excluded::Excluded,
    inventory::{convert, pods::Policies},
    signals::{lines::Lines, thresholds::Thresholds},
    uplink::{
        lanes::{Lane, Lanes, Number},
        metrics::Metrics as UplinkMetrics,
    },
};

/// Nothing here takes longer unless it is broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// A token is `account pod uid node`.
struct Played;

impl Review for Played {
    async fn review(&self, token: &str) -> anyhow::Result<TokenReviewStatus> {
        let [account, pod, uid, node] = token.split(' ').collect::<Vec<_>>()[..] else {
            return Ok(TokenReviewStatus { error: Some("not genuine".to_owned()), ..Default::default() });
        };
        Ok(serde_json::from_value(json!({
            "authenticated": true,
            "audiences": ["kestrel-agent-link"],
            "user": {"username": format!("system:serviceaccount:{account}"), "extra": {
                "authentication.kubernetes.io/pod-name": [pod],
                "authentication.kubernetes.io/pod-uid": [uid],
                "authentication.kubernetes.io/node-name": [node],
            }},
        }))?)
    }
}

const AGENT: &str = "kestrel-ai:kestrel-node-agent agent-n1 agent-uid n1";
const SIDECAR: &str = "shop:default web-1 u1 n1";

struct Server {
    address: SocketAddr,
    lanes: Lanes,
    pods: Pods,
    lines: Lines,
    metrics: Metrics,
    roots: rustls::RootCertStore,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

fn pod(name: &str, uid: &str, node: &str) -> Pod {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs"});
    let meta = json!({"namespace": "shop", "name": name, "uid": uid, "ownerReferences": [owner]});
    serde_json::from_value(json!({"metadata": meta, "spec": {"nodeName": node, "containers": []}})).unwrap()
}

fn apply(pods: &Pods, pod: &Pod) {
    pods.apply(pod, convert::pod(pod).encode_to_vec().into());
}

async fn server(most: usize) -> Server {
    tls::install_provider();
    let authority = Authority::generate("link").unwrap();
    let certificate = Arc::new(ServingCertificate::default());
    let names = ["kestrel-agent-link.kestrel-ai.svc".to_owned()];
    certificate.replace(authority.server_certificate(&names, Duration::from_secs(3600)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (lanes, metrics, drain) =
        (Lanes::new(UplinkMetrics::default()), Metrics::default(), CancellationToken::new());
    lanes.lead();
    let excluded = Excluded::parse("bank");
    let pods = Pods::new(Policies { default: LogPolicy::Errors, excluded });
    for (name, uid, node) in [("web-1", "u1", "n1"), ("web-2", "u2", "n2")] {
        apply(&pods, &pod(name, uid, node));
    }
    let signals = Signals::new(&Thresholds::default(), &lanes.signals(), &pods);
    let lines = signals.lines.clone();
    let node = json!({"metadata": {"name": "n1", "uid": "un1"}});
    signals.nodes.seen(&serde_json::from_value(node).unwrap(), Timestamp::now());
    let shared = Shared::new(most, pods.clone(), signals, lanes.logs(), metrics.clone(), drain.clone());
    let rules = Rules { namespace: "kestrel-ai".to_owned(), agent_account: "kestrel-node-agent".to_owned() };
    let identities = Identities::new(Played, rules, pods.clone());
    let task = tokio::spawn(server::run(listener, certificate, shared, identities));
    let roots = tls::roots(authority.certificate_pem().as_bytes()).unwrap();
    Server { address, lanes, pods, lines, metrics, roots, drain, task }
}

/// The two halves of an open stream.
struct Stream {
    up: mpsc::Sender<AgentMessage>,
    down: Streaming<AggregatorMessage>,
    nacks_seen: u64,
}

impl Server {
    async fn open(&self, token: Option<&str>) -> Result<Stream, Status> {
        let mut config =
            rustls::ClientConfig::builder().with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let target = Target {
            host: "127.0.0.1".to_owned(),
            port: self.address.port(),
            server_name: "kestrel-agent-link.kestrel-ai.svc".to_owned(),
            config: Arc::new(config),
            proxy: None,
        };
        let endpoint = Endpoint::from_static("http://link");
        let channel = endpoint.connect_with_connector(Connector(target)).await.unwrap();
        let (up, queue) = mpsc::channel(4);
        let mut request = tonic::Request::new(ReceiverStream::new(queue));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut client = AgentLinkClient::new(channel);
        let down = timeout(DEADLINE, client.attach(request)).await.unwrap()?.into_inner();
        Ok(Stream { up, down, nacks_seen: 0 })
    }

    /// An attached stream that has read Welcome and the first pods.
    async fn attached(&self, token: &str) -> Stream {
        let mut stream = self.open(Some(token)).await.unwrap();
        stream.send(Up::Hello(hello(token))).await;
        assert!(matches!(stream.next().await.unwrap(), Down::Welcome(_)));
        assert!(matches!(stream.next().await.unwrap(), Down::PodUpdate(_)));
        stream
    }

    /// The next logs that wait for the cloud.
    async fn logs(&self) -> (PodLogs, Number) {
        let next = async {
            loop {
                let changed = self.lanes.changed();
                if let Some(found) = self.lanes.take(Lane::Logs) {
                    return found;
                }
                changed.await;
            }
        };
        let (number, message) = timeout(DEADLINE, next).await.unwrap();
        let (head, body) = message.on_own_stream();
        let envelope = StreamLogsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap();
        let Some(stream_logs_request::Request::PodLogs(logs)) = envelope.request else {
            panic!("{envelope:?}")
        };
        (logs, number)
    }

    fn refused(&self, reason: Refused) -> u64 {
        self.metrics.refused.get_or_create(&RefusedLabel { reason }).get()
    }
}

impl Stream {
    async fn send(&self, message: Up) {
        timeout(DEADLINE, self.up.send(AgentMessage { message: Some(message) })).await.unwrap().unwrap();
    }

    async fn next(&mut self) -> Result<Down, Status> {
        let message = timeout(DEADLINE, self.down.message()).await.unwrap()?;
        Ok(message.expect("the stream ended without a status").message.unwrap())
    }

    /// Sends a batch and returns how many bytes its payload has.
    async fn batch(&self, id: u64, chunks: Vec<LogChunk>) -> u64 {
        self.content(id, BatchContent { logs: chunks, gaps: vec![] }).await
    }

    async fn content(&self, id: u64, content: BatchContent) -> u64 {
        let content = content.encode_to_vec();
        let payload: Bytes = zstd::bulk::compress(&content, 1).unwrap().into();
        let (bytes, content_bytes) = (payload.len() as u64, content.len() as u64);
        let (compression, nacks_seen) = (Compression::Zstd.into(), self.nacks_seen);
        self.send(Up::Batch(Batch { id, compression, payload, content_bytes, nacks_seen })).await;
        bytes
    }
}

fn hello(token: &str) -> Hello {
    let [account, pod, uid, node] = token.split(' ').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let role = if account == "kestrel-ai:kestrel-node-agent" { Role::NodeAgent } else { Role::Sidecar };
    Hello {
        protocol_version: 7,
        features: vec!["of-the-future".to_owned()],
        software_version: "test".to_owned(),
        role: role.into(),
        node_name: node.to_owned(),
        pod_namespace: account.split(':').next().unwrap().to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: uid.to_owned(),
    }
}

fn chunk(pod: &str, uid: &str, lines: &[&str]) -> LogChunk {
    of_file(pod, uid, lines, &vec![0; lines.len()])
}

/// Lines that end there in their file; 0: it does not say where.
fn of_file(pod: &str, uid: &str, lines: &[&str], ends: &[u32]) -> LogChunk {
    let line = |(text, end)| Line { nanoseconds: 0, text, class: "", end, level: LogLevel::Info };
    let lines: Vec<_> = lines.iter().copied().zip(ends.iter().copied()).map(line).collect();
    LogChunk {
        file_id: "f".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: uid.to_owned(),
        container_name: "app".to_owned(),
        ..columns::write(&lines)
    }
}

fn texts(logs: &PodLogs) -> Vec<&str> {
    logs.log_entries.iter().map(|entry| entry.message.as_str()).collect()
}

#[tokio::test]
async fn an_agent_is_welcomed_told_its_pods_and_their_changes() {
    let server = server(10).await;
    let mut stream = server.open(Some(AGENT)).await.unwrap();
    stream.send(Up::Hello(hello(AGENT))).await;
    let Down::Welcome(welcome) = stream.next().await.unwrap() else { panic!() };
    assert_eq!(welcome.protocol_version, 1, "the greatest that both speak");
    assert!(welcome.credit_bytes >= welcome.max_batch_bytes && welcome.max_batch_bytes >= 4 * 1024 * 1024);
    let Down::PodUpdate(pods) = stream.next().await.unwrap() else { panic!() };
    assert!(pods.snapshot);
    assert_eq!(pods.pods.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(), ["u1"]);
    apply(&server.pods, &pod("web-3", "u3", "n1"));
    let Down::PodUpdate(pods) = stream.next().await.unwrap() else { panic!() };
    assert_eq!((pods.snapshot, pods.pods[0].name.as_str()), (false, "web-3"));
    let attached = |role| server.metrics.attached.get_or_create(&metrics::RoleLabel { role }).get();
    assert_eq!((attached(metrics::Role::Agent), attached(metrics::Role::Sidecar)), (1, 0));
}

#[tokio::test]
async fn logs_pass_with_their_owner_and_are_answered_in_order_when_they_left() {
    let server = server(10).await;
    let mut stream = server.attached(AGENT).await;
    let bytes = stream.batch(1, vec![chunk("web-1", "u1", &["one", "two"])]).await;
    assert!(matches!(stream.next().await.unwrap(), Down::Credit(credit) if credit.bytes == bytes));
    for (id, line) in [(2, "three"), (3, "four")] {
        stream.batch(id, vec![chunk("web-1", "u1", &[line])]).await;
        assert!(matches!(stream.next().await.unwrap(), Down::Credit(_)));
    }
    let (logs, first) = server.logs().await;
    assert_eq!((texts(&logs), logs.node_name.as_str()), (vec!["one", "two"], "n1"));
    assert_eq!(logs.owner_references[0].uid, "rs");
    let (_, second) = server.logs().await;
    let (logs, third) = server.logs().await;
    assert_eq!((logs.log_entries[0].line_number, logs.stream_offset), (4, 4));
    assert_eq!(server.lines.last("u1", "app", None), ["one", "two", "three", "four"], "kept for signals");
    server.lanes.left(Lane::Logs, first);
    server.lanes.again(Lane::Logs, second);
    server.lanes.again(Lane::Logs, third);
    assert!(matches!(stream.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 1));
    let Down::Nack(nack) = stream.next().await.unwrap() else { panic!() };
    assert_eq!(nack.reason, "the stream to the cloud ended too soon after");

    // What was under way is not taken; its credit comes back.
    let bytes = stream.batch(4, vec![chunk("web-1", "u1", &["five"])]).await;
    assert!(matches!(stream.next().await.unwrap(), Down::Credit(credit) if credit.bytes == bytes));
    stream.nacks_seen = 1;
    stream.batch(5, vec![chunk("web-1", "u1", &["three", "four", "five"])]).await;
    let (logs, again) = server.logs().await;
    assert_eq!(texts(&logs), ["three", "four", "five"]);
    server.lanes.left(Lane::Logs, again);
    while !matches!(stream.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 5) {}
}

#[tokio::test]
async fn what_an_agent_reads_again_after_a_restart_is_not_sent_twice_and_is_answered_with_the_first() {
    let server = server(10).await;
    let read = |lines: &[&str], ends: &[u32]| of_file("web-1", "u1", lines, ends);
    let before = server.attached(AGENT).await;
    before.batch(1, vec![read(&["one", "two"], &[4, 8])]).await;
    let (_, under_way) = server.logs().await;
    drop(before);
    let mut stream = server.attached(AGENT).await;
    stream.batch(1, vec![read(&["one"], &[4])]).await;
    stream.batch(2, vec![read(&["two", "three"], &[8, 14])]).await;
    for _ in 0..2 {
        assert!(matches!(stream.next().await.unwrap(), Down::Credit(_)));
    }
    let (logs, rest) = server.logs().await;
    assert_eq!((texts(&logs), server.metrics.repeated_lines.get()), (vec!["three"], 2));
    server.lanes.left(Lane::Logs, rest);
    server.lanes.left(Lane::Logs, under_way);
    let mut acked = 0;
    while acked < 2 {
        let Down::Ack(ack) = stream.next().await.unwrap() else { panic!() };
        acked = ack.up_to_id;
    }
}

#[tokio::test]
async fn what_a_peer_may_not_speak_of_is_dropped_and_the_rest_of_its_batch_is_not() {
    let server = server(10).await;
    let (mut agent, mut sidecar) = (server.attached(AGENT).await, server.attached(SIDECAR).await);
    let (own, other) = (chunk("web-1", "u1", &["own"]), chunk("web-2", "u2", &["another node's"]));
    agent.batch(1, vec![other.clone(), own.clone()]).await;
    assert!(matches!(agent.next().await.unwrap(), Down::Credit(_)));
    let (logs, number) = server.logs().await;
    assert_eq!(texts(&logs), ["own"]);
    server.lanes.left(Lane::Logs, number);
    assert!(matches!(agent.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 1));
    sidecar.batch(1, vec![chunk("web-1", "other-uid", &["x", "y"]), other]).await;
    let mut answers = [sidecar.next().await.unwrap(), sidecar.next().await.unwrap()];
    answers.sort_by_key(|answer| matches!(answer, Down::Ack(_)));
    assert!(matches!(answers, [Down::Credit(_), Down::Ack(_)]), "{answers:?}");
    assert_eq!((server.metrics.foreign_lines.get(), server.metrics.lines.get()), (4, 1));
    sidecar.send(Up::HostReport(HostReport::default())).await;
    assert_eq!(sidecar.next().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn lines_of_an_excluded_namespace_end_here_and_its_pods_are_not_asked_for_any() {
    let server = server(10).await;
    let mut of_the_bank = pod("vault-0", "u9", "n1");
    of_the_bank.metadata.namespace = Some("bank".to_owned());
    of_the_bank.metadata.annotations = Some([("kestrel.ai/logs".to_owned(), "all".to_owned())].into());
    let mut agent = server.attached(AGENT).await;
    apply(&server.pods, &of_the_bank);
    let Down::PodUpdate(update) = agent.next().await.unwrap() else { panic!() };
    assert_eq!((update.pods[0].name.as_str(), update.pods[0].log_policy()), ("vault-0", LogPolicy::Off));
    let [known, unknown] = [("vault-0", "u9"), ("vault-1", "u10")]
        .map(|(name, uid)| LogChunk { pod_namespace: "bank".to_owned(), ..chunk(name, uid, &["a secret"]) });
    agent.batch(1, vec![known, unknown, chunk("web-1", "u1", &["own"])]).await;
    assert!(matches!(agent.next().await.unwrap(), Down::Credit(_)));
    let (logs, number) = server.logs().await;
    assert_eq!(texts(&logs), ["own"]);
    server.lanes.left(Lane::Logs, number);
    assert!(matches!(agent.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 1));
    assert_eq!((server.metrics.kept_lines.get(), server.metrics.lines.get()), (2, 1));
    assert!(server.lines.last("u9", "app", None).is_empty());
}

#[tokio::test]
async fn an_incident_asks_its_node_for_all_lines_and_for_those_before() {
    let server = server(10).await;
    let mut agent = server.attached(AGENT).await;
    server.pods.turned("u1", true);
    let Down::PodUpdate(update) = agent.next().await.unwrap() else { panic!() };
    let info = &update.pods[0];
    assert_eq!((info.uid.as_str(), info.log_policy(), update.snapshot), ("u1", LogPolicy::All, false));
    assert!(info.look_back_from.is_some());
}

#[tokio::test]
async fn a_gap_is_a_line_of_its_log_and_only_of_a_log_that_the_peer_may_speak_of() {
    let server = server(10).await;
    let agent = server.attached(AGENT).await;
    let gap = |pod: &str, uid: &str| LogGap {
        pod_namespace: "shop".to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: uid.to_owned(),
        container_name: "app".to_owned(),
        bytes: 7,
        ..LogGap::default()
    };
    let logs = vec![chunk("web-1", "u1", &["after"])];
    agent.content(1, BatchContent { logs, gaps: vec![gap("web-2", "u2"), gap("web-1", "u1")] }).await;
    let (logs, _) = server.logs().await;
    assert_eq!(
        (&*logs.pod_name, &*logs.container_name, &*logs.log_entries[0].level),
        ("web-1", "app", "WARN")
    );
    assert!(texts(&logs)[0].starts_with("kestrel: 7 bytes of this log are missing"));
    assert_eq!(texts(&server.logs().await.0), ["after"]);
    assert_eq!(server.metrics.foreign_lines.get(), 1);
}

#[tokio::test]
async fn a_host_report_becomes_a_signal_of_its_node() {
    let server = server(10).await;
    let stream = server.attached(AGENT).await;
    let kind = "kestrel.ai/DiskPressure".to_owned();
    let condition = NodeCondition { r#type: kind, status: "True".to_owned(), ..Default::default() };
    stream.send(Up::HostReport(HostReport { conditions: vec![condition] })).await;
    let told = async {
        loop {
            let changed = server.lanes.changed();
            if server.lanes.take(Lane::Signals).is_some() {
                return;
            }
            changed.await;
        }
    };
    timeout(DEADLINE, told).await.unwrap();
}

#[tokio::test]
async fn whoever_cannot_say_who_it_is_is_refused() {
    let server = server(10).await;
    let refused = async |token| server.open(token).await.err().unwrap();
    let none = refused(None).await;
    assert_eq!(
        (none.code(), none.message()),
        (Code::Unauthenticated, "it sends no token (metadata authorization, Bearer)")
    );
    let wrong = refused(Some("stolen")).await;
    assert_eq!(wrong.code(), Code::Unauthenticated);
    assert_eq!(wrong.message(), "its token is not accepted by the API server: not genuine");
    assert_eq!(server.refused(Refused::Token), 2);

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let said = async {
        while server.refused(Refused::Tls) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, said).await.unwrap();

    for (claim, code) in [
        (hello("kestrel-ai:kestrel-node-agent p u n2"), Code::PermissionDenied),
        (hello(SIDECAR), Code::PermissionDenied),
        (Hello { protocol_version: 0, ..hello(AGENT) }, Code::InvalidArgument),
    ] {
        let mut stream = server.open(Some(AGENT)).await.unwrap();
        stream.send(Up::Hello(claim)).await;
        assert_eq!(stream.next().await.unwrap_err().code(), code);
    }
    let mut stream = server.open(Some(AGENT)).await.unwrap();
    stream.send(Up::HostReport(HostReport::default())).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument, "no Hello");
    assert_eq!(server.refused(Refused::Claim), 4);
}

#[tokio::test]
async fn a_batch_that_breaks_the_protocol_ends_the_stream_with_the_reason() {
    let server = server(10).await;
    let plain = |id, content: &[u8]| Batch {
        id,
        compression: Compression::None.into(),
        payload: Bytes::copy_from_slice(content),
        content_bytes: content.len() as u64,
        nacks_seen: 0,
    };
    let logs =
        vec![chunk("web-1", "u1", &["fits"]), LogChunk { levels: vec![1].into(), ..LogChunk::default() }];
    let misfit = BatchContent { logs, gaps: vec![] }.encode_to_vec();
    let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 1).unwrap();
    let bomb = Batch { id: 1, compression: 1, payload: bomb.into(), content_bytes: 1000, nacks_seen: 0 };
    for (batch, code, words) in [
        (plain(0, b""), Code::InvalidArgument, "ids must increase"),
        (plain(1, b"nonsense"), Code::InvalidArgument, "can't be decoded"),
        (
            plain(1, &misfit),
            Code::InvalidArgument,
            "can't be decoded: times and levels have different counts",
        ),
        (bomb, Code::InvalidArgument, "can't be decompressed"),
        (plain(1, &vec![0; batch::MAX_BYTES + 1]), Code::InvalidArgument, "has 4194305 bytes"),
        (plain(1, &vec![0; batch::MAX_BYTES + 1000]), Code::OutOfRange, "too large"),
    ] {
        let mut stream = server.attached(AGENT).await;
        stream.send(Up::Batch(batch)).await;
        let status = stream.next().await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    assert_eq!(server.metrics.lines.get(), 0, "nothing of such a batch is taken");
}

#[tokio::test]
async fn a_peer_that_ignores_its_credit_is_held_by_the_transport() {
    const BATCHES: u64 = 40;
    let server = server(10).await;
    let stream = server.attached(AGENT).await;
    // Does not compress: what is sent is what has to be held.
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(1024 * 1024).collect();
    let sent = AtomicU64::new(0);
    let flood = async {
        for id in 1..=BATCHES {
            stream.batch(id, vec![chunk("web-1", "u1", &[&noise])]).await;
            sent.store(id, Ordering::Relaxed);
        }
    };
    let drain = async {
        for taken in 0..BATCHES {
            let (lines, sent) = (server.metrics.lines.get(), sent.load(Ordering::Relaxed));
            assert!(lines <= taken + 9, "the lane holds 8, and one waits: {lines} after {taken}");
            assert!(sent <= lines + 8, "the sender's own queues hold the rest: {sent} after {lines}");
            let (_, number) = server.logs().await;
            server.lanes.left(Lane::Logs, number);
        }
    };
    tokio::join!(flood, drain);
    assert_eq!(server.metrics.lines.get(), BATCHES);
}

#[tokio::test]
async fn a_full_link_says_when_to_come_back_and_a_newer_stream_replaces_the_older() {
    let server = server(2).await;
    let mut agent = server.attached(AGENT).await;
    let sidecar = server.attached(SIDECAR).await;
    let third = "shop:default web-9 u9 n1";
    let mut refused = server.open(Some(third)).await.unwrap();
    refused.send(Up::Hello(hello(third))).await;
    let full = refused.next().await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    let wait: u64 = full.metadata().get("retry-after-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!(wait <= 30_000);
    let mut impostor = server.open(Some(AGENT)).await.unwrap();
    impostor.send(Up::Hello(hello(third))).await;
    assert_eq!(impostor.next().await.unwrap_err().code(), Code::PermissionDenied);
    agent.batch(1, vec![]).await;
    assert!(agent.next().await.is_ok(), "an impostor takes nobody's place");
    let newer = server.attached(AGENT).await;
    let status = loop {
        if let Err(status) = agent.next().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Aborted);
    drop((newer, sidecar));
}

#[tokio::test]
async fn the_drain_ends_streams_with_a_reason_to_come_back_at_once() {
    let server = server(10).await;
    let mut stream = server.attached(AGENT).await;
    server.drain.cancel();
    let status = stream.next().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the leader is changing: attach again")
    );
    assert_eq!(status.metadata().get("retry-after-ms").unwrap(), "0");
    timeout(DEADLINE, server.task).await.unwrap().unwrap();
}
