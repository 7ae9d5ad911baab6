//! Access logs, from a proxy's stream to the cloud.

use std::{collections::BTreeMap, time::Duration};

use kestrel_aggregator::{
    als,
    excluded::Excluded,
    inventory::Mirror,
    signals::{component::Components, edges::Edges},
    traffic::requests::{Requests, Tally, metrics::Metrics},
};
use kestrel_als::headers::Headers;
use kestrel_dev_cloud::{Authority, Stream};
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

use crate::rig::{LIMIT, Rig, cloud};

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

fn message(pod: &str, service: &str, code: u32, count: usize) -> StreamAccessLogsMessage {
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
        vec![message("web-1", "db", 200, 40), message("web-1", "db", 503, 2)],
        vec![message("api-1", "cache", 200, 100)],
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
