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
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::accept::Info;
use crate::{
    faults::Moment,
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
        let claims = admit(&hub, &info, stream, &request)?;
        if let Some(status) = hub.strike(stream, Moment::Open) {
            return Err(status);
        }
        let Opened { id, cluster, orders, end } = hub.open(info.id, stream, &claims);
        let name = stream.name();
        info!("Cluster {cluster} (tenant {}) opened its {name} stream", claims.tenant);
        hub.note("stream", format!("cluster {cluster} opened its {name} stream"));

        let orders = ReceiverStream::new(orders);
        let beating = Arc::clone(&hub);
        let heartbeats = IntervalStream::new(interval_at(Instant::now() + hub.heartbeat, hub.heartbeat))
            .filter_map(move |_| {
                let beats = !beating.faults().quiet.contains(&stream);
                let order = beats.then(|| Order::heartbeat(stream, Timestamp::now()).ok()).flatten();
                future::ready(order.map(|order| order.envelope))
            });
        let (ended, last) = (end.clone(), end.clone());
        let down = stream::select(orders, heartbeats)
            .map(|envelope| Down::decode(envelope).map_err(|error| Status::internal(error.to_string())))
            .take_until(async move { ended.come().await })
            .chain(stream::once(async move { last.come().await.err() }).filter_map(async |end| end.map(Err)));

        let mut up = request.into_inner();
        hub.readers.clone().spawn(async move {
            let mut received = 0;
            let outcome = loop {
                if let Some(status) = hub.strike(stream, Moment::Received(received)) {
                    end.with(status);
                }
                tokio::select! {
                    biased;
                    ended = end.come() => break match ended {
                        Ok(()) => "a fault".to_owned(),
                        Err(status) => format!("{:?}: {}", status.code(), status.message()),
                    },
                    // What came before and was not looked at goes with it: it would come behind
                    // what the next connection brings.
                    () = info.cut.cancelled() => end.with(Status::unavailable("the connection was cut")),
                    () = hub.stop.cancelled() => end.with(Status::unavailable("the development cloud is ending")),
                    message = up.message() => match message {
                        Ok(Some(message)) => {
                            hub.insert(stream, (id, &cluster), message.encode_to_vec().into());
                            received += 1;
                            // Much may have come: the other streams have their turn in between.
                            tokio::task::yield_now().await;
                        }
                        Ok(None) => break "the operator ended it".to_owned(),
                        Err(status) => end.with(status),
                    }
                }
            };
            end.with(Status::ok(""));
            info!("The {name} stream of cluster {cluster} ended ({outcome})");
            hub.note("stream", format!("the {name} stream of cluster {cluster} ended ({outcome})"));
            hub.close(info.id, stream, id, outcome);
        });
        Ok(Response::new(Box::pin(down)))
    }
}

/// The connection of an RPC.
pub(super) fn connection<T>(request: &Request<T>) -> Result<Info, Status> {
    let info = request.extensions().get::<Info>().cloned();
    info.ok_or_else(|| Status::internal("the connection is not known"))
}

/// A piece of metadata, if it is text.
pub(super) fn metadata<'a, T>(request: &'a Request<T>, key: &str) -> Option<&'a str> {
    request.metadata().get(key).and_then(|value| value.to_str().ok())
}

fn admit<T>(
    hub: &Hub,
    info: &Info,
    stream: Stream,
    request: &Request<T>,
) -> Result<crate::credentials::Claims, Status> {
    hub.admit(metadata(request, "authorization"))
        .and_then(|claims| {
            claims.admit_tenant(metadata(request, "autonp-tenantid"))?;
            Ok(claims)
        })
        .map_err(|refusal| {
            hub.refuse(info.peer, &stream.rpc(), refusal.to_string());
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
