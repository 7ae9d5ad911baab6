//! A real gRPC server that plays what Hubble does, at whatever connections it is given.

use std::{io, pin::Pin};

use kestrel_proto::hubble::{
    flow::{Flow, Ip, Verdict},
    observer::{
        GetFlowsRequest, GetFlowsResponse, ServerStatusRequest, ServerStatusResponse,
        get_flows_response::ResponseTypes,
        observer_server::{Observer, ObserverServer},
    },
};
use prost_types::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::{Stream, wrappers::UnboundedReceiverStream};
use tonic::{Request, Response, Status, transport::server::Connected};

/// How a request is answered; dropped, its stream ends.
pub(super) type Answers = mpsc::UnboundedSender<Result<GetFlowsResponse, Status>>;

/// Hands every request and the way to answer it to the test.
struct Played(mpsc::Sender<(GetFlowsRequest, Answers)>);

#[tonic::async_trait]
impl Observer for Played {
    type GetFlowsStream = Pin<Box<dyn Stream<Item = Result<GetFlowsResponse, Status>> + Send>>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let (answers, given) = mpsc::unbounded_channel();
        self.0.send((request.into_inner(), answers)).await.map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(given))))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Ok(Response::new(ServerStatusResponse { num_connected_nodes: Some(3), ..Default::default() }))
    }
}

/// A server for these connections, and what it is asked. A request is not answered, not even by a head, before the one
/// after the next before it is taken.
pub(super) fn serve<S, T>(connections: S) -> (JoinHandle<()>, mpsc::Receiver<(GetFlowsRequest, Answers)>)
where
    S: Stream<Item = io::Result<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (asked, requests) = mpsc::channel(1);
    let server = tonic::transport::Server::builder()
        .add_service(ObserverServer::new(Played(asked)))
        .serve_with_incoming(connections);
    (tokio::spawn(async { server.await.unwrap() }), requests)
}

/// One that passed at this time.
pub(super) fn flow(time: Timestamp) -> GetFlowsResponse {
    let flow = Flow {
        time: Some(time),
        verdict: Verdict::Forwarded.into(),
        ip: Some(Ip { source: "10.0.0.1".to_owned(), destination: "10.0.0.2".to_owned() }),
        ..Flow::default()
    };
    GetFlowsResponse { response_types: Some(ResponseTypes::Flow(flow)), time: None }
}
