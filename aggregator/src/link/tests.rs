//! The link over real sockets and real TLS. Only the API server's review of
//! tokens is played: a token says itself what its review gives.

mod attach;
mod flows;
mod logs;
mod oldest;
mod reads;
mod requests;
mod sidecar;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::{authentication::v1::TokenReviewStatus, core::v1::Pod};
use kestrel_als::headers::Headers;
use kestrel_proto::{
    cloud::v1::{NodeCondition, PodLogs, StreamLogsRequest, stream_logs_request},
    node::v1::{
        AgentMessage, AggregatorMessage, Batch, BatchContent, Compression, Hello, HostReport, LogChunk,
        LogLevel, LogPolicy, Role, agent_link_client::AgentLinkClient, agent_message::Message as Up,
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
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use super::{columns::Line, review::Review, *};
use crate::{
    excluded::Excluded,
    inventory::{Mirror, convert, pods::Policies},
    signals::{lines::Lines, thresholds::Thresholds},
    traffic,
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
    anchors: watch::Sender<String>,
    shared: Arc<Shared>,
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

pub(super) fn config() -> Config {
    Config {
        port: 0,
        max_connections: 10,
        pod_bytes_per_second: 0,
        namespace: "kestrel-ai".to_owned(),
        agent_service_account: "kestrel-node-agent".to_owned(),
        pod_ip: None,
        pod_name: None,
        pod_uid: None,
        node_name: None,
        tls_dir: None,
    }
}

async fn server(most: usize) -> Server {
    serving(Config { max_connections: most, ..config() }).await
}

async fn serving(config: Config) -> Server {
    tls::install_provider();
    serving_as(config, &Authority::generate("link").unwrap()).await
}

async fn serving_as(config: Config, authority: &Authority) -> Server {
    let certificate = Arc::new(ServingCertificate::default());
    let names = ["kestrel-agent-link.kestrel-ai.svc", "localhost"].map(str::to_owned);
    certificate.replace(authority.server_certificate(&names, Duration::from_secs(3600)).unwrap());
    let listener = TcpListener::bind(("127.0.0.1", config.port)).await.unwrap();
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
    let (anchors, told) = watch::channel(authority.certificate_pem().to_owned());
    let (mirror, excluded) = (Mirror::default(), Excluded::parse("bank"));
    let metrics_of_flows = traffic::metrics::Metrics::default();
    let traffic =
        Traffic::new(mirror.clone(), excluded, signals.edges.clone(), lanes.flows(), metrics_of_flows);
    let requests = Requests::new(
        mirror.clone(),
        Excluded::parse("bank"),
        "kestrel-ai".to_owned(),
        signals.edges.clone(),
        Headers::default(),
        lanes.flows(),
        traffic::requests::metrics::Metrics::default(),
    );
    let parts =
        Parts { pods: pods.clone(), signals, logs: lanes.logs(), traffic, nodes: Nodes::default(), requests };
    let shared = Shared::new(&config, told, parts, metrics.clone(), drain.clone());
    let rules = Rules { namespace: "kestrel-ai".to_owned(), agent_account: "kestrel-node-agent".to_owned() };
    let identities = Identities::new(Played, rules, pods.clone());
    let task = tokio::spawn(server::run(listener, certificate, Arc::clone(&shared), identities));
    let roots = tls::roots(authority.certificate_pem().as_bytes()).unwrap();
    Server { address, lanes, pods, lines, metrics, roots, anchors, shared, drain, task }
}

/// The two halves of an open stream.
struct Stream {
    up: mpsc::Sender<AgentMessage>,
    down: Streaming<AggregatorMessage>,
    nacks_seen: u64,
}

impl Server {
    async fn channel(&self) -> Channel {
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
        endpoint.connect_with_connector(Connector(target)).await.unwrap()
    }

    async fn open(&self, token: Option<&str>) -> Result<Stream, Status> {
        let (up, queue) = mpsc::channel(4);
        let mut request = tonic::Request::new(ReceiverStream::new(queue));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut client = AgentLinkClient::new(self.channel().await);
        let down = timeout(DEADLINE, client.attach(request)).await.unwrap()?.into_inner();
        Ok(Stream { up, down, nacks_seen: 0 })
    }

    /// An attached stream that has read Welcome and the first pods.
    async fn attached(&self, token: &str) -> Stream {
        let mut stream = self.open(Some(token)).await.unwrap();
        stream.send(Up::Hello(hello(token))).await;
        assert!(matches!(stream.next().await.unwrap(), Down::Welcome(_)));
        assert!(matches!(stream.next().await.unwrap(), Down::PodUpdate(_)));
        if token == SIDECAR {
            assert!(matches!(stream.next().await.unwrap(), Down::Anchors(_)));
        }
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
        self.content(id, BatchContent { logs: chunks, ..BatchContent::default() }).await
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
