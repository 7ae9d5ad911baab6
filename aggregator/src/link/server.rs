//! Connections at the agent link, and the one RPC they carry.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kestrel_proto::{
    body::Metered,
    node::v1::{
        AgentMessage, AggregatorMessage,
        agent_link_server::{AgentLink, AgentLinkServer},
    },
};
use kestrel_runtime::tls::server::{ServingCertificate, accept, config};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::{Response, Status, Streaming, metadata::MetadataMap};
use tower::Service as _;

use super::{
    DRAIN, Shared, batch,
    identity::Refusal,
    metrics::Refused,
    review::{Identities, Review},
    session::Session,
};

/// Connections that have no place yet, or are about to end.
const MORE_CONNECTIONS: usize = 256;
/// A connection must carry a stream within this time.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that is silent is asked for a sign of life after this time.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// It must answer within this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a connection may send before it was read.
const WINDOW: u32 = 64 * 1024;
/// What is written to a connection and not yet sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Tag and length of a batch in its message, its id and its sizes.
const AROUND_A_BATCH: usize = 64;
/// Answers that wait for a peer to read them.
const ANSWERS: usize = 16;

/// Accepts connections on `listener` until the drain, then ends them.
pub(super) async fn run<R: Review>(
    listener: TcpListener,
    certificate: Arc<ServingCertificate>,
    shared: Arc<Shared>,
    identities: Arc<Identities<R>>,
) {
    let (accepted, mut connections) = mpsc::channel(16);
    let refusing = Arc::clone(&shared);
    let refused = move |peer: SocketAddr, why: String| refusing.refuse(peer.ip(), Refused::Tls, &why);
    let accepting = accept(listener, config(certificate, &["h2"]), shared.drain.clone(), accepted, refused);
    let link = Link { shared: Arc::clone(&shared), identities };
    let link = AgentLinkServer::new(link).max_decoding_message_size(batch::MAX_BYTES + AROUND_A_BATCH);
    let room = Arc::new(Semaphore::new(shared.admission.most().saturating_add(MORE_CONNECTIONS)));
    let tasks = TaskTracker::new();
    let serving = async {
        while let Some((stream, address)) = connections.recv().await {
            // Never closed. While there is no room, nobody is accepted.
            let permit = Arc::clone(&room).acquire_owned().await;
            // Every future that it is handed on to would hold its bytes.
            let stream = Box::new(stream);
            let (link, shared) = (link.clone(), Arc::clone(&shared));
            tasks.spawn(async move {
                serve(stream, address.ip(), link, &shared).await;
                drop(permit);
            });
        }
    };
    tokio::join!(accepting, serving);
    shared.end_sessions().await;
    tasks.close();
    tasks.wait().await;
}

/// What a stream knows of its connection, which ends with it.
#[derive(Clone)]
struct Connection {
    address: IpAddr,
    _ends: Arc<DropGuard>,
}

/// Serves one connection. It lives as long as the one stream it is made for.
async fn serve<R: Review>(
    stream: Box<TlsStream<TcpStream>>,
    address: IpAddr,
    link: AgentLinkServer<Link<R>>,
    shared: &Shared,
) {
    let (attached, over) = (CancellationToken::new(), CancellationToken::new());
    let service = service_fn(|request: Request<Incoming>| {
        attached.cancel();
        let mut request = request.map(|body| Metered::new(body, shared.received.clone()));
        request.extensions_mut().insert(Connection { address, _ends: Arc::new(over.clone().drop_guard()) });
        link.clone().call(request)
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(1)
            .serve_connection(TokioIo::new(stream), service)
    );
    let unused = async {
        if timeout(ATTACH_TIMEOUT, attached.cancelled()).await.is_ok() {
            std::future::pending().await
        }
    };
    tokio::select! {
        // An error is the peer's business: its stream has ended with it.
        _ended = connection.as_mut() => return,
        () = unused => {}
        () = over.cancelled() => {}
        () = shared.drain.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _late = timeout(DRAIN, connection).await;
}

struct Link<R> {
    shared: Arc<Shared>,
    identities: Arc<Identities<R>>,
}

#[tonic::async_trait]
impl<R: Review> AgentLink for Link<R> {
    type AttachStream = ReceiverStream<Result<AggregatorMessage, Status>>;

    async fn attach(
        &self,
        request: tonic::Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let shared = &self.shared;
        let (metadata, mut extensions, inbound) = request.into_parts();
        let Some(connection) = extensions.remove::<Connection>() else {
            return Err(Status::internal("a request without a connection"));
        };
        let address = connection.address;
        if shared.drain.is_cancelled() {
            return Err(super::leader_changes());
        }
        let refuse = |status: fn(String) -> Status, why: String| {
            shared.refuse(address, Refused::Token, &format!("is not let in: {why}"));
            status(why)
        };
        let Some(token) = bearer(&metadata) else {
            let why = "it sends no token (metadata authorization, Bearer)".to_owned();
            return Err(refuse(Status::unauthenticated, why));
        };
        let identity = self.identities.of(token).await.map_err(|refusal| {
            let status = match refusal {
                Refusal::Unauthenticated(_) => Status::unauthenticated,
                Refusal::Forbidden(_) => Status::permission_denied,
                Refusal::NotYet(_) => Status::unavailable,
            };
            refuse(status, refusal.to_string())
        })?;
        let (answers, to_peer) = mpsc::channel(ANSWERS);
        let session = Session { shared: Arc::clone(shared), identity, address, answers };
        shared.sessions.spawn(async move {
            session.run(inbound).await;
            drop(connection);
        });
        Ok(Response::new(ReceiverStream::new(to_peer)))
    }
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
