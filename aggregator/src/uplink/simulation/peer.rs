//! The simulated server: HTTP/2 and gRPC as the contract has them, and every
//! fault that was ordered.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::FutureExt as _;
use h2::{
    RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use kestrel_proto::cloud::v1::{
    Heartbeat, KubernetesApiRequest, StreamControlRequest, StreamControlResponse, StreamDataRequest,
    StreamDataResponse, StreamEventsRequest, StreamEventsResponse, StreamFlowsRequest, StreamLogsRequest,
    stream_control_response, stream_data_response, stream_events_request, stream_events_response,
    stream_flows_request, stream_logs_request,
};
use prost::Message;
use tokio::{io::DuplexStream, task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::world::{Event, Record, World};
use crate::uplink::{message::grpc_head, stream::Stream};

/// What a server of the contract sends without being asked.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// One connection, to its end.
pub(super) async fn serve(transport: DuplexStream, world: Arc<World>) {
    if world.faults(|faults| faults.dumb) {
        return say_nothing(transport, &world).await;
    }
    let (connection, stream) = world.windows;
    let handshake = Builder::new()
        .initial_connection_window_size(connection)
        .initial_window_size(stream)
        .handshake::<_, Bytes>(transport)
        .await;
    let Ok(mut connection) = handshake else { return };
    let mut events = world.events.subscribe();
    let (gone, mut streams) = (CancellationToken::new(), JoinSet::new());
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(Event::GoAway) => connection.graceful_shutdown(),
                Ok(Event::Abort(reason)) => connection.abrupt_shutdown(reason),
                _ => {}
            },
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn(answer(Arc::clone(&world), request, respond, gone.clone()));
                }
                _ => break,
            },
        }
    }
    drop(connection);
    gone.cancel();
    while streams.join_next().await.is_some() {}
}

/// A server that accepts and says nothing, until it can speak again.
async fn say_nothing(transport: DuplexStream, world: &World) {
    let mut events = world.events.subscribe();
    while world.faults(|faults| faults.dumb) {
        let _lagging_is_fine = events.recv().await;
    }
    drop(transport);
}

fn status(code: Code) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from(code as i32))])
}

/// One stream, to its end.
async fn answer(
    world: Arc<World>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    gone: CancellationToken,
) {
    let name = request.uri().path().rsplit("/Stream").next().unwrap_or_default().to_lowercase();
    let stream = Stream::ALL.into_iter().find(|stream| stream.name() == name);
    let refusal = match stream {
        Some(stream) => world.faults(|faults| faults.opens.get(&(stream as u8)).copied()),
        None => Some(Code::Unimplemented),
    };
    let mut response = Response::new(());
    let (Some(stream), None) = (stream, refusal) else {
        *response.headers_mut() = status(refusal.unwrap_or(Code::Unimplemented));
        let _it_may_be_gone = respond.send_response(response, true);
        return;
    };
    let mut events = world.events.subscribe();
    let opening = world.opened(stream);
    let Ok(mut answers) = respond.send_response(response, false) else { return };
    let mut questions = request.into_body();
    let (mut buffer, mut heartbeats) = (BytesMut::new(), interval(HEARTBEAT));
    loop {
        let lasting = |stream: Stream| {
            world.faults(|faults| {
                (faults.stalled.contains(&(stream as u8)), faults.mute.contains(&(stream as u8)))
            })
        };
        let (stalled, mute) = lasting(stream);
        let stalled = stalled && !gone.is_cancelled();
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(Event::End(which, code)) if which == stream => {
                    drain(&world, stream, opening, &mut questions, &mut buffer);
                    let _it_may_be_gone = answers.send_trailers(status(code));
                    return;
                }
                Ok(Event::Reset(which, reason)) if which == stream => {
                    drain(&world, stream, opening, &mut questions, &mut buffer);
                    answers.send_reset(reason);
                    return;
                }
                Ok(Event::Ask(which, number)) if which == stream => ask(stream, number, &mut answers),
                _ => {}
            },
            _ = heartbeats.tick() => if !mute {
                beat(stream, &mut answers);
            },
            data = questions.data(), if !stalled => match data {
                Some(Ok(bytes)) => take(&world, stream, opening, bytes, &mut questions, &mut buffer),
                Some(Err(_)) => return,
                None => {
                    let _it_may_be_gone = answers.send_trailers(status(Code::Ok));
                    return;
                }
            },
            () = gone.cancelled(), if stalled => {}
        }
    }
}

/// Reads what has arrived: a server processes what its HTTP/2 has taken.
fn drain(world: &World, stream: Stream, opening: u64, questions: &mut RecvStream, buffer: &mut BytesMut) {
    while let Some(Some(Ok(bytes))) = questions.data().now_or_never() {
        take(world, stream, opening, bytes, questions, buffer);
    }
}

fn take(
    world: &World,
    stream: Stream,
    opening: u64,
    bytes: Bytes,
    questions: &mut RecvStream,
    buffer: &mut BytesMut,
) {
    let _it_may_be_gone = questions.flow_control().release_capacity(bytes.len());
    buffer.extend_from_slice(&bytes);
    world.record(|record| record.bytes += bytes.len() as u64);
    while let Some(head) = buffer.first_chunk::<5>() {
        let [_, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if buffer.len() < 5 + length {
            return;
        }
        buffer.advance(5);
        let message = buffer.split_to(length).freeze();
        world.record(|record| note(record, stream, opening, message));
    }
}

fn note(record: &mut Record, stream: Stream, opening: u64, message: Bytes) {
    record.came(stream, opening);
    match stream {
        Stream::Data => record.data(opening, StreamDataRequest::decode(message).unwrap()),
        Stream::Control => {
            record.answer(&StreamControlRequest::decode(message).unwrap().request.unwrap());
        }
        Stream::Flows => match StreamFlowsRequest::decode(message).unwrap().request.unwrap() {
            stream_flows_request::Request::Flow(flow) => record.flow(&flow),
            other => panic!("nothing like this was sent: {other:?}"),
        },
        Stream::Events => match StreamEventsRequest::decode(message).unwrap().request.unwrap() {
            stream_events_request::Request::KubernetesEvent(event) => record.signal(&event),
            other => panic!("nothing like this was sent: {other:?}"),
        },
        Stream::Logs => {
            let stream_logs_request::Request::PodLogs(logs) =
                StreamLogsRequest::decode(message).unwrap().request.unwrap();
            record.logs(&logs);
        }
    }
}

fn send(message: &impl Message, answers: &mut SendStream<Bytes>) {
    let body = message.encode_to_vec();
    let mut bytes = grpc_head(body.len(), 0);
    bytes.extend_from_slice(&body);
    let _it_may_be_gone = answers.send_data(bytes.freeze(), false);
}

fn beat(stream: Stream, answers: &mut SendStream<Bytes>) {
    let beat = Heartbeat::default();
    match stream {
        Stream::Data => {
            let response = Some(stream_data_response::Response::Heartbeat(beat));
            send(&StreamDataResponse { response }, answers);
        }
        Stream::Control => {
            let response = Some(stream_control_response::Response::Heartbeat(beat));
            send(&StreamControlResponse { response }, answers);
        }
        // The others have it at the same place.
        Stream::Flows | Stream::Events | Stream::Logs => {
            let response = Some(stream_events_response::Response::Heartbeat(beat));
            send(&StreamEventsResponse { response }, answers);
        }
    }
}

fn ask(stream: Stream, number: u64, answers: &mut SendStream<Bytes>) {
    let request = KubernetesApiRequest { request_id: number.to_string(), ..Default::default() };
    match stream {
        Stream::Data => {
            let response = Some(stream_data_response::Response::KubernetesApiRequest(request));
            send(&StreamDataResponse { response }, answers);
        }
        _ => {
            let response = Some(stream_control_response::Response::KubernetesApiRequest(request));
            send(&StreamControlResponse { response }, answers);
        }
    }
}
