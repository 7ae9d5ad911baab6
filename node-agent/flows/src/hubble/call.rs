//! One gRPC call over one connection, whose answers are handed out as they lie in HTTP/2's frames.
//!
//! What drives the connection is whoever reads the answers: no message waits for another task, and what has come by
//! then is read at once.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{
    Ping, RecvStream,
    client::{Connection, ResponseFuture},
};
use http::{HeaderMap, Request, header::CONTENT_TYPE};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tonic::Status;

/// Bytes that are read of the connection at once. Frames of flows have less than one KiB.
const READ: usize = 128 * 1024;

/// Bytes that the server may send before they are taken: what lies here of a stream, and what of it is in the
/// processor's cache while it is read.
const WINDOW: u32 = 512 * 1024;

/// No message is longer; gRPC's own default.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Flags (compressed or not) and length, before each message.
const HEAD: usize = 5;

/// A call of a server that lives, and its connection, which lives as long.
pub(super) struct Call<T> {
    connection: Connection<BufReader<T>, Bytes>,
    answer: Answer,
    /// Frames that have come.
    chunks: Vec<Bytes>,
    /// The beginning of a message whose rest has not come.
    rest: BytesMut,
    /// The stream has ended, or the connection.
    end: Option<Status>,
}

/// What of the answer has come. A server may send nothing, not even a head, before there is a first message, as those
/// of gRPC in Go do.
enum Answer {
    Awaited(ResponseFuture),
    Begun(RecvStream),
}

impl Answer {
    /// Waits for the head of an answer.
    fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<Result<&mut RecvStream, Status>> {
        if let Self::Awaited(answer) = self {
            let (head, body) = ready!(Pin::new(answer).poll(context)).map_err(broken)?.into_parts();
            if !head.status.is_success() {
                return Poll::Ready(Err(Status::unavailable(format!("HTTP status {}", head.status))));
            }
            match Status::from_header_map(&head.headers) {
                Some(status) if status.code() != tonic::Code::Ok => return Poll::Ready(Err(status)),
                _ => *self = Self::Begun(body),
            }
        }
        match self {
            Self::Begun(body) => Poll::Ready(Ok(body)),
            Self::Awaited(_) => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Call<T> {
    /// Calls the method at `path` (`/package.Service/Method`) of the server at the other end of `io`, and waits for
    /// a sign of life of it: an answer, or that of its HTTP/2 to a ping.
    ///
    /// # Errors
    /// What the server says, or why it can't.
    pub(super) async fn begin(
        io: T,
        origin: &str,
        path: &str,
        request: &impl Message,
    ) -> Result<Self, Status> {
        let io = BufReader::with_capacity(READ, io);
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (mut requests, mut connection) = builder.handshake(io).await.map_err(broken)?;
        let head = Request::post(format!("{origin}{path}"))
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| Status::internal(error.to_string()))?;
        let (answer, mut body) = requests.send_request(head, false).map_err(broken)?;
        let mut message = BytesMut::with_capacity(HEAD + request.encoded_len());
        message.put_u8(0);
        message.put_u32(request.encoded_len() as u32);
        request.encode(&mut message).map_err(|error| Status::internal(error.to_string()))?;
        body.send_data(message.freeze(), true).map_err(broken)?;
        let mut ping = connection.ping_pong().ok_or_else(|| Status::internal("it was asked before"))?;
        ping.send_ping(Ping::opaque()).map_err(broken)?;
        let mut call = Self {
            connection,
            answer: Answer::Awaited(answer),
            chunks: Vec::new(),
            rest: BytesMut::new(),
            end: None,
        };
        poll_fn(|context| match call.poll_begun(context) {
            Poll::Pending => ping.poll_pong(context).map(|pong| pong.map(|_| ()).map_err(broken)),
            begun => begun,
        })
        .await?;
        Ok(call)
    }

    /// Waits for the head of the answer.
    ///
    /// # Errors
    /// What the server says instead, or why it can't.
    pub(super) async fn begun(&mut self) -> Result<(), Status> {
        poll_fn(|context| self.poll_begun(context)).await
    }

    fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let connection = Pin::new(&mut self.connection).poll(context);
        match (self.answer.poll_begun(context), connection) {
            (Poll::Ready(begun), _) => Poll::Ready(begun.map(|_| ())),
            (Poll::Pending, Poll::Ready(ended)) => Poll::Ready(Err(gone(ended))),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    }

    /// Waits for more, and for all of it that has come by then.
    ///
    /// # Errors
    /// The stream has ended: what the server says of it, or why it broke off.
    pub(super) async fn more(&mut self) -> Result<(), Status> {
        if let Some(status) = self.end.take() {
            return Err(status);
        }
        poll_fn(|context| self.poll_more(context)).await
    }

    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Frames come in with this, and permission to send more goes out.
        let connection = Pin::new(&mut self.connection).poll(context);
        let end = loop {
            let body = match self.answer.poll_begun(context) {
                Poll::Ready(Ok(body)) => body,
                Poll::Ready(Err(status)) => break status,
                Poll::Pending => match connection {
                    Poll::Ready(ended) => break gone(ended),
                    Poll::Pending => return Poll::Pending,
                },
            };
            match body.poll_data(context) {
                Poll::Ready(Some(Ok(chunk))) => self.chunks.push(chunk),
                Poll::Ready(Some(Err(error))) => break broken(error),
                Poll::Ready(None) => break ended(ready!(body.poll_trailers(context))),
                Poll::Pending => match connection {
                    Poll::Ready(ended) => break gone(ended),
                    Poll::Pending if self.chunks.is_empty() => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(())),
                },
            }
        };
        if self.chunks.is_empty() {
            return Poll::Ready(Err(end));
        }
        self.end = Some(end);
        Poll::Ready(Ok(()))
    }

    /// Gives every message that has come to `take`, where it lies.
    ///
    /// # Errors
    /// It is no gRPC.
    pub(super) fn messages(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), Status> {
        let mut bytes = 0;
        for chunk in self.chunks.drain(..) {
            bytes += chunk.len();
            if self.rest.is_empty() {
                let left = split(&chunk, &mut take)?;
                self.rest.extend_from_slice(left);
            } else {
                self.rest.extend_from_slice(&chunk);
                let left = split(&self.rest, &mut take)?.len();
                let taken = self.rest.len() - left;
                drop(self.rest.split_to(taken));
            }
        }
        match &mut self.answer {
            Answer::Begun(body) => body.flow_control().release_capacity(bytes).map_err(broken),
            // Nothing has come.
            Answer::Awaited(_) => Ok(()),
        }
    }
}

/// Calls a method that has one answer.
///
/// # Errors
/// As those of a stream; or there is none.
pub(super) async fn ask<T, M>(io: T, origin: &str, path: &str, request: &impl Message) -> Result<M, Status>
where
    T: AsyncRead + AsyncWrite + Unpin,
    M: Message + Default,
{
    let mut call = Call::begin(io, origin, path, request).await?;
    let mut answer = None;
    while answer.is_none() {
        call.more().await?;
        call.messages(|message| answer = Some(M::decode(message)))?;
    }
    answer
        .transpose()
        .map_err(|error| Status::internal(error.to_string()))?
        .ok_or_else(|| Status::internal("no answer"))
}

/// Gives whole messages to `take`; what is left.
fn split<'a>(mut data: &'a [u8], take: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Status> {
    while let Some(([flags, length @ ..], after)) = data.split_first_chunk::<HEAD>() {
        let length = u32::from_be_bytes(*length) as usize;
        if *flags != 0 || length > MOST_BYTES {
            return Err(Status::internal("a message is compressed, which was not asked for, or too long"));
        }
        let Some((message, rest)) = after.split_at_checked(length) else { break };
        take(message);
        data = rest;
    }
    Ok(data)
}

fn ended(trailers: Result<Option<HeaderMap>, h2::Error>) -> Status {
    match trailers {
        Ok(trailers) => trailers
            .and_then(|trailers| Status::from_header_map(&trailers))
            .filter(|status| status.code() != tonic::Code::Ok)
            .unwrap_or_else(|| Status::unavailable("it ended the stream")),
        Err(error) => broken(error),
    }
}

fn broken(error: h2::Error) -> Status {
    Status::unavailable(error.to_string())
}

fn gone(ended: Result<(), h2::Error>) -> Status {
    ended.map_or_else(broken, |()| Status::unavailable("the server has gone"))
}
