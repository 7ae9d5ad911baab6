//! The cloud as an operator meets it: real TLS over the loopback.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;
use kestrel_dev_cloud::{Authority, Claims, Cloud, Config, Faults, Stream, credentials::Identity, serve};
use kestrel_proto::{
    cloud::v1::{
        Action, InventoryCommit, KubernetesApiResponse, LogEntry, Pod, PodLogs, StreamControlRequest,
        StreamControlResponse, StreamDataRequest, StreamDataResponse, StreamLogsRequest,
        stream_control_request, stream_control_response, stream_data_request, stream_data_response,
        stream_logs_request, stream_service_client::StreamServiceClient,
    },
    server::v1::{RenewClusterTokenRequest, autonp_server_service_client::AutonpServerServiceClient},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

const LIMIT: Duration = Duration::from_secs(20);

async fn cloud() -> Cloud {
    serve(Config::new(Authority::generate().unwrap())).await.unwrap()
}

fn endpoint(address: SocketAddr, ca: &str, client: Option<&Identity>) -> Endpoint {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    if let Some(client) = client {
        tls = tls.identity(tonic::transport::Identity::from_pem(&client.certificate, &client.key));
    }
    Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap()
}

async fn connect(cloud: &Cloud) -> Channel {
    let client = cloud.authority().client("cluster-1").unwrap();
    endpoint(cloud.address(), cloud.authority().certificate(), Some(&client)).connect().await.unwrap()
}

fn token(cloud: &Cloud, tenant: &str, seconds: i64) -> String {
    let claims = Claims::new(tenant, "cluster-1", Timestamp::now(), seconds);
    cloud.authority().tokens().mint(&claims).unwrap()
}

fn request<T>(message: T, token: &str, tenant: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request.metadata_mut().insert("autonp-tenantid", tenant.parse().unwrap());
    request
}

async fn open_data(
    channel: Channel,
    token: &str,
    tenant: &str,
) -> Result<(mpsc::Sender<StreamDataRequest>, Streaming<StreamDataResponse>), Status> {
    let (sender, receiver) = mpsc::channel(16);
    let request = request(ReceiverStream::new(receiver), token, tenant);
    Ok((sender, StreamServiceClient::new(channel).stream_data(request).await?.into_inner()))
}

async fn refusal(cloud: &Cloud, rpc: &str) -> String {
    let newest = cloud.wait_for(LIMIT, |record| {
        record.connections.refusals().iter().rev().find(|refusal| refusal.rpc == rpc).cloned()
    });
    newest.await.unwrap().reason
}

#[tokio::test]
async fn a_client_without_or_with_a_foreign_certificate_is_refused() {
    let cloud = cloud().await;
    let ca = cloud.authority().certificate().to_owned();
    let channel = endpoint(cloud.address(), &ca, None).connect_lazy();
    assert!(open_data(channel, &token(&cloud, "t", 60), "t").await.is_err());
    assert!(refusal(&cloud, "handshake").await.contains("certificate"));

    let foreign = Authority::generate().unwrap().client("cluster-1").unwrap();
    let channel = endpoint(cloud.address(), &ca, Some(&foreign)).connect_lazy();
    assert!(open_data(channel, &token(&cloud, "t", 60), "t").await.is_err());
    let reason = refusal(&cloud, "handshake").await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 0);
}

#[tokio::test]
async fn a_client_that_trusts_another_authority_does_not_connect() {
    let cloud = cloud().await;
    let client = cloud.authority().client("cluster-1").unwrap();
    let other = Authority::generate().unwrap();
    let endpoint = endpoint(cloud.address(), other.certificate(), Some(&client));
    assert!(endpoint.connect().await.is_err());
}

#[tokio::test]
async fn metadata_is_checked_with_a_sentence() {
    let cloud = cloud().await;
    let good = token(&cloud, "acme", 60);
    let expired = token(&cloud, "acme", -3600);
    let foreign = Authority::generate().unwrap();
    let foreign = foreign.tokens().mint(&Claims::new("acme", "c", Timestamp::now(), 60)).unwrap();
    let cases = [
        (expired.as_str(), "acme", "token expired at "),
        (foreign.as_str(), "acme", "token is not one of this cloud"),
        (good.as_str(), "other", "autonp-tenantid \"other\" is not the token's tenant \"acme\""),
    ];
    let channel = connect(&cloud).await;
    for (token, tenant, sentence) in cases {
        let status = open_data(channel.clone(), token, tenant).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().starts_with(sentence), "{}", status.message());
        assert!(refusal(&cloud, "StreamData").await.starts_with(sentence));
    }
    cloud.set_faults(Faults { refuse_tokens: true, ..Faults::default() });
    let status = open_data(channel.clone(), &good, "acme").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    cloud.set_faults(Faults { unimplemented: [Stream::Data].into(), ..Faults::default() });
    let status = open_data(channel, &good, "acme").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

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
    use kestrel_proto::cloud::v1::{
        stream_control_response as control, stream_events_response as events, stream_flows_response as flows,
        stream_logs_response as logs,
    };
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
    let (logs, receiver) = mpsc::channel(16);
    let logs_request = request(ReceiverStream::new(receiver), &token, "acme");
    let _down = StreamServiceClient::new(channel).stream_logs(logs_request).await.unwrap();
    for first in [1, 51] {
        let line = |n| LogEntry { message: format!("line {n}"), ..LogEntry::default() };
        let batch = PodLogs {
            pod_name: "web-0".into(),
            log_entries: (first..first + 50).map(line).collect(),
            ..PodLogs::default()
        };
        let request = Some(stream_logs_request::Request::PodLogs(batch));
        logs.send(StreamLogsRequest { request }).await.unwrap();
    }
    let recorded = cloud.wait_for(LIMIT, |record| {
        let commit = record.inventory.commits().back().cloned()?;
        (record.logs.total() == 100).then(|| {
            let pods: Vec<Pod> =
                record.inventory.of_kind("pod").map(|pod| pod.message.decode().unwrap()).collect();
            let report = record.logs.sequence("line ", &Default::default(), 1).unwrap();
            (commit.objects, pods, report.distinct, report.missing_count)
        })
    });
    assert_eq!(recorded.await.unwrap(), (1, vec![pod], 100, 0));
}

/// Opens a control stream and answers every Kubernetes API request with its own id.
async fn answering_operator(cloud: &Cloud, token: &str) -> Streaming<StreamControlResponse> {
    let (answers, receiver) = mpsc::channel(16);
    let control = request(ReceiverStream::new(receiver), token, "acme");
    let mut client = StreamServiceClient::new(connect(cloud).await);
    let mut down = client.stream_control(control).await.unwrap().into_inner();
    let message = down.message().await.unwrap().unwrap();
    let Some(stream_control_response::Response::KubernetesApiRequest(asked)) = message.response else {
        panic!("another request: {message:?}");
    };
    let request_id = asked.request_id;
    let answer = KubernetesApiResponse { request_id, ..KubernetesApiResponse::default() };
    let request = Some(stream_control_request::Request::KubernetesApiResponse(answer));
    answers.send(StreamControlRequest { request }).await.unwrap();
    assert!(answers.is_closed() || down.message().await.is_err());
    down
}

#[tokio::test]
async fn a_request_gets_the_answer_with_its_id() {
    let cloud = cloud().await;
    let token = token(&cloud, "acme", 60);
    let message = json!({ "kubernetes_api_request": { "api_paths": ["version"], "request_id": "r7" } });
    let nobody = cloud.send(&message, None, LIMIT).await.unwrap_err();
    assert_eq!(nobody.to_string(), "no operator has its data stream open");
    let asking = async {
        let open = cloud
            .wait_for(LIMIT, |record| (record.connections.stream(Stream::Control).open > 0).then_some(()));
        open.await.unwrap();
        let sent = cloud.send(&message, None, LIMIT).await.unwrap();
        // Ends the operator below, too.
        cloud.cut_connections();
        sent
    };
    let (sent, _) = tokio::join!(asking, answering_operator(&cloud, &token));
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
    cloud.set_faults(Faults { close_streams: true, ..Faults::default() });
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
