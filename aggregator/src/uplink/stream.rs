//! One of the five streams: opened, listened to, and opened again alone when
//! it ends.

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Method, header};
use kestrel_proto::cloud::v1::{
    StreamControlResponse, StreamDataResponse, StreamEventsResponse, StreamFlowsResponse, StreamLogsResponse,
};
use kestrel_runtime::backoff::Backoff;
use secrecy::ExposeSecret as _;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, codec::BufferSettings};
use tonic_prost::ProstDecoder;

use super::{
    Uplink,
    connection::Connection,
    credentials::Token,
    lanes::Over,
    message::MAX_MESSAGE_BYTES,
    metrics::StreamLabel,
    outbound::{Cargo, Outbound, RequestBody, lock},
    problem::{Problem, reason},
    request::Response,
    window::Window,
};

const TENANT: HeaderName = HeaderName::from_static("autonp-tenantid");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("kestrel-operator/", env!("CARGO_PKG_VERSION")));

/// The streams of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Data,
    Control,
    Flows,
    Events,
    Logs,
}

impl Stream {
    pub(crate) const ALL: [Self; 5] = [Self::Data, Self::Control, Self::Flows, Self::Events, Self::Logs];

    /// Its name for people and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Control => "control",
            Self::Flows => "flows",
            Self::Events => "events",
            Self::Logs => "logs",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Data => "/cloud.v1.StreamService/StreamData",
            Self::Control => "/cloud.v1.StreamService/StreamControl",
            Self::Flows => "/cloud.v1.StreamService/StreamFlows",
            Self::Events => "/cloud.v1.StreamService/StreamEvents",
            Self::Logs => "/cloud.v1.StreamService/StreamLogs",
        }
    }

    fn label(self) -> StreamLabel {
        StreamLabel { stream: self.name() }
    }
}

/// How a stream ended.
enum End {
    /// With its connection.
    Connection,
    /// The server does not offer it.
    Unimplemented,
    /// Alone.
    Problem(Problem),
}

/// Keeps one stream of a connection open until the connection is dead or the
/// drain is over.
pub(crate) async fn supervise(
    uplink: &Uplink,
    connection: &Connection,
    stream: Stream,
    drain: &CancellationToken,
) {
    let mut backoff = Backoff::new(uplink.config.retry.first, uplink.config.retry.most);
    let mut failed = false;
    loop {
        let begun = Instant::now();
        let attempt = Attempt { uplink, connection, stream, drain, failed };
        let end = match stream {
            Stream::Data => attempt.run::<StreamDataResponse>().await,
            Stream::Control => attempt.run::<StreamControlResponse>().await,
            Stream::Flows => attempt.run::<StreamFlowsResponse>().await,
            Stream::Events => attempt.run::<StreamEventsResponse>().await,
            Stream::Logs => attempt.run::<StreamLogsResponse>().await,
        };
        if drain.is_cancelled() || connection.life.dead.is_cancelled() {
            return;
        }
        let wait = match end {
            End::Connection => {
                connection.life.dead.cancel();
                return;
            }
            End::Unimplemented => {
                if uplink.absent.add(stream) {
                    let name = stream.name();
                    uplink.report.news(&format!(
                        "the server does not offer the {name} stream; the data stream carries its messages"
                    ));
                }
                uplink.lanes.ring();
                failed = false;
                uplink.config.retry.absent
            }
            End::Problem(problem) => {
                uplink.report.problem(&problem);
                failed = true;
                backoff.next(begun.elapsed())
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = connection.life.dead.cancelled() => return,
            () = drain.cancelled() => return,
        }
    }
}

/// One opening of a stream.
struct Attempt<'a> {
    uplink: &'a Uplink,
    connection: &'a Connection,
    stream: Stream,
    drain: &'a CancellationToken,
    /// The attempt before this one failed.
    failed: bool,
}

impl Attempt<'_> {
    async fn run<R: Response>(&self) -> End {
        let Self { uplink, connection, stream, .. } = *self;
        let token = match uplink.config.credentials.token().await {
            Ok(token) => token,
            Err(problem) => return End::Problem(problem),
        };
        let over = connection.life.dead.child_token();
        let _ended_with_this_attempt = over.clone().drop_guard();
        let window = Arc::new(Mutex::new(Window::default()));
        if stream == Stream::Data {
            uplink.mirror.restart();
        }
        let body = Outbound {
            stream,
            lanes: uplink.lanes.clone(),
            mirror: uplink.mirror.clone(),
            absent: Arc::clone(&uplink.absent),
            window: Arc::clone(&window),
            metrics: uplink.metrics.clone(),
            over: over.clone(),
            drain: self.drain.clone(),
        };
        uplink.metrics.stream_opens.get_or_create(&stream.label()).inc();
        let end = {
            let mut talk = std::pin::pin!(self.talk::<R>(&token, body.into_body()));
            let mut sweep = interval(uplink.config.keepalive.hold() / SWEEPS);
            loop {
                tokio::select! {
                    // First what the stream knows of its end.
                    biased;
                    end = &mut talk => break end,
                    () = over.cancelled() => break End::Connection,
                    _ = sweep.tick() => if let Some(end) = self.sweep(&window) {
                        break end;
                    },
                }
            }
        };
        uplink.metrics.stream_up.get_or_create(&stream.label()).set(0);
        // The body must not take what is given back now.
        over.cancel();
        self.lose(&window);
        end
    }

    /// Opens the stream and listens to it until it ends.
    async fn talk<R: Response>(&self, token: &Token, body: RequestBody) -> End {
        let mut requests = self.connection.requests.clone();
        let request = match self.request(token, body) {
            Ok(request) => request,
            Err(problem) => return End::Problem(problem),
        };
        if requests.ready().await.is_err() {
            return End::Connection;
        }
        let response = match requests.send_request(request).await {
            Ok(response) => response,
            Err(error) => return self.ended(Status::from_error(error.into()), token),
        };
        if let Some(status) = Status::from_header_map(response.headers()) {
            return self.ended(status, token);
        }
        self.opened();
        let (parts, body) = response.into_parts();
        let decoder = ProstDecoder::<R>::new(BufferSettings::default());
        let mut messages =
            Streaming::new_response(decoder, body, parts.status, None, Some(MAX_MESSAGE_BYTES));
        loop {
            match messages.message().await {
                Ok(Some(message)) => {
                    if let Some(request) = message.request() {
                        let over = if self.stream == Stream::Data { Over::Data } else { Over::Control };
                        (self.uplink.requests)(over, request);
                    }
                }
                Ok(None) => return self.ended(Status::ok(""), token),
                Err(status) => return self.ended(status, token),
            }
        }
    }

    fn request(&self, token: &Token, body: RequestBody) -> Result<http::Request<RequestBody>, Problem> {
        let mut origin = self.connection.origin.clone().into_parts();
        origin.path_and_query = Some(http::uri::PathAndQuery::from_static(self.stream.path()));
        let mut request = http::Request::new(body);
        // Scheme and authority are there, and the path is a constant.
        *request.uri_mut() = http::Uri::from_parts(origin).unwrap_or_default();
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(header::TE, TRAILERS);
        headers.insert(header::CONTENT_TYPE, GRPC);
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::AUTHORIZATION, token.bearer()?);
        headers.insert(TENANT, token.tenant.clone());
        Ok(request)
    }

    /// The server has answered: the stream exists.
    fn opened(&self) {
        let Self { uplink, stream, .. } = self;
        uplink.metrics.stream_up.get_or_create(&stream.label()).set(1);
        uplink.report.solved();
        let name = stream.name();
        if uplink.absent.remove(*stream) {
            uplink.report.news(&format!("the server offers the {name} stream now"));
            uplink.lanes.ring();
        } else if self.failed {
            uplink.report.news(&format!("the {name} stream is open again"));
        }
    }

    fn ended(&self, status: Status, token: &Token) -> End {
        let server = || self.connection.server.clone();
        if let Some(error) = connection_error(&status) {
            if error == ConnectionError::TooManyPings {
                self.connection.life.pings_too_many();
            }
            return End::Connection;
        }
        let reason = || reason(&status, token.secret.expose_secret());
        End::Problem(match (status.code(), self.stream) {
            (Code::Unimplemented, Stream::Data) => Problem::NotKestrel(server()),
            (Code::Unimplemented, _) => return End::Unimplemented,
            (Code::Unauthenticated, _) => {
                self.uplink.config.credentials.refused(token);
                Problem::TokenRefused { setting: token.setting, reason: reason() }
            }
            (Code::Ok, stream) => {
                Problem::StreamEnded { stream: stream.name(), reason: "the server ended it".to_owned() }
            }
            (_, stream) => Problem::StreamEnded { stream: stream.name(), reason: reason() },
        })
    }

    /// Lets go what has left the resend window; the end if nothing leaves any
    /// more. That ends the connection: a stream that is stuck can't be closed
    /// alone, because HTTP/2 holds its body until there is room to send.
    fn sweep(&self, window: &Mutex<Window<Cargo>>) -> Option<End> {
        let last_read = self.connection.life.last_read()?;
        let (hold, now) = (self.uplink.config.keepalive.hold(), Instant::now());
        let mut window = lock(window);
        if window.is_stuck(now, hold * STUCK) {
            self.connection.life.takes_nothing(self.stream.name());
            return Some(End::Connection);
        }
        let left = window.leave(now, hold, last_read);
        self.measure(&window);
        drop(window);
        for cargo in left {
            match cargo {
                Cargo::Kept(lane, number) => self.uplink.lanes.left(lane, number),
                Cargo::Inventory => {}
            }
        }
        None
    }

    /// Gives back what was in the resend window of a stream that is over.
    fn lose(&self, window: &Mutex<Window<Cargo>>) {
        let mut window = lock(window);
        let lost = window.lose();
        self.measure(&window);
        drop(window);
        for cargo in lost {
            cargo.lost(&self.uplink.lanes);
        }
    }

    fn measure(&self, window: &Window<Cargo>) {
        let count = i64::try_from(window.len()).unwrap_or(i64::MAX);
        self.uplink.metrics.window.get_or_create(&self.stream.label()).set(count);
    }
}

/// The resend window is looked at this many times while a message is in it.
const SWEEPS: u32 = 8;
/// A peer that takes nothing for this many times the hold never will.
const STUCK: u32 = 4;

/// Times between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Ceiling of the first wait.
    pub first: Duration,
    /// Ceiling of every wait.
    pub most: Duration,
    /// Until a stream that the server did not offer is tried again.
    pub absent: Duration,
}

/// Why a whole connection ended, as far as its streams know.
#[derive(Debug, PartialEq)]
enum ConnectionError {
    TooManyPings,
    Other,
}

/// What a status says of the whole connection, if it is about that.
fn connection_error(status: &Status) -> Option<ConnectionError> {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return match error.reason() {
                _ if error.is_reset() => None,
                Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(ConnectionError::TooManyPings),
                _ => Some(ConnectionError::Other),
            };
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_closed() || error.is_canceled())
        {
            return Some(ConnectionError::Other);
        }
        next = error.source();
    }
    None
}
