//! Access logs, from a proxy's stream to the cloud.

#[path = "../../../node-agent/als/tests/support/message.rs"]
mod message;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use kestrel_aggregator::{
    als,
    excluded::Excluded,
    inventory::Mirror,
    signals::{component::Components, edges::Edges},
    traffic::requests::{Requests, Tally, metrics::Metrics},
};
use kestrel_als::headers::Headers;
use kestrel_dev_cloud::{Authority, Faults, Stream};
use kestrel_proto::envoy::{
    config::core::v3::Node,
    data::accesslog::v3::{
        AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties,
    },
    service::accesslog::v3::{
        StreamAccessLogsMessage,
        access_log_service_client::AccessLogServiceClient,
        stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries},
    },
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    process::{Running, get, installed, nobody},
    rig::{LIMIT, Rig, cloud, write_credentials},
};

/// Resident memory of the program without an inventory, in KiB: what rows of two times ten seconds and messages that wait may take
/// (104 MiB), a tenth more, and the program.
const BUDGET: u64 = 160 << 10;

/// A receiver of access logs that tells what it counts to a rig's cloud.
pub(crate) struct Receiver {
    pub(crate) address: String,
    requests: Requests,
    drain: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Receiver {
    pub(crate) async fn start(rig: &Rig) -> Self {
        let namespace = "kestrel-ai".to_owned();
        let requests = Requests::new(
            Mirror::default(),
            Excluded::default(),
            namespace.clone(),
            Edges::new(Components::new(rig.lanes.signals()), rig.lanes.signals()),
            Headers::default(),
            rig.lanes.flows(),
            Metrics::default(),
        );
        let config = als::Config {
            port: 0,
            stream_bytes_per_second: 0,
            stream_age: LIMIT * 10,
            namespace,
            tls_dir: None,
            stats_port: None,
        };
        let (metrics, drain) = (als::Metrics::default(), CancellationToken::new());
        let task = tokio::spawn({
            let (requests, metrics, drain) = (requests.clone(), metrics.clone(), drain.clone());
            async move { requests.run_while(als::receive(config, None, &requests, metrics, drain)).await }
        });
        let address = format!("http://127.0.0.1:{}", metrics.port().await);
        Self { address, requests, drain, task }
    }

    /// Ends it, when all is told; what became of the entries, by workload.
    pub(crate) async fn stop(self) -> BTreeMap<String, Tally> {
        self.drain.cancel();
        self.task.await.unwrap().unwrap();
        self.requests.tallies()
    }
}

fn logged(pod: &str, service: &str, code: u32, count: usize) -> StreamAccessLogsMessage {
    let entry = HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: format!("outbound|80||{service}.shop.svc.cluster.local"),
            duration: Some(prost_types::Duration { seconds: 0, nanos: 5_000_000 }),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties {
            request_method: 1,
            path: "/items/7".to_owned(),
            ..Default::default()
        }),
        response: Some(HttpResponseProperties { response_code: Some(code), ..Default::default() }),
        ..HttpAccessLogEntry::default()
    };
    let node = Node { id: format!("sidecar~192.0.2.7~{pod}.shop~shop.svc.cluster.local"), ..Node::default() };
    StreamAccessLogsMessage {
        identifier: Some(Identifier { node: Some(node), log_name: "als".to_owned() }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![entry; count] })),
    }
}

/// Scenario: proxies of two pods log what they sent to two services; then this process stops leading.
/// Guarantee: the cloud has both edges, with every entry once, its code and its time.
#[tokio::test]
async fn what_proxies_log_is_at_the_cloud_as_edges_with_counts_codes_and_times() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    let receiver = Receiver::start(&rig).await;
    for messages in [
        vec![logged("web-1", "db", 200, 40), logged("web-1", "db", 503, 2)],
        vec![logged("api-1", "cache", 200, 100)],
    ] {
        let mut client = AccessLogServiceClient::connect(receiver.address.clone()).await.unwrap();
        client.stream_access_logs(tokio_stream::iter(messages)).await.unwrap();
    }
    let tallies = receiver.stop().await;
    let arrived = cloud.wait_for(LIMIT, |record| {
        let logs: Vec<Value> = record
            .flows
            .iter()
            .filter(|arrival| arrival.message.kind() == "l7_access_log" && arrival.stream == Stream::Flows)
            .map(|arrival| arrival.json())
            .collect();
        (logs.len() >= 3).then_some(logs)
    });
    let arrived = arrived.await.expect("three rows at the cloud");
    let mut rows: Vec<String> = arrived
        .iter()
        .map(|arrival| {
            let log = &arrival["message"];
            let http = &log["http_data"];
            format!(
                "{} {} {} {} {} {} {}",
                log["source"]["name"],
                log["destination"]["service_name"],
                http["path"],
                http["response_code"],
                log["count"],
                log["duration_ms"],
                http["response_headers"]["x-kestrel-latency-p50-ms"],
            )
            .replace('"', "")
        })
        .collect();
    rows.sort();
    let p50 = 4.992;
    let expected = [("api-1 cache", 200, 100), ("web-1 db", 200, 40), ("web-1 db", 503, 2)];
    let expected =
        expected.map(|(edge, code, count)| format!("{edge} /items/:id {code} {count} {} {p50}", count * 5));
    assert_eq!(rows, expected);
    let all: u64 = tallies.values().map(|tally| tally.received()).sum();
    assert_eq!(all, 142);
    tokio::time::timeout(Duration::from_secs(30), rig.stop()).await.unwrap();
    cloud.stop().await.unwrap();
}

/// Requests to a Service that are all different, and began just now; without a time they count with the oldest ten seconds
/// that are open.
fn different(service: usize, count: usize, is_timed: bool) -> StreamAccessLogsMessage {
    // No template folds these.
    let path = |number: usize| {
        (0..6)
            .map(|at| char::from(b'g' + (number >> (2 * at) & 3) as u8))
            .fold("/".to_owned(), |path, letter| format!("{path}{letter}"))
    };
    let mut message = message::message(None, &format!("service-{service}"), (0..count).map(path));
    let now = prost_types::Timestamp::from(SystemTime::now());
    if let Some(LogEntries::HttpLogs(entries)) = &mut message.log_entries {
        for common in entries.log_entry.iter_mut().filter_map(|entry| entry.common_properties.as_mut()) {
            common.start_time = is_timed.then_some(now);
        }
    }
    message
}

/// The sum of a counter's lines.
fn sum(metrics: &str, counter: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(counter));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Scenario: proxies log more different requests than there is room for, of these ten seconds and of those before, while the cloud
/// takes nothing of the flows stream.
/// Guarantee: the program stays within its memory; what became of every entry is known, and so it is of every message.
#[tokio::test]
async fn too_many_requests_for_a_cloud_that_takes_nothing_cost_detail_and_no_memory() {
    const SERVICES: usize = 320;
    const PATHS: usize = 1000;
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    cloud.set_faults(Faults { stall: vec![Stream::Flows], ..Faults::default() });
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let [admin, port] = [nobody().await.port(), nobody().await.port()];
    let mut program = installed(folder.path(), &cloud, nobody().await);
    program.env("HEALTH_PORT", admin.to_string()).env("KESTREL_LINK_PORT", "0").env("KESTREL_LOG", "error");
    program
        .env("ENABLE_ISTIO_ALS", "true")
        .env("ISTIO_ALS_PORT", port.to_string())
        .env("KESTREL_ALS_STREAM_BYTES", "0");
    let program = Running(Some(program.spawn().unwrap()));
    let listens = async {
        loop {
            if let Ok(client) = AccessLogServiceClient::connect(format!("http://127.0.0.1:{port}")).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut client = tokio::time::timeout(LIMIT, listens).await.unwrap();
    let messages = (0..SERVICES).map(|service| different(service, PATHS, service % 2 == 0));
    client.stream_access_logs(tokio_stream::iter(messages)).await.unwrap();
    let told = async {
        loop {
            let metrics = get(admin, "/metrics").await;
            if sum(&metrics, "kestrel_requests_told_total") == (SERVICES * PATHS) as u64 {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let metrics = tokio::time::timeout(LIMIT * 2, told).await.unwrap();
    let became =
        |outcome| sum(&metrics, &format!("kestrel_requests_received_total{{outcome=\"{outcome}\"}}"));
    assert_eq!(became("Aggregated") + became("Folded") + became("Refused"), (SERVICES * PATHS) as u64);
    assert!(became("Aggregated") > 0 && became("Folded") > 0, "{metrics}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let most: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    let [messages, dropped] =
        ["kestrel_requests_messages_total", "kestrel_uplink_messages_dropped_total{lane=\"Flows\""]
            .map(|counter| sum(&metrics, counter));
    println!("{messages} messages, {dropped} of them dropped, at most {} MiB", most >> 10);
    assert!(dropped > 0 && dropped < messages, "{dropped} of {messages} messages");
    assert!(most < BUDGET, "{most} KiB");
    tokio::task::spawn_blocking(|| program.terminate()).await.unwrap();
    cloud.stop().await.unwrap();
}
