//! The streams, what they leave in the record, and their end.

use std::time::Duration;

use jiff::Timestamp;
use kestrel_dev_cloud::{Authority, Config, Faults, Stream, serve};
use kestrel_proto::{
    cloud::v1::{
        Action, InventoryCommit, Pod, StreamDataRequest, stream_control_response as control,
        stream_data_request, stream_data_response, stream_events_response as events,
        stream_flows_response as flows, stream_logs_response as logs,
        stream_service_client::StreamServiceClient,
    },
    server::v1::{RenewClusterTokenRequest, autonp_server_service_client::AutonpServerServiceClient},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::operator::*;

#[tokio::test]
async fn five_streams_are_open_at_once_with_heartbeats_on_each() {
    let authority = Authority::generate().unwrap();
    let config = Config { heartbeat: Duration::from_millis(20), ..Config::new(authority) };
    let cloud = serve(config).await.unwrap();
    let token = token(&cloud, "acme", 60);
    let mut client = StreamServiceClient::new(connect(&cloud).await);
    /// Opens a stream that sends nothing and reads one heartbeat from it.
    macro_rules! heartbeat {
        ($open:ident, $response:path) => {{
            let (sender, receiver) = mpsc::channel(1);
            let request = request(ReceiverStream::new(receiver), &token, "acme");
            let mut down = client.$open(request).await.unwrap().into_inner();
            let first = down.message().await.unwrap().unwrap().response.unwrap();
            assert!(matches!(first, $response(_)), "{first:?}");
            (sender, down)
        }};
    }
    let _open = (
        heartbeat!(stream_data, stream_data_response::Response::Heartbeat),
        heartbeat!(stream_control, control::Response::Heartbeat),
        heartbeat!(stream_flows, flows::Response::Heartbeat),
        heartbeat!(stream_events, events::Response::Heartbeat),
        heartbeat!(stream_logs, logs::Response::Heartbeat),
    );
    cloud.read(|record| {
        assert_eq!(record.connections.counts().open, 1);
        assert!(Stream::ALL.iter().all(|stream| record.connections.stream(*stream).open == 1));
        let connection = record.connections.open_now().next().unwrap();
        assert_eq!(connection.certificate.subject, "CN=cluster-1");
        assert!(connection.clusters.contains("cluster-1"));
    });
}

#[tokio::test]
async fn what_an_operator_sends_is_recorded() {
    let cloud = cloud().await;
    let token = token(&cloud, "acme", 60);
    let channel = connect(&cloud).await;
    let (data, _down) = open_data(channel.clone(), &token, "acme").await.unwrap();
    let pod = Pod { name: "web-0".into(), uid: "u1".into(), action: Action::Create.into(), ..Pod::default() };
    let requests = [
        stream_data_request::Request::Pod(pod.clone()),
        stream_data_request::Request::InventoryCommit(InventoryCommit::default()),
    ];
    for request in requests {
        data.send(StreamDataRequest { request: Some(request) }).await.unwrap();
    }
    let _first = send_lines(channel.clone(), &token, 1..=50).await;
    let _second = send_lines(channel, &token, 51..=100).await;
    let recorded = cloud.wait_for(LIMIT, |record| {
        let commit = record.inventory.commits().back().cloned()?;
        (record.logs.total() == 100).then(|| {
            let pods: Vec<Pod> =
                record.inventory.of_kind("pod").map(|pod| pod.message.decode().unwrap()).collect();
            let report = record.logs.sequences.report("line ", &Default::default(), 1).unwrap();
            (commit.objects, pods, report.distinct, report.missing_count)
        })
    });
    assert_eq!(recorded.await.unwrap(), (1, vec![pod], 100, 0));
}

#[tokio::test]
async fn a_request_gets_the_answer_with_its_id() {
    let cloud = cloud().await;
    let token = token(&cloud, "acme", 60);
    let message = json!({ "kubernetes_api_request": { "api_paths": ["version"], "request_id": "r7" } });
    let nobody = cloud.send(&message, None, LIMIT).await.unwrap_err();
    assert_eq!(nobody.to_string(), "no operator has its data stream open");
    let asking = async {
        opened(&cloud, Stream::Control).await;
        let sent = cloud.send(&message, None, LIMIT).await.unwrap();
        // Ends the operator below, too.
        cloud.cut_connections();
        sent
    };
    let (sent, ()) = tokio::join!(asking, answer_one(&cloud, &token));
    assert_eq!((sent.request_id.as_str(), sent.stream), ("r7", Stream::Control));
    assert_eq!(sent.answer.unwrap().message.kind(), "kubernetes_api_response");
}

#[tokio::test]
async fn a_request_without_an_answer_ends_with_a_sentence() {
    let cloud = cloud().await;
    let token = token(&cloud, "acme", 60);
    let channel = connect(&cloud).await;
    let (_data, _down) = open_data(channel, &token, "acme").await.unwrap();
    let restart = json!({ "operator_restart_request": { "request_id": "r1" } });
    let problem = cloud.send(&restart, None, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(problem.to_string(), "no answer to request r1 within 0 s");
}

#[tokio::test]
async fn a_token_is_renewed_for_the_same_tenant_and_cluster() {
    let cloud = cloud().await;
    let mut client = AutonpServerServiceClient::new(connect(&cloud).await);
    let current_token = token(&cloud, "acme", 60);
    let renew = |bearer: &str, current_token: String| {
        request(RenewClusterTokenRequest { current_token }, bearer, "acme")
    };
    let renewed = client.renew_cluster_token(renew(&current_token, current_token.clone())).await.unwrap();
    let renewed = renewed.into_inner();
    assert_eq!((renewed.expires_in, renewed.token_type.as_str()), (24 * 3600, "Bearer"));
    let claims = cloud.authority().tokens().check(&renewed.access_token, Timestamp::now()).unwrap();
    assert_eq!((claims.tenant.as_str(), claims.sub.as_str()), ("acme", "cluster-1"));

    let expired = token(&cloud, "acme", -1);
    let status = client.renew_cluster_token(renew(&current_token, expired)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(refusal(&cloud, "RenewClusterToken").await.starts_with("token expired at"));
}

#[tokio::test]
async fn a_cut_ends_the_streams_and_the_next_connection_is_a_reconnect() {
    let cloud = cloud().await;
    let token = token(&cloud, "acme", 60);
    let client = cloud.authority().client("cluster-1").unwrap();
    let endpoint = endpoint(cloud.address(), cloud.authority().certificate(), Some(&client));
    let channel = endpoint.connect().await.unwrap();
    let (_data, mut down) = open_data(channel, &token, "acme").await.unwrap();
    cloud.set_faults(Faults::cut());
    assert!(down.message().await.is_err());
    let closed = cloud.wait_for(LIMIT, |record| {
        let nothing =
            record.connections.counts().open + record.connections.stream(Stream::Data).open as usize;
        (nothing == 0).then_some(())
    });
    closed.await.unwrap();
    let channel = endpoint.connect().await.unwrap();
    let (_data, _down) = open_data(channel, &token, "acme").await.unwrap();
    assert_eq!(cloud.read(|record| record.connections.counts().reconnects), 1);
}

#[tokio::test]
async fn stopping_tells_the_operators_that_the_cloud_ends() {
    let cloud = cloud().await;
    let token = token(&cloud, "acme", 60);
    let channel = connect(&cloud).await;
    let (data, mut down) = open_data(channel, &token, "acme").await.unwrap();
    let operator = async move {
        let status = down.message().await.unwrap_err();
        drop(data);
        status
    };
    let (status, stopped) = tokio::join!(operator, cloud.stop());
    stopped.unwrap();
    assert_eq!(status.code(), Code::Unavailable);
}
