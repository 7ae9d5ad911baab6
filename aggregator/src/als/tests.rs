//! A client as Envoy is one, against the receiver, over real sockets.

#[path = "../../../node-agent/als/tests/support/message.rs"]
pub(crate) mod message;

use std::net::Ipv4Addr;

use kestrel_als::headers::Headers;
use kestrel_dev_cloud::Authority as Clients;
use kestrel_proto::{
    cloud::v1::{L7AccessLog, StreamFlowsRequest, stream_flows_request},
    envoy::{
        config::core::v3::Node,
        service::accesslog::v3::{
            StreamAccessLogsMessage, access_log_service_client::AccessLogServiceClient,
            stream_access_logs_message::Identifier,
        },
    },
};
use kestrel_runtime::tls::{self, authority::Authority};
use prometheus_client::{encoding::text::encode, registry::Registry};
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    sync::mpsc::{self, Sender},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::*;
use crate::{
    excluded::Excluded,
    inventory::Mirror,
    signals::{component::Components, edges::Edges},
    traffic::requests::metrics::Metrics as RequestMetrics,
    uplink::{
        lanes::{Lane, Lanes},
        metrics::Metrics as UplinkMetrics,
    },
};
use message::message;

/// Nothing here takes that long unless it is broken.
const LIMIT: Duration = Duration::from_secs(30);

struct Server {
    port: u16,
    lanes: Lanes,
    uplink: UplinkMetrics,
    registry: Registry,
    requests: Requests,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

fn config() -> Config {
    Config {
        port: 0,
        stream_bytes_per_second: 0,
        stream_age: LIMIT * 10,
        namespace: "kestrel-ai".to_owned(),
        tls_dir: None,
        stats_port: None,
    }
}

impl Server {
    async fn start(config: Config) -> Self {
        tls::install_provider();
        let (uplink, metrics, counts) =
            (UplinkMetrics::default(), Metrics::default(), RequestMetrics::default());
        let lanes = Lanes::new(uplink.clone());
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        counts.register(&mut registry);
        let requests = Requests::new(
            Mirror::default(),
            Excluded::default(),
            config.namespace.clone(),
            Edges::new(Components::new(lanes.signals()), lanes.signals()),
            Headers::default(),
            lanes.flows(),
            counts,
        );
        let drain = CancellationToken::new();
        let task = tokio::spawn({
            let (requests, metrics, drain) = (requests.clone(), metrics.clone(), drain.clone());
            async move { requests.run_while(receive(config, None, &requests, metrics, drain)).await.unwrap() }
        });
        Self { port: metrics.port().await, lanes, uplink, registry, requests, drain, task }
    }

    async fn client(&self) -> AccessLogServiceClient<Channel> {
        AccessLogServiceClient::connect(format!("http://127.0.0.1:{}", self.port)).await.unwrap()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits until the metrics have this line.
    async fn shows(&self, line: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.metrics().contains(line) {
            assert!(Instant::now() < deadline, "{line:?} in {}", self.metrics());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it; what the cloud is told.
    async fn stop(self) -> Vec<L7AccessLog> {
        self.drain.cancel();
        self.task.await.unwrap();
        let next = || {
            let (head, body) = self.lanes.take(Lane::Flows)?.1.on_own_stream();
            match StreamFlowsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap().request {
                Some(stream_flows_request::Request::L7AccessLog(log)) => Some(log),
                other => panic!("{other:?}"),
            }
        };
        std::iter::from_fn(next).collect()
    }
}

fn identifier() -> Option<Identifier> {
    let id = "sidecar~192.0.2.7~web-1.shop~shop.svc.cluster.local".to_owned();
    Some(Identifier { node: Some(Node { id, ..Node::default() }), log_name: "als".to_owned() })
}

/// A stream that a client has begun, and its answer.
fn stream(
    mut client: AccessLogServiceClient<Channel>,
) -> (Sender<StreamAccessLogsMessage>, JoinHandle<Result<(), Status>>) {
    let (messages, outbound) = mpsc::channel(16);
    let answer = async move { client.stream_access_logs(ReceiverStream::new(outbound)).await.map(|_| ()) };
    (messages, tokio::spawn(answer))
}

#[tokio::test]
async fn a_stream_that_ends_gets_its_response_and_its_entries_are_told() {
    let server = Server::start(config()).await;
    let (messages, answer) = stream(server.client().await);
    messages.send(message(identifier(), "db", ["/a/1", "/a/2"])).await.unwrap();
    messages.send(message(None, "db", ["/a/3"])).await.unwrap();
    drop(messages);
    answer.await.unwrap().unwrap();
    let told = server.stop().await;
    assert_eq!(told.len(), 1, "{told:#?}");
    let source = told[0].source.clone().unwrap();
    assert_eq!((told[0].count, &*told[0].http_data.clone().unwrap().path), (3, "/a/:id"));
    assert_eq!((&*source.namespace, &*source.kind, &*source.name), ("shop", "Pod", "web-1"));
    assert_eq!(told[0].destination.clone().unwrap().service_name, "db");
}

/// Scenario: a stream is open when its time is over, or when this process stops leading.
/// Guarantee: it ends with a proper response, and what was sent until then is counted.
#[tokio::test]
async fn a_stream_that_is_to_come_again_is_ended_gently() {
    let aged = Server::start(Config { stream_age: Duration::from_millis(300), ..config() }).await;
    let (messages, answer) = stream(aged.client().await);
    messages.send(message(identifier(), "db", ["/"])).await.unwrap();
    answer.await.unwrap().unwrap();
    aged.shows("streams 0").await;
    assert_eq!(aged.stop().await.iter().map(|log| log.count).sum::<i64>(), 1);

    let drained = Server::start(config()).await;
    let (messages, answer) = stream(drained.client().await);
    messages.send(message(identifier(), "db", ["/"])).await.unwrap();
    drained.shows(r#"received_total{outcome="Aggregated"} 1"#).await;
    assert_eq!(drained.stop().await.len(), 1);
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn too_much_is_counted_and_too_large_a_message_costs_its_stream_alone() {
    let server = Server::start(Config { stream_bytes_per_second: 400, ..config() }).await;
    let (messages, answer) = stream(server.client().await);
    for _ in 0..10 {
        messages.send(message(identifier(), "db", ["/"])).await.unwrap();
    }
    let (large, refused) = stream(server.client().await);
    large.send(message(None, "db", (0..100_000).map(|_| "/x"))).await.unwrap();
    assert_eq!(refused.await.unwrap().unwrap_err().code(), Code::OutOfRange);
    server.shows(r#"refused_total{reason="Message"} 1"#).await;
    drop(messages);
    answer.await.unwrap().unwrap();
    let tally = server.requests.tallies()["shop/web-1"];
    assert!(tally.received() == 10 && tally.over_rate > 0 && tally.aggregated > 0, "{tally:?}");
    server.shows(&format!(r#"refused_total{{reason="Rate"}} {}"#, tally.over_rate)).await;
    assert_eq!(server.stop().await.iter().map(|log| log.count).sum::<i64>(), tally.aggregated as i64);
}

/// Scenario: the stream to the cloud takes nothing, while proxies log more different requests than there is room for.
/// Guarantee: no proxy waits; every entry is counted; and of what was told every message waits or is counted as dropped.
#[tokio::test]
async fn a_cloud_that_takes_nothing_costs_messages_that_are_counted() {
    const EDGES: u32 = 25;
    const PATHS: u32 = 1000;
    let server = Server::start(config()).await;
    let (messages, answer) = stream(server.client().await);
    messages.send(message(identifier(), "db", [""; 0])).await.unwrap();
    for edge in 0..EDGES {
        // No template folds these.
        let path = |number: u32| -> String {
            (0..6).map(|at| format!("/{}", char::from(b'g' + (number >> (2 * at) & 3) as u8))).collect()
        };
        let paths = (0..PATHS).map(path);
        messages.send(message(None, &format!("service-{edge}"), paths)).await.unwrap();
    }
    drop(messages);
    answer.await.unwrap().unwrap();
    let (tallies, uplink) = (server.requests.tallies(), server.uplink.clone());
    assert_eq!(tallies.values().map(|tally| tally.aggregated).sum::<u64>(), u64::from(EDGES * PATHS));
    let waiting = server.stop().await.len() as u64;
    let dropped: u64 = uplink.drops().iter().map(|(.., count)| count).sum();
    assert!(dropped > 0);
    assert_eq!(waiting + dropped, u64::from(EDGES * PATHS));
}

#[tokio::test]
async fn another_service_is_not_offered() {
    let server = Server::start(config()).await;
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{}", server.port)).unwrap().connect_lazy();
    let mut client = kestrel_proto::hubble::observer::observer_client::ObserverClient::new(channel);
    let status =
        client.get_flows(kestrel_proto::hubble::observer::GetFlowsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    server.stop().await;
}

/// A server's certificate, for clients of another authority.
fn mount(folder: &TempDir, server: &Authority, clients: &Clients) {
    let (chain, key) =
        server.server_pem(&["kestrel-operator-als.kestrel-ai.svc".to_owned()], LIMIT * 100).unwrap();
    let authorities = server.certificate_pem().to_owned() + clients.certificate();
    for (name, text) in [("tls.crt", chain), ("tls.key", key), ("ca.crt", authorities)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
}

#[tokio::test]
async fn with_a_certificate_only_clients_that_have_one_too_are_served() {
    tls::install_provider();
    let (authority, clients, folder) =
        (Authority::generate("als").unwrap(), Clients::generate().unwrap(), tempfile::tempdir().unwrap());
    mount(&folder, &authority, &clients);
    let server = Server::start(Config { tls_dir: Some(folder.path().to_owned()), ..config() }).await;
    let connect = async |identity: Option<Identity>| {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority.certificate_pem()))
            .domain_name("kestrel-operator-als.kestrel-ai.svc");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let address = format!("https://{}:{}", Ipv4Addr::LOCALHOST, server.port);
        let channel = Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap().connect_lazy();
        let (messages, answer) = stream(AccessLogServiceClient::new(channel));
        let _broken = messages.send(message(identifier(), "db", ["/"])).await;
        drop(messages);
        answer.await.unwrap()
    };
    let known = clients.client("proxy").unwrap();
    connect(Some(Identity::from_pem(&known.certificate, &known.key))).await.unwrap();
    connect(None).await.unwrap_err();
    let stranger = Clients::generate().unwrap().client("proxy").unwrap();
    connect(Some(Identity::from_pem(&stranger.certificate, &stranger.key))).await.unwrap_err();
    server.shows(r#"refused_total{reason="Tls"} 2"#).await;
    let plain = AccessLogServiceClient::connect(format!("http://127.0.0.1:{}", server.port)).await;
    if let Ok(client) = plain {
        let (_messages, answer) = stream(client);
        answer.await.unwrap().unwrap_err();
    }
    assert_eq!(server.stop().await.iter().map(|log| log.count).sum::<i64>(), 1);
}
