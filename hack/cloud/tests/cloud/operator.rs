//! A small operator, and the cloud it connects to.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use jiff::Timestamp;
use kestrel_dev_cloud::{Authority, Claims, Cloud, Config, Stream, credentials::Identity, serve};
use kestrel_proto::cloud::v1::{
    KubernetesApiResponse, LogEntry, PodLogs, StreamControlRequest, StreamDataRequest, StreamDataResponse,
    StreamLogsRequest, StreamLogsResponse, stream_control_request, stream_control_response,
    stream_logs_request, stream_service_client::StreamServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn cloud() -> Cloud {
    serve(Config::new(Authority::generate().unwrap())).await.unwrap()
}

pub(crate) fn endpoint(address: SocketAddr, ca: &str, client: Option<&Identity>) -> Endpoint {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    if let Some(client) = client {
        tls = tls.identity(tonic::transport::Identity::from_pem(&client.certificate, &client.key));
    }
    Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap()
}

pub(crate) async fn connect(cloud: &Cloud) -> Channel {
    let client = cloud.authority().client("cluster-1").unwrap();
    endpoint(cloud.address(), cloud.authority().certificate(), Some(&client)).connect().await.unwrap()
}

pub(crate) fn token(cloud: &Cloud, tenant: &str, seconds: i64) -> String {
    let claims = Claims::new(tenant, "cluster-1", Timestamp::now(), seconds);
    cloud.authority().tokens().mint(&claims).unwrap()
}

pub(crate) fn request<T>(message: T, token: &str, tenant: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request.metadata_mut().insert("autonp-tenantid", tenant.parse().unwrap());
    request
}

pub(crate) async fn open_data(
    channel: Channel,
    token: &str,
    tenant: &str,
) -> Result<(mpsc::Sender<StreamDataRequest>, Streaming<StreamDataResponse>), Status> {
    let (sender, receiver) = mpsc::channel(16);
    let request = request(ReceiverStream::new(receiver), token, tenant);
    Ok((sender, StreamServiceClient::new(channel).stream_data(request).await?.into_inner()))
}

pub(crate) async fn refusal(cloud: &Cloud, rpc: &str) -> String {
    let newest = cloud.wait_for(LIMIT, |record| {
        record.connections.refusals().iter().rev().find(|refusal| refusal.rpc == rpc).cloned()
    });
    newest.await.unwrap().reason
}

/// Sends lines `line FIRST` to `line LAST` of container `app` of pod `shop/web-0` in one batch; the
/// stream is open as long as what is returned lives.
pub(crate) async fn send_lines(
    channel: Channel,
    token: &str,
    numbers: RangeInclusive<u32>,
) -> (mpsc::Sender<StreamLogsRequest>, Streaming<StreamLogsResponse>) {
    let (logs, receiver) = mpsc::channel(16);
    let request = request(ReceiverStream::new(receiver), token, "acme");
    let down = StreamServiceClient::new(channel).stream_logs(request).await.unwrap().into_inner();
    let line = |number| LogEntry { message: format!("line {number}"), ..LogEntry::default() };
    let batch = PodLogs {
        namespace: "shop".into(),
        pod_name: "web-0".into(),
        container_name: "app".into(),
        log_entries: numbers.map(line).collect(),
        ..PodLogs::default()
    };
    let request = Some(stream_logs_request::Request::PodLogs(batch));
    logs.send(StreamLogsRequest { request }).await.unwrap();
    (logs, down)
}

/// Opens a control stream, answers the first request, which is for the Kubernetes API, and stays
/// until it is cut.
pub(crate) async fn answer_one(cloud: &Cloud, token: &str) {
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
    assert!(down.message().await.is_err());
}

/// Waits until a stream is open.
pub(crate) async fn opened(cloud: &Cloud, stream: Stream) {
    let open = cloud.wait_for(LIMIT, |record| (record.connections.stream(stream).open > 0).then_some(()));
    open.await.unwrap();
}
