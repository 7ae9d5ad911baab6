//! Connections of proxies, and the one RPC they carry.

use std::{
    convert::Infallible,
    future::{self, Future, ready},
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kestrel_proto::{body::Metered, codec::Raw};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Response, Status, Streaming,
    body::Body,
    server::{ClientStreamingService, Grpc},
};
use tracing::warn;

use super::{Shared, metrics::Refused, stream};

/// Path of the RPC.
const PATH: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
/// Streams of a connection.
const STREAMS: u32 = 64;
/// A peer that is silent is asked for a sign of life after this time.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// It must answer within this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after an accept error such as EMFILE, which would else spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Connections get this long to end: longer than what was sent is read.
const DRAIN: Duration = Duration::from_secs(2);

/// What is shown to whom connects, once it is known.
type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Accepts connections on `listener` until the drain, then ends them.
pub(super) async fn run(listener: TcpListener, tls: Option<Tls>, shared: Arc<Shared>) {
    let connections = TaskTracker::new();
    loop {
        let (stream, address) = match shared.drain.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                warn!("a connection of a proxy can't be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = shared.connections.take(address.ip()) else {
            shared.metrics.refused(Refused::Connection);
            continue;
        };
        let tls = tls.as_ref().and_then(|tls| tls.borrow().clone());
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            serve(stream, address, tls, shared).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    shared.readers.close();
    shared.readers.wait().await;
    connections.wait().await;
}

async fn serve(stream: TcpStream, address: SocketAddr, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    let _best_effort = stream.set_nodelay(true);
    let Some(tls) = tls else { return speak(stream, address.ip(), shared).await };
    let handshake = timeout(shared.config.limits.handshake, TlsAcceptor::from(tls).accept(stream));
    match shared.drain.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => speak(stream, address.ip(), shared).await,
        Some(_) => shared.metrics.refused(Refused::Tls),
        // It has not sent anything yet.
        None => {}
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: IpAddr,
    shared: Arc<Shared>,
) {
    let begun = CancellationToken::new();
    let service = service_fn(|request: Request<Incoming>| {
        begun.cancel();
        let receiver = Receiver { shared: Arc::clone(&shared), peer };
        async move { Ok::<_, Infallible>(answer(request, receiver).await) }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(shared.config.limits.stream_window)
            .initial_connection_window_size(shared.config.limits.connection_window)
            .max_concurrent_streams(STREAMS)
            .serve_connection(TokioIo::new(stream), service)
    );
    let silent = async {
        if timeout(shared.config.limits.handshake, begun.cancelled()).await.is_ok() {
            future::pending().await
        }
    };
    tokio::select! {
        // An error is the peer's business: its streams have ended with it.
        _ended = connection.as_mut() => return,
        // A proxy connects when it has something to send.
        () = silent => return shared.metrics.refused(Refused::Silent),
        () = shared.drain.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _late = timeout(DRAIN, connection).await;
}

async fn answer(request: Request<Incoming>, receiver: Receiver) -> http::Response<Body> {
    if request.uri().path() != PATH {
        return Status::unimplemented("this is Envoy's access log service, version 3").into_http();
    }
    let request = request.map(|body| Metered::new(body, receiver.shared.received.clone()));
    let largest = receiver.shared.config.limits.message;
    let mut grpc = Grpc::new(Raw).max_decoding_message_size(largest);
    grpc.client_streaming(receiver, request).await
}

/// Receives one stream.
struct Receiver {
    shared: Arc<Shared>,
    peer: IpAddr,
}

impl ClientStreamingService<Bytes> for Receiver {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let Self { shared, peer } = self;
        let Some(place) = shared.streams.take(*peer) else {
            shared.metrics.refused(Refused::Stream);
            return Box::pin(ready(Err(Status::resource_exhausted("too many streams"))));
        };
        let (told, answer) = oneshot::channel();
        // A task of its own, because it reads on when the answer has been given.
        shared.readers.spawn(stream::read(request.into_inner(), *peer, Arc::clone(shared), told, place));
        Box::pin(async move {
            match answer.await {
                // The response has no fields.
                Ok(end) => end.map(|()| Response::new(Bytes::new())),
                Err(_) => Err(Status::internal("the stream was not read to its end")),
            }
        })
    }
}
