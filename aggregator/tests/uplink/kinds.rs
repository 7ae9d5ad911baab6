//! One entry of every kind, as the types that Envoy's users have in Go encode them: `kinds.hex` is what
//! `tests/bench/als -kinds` prints.

use std::{collections::BTreeMap, time::Duration};

use kestrel_aggregator::traffic::requests::Tally;
use kestrel_dev_cloud::Authority;
use serde_json::Value;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Endpoint,
};

use crate::{
    als::Receiver,
    rig::{LIMIT, Rig, cloud},
};

const RECORDED: &str = include_str!("kinds.hex");

/// What every request of the recording is, unless it says otherwise.
const USUAL: &str = "web > Service/db db:8080 HTTP GET 1.1 200 [] allowed=true tries=1 100/1000 20ms";

/// What the cloud is told of each kind, by path or, of TCP, by Service: what differs from [`USUAL`].
const EXPECTED: [(&str, &[(&str, &str)]); 24] = [
    ("/orders/:id", &[]),
    ("/two", &[("GET 1.1 200", "POST 2.0 201")]),
    ("/three", &[("GET 1.1", "PATCH 3.0")]),
    ("/zero", &[("GET 1.1", "GET 1.0")]),
    ("/shop.v1.Orders/Get", &[("HTTP GET 1.1", "GRPC POST 2.0"), ("20ms", "20ms grpc=14")]),
    ("/headers", &[]),
    ("/public/:id", &[]),
    ("/in", &[("web > Service/db db", "ServiceAccount/teller > Deployment/web ")]),
    (
        "/denied",
        &[
            ("200 []", "403 []"),
            ("true", "false"),
            ("20ms", "20ms termination=rbac_access_denied_matched_policy[ns[shop]-policy[deny]-rule[0]]"),
        ],
    ),
    (
        "/tls",
        &[
            ("200 []", "503 [UF]"),
            (
                "20ms",
                "20ms upstream=TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end",
            ),
        ],
    ),
    ("/refused", &[("200 []", "503 [UF]"), ("20ms", "20ms upstream=delayed_connect_error:_111")]),
    ("/unreached", &[("Service/db db:8080", "Unmanaged/db db:80"), ("200 []", "503 [UH]")]),
    ("/tunnel", &[]),
    ("/six", &[]),
    ("/pipe", &[("8080", "80")]),
    ("/out", &[("Service/db db:8080", "Unmanaged/api.example.com api.example.com:443")]),
    ("/none", &[("200 []", "0 [DC]")]),
    ("/last", &[]),
    ("/size", &[("100/1000", "75/200")]),
    ("/retried", &[("tries=1", "tries=3")]),
    ("/more", &[]),
    ("tcp cache", &[(USUAL, "web > Service/cache cache:8080 TCP allowed=true tries=1 100/1000 20ms")]),
    (
        "tcp queue",
        &[(
            USUAL,
            "web > Service/queue queue:8080 TCP allowed=false tries=1 100/1000 20ms downstream=TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end",
        )],
    ),
    ("tcp ", &[(USUAL, "web > Unknown/unknown :0 TCP allowed=true tries=0 0/0 0ms")]),
];

/// Codes of Envoy's response flags, and whether one means that somebody did not allow it.
const FLAGS: [(&str, bool); 28] = [
    ("LH", true),
    ("UH", true),
    ("UT", true),
    ("LR", true),
    ("UR", true),
    ("UF", true),
    ("UC", true),
    ("UO", true),
    ("NR", false),
    ("DI", true),
    ("FI", true),
    ("RL", true),
    ("UAEX", false),
    ("RLSE", true),
    ("DC", true),
    ("URX", true),
    ("SI", true),
    ("IH", true),
    ("DPE", true),
    ("UMSDR", true),
    ("RFCF", true),
    ("NFCF", true),
    ("DT", true),
    ("UPE", true),
    ("NC", false),
    ("OM", true),
    ("DF", true),
    ("DR", true),
];

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

fn recorded() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    RECORDED.lines().map(|line| {
        let (name, hex) = line.split_once(' ').unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (name, (0..hex.len()).step_by(2).map(byte).collect())
    })
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

/// What a message says, in the form of [`USUAL`], and by what it is expected.
fn told(log: &Value) -> (String, String) {
    let (http, tcp, to) = (&log["http_data"], &log["tcp_data"], &log["destination"]);
    let (of, what) = if http.is_null() {
        (tcp, "TCP".to_owned())
    } else {
        let protocol = text(&log["l7_protocol"]).replace("L7_PROTOCOL_", "");
        let flags: Vec<String> = http["response_flags"].as_array().into_iter().flatten().map(text).collect();
        let [method, version] = ["method", "version"].map(|name| text(&http[name]));
        (
            http,
            format!("{protocol} {method} {version} {} [{}]", number(&http["response_code"]), flags.join(",")),
        )
    };
    let from = match &*text(&log["source"]["kind"]) {
        "Deployment" => text(&log["source"]["name"]),
        kind => format!("{kind}/{}", text(&log["source"]["name"])),
    };
    let mut line = format!(
        "{from} > {}/{} {}:{} {what} allowed={} tries={} {}/{} {}ms",
        text(&to["kind"]),
        text(&to["name"]),
        text(&to["service_name"]),
        number(&to["port"]),
        log["allowed"] == true,
        number(&of["upstream_request_attempt_count"]),
        number(&log["bytes_sent"]),
        number(&log["bytes_received"]),
        number(&log["duration_ms"]),
    );
    if let Some(status) = http["response_headers"]["grpc-status"].as_str() {
        line += &format!(" grpc={status}");
    }
    for (field, name) in [
        ("connection_termination_details", "termination"),
        ("upstream_transport_failure_reason", "upstream"),
        ("downstream_transport_failure_reason", "downstream"),
    ] {
        let why = text(&of[field]);
        if !why.is_empty() {
            line += &format!(" {name}={why}");
        }
    }
    assert_eq!(number(&log["count"]), 1, "{log}");
    let name =
        if http.is_null() { format!("tcp {}", text(&to["service_name"])) } else { text(&http["path"]) };
    (name, line)
}

/// Scenario: an Envoy logs one entry of every kind: each version of HTTP, gRPC, TCP; each response flag; certificates at both
/// ends; headers; addresses of every form; what its other logger logs too; almost nothing.
/// Guarantee: the cloud is told of each what it says, field by field; nothing that is secret is in it; and every entry is counted.
#[tokio::test]
async fn every_kind_of_entry_is_told_as_what_it_is() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    let receiver = Receiver::start(&rig).await;
    let mut client =
        Grpc::new(Endpoint::from_shared(receiver.address.clone()).unwrap().connect().await.unwrap());
    client.ready().await.unwrap();
    let messages: Vec<Vec<u8>> = recorded().map(|(_, bytes)| bytes).collect();
    let entries = messages.len() as u64 - 1;
    let path = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs".parse().unwrap();
    client.client_streaming(Request::new(tokio_stream::iter(messages)), path, Raw).await.unwrap();
    let tallies = receiver.stop().await;

    let mut expected: BTreeMap<String, String> = EXPECTED
        .iter()
        .map(|(name, changes)| {
            let line = changes.iter().fold(USUAL.to_owned(), |line, (from, to)| {
                assert!(line.contains(from), "{name}: {from} in {line}");
                line.replacen(from, to, 1)
            });
            ((*name).to_owned(), line)
        })
        .collect();
    expected.extend(FLAGS.iter().map(|(code, allowed)| {
        let line = USUAL.replace("200 []", &format!("503 [{code}]")).replace("true", &allowed.to_string());
        (format!("/flag/{code}"), line)
    }));
    let arrived = cloud.wait_for(LIMIT, |record| {
        let logs = record.flows.iter().filter(|arrival| arrival.message.kind() == "l7_access_log");
        let logs: Vec<Value> = logs.map(|arrival| arrival.json()["message"].clone()).collect();
        (logs.len() >= expected.len()).then_some(logs)
    });
    let arrived = arrived.await.expect("a message of each");
    let found: BTreeMap<_, _> = arrived.iter().map(told).collect();
    for (name, line) in &expected {
        assert_eq!(found.get(name), Some(line), "{name}");
    }
    assert_eq!((found.len(), arrived.len()), (expected.len(), expected.len()));
    for log in &arrived {
        assert!(!log.to_string().contains("geheim"), "{log}");
    }
    let all = Tally { aggregated: entries - 6, unfinished: 2, twins: 4, ..Tally::default() };
    assert_eq!(tallies.into_values().collect::<Vec<_>>(), [all]);
    tokio::time::timeout(Duration::from_secs(30), rig.stop()).await.unwrap();
    cloud.stop().await.unwrap();
}
