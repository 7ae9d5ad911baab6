//! The pod's own proxy.

#[path = "../../../als/tests/support/message.rs"]
mod message;

use std::net::TcpListener;

use kestrel_proto::{
    envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient,
    node::v1::{RequestReport, RequestsTold, Welcome, aggregator_message::Message},
};
use tonic::Status;

use super::*;
use crate::aggregator::Stream;
use message::message;

async fn report(stream: &mut Stream) -> RequestReport {
    loop {
        let (batch, content) = stream.batch().await;
        stream.credit(batch.payload.len() as u64).await;
        if let Some(report) = content.requests.into_iter().next() {
            return report;
        }
    }
}

/// Scenario: a pod without log files, whose proxy logs to its collector; the leader changes before it has told; then the pod ends.
/// Guarantee: the same report comes to the next leader, and no more once that has told it; the last entries come before the farewell.
#[tokio::test]
async fn what_the_pods_proxy_logs_comes_as_counts_until_it_was_told() {
    let mut aggregator = Aggregator::start().await;
    let mut pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    pod.environment.retain(|(name, _)| *name != "KESTREL_LOG_SOURCES");
    pod.environment
        .extend([("KESTREL_LOG_SOURCES", "[]".to_owned()), ("KESTREL_ALS_PORT", port.to_string())]);
    let mut process = pod.start();
    process.says("receiving access logs of proxies on port").await;
    let welcome = Welcome { credit_bytes: CREDIT, features: vec!["requests".into()], ..Welcome::default() };
    let mut stream = aggregator.accept_with(welcome.clone()).await;
    let mut client = AccessLogServiceClient::connect(format!("http://127.0.0.1:{port}")).await.unwrap();
    client.stream_access_logs(tokio_stream::once(message(None, "db", ["/a/1", "/a/2", "/b"]))).await.unwrap();
    let first = report(&mut stream).await;
    let mut rows: Vec<_> = first.rows.iter().map(|row| (&row.template[..], row.count)).collect();
    rows.sort_unstable();
    assert_eq!(rows, [(&b"/a/:id"[..], 2), (b"/b", 1)]);
    stream.fail(Status::unavailable("a new leader")).await;

    let mut stream = aggregator.accept_with(welcome.clone()).await;
    assert_eq!(report(&mut stream).await, first);
    stream.send(Message::RequestsTold(RequestsTold { run: first.run, number: first.number })).await;
    client.stream_access_logs(tokio_stream::once(message(None, "db", ["/c"]))).await.unwrap();
    process.ask_to_end();
    let last = report(&mut stream).await;
    assert_eq!((last.run, last.number), (first.run, first.number + 1));
    assert_eq!(
        last.rows.iter().map(|row| (&row.template[..], row.count)).collect::<Vec<_>>(),
        [(&b"/c"[..], 1)]
    );
    assert_eq!(stream.farewell().await, []);
    drop(stream);
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_costs_the_access_logs_alone() {
    let mut aggregator = Aggregator::start().await;
    let mut pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    pod.environment.push(("KESTREL_ALS_PORT", taken.local_addr().unwrap().port().to_string()));
    pod.write("one\n");
    let mut process = pod.start();
    process.says("no access logs are received, port").await;
    let mut stream = aggregator.accept(CREDIT).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    assert_eq!(stream.lines(1).await, ["one"]);
    process.ask_to_end();
    assert_eq!(stream.farewell().await, []);
    drop(stream);
    assert_eq!(process.ends().await, Some(0));
}
