//! gRPC calls on HTTP/2: below tonic's channel, with tonic's codec.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderName, HeaderValue, Method, Request, Version, header};
use hyper::body::{Body, Frame};
use kestrel_proto::server::v1::{RenewClusterTokenRequest, RenewClusterTokenResponse};
use prost::Message;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use tonic::{Status, Streaming, codec::BufferSettings};
use tonic_prost::ProstDecoder;

use super::{
    chunk::Chunk,
    connection::{Connection, SEND_BUFFER},
    credentials::Token,
    message::{MAX_MESSAGE_BYTES, grpc_head},
    problem::Problem,
    renewal::Renew,
};

const TENANT: HeaderName = HeaderName::from_static("autonp-tenantid");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("kestrel-operator/", env!("CARGO_PKG_VERSION")));
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const RENEWAL: &str = "/server.v1.AutonpServerService/RenewClusterToken";

/// A unary call has an answer within this …
const DEADLINE: Duration = Duration::from_secs(30);
/// … which the server hears as well.
const DEADLINE_TEXT: HeaderValue = HeaderValue::from_static("30S");

/// A call that has begun.
pub(crate) struct Call<A> {
    /// What the server says.
    pub answers: Answers<A>,
    /// Where our bytes go.
    pub sender: SendStream<Chunk>,
}

/// The server's side of a call.
pub(crate) enum Answers<A> {
    /// It has not answered yet.
    Awaited(ResponseFuture, Option<Received>),
    /// It has.
    Open(Streaming<A>),
}

/// Told of the bytes that have come.
pub(crate) type Received = Box<dyn FnMut(usize) + Send>;

/// What a server does in a call.
pub(crate) enum Event<A> {
    /// It has taken the call.
    Opened,
    /// It says something.
    Message(A),
    /// It is done, and nothing went wrong.
    Ended,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It can't even be asked.
    Problem(Problem),
    /// The connection is closed, or takes no new calls.
    Connection,
    /// The server says so, or the call alone was broken off.
    Status(Status),
}

impl From<h2::Error> for Failed {
    fn from(error: h2::Error) -> Self {
        // Of the connection's end its life knows more.
        if error.is_go_away() || error.is_io() { Self::Connection } else { Self::Status(error.into()) }
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let h2 = std::error::Error::source(&status).and_then(|source| source.downcast_ref::<h2::Error>());
        if h2.is_some_and(|error| error.is_go_away() || error.is_io()) {
            Self::Connection
        } else {
            Self::Status(status)
        }
    }
}

/// A request for `path`, with the headers that every call has.
fn request(connection: &Connection, path: &'static str, token: &Token) -> Result<Request<()>, Problem> {
    let mut request = Request::new(());
    *request.uri_mut() = connection.uri(path);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::TE, TRAILERS);
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::AUTHORIZATION, token.bearer()?);
    Ok(request)
}

impl Connection {
    /// Opens a stream of the cluster's.
    pub(crate) async fn stream<A>(
        &self,
        path: &'static str,
        token: &Token,
        received: Received,
    ) -> Result<Call<A>, Failed> {
        let mut request = request(self, path, token).map_err(Failed::Problem)?;
        request.headers_mut().insert(TENANT, token.tenant.clone());
        self.begin(request, received).await
    }

    /// Asks once.
    ///
    /// # Errors
    /// The server's, or that the connection ended or there was no answer in 30 s.
    pub(crate) async fn unary<Q: Message, A: Message + Default + 'static>(
        &self,
        path: &'static str,
        token: &Token,
        question: &Q,
    ) -> Result<A, Status> {
        let asked = async {
            let mut request = request(self, path, token).map_err(Failed::Problem)?;
            request.headers_mut().insert(TIMEOUT, DEADLINE_TEXT);
            let Call { mut answers, mut sender } = self.begin(request, Box::new(|_| ())).await?;
            let mut chunk = Chunk::default();
            chunk.push(grpc_head(question.encoded_len(), 0).freeze());
            chunk.push(question.encode_to_vec().into());
            sender.send_data(chunk, true)?;
            let mut answer = None;
            loop {
                match answers.next().await? {
                    Event::Opened => {}
                    Event::Message(message) => answer = Some(message),
                    // It counts only now: the status comes last.
                    Event::Ended => {
                        return answer.ok_or_else(|| Failed::Status(Status::internal("no answer")));
                    }
                }
            }
        };
        match timeout(DEADLINE, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failed::Status(status))) => Err(status),
            Ok(Err(Failed::Connection)) => Err(Status::unavailable("the connection ended")),
            Ok(Err(Failed::Problem(problem))) => Err(Status::failed_precondition(problem.to_string())),
            Err(_) => Err(Status::deadline_exceeded("no answer in 30 s")),
        }
    }

    async fn begin<A>(&self, request: Request<()>, received: Received) -> Result<Call<A>, Failed> {
        let handle = self.requests().ok_or(Failed::Connection)?;
        let (response, sender) = handle.ready().await?.send_request(request, false)?;
        Ok(Call { answers: Answers::Awaited(response, Some(received)), sender })
    }
}

impl Renew for Connection {
    async fn renew(&self, token: &Token) -> Result<SecretString, Status> {
        let current_token = token.secret.expose_secret().to_owned();
        let question = RenewClusterTokenRequest { current_token };
        let answer: RenewClusterTokenResponse = self.unary(RENEWAL, token, &question).await?;
        Ok(answer.access_token.into())
    }
}

impl<A: Message + Default + 'static> Answers<A> {
    /// What comes next. Nothing is lost if this is dropped before it resolves.
    pub(crate) async fn next(&mut self) -> Result<Event<A>, Failed> {
        match self {
            Self::Open(messages) => Ok(messages.message().await?.map_or(Event::Ended, Event::Message)),
            Self::Awaited(response, received) => {
                let (parts, stream) = response.await?.into_parts();
                if let Some(status) = Status::from_header_map(&parts.headers) {
                    return Err(Failed::Status(status));
                }
                let decoder = ProstDecoder::<A>::new(BufferSettings::default());
                let body = Incoming { stream, received: received.take() };
                let limit = Some(MAX_MESSAGE_BYTES);
                *self = Self::Open(Streaming::new_response(decoder, body, parts.status, None, limit));
                Ok(Event::Opened)
            }
        }
    }
}

/// The bytes of the answers. Those that were taken make room for others at
/// once: a message larger than the window must pass, and the codec bounds it.
struct Incoming {
    stream: RecvStream,
    received: Option<Received>,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(bytes)) => {
                // An error would be that of a stream that has ended.
                let _ended = self.stream.flow_control().release_capacity(bytes.len());
                if let Some(received) = &mut self.received {
                    received(bytes.len());
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // The server has answered and wants no more questions.
            Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => {
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(
                ready!(self.stream.poll_trailers(cx))?.map(|trailers| Ok(Frame::trailers(trailers))),
            ),
        }
    }
}

/// Waits until at least one byte can be sent, and asks for room for `wanted`.
///
/// # Errors
/// The stream has ended; its answers say why.
pub(crate) async fn room(sender: &mut SendStream<Chunk>, wanted: usize) -> Result<usize, Closed> {
    sender.reserve_capacity(wanted.min(SEND_BUFFER));
    poll_fn(|cx| {
        loop {
            let room = sender.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            let Some(Ok(_)) = ready!(sender.poll_capacity(cx)) else { return Poll::Ready(Err(Closed)) };
        }
    })
    .await
}

/// Nothing can be sent on a stream any more.
#[derive(Debug)]
pub(crate) struct Closed;
