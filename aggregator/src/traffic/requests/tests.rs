//! Messages of proxies in, messages of the flows stream out.

use std::net::IpAddr;

use kestrel_als::{Side, counter::Stream};
use kestrel_proto::{
    cloud::v1::{L7AccessLog, L7Endpoint, StreamFlowsRequest},
    envoy::{
        config::core::v3::{self as core, Node, SocketAddress},
        data::accesslog::v3::{
            AccessLogCommon, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
            HttpResponseProperties, ResponseFlags, TcpAccessLogEntry,
        },
        service::accesslog::v3::{
            StreamAccessLogsMessage,
            stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
        },
    },
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::{
    inventory::{Kind, Relation, convert},
    signals::component::Components,
    uplink::{
        lanes::{Lane, Lanes},
        metrics::Metrics as UplinkMetrics,
    },
};

mod sent;
mod simulated;
mod twins;

struct World {
    lanes: Lanes,
    registry: Registry,
    requests: Requests,
}

/// The pods by the last part of their address 10.0.0.x: two of `web`, two of `db`, one of the operator, one that is excluded.
const PODS: [(u8, &str, &str); 6] = [
    (1, "shop", "web"),
    (2, "shop", "web"),
    (3, "shop", "db"),
    (4, "shop", "db"),
    (5, "kestrel-ai", "kestrel-aggregator"),
    (6, "bank", "teller"),
];

/// The Services by the last part of their address 10.96.0.x.
const SERVICES: [(u8, &str, &str); 2] = [(3, "shop", "db"), (5, "kestrel-ai", "kestrel-agent-link")];

impl Requests {
    /// Tells all that is open, as when time has passed.
    pub(crate) fn settle(&self) {
        while let Some((number, span, identities)) = self.0.counter.next() {
            self.send((number, &span), &identities, Timestamp::now());
            self.senders().told(number);
        }
    }
}

impl World {
    fn new() -> Self {
        let (mirror, lanes) = (Mirror::default(), Lanes::new(UplinkMetrics::default()));
        PODS.into_iter().for_each(|pod| Self::begin(&mirror, pod));
        SERVICES.into_iter().for_each(|service| Self::serve(&mirror, service));
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        lanes.lead();
        let edges = Edges::new(Components::new(lanes.signals()), lanes.signals());
        let (excluded, own) = (Excluded::parse("bank"), "kestrel-ai".to_owned());
        let headers = Headers::new(["x-tenant", "user-agent", "authorization"], ["location", "set-cookie"]);
        let requests = Requests::new(mirror, excluded, own, edges, headers, lanes.flows(), metrics);
        Self { lanes, registry, requests }
    }

    /// A pod is there.
    fn begin(mirror: &Mirror, (last, namespace, workload): (u8, &str, &str)) {
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": workload, "uid": workload, "controller": true});
        let pod = json!({
            "metadata": {"name": format!("{workload}-{last}"), "namespace": namespace, "uid": format!("u{last}"), "ownerReferences": [owner]},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"podIPs": [{"ip": format!("10.0.0.{last}")}]},
        });
        let pod = serde_json::from_value(pod).unwrap();
        mirror.apply_related(Kind::Pod, &format!("u{last}"), &convert::pod(&pod), Relation::Pod(&pod));
    }

    /// A Service is there.
    fn serve(mirror: &Mirror, (last, namespace, name): (u8, &str, &str)) {
        let service = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": name},
            "spec": {"clusterIP": format!("10.96.0.{last}")},
        });
        let service = serde_json::from_value(service).unwrap();
        mirror.apply_related(Kind::Service, name, &convert::service(&service), Relation::Service(&service));
    }

    /// The proxy of the pod with this address.
    fn proxy(&self, last: u8) -> Stream {
        let (_, namespace, workload) = PODS.into_iter().find(|(of, ..)| *of == last).unwrap();
        let id = format!("sidecar~10.0.0.{last}~{workload}-{last}.{namespace}~{namespace}.svc.cluster.local");
        self.proxy_of([10, 0, 0, last], &id, &[])
    }

    /// One that connects from there and says this of itself.
    fn proxy_of(&self, peer: [u8; 4], id: &str, metadata: &[(&str, &str)]) -> Stream {
        let mut stream = self.requests.counter().stream(IpAddr::from(peer));
        let text = |text: &str| prost_types::value::Kind::StringValue(text.to_owned());
        let pair = |(name, said): &(&str, &str)| ((*name).to_owned(), text(said).into());
        let metadata = prost_types::Struct { fields: metadata.iter().map(pair).collect() };
        let node = Node { id: id.to_owned(), metadata: Some(metadata), ..Node::default() };
        let identifier = Some(Identifier { node: Some(node), log_name: "als".to_owned() });
        stream.take(&StreamAccessLogsMessage { identifier, log_entries: None }.encode_to_vec());
        stream
    }

    async fn told(&self) -> Vec<L7AccessLog> {
        let ends = CancellationToken::new();
        ends.cancel();
        self.requests.clone().run(ends).await;
        self.flows()
    }

    fn flows(&self) -> Vec<L7AccessLog> {
        let next = || {
            let (head, body) = self.lanes.take(Lane::Flows)?.1.on_own_stream();
            match StreamFlowsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap().request {
                Some(Request::L7AccessLog(log)) => Some(log),
                other => panic!("{other:?}"),
            }
        };
        std::iter::from_fn(next).collect()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn address(last: u8, port_value: u32) -> Option<core::Address> {
    let socket = SocketAddress { address: format!("10.0.0.{last}"), port_value, ..SocketAddress::default() };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

/// That of a Service.
fn service_address(last: u8) -> Option<core::Address> {
    let address = format!("10.96.0.{last}");
    let socket = SocketAddress { address, port_value: 5000, ..SocketAddress::default() };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

/// A request that has just ended, from the first to the second pod, as the proxy of either logs it.
fn entry(from: u8, to: u8, side: Side, path: &str, code: u32) -> HttpAccessLogEntry {
    let cluster = match side {
        Side::Client => "outbound|80||db.shop.svc.cluster.local",
        Side::Server => "inbound|8080||",
    };
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            downstream_direct_remote_address: address(from, 40_000),
            downstream_local_address: address(to, 8080),
            upstream_remote_address: (side == Side::Client || code != 0).then(|| address(to, 8080)).flatten(),
            upstream_cluster: cluster.to_owned(),
            start_time: Some(prost_types::Timestamp { seconds: Timestamp::now().as_second() - 1, nanos: 0 }),
            duration: Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 }),
            upstream_wire_bytes_sent: 100,
            upstream_wire_bytes_received: 1000,
            upstream_request_attempt_count: 1,
            ..AccessLogCommon::default()
        }),
        protocol_version: 2,
        request: Some(HttpRequestProperties {
            request_method: 1,
            path: path.to_owned(),
            ..Default::default()
        }),
        response: Some(HttpResponseProperties { response_code: Some(code), ..Default::default() }),
    }
}

fn message(log_entry: Vec<HttpAccessLogEntry>) -> Vec<u8> {
    let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry }));
    StreamAccessLogsMessage { identifier: None, log_entries }.encode_to_vec()
}

fn end(end: &Option<L7Endpoint>) -> String {
    let L7Endpoint { namespace, kind, name, service_name, .. } = end.clone().unwrap();
    format!("{namespace}/{kind}/{name} {service_name}")
}

#[tokio::test]
async fn requests_of_all_replicas_are_one_row_with_times_codes_and_who_was_who() {
    let world = World::new();
    for (from, to) in [(1, 3), (2, 4), (1, 4)] {
        let mut proxy = world.proxy(from);
        let paths = ["/orders/1?token=x", "/orders/2", "/orders/3"];
        proxy.take(&message(paths.map(|path| entry(from, to, Side::Client, path, 200)).into()));
        proxy.take(&message(vec![entry(from, to, Side::Client, "/orders/4", 503)]));
    }
    let mut told = world.told().await;
    told.sort_by_key(|log| log.http_data.as_ref().unwrap().response_code);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(
        (end(&told[0].source), end(&told[0].destination)),
        ("shop/StatefulSet/web ".into(), "shop/StatefulSet/db db".into())
    );
    let http = told[0].http_data.as_ref().unwrap();
    assert_eq!(
        (&*http.method, &*http.path, http.response_code, &*http.version),
        ("GET", "/orders/:id", 200, "1.1")
    );
    assert_eq!(
        (told[0].count, told[0].bytes_sent, told[0].bytes_received, told[0].duration_ms),
        (9, 900, 9000, 180)
    );
    assert!(told[0].allowed && told[0].destination.as_ref().unwrap().port == 8080);
    let p99: f64 = http.response_headers["x-kestrel-latency-p99-ms"].parse().unwrap();
    assert!((19.0..21.0).contains(&p99), "{p99}");
    assert_eq!((told[1].count, told[1].http_data.as_ref().unwrap().response_code), (3, 503));
    let tallies = world.requests.tallies();
    assert_eq!(tallies["shop/web"], Tally { aggregated: 12, ..Tally::default() });
}

/// Scenario: a proxy logs headers of every kind, and somebody has listed those that let somebody in.
/// Guarantee: what may be told is told of one request, nothing else leaves in any field.
#[tokio::test]
async fn headers_are_told_by_the_list_alone_and_never_what_lets_somebody_in() {
    let world = World::new();
    let mut with_headers = entry(1, 3, Side::Client, "/a?token=SECRET", 302);
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    with_headers.request.as_mut().unwrap().request_headers = owned(&[
        ("x-tenant", "acme"),
        ("user-agent", "curl"),
        ("authorization", "Bearer SECRET"),
        ("cookie", "id=SECRET"),
        ("x-more", "SECRET"),
    ]);
    with_headers.response.as_mut().unwrap().response_headers =
        owned(&[("location", "/b?code=SECRET"), ("set-cookie", "id=SECRET")]);
    world.proxy(1).take(&message(vec![with_headers, entry(1, 3, Side::Client, "/a", 302)]));
    let log = world.told().await.remove(0);
    assert!(!format!("{log:?}").contains("SECRET"), "{log:?}");
    let http = log.http_data.unwrap();
    assert_eq!((log.count, &*http.user_agent, &*http.request_headers["x-tenant"]), (2, "curl", "acme"));
    assert_eq!((http.request_headers.len(), &*http.response_headers["location"]), (1, "/b"));
}

#[tokio::test]
async fn what_both_ends_proxies_log_is_told_once() {
    let world = World::new();
    let (mut client, mut server) = (world.proxy(1), world.proxy(3));
    for code in [200, 200, 504] {
        client.take(&message(vec![entry(1, 3, Side::Client, "/a", code)]));
        // What the client's proxy gave up, the server's saw end without an answer.
        server.take(&message(vec![entry(1, 3, Side::Server, "/a", if code == 504 { 0 } else { code })]));
    }
    // The client of this one has no proxy that reports.
    server.take(&message(vec![entry(2, 3, Side::Server, "/b", 200), entry(9, 3, Side::Server, "/c", 200)]));
    let mut told: Vec<_> = world
        .told()
        .await
        .into_iter()
        .map(|log| {
            let http = log.http_data.unwrap();
            (http.path, http.response_code, log.count, log.source.unwrap().name)
        })
        .collect();
    told.sort();
    let row = |path: &str, code, count, source: &str| (path.to_owned(), code, count, source.to_owned());
    // The server's view of the workload has one request more: it is the one that is told.
    assert_eq!(
        told,
        [
            row("/a", 0, 1, "web"),
            row("/a", 200, 2, "web"),
            row("/b", 200, 1, "web"),
            row("/c", 200, 1, "unknown"),
        ]
    );
    assert!(world.metrics().contains(r#"left_out_total{reason="OtherEnd"} 3"#), "{}", world.metrics());
}

#[tokio::test]
async fn the_operators_own_and_excluded_namespaces_are_not_told() {
    let world = World::new();
    world
        .proxy(1)
        .take(&message(vec![entry(1, 5, Side::Client, "/", 200), entry(1, 6, Side::Client, "/", 200)]));
    world.proxy(6).take(&message(vec![entry(6, 3, Side::Client, "/", 200)]));
    assert!(world.told().await.is_empty());
    let metrics = world.metrics();
    for line in [r#"left_out_total{reason="Own"} 1"#, r#"left_out_total{reason="Kept"} 2"#, "told_total 0"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_connection_and_a_failed_one_say_what_is_known_of_them() {
    let world = World::new();
    let common = |to| {
        let entry = entry(1, to, Side::Client, "", 0);
        AccessLogCommon {
            upstream_wire_bytes_sent: 0,
            upstream_wire_bytes_received: 0,
            ..entry.common_properties.unwrap()
        }
    };
    let whole = TcpAccessLogEntry {
        common_properties: Some(common(3)),
        connection_properties: Some(ConnectionProperties { received_bytes: 7, sent_bytes: 9 }),
    };
    let failed = TcpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            response_flags: Some(ResponseFlags { upstream_connection_failure: true, ..Default::default() }),
            upstream_transport_failure_reason: "TLS_error:|268435581:SSL routines:CERTIFICATE_VERIFY_FAILED"
                .to_owned(),
            ..common(4)
        }),
        connection_properties: None,
    };
    let unfinished = TcpAccessLogEntry {
        common_properties: Some(AccessLogCommon { intermediate_log_entry: true, ..common(3) }),
        connection_properties: None,
    };
    let log_entry = vec![whole, failed, unfinished];
    let log_entries = Some(LogEntries::TcpLogs(TcpAccessLogEntries { log_entry }));
    let mut proxy = world.proxy(1);
    proxy.take(&StreamAccessLogsMessage { identifier: None, log_entries }.encode_to_vec());
    proxy.take(&[0xff, 0xff]);
    proxy.pass_over(&message(vec![HttpAccessLogEntry::default(); 4]));
    let mut told = world.told().await;
    told.sort_by_key(|log| !log.allowed);
    assert_eq!(told.iter().map(|log| (log.count, log.allowed)).collect::<Vec<_>>(), [(1, true), (1, false)]);
    let tcp = told.iter().map(|log| log.tcp_data.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!((told[0].bytes_sent, told[0].bytes_received, tcp[0].received_bytes), (7, 9, 7));
    assert!(tcp[1].upstream_transport_failure_reason.contains("CERTIFICATE_VERIFY_FAILED"));
    assert_eq!(
        [&tcp[1].downstream_transport_failure_reason, &tcp[1].connection_termination_details],
        ["", ""]
    );
    let tally = Tally { aggregated: 2, malformed: 1, unfinished: 1, over_rate: 4, ..Tally::default() };
    assert_eq!(world.requests.tallies()["shop/web"], tally);
    let metrics = world.metrics();
    for line in [
        r#"outcome="Refused"} 6"#,
        r#"reason="Malformed"} 1"#,
        r#"reason="Unfinished"} 1"#,
        r#"reason="Rate"} 4"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// Scenario: every request of some clients has a path of its own that no template folds.
/// Guarantee: every one is counted once, and what there is no room for apart is told as such.
#[tokio::test]
async fn paths_that_are_all_different_are_told_as_other() {
    let world = World::new();
    let word = |number: u32| {
        (0..6).map(|at| char::from(b'g' + (number / 20_u32.pow(at) % 20) as u8)).collect::<String>()
    };
    for from in [1, 2] {
        let mut proxy = world.proxy(from);
        for batch in 0..30 {
            let paths = (0..100).map(|at| format!("/{}", word(100_000 * u32::from(from) + batch * 100 + at)));
            proxy.take(&message(paths.map(|path| entry(from, 3, Side::Client, &path, 200)).collect()));
        }
    }
    let told = world.told().await;
    assert_eq!(told.iter().map(|log| log.count).sum::<i64>(), 6000);
    assert!(told.len() <= 1001, "{}", told.len());
    let others: Vec<_> = told.iter().filter(|log| log.http_data.as_ref().unwrap().path == ":other").collect();
    assert_eq!((others.len(), others[0].count), (1, 5000));
    let tally = world.requests.tallies()["shop/web"];
    assert_eq!((tally.aggregated, tally.folded, tally.refused()), (2000, 4000, 0));
    assert!(world.metrics().contains("told_folded_total 1000"), "{}", world.metrics());
}

/// Scenario: the client's proxy tries again what fails at first, and logs each request once; the server's logs each attempt. Some the
/// client's proxy gives up.
/// Guarantee: what is told is what became of the requests, of which there are as many as the client made.
#[tokio::test]
async fn requests_that_were_tried_again_are_told_once_as_they_ended() {
    let world = World::new();
    let tried = |times: u32, code| {
        let mut entry = entry(1, 3, Side::Client, "/a", code);
        entry.common_properties.as_mut().unwrap().upstream_request_attempt_count = times;
        entry
    };
    let (mut client, mut server) = (world.proxy(1), world.proxy(3));
    client.take(&message([vec![tried(1, 200); 7], vec![tried(2, 200); 2], vec![tried(3, 504)]].concat()));
    let attempt = |code| entry(1, 3, Side::Server, "/a", code);
    server.take(&message([vec![attempt(200); 9], vec![attempt(503); 2], vec![attempt(0); 3]].concat()));
    let mut told: Vec<_> = world
        .told()
        .await
        .into_iter()
        .map(|log| {
            let http = log.http_data.unwrap();
            (http.response_code, log.count, http.upstream_request_attempt_count)
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [(200, 9, 2), (504, 1, 3)],
        "eleven attempts of nine requests are less than two of each"
    );
    assert!(world.metrics().contains(r#"left_out_total{reason="OtherEnd"} 14"#), "{}", world.metrics());
}

/// Scenario: a pod says that it is the proxy of another one, by that one's address, by names at its own, by names alone, and before it is
/// known that it is there; and one says so behind the address of nobody.
/// Guarantee: the pod that has the connection's address is who reports, and is asked what it logged.
#[tokio::test]
async fn a_pod_speaks_for_itself_alone() {
    const OF_DB: (&str, &str) = ("OWNER", "kubernetes://apis/apps/v1/namespaces/shop/statefulsets/db");
    let world = World::new();
    let metadata = [("NAMESPACE", "shop"), OF_DB];
    assert!(world.requests.proxies().is_empty());
    for (peer, id, metadata) in [
        ([10, 0, 0, 1], "sidecar~10.0.0.3~db-3.shop~x", &[][..]),
        ([10, 0, 0, 1], "sidecar~10.0.0.1~teller-0.ops~x", &[]),
        ([10, 0, 0, 1], "sidecar~10.0.0.1~db-3.shop~x", &metadata),
        ([10, 0, 0, 1], "x", &metadata),
        ([10, 0, 0, 7], "x", &metadata),
        ([192, 0, 2, 1], "sidecar~10.0.0.3~db-3.shop~x", &[]),
    ] {
        let mut proxy = world.proxy_of(peer, id, metadata);
        proxy.take(&message(vec![entry(3, 4, Side::Client, "/", 200)]));
    }
    World::begin(&world.requests.0.mirror, (7, "shop", "late"));
    let told = world.told().await;
    let told: BTreeMap<_, _> = told.iter().map(|log| (end(&log.source), log.count)).collect();
    let expected = [("db", 1), ("late", 1), ("web", 4)];
    assert_eq!(told, expected.map(|(name, count)| (format!("shop/StatefulSet/{name} "), count)).into());
    let mut asked = world.requests.proxies();
    asked.sort();
    assert_eq!(asked, [1, 3, 7].map(|last| IpAddr::from([10, 0, 0, last])));
}

/// Scenario: a proxy logged more than has come, and so did one whose workload's entries are not counted apart any more.
/// Guarantee: what is missing is known of the first; the second is no loss, and is forgotten.
#[tokio::test]
async fn what_proxies_lost_is_known_of_workloads_that_are_counted() {
    let world = World::new();
    assert!(world.requests.proxies().is_empty(), "somebody asks, and nobody has been heard of");
    world.proxy(1).take(&message(vec![entry(1, 3, Side::Client, "/a", 200)]));
    world.told().await;
    let [web, gone] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 9, 9, 9])];
    assert_eq!(world.requests.proxies(), [web]);
    world.requests.asked().heard([(gone, "shop/gone".to_owned())].into_iter());
    for (written, dropped) in [(100, 0), (110, 3)] {
        world
            .requests
            .counted(vec![(web, Counted { written, dropped }), (gone, Counted { written, dropped })]);
    }
    let loss = Loss { logged: 13, dropped: 3, before: 1 };
    assert_eq!(world.requests.losses(), BTreeMap::from([("shop/web".to_owned(), (loss, 13))]));
    assert!(world.requests.asked().workloads().contains_key("shop/gone"));
    world.proxy(1).take(&message(vec![entry(1, 3, Side::Client, "/a", 200)]));
    world.told().await;
    assert!(!world.requests.asked().workloads().contains_key("shop/gone"));
    assert_eq!(world.requests.losses()["shop/web"], (loss, 12), "one more has come");
}

/// Scenario: a client calls a host with a name and a password before it.
/// Guarantee: the host is told, and they are not.
#[tokio::test]
async fn names_and_passwords_of_hosts_do_not_leave() {
    let world = World::new();
    let mut outside = entry(1, 9, Side::Client, "/", 200);
    outside.common_properties.as_mut().unwrap().upstream_cluster = "PassthroughCluster".to_owned();
    outside.request.as_mut().unwrap().authority = "jane:SECRET@api.example.com:443".to_owned();
    world.proxy(1).take(&message(vec![outside]));
    let told = world.told().await;
    assert_eq!(end(&told[0].destination), "/Unmanaged/api.example.com api.example.com");
    assert!(!format!("{told:?}").contains("SECRET"), "{told:?}");
}
