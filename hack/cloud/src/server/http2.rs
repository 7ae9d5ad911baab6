//! HTTP/2 on one connection: below tonic's server, because that one can
//! neither be told to send GOAWAY nor shows the bytes of a message that is on
//! its way.

use std::{pin::pin, sync::Arc};

use hyper::{Request, body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tonic::{body::Body, codegen::Service as _, service::Routes};

use super::{accept::Connection, upload::Upload};
use crate::{faults::Door, hub::Hub, wire::Stream};

/// Serves `connection` until it ends.
pub(super) async fn serve(hub: Arc<Hub>, routes: Routes, connection: Connection, window: u32) {
    let (info, mut faults) = (connection.info(), hub.watch_faults());
    tokio::select! {
        _ = faults.wait_for(|faults| faults.door != Door::Mute) => {}
        () = info.cut.cancelled() => return,
        () = hub.stop.cancelled() => return,
    }
    let goaway = hub.goaway();
    let service = service_fn(|mut request: Request<Incoming>| {
        let (hub, mut routes) = (Arc::clone(&hub), routes.clone());
        request.extensions_mut().insert(info.clone());
        async move {
            let stream = Stream::ALL.into_iter().find(|stream| request.uri().path().ends_with(&stream.rpc()));
            let request = request.map(|body| match stream {
                Some(stream) => Body::new(Upload::new(body, stream, hub)),
                None => Body::new(body),
            });
            routes.call(request).await
        }
    });
    let mut http2 = Builder::new(TokioExecutor::new());
    http2.timer(TokioTimer::new()).initial_connection_window_size(window);
    let mut served = pin!(http2.serve_connection(TokioIo::new(connection), service));
    tokio::select! {
        _ended = &mut served => return,
        () = goaway.cancelled() => {}
        () = hub.stop.cancelled() => {}
    }
    served.as_mut().graceful_shutdown();
    let grace = hub.faults().grace;
    // How it ends is in the record.
    match grace {
        Some(grace) => drop(timeout(grace.unsigned_abs(), served).await),
        None => drop(served.await),
    }
}
