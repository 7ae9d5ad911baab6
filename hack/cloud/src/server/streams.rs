//! `cloud.v1.StreamService`: five streams that differ only in their types.

use std::{pin::Pin, sync::Arc};

use futures::{Stream as Items, StreamExt as _, future, stream};
use jiff::Timestamp;
use kestrel_proto::cloud::v1::{
    StreamControlRequest, StreamControlResponse, StreamDataRequest, StreamDataResponse, StreamEventsRequest,
    StreamEventsResponse, StreamFlowsRequest, StreamFlowsResponse, StreamLogsRequest, StreamLogsResponse,
    stream_service_server::StreamService,
};
use prost::Message;
use tokio::time::{Instant, interval_at};
use tokio_stream::wrappers::{IntervalStream, ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::accept::Info;
use crate::{
    hub::{Hub, Opened},
    wire::{Order, Stream},
};

pub(super) struct Streams(pub(super) Arc<Hub>);

type Answers<T> = Pin<Box<dyn Items<Item = Result<T, Status>> + Send>>;

impl Streams {
    fn open<Up, Down>(
        &self,
        stream: Stream,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Answers<Down>>, Status>
    where
        Up: Message + 'static,
        Down: Message + Default + 'static,
    {
        let hub = Arc::clone(&self.0);
        let info = connection(&request)?;
        let claims = admit(&hub, info, stream, &request)?;
        if hub.faults().unimplemented.contains(&stream) {
            return Err(Status::unimplemented(format!("{} is switched off by a fault", rpc(stream))));
        }
        let Opened { id, cluster, orders, end } = hub.open(info.id, stream, &claims);
        let name = stream.name();
        info!("Cluster {cluster} (tenant {}) opened its {name} stream", claims.tenant);
        hub.note("stream", format!("cluster {cluster} opened its {name} stream"));

        let ended = CancellationToken::new();
        let orders = ReceiverStream::new(orders);
        let heartbeats = IntervalStream::new(interval_at(Instant::now() + hub.heartbeat, hub.heartbeat))
            .filter_map(move |_| {
                future::ready(Order::heartbeat(stream, Timestamp::now()).ok().map(|order| order.envelope))
            });
        let stop = hub.stop.clone();
        let down = stream::select(orders, heartbeats)
            .map(|envelope| Down::decode(envelope).map_err(|error| Status::internal(error.to_string())))
            .take_until(ended.clone().cancelled_owned())
            .chain(stream::once(future::lazy(move |_| stop.is_cancelled())).filter_map(|stopped| {
                let status = Status::unavailable("the development cloud is ending");
                future::ready(stopped.then_some(Err(status)))
            }));

        let mut up = request.into_inner();
        hub.readers.clone().spawn(async move {
            let outcome = loop {
                tokio::select! {
                    () = hub.stop.cancelled() => break "the cloud ends".to_owned(),
                    () = end.cancelled() => break "a fault".to_owned(),
                    received = up.message() => match received {
                        Ok(Some(message)) => {
                            hub.insert(stream, (id, &cluster), message.encode_to_vec().into());
                        }
                        Ok(None) => break "the operator ended it".to_owned(),
                        Err(status) => break format!("{:?}: {}", status.code(), status.message()),
                    }
                }
            };
            info!("The {name} stream of cluster {cluster} ended ({outcome})");
            hub.note("stream", format!("the {name} stream of cluster {cluster} ended ({outcome})"));
            hub.close(info.id, stream, id);
            ended.cancel();
        });
        Ok(Response::new(Box::pin(down)))
    }
}

fn rpc(stream: Stream) -> String {
    format!("Stream{stream:?}")
}

/// The connection of an RPC.
pub(super) fn connection<T>(request: &Request<T>) -> Result<Info, Status> {
    let info = request.extensions().get::<Info>().copied();
    info.ok_or_else(|| Status::internal("the connection is not known"))
}

/// A piece of metadata, if it is text.
pub(super) fn metadata<'a, T>(request: &'a Request<T>, key: &str) -> Option<&'a str> {
    request.metadata().get(key).and_then(|value| value.to_str().ok())
}

fn admit<T>(
    hub: &Hub,
    info: Info,
    stream: Stream,
    request: &Request<T>,
) -> Result<crate::credentials::Claims, Status> {
    hub.admit(metadata(request, "authorization"))
        .and_then(|claims| {
            claims.admit_tenant(metadata(request, "autonp-tenantid"))?;
            Ok(claims)
        })
        .map_err(|refusal| {
            hub.refuse(info.peer, &rpc(stream), refusal.to_string());
            Status::unauthenticated(refusal.to_string())
        })
}

/// Implements the service: a name, its two types and the stream of each RPC.
macro_rules! stream_service {
    ($($name:ident, $up:ty, $down:ty, $answers:ident, $stream:expr;)*) => {
        #[tonic::async_trait]
        impl StreamService for Streams {
            $(
                type $answers = Answers<$down>;

                async fn $name(
                    &self,
                    request: Request<Streaming<$up>>,
                ) -> Result<Response<Answers<$down>>, Status> {
                    self.open($stream, request)
                }
            )*
        }
    };
}

stream_service! {
    stream_data, StreamDataRequest, StreamDataResponse, StreamDataStream, Stream::Data;
    stream_control, StreamControlRequest, StreamControlResponse, StreamControlStream, Stream::Control;
    stream_flows, StreamFlowsRequest, StreamFlowsResponse, StreamFlowsStream, Stream::Flows;
    stream_events, StreamEventsRequest, StreamEventsResponse, StreamEventsStream, Stream::Events;
    stream_logs, StreamLogsRequest, StreamLogsResponse, StreamLogsStream, Stream::Logs;
}
