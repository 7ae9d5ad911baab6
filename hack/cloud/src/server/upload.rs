//! The bytes of a stream on their way in: where a fault can hold them up or
//! end the stream in the middle of a message.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Stream as _;
use hyper::body::{Body, Frame, Incoming};
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use crate::{
    faults::{Faults, Moment},
    hub::Hub,
    wire::Stream,
};

/// The body of a request.
pub(super) struct Upload {
    body: Incoming,
    stream: Stream,
    hub: Arc<Hub>,
    changes: WatchStream<Faults>,
    message: Coming,
}

impl Upload {
    pub(super) fn new(body: Incoming, stream: Stream, hub: Arc<Hub>) -> Self {
        let changes = WatchStream::from_changes(hub.watch_faults());
        Self { body, stream, hub, changes, message: Coming::default() }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while self.hub.faults().stall.contains(&self.stream) {
            ready!(Pin::new(&mut self.changes).poll_next(context));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(bytes) = self.message.pass(data)
            && let Some(status) = self.hub.strike(self.stream, Moment::Within(bytes))
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::unavailable(error.to_string()))))
    }
}

/// Bytes before each message: a flag, and its length.
const HEAD: usize = 5;

/// Where in the gRPC framing the bytes stand.
#[derive(Default)]
struct Coming {
    head: Vec<u8>,
    length: usize,
    /// Bytes that are to come.
    rest: usize,
}

impl Coming {
    /// Takes bytes in; the length of the message of which they brought a part,
    /// but not all.
    fn pass(&mut self, mut data: &[u8]) -> Option<u64> {
        while !data.is_empty() {
            if self.rest > 0 {
                let taken = data.len().min(self.rest);
                data = data.get(taken..).unwrap_or_default();
                self.rest -= taken;
                continue;
            }
            let taken = data.len().min(HEAD - self.head.len());
            let (head, later) = data.split_at(taken);
            self.head.extend_from_slice(head);
            data = later;
            if let [_, length @ ..] = self.head.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.rest = self.length;
                self.head.clear();
            }
        }
        (self.rest > 0 && self.rest < self.length).then_some(self.length as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_message_in_flight_is_known_however_the_bytes_are_cut(
            lengths in prop::collection::vec(0..40_usize, 1..6),
            cuts in prop::collection::vec(1..17_usize, 300),
        ) {
            let mut bytes = Vec::new();
            // For each byte: the message that it belongs to, if it is not the last byte of it.
            let mut within = Vec::new();
            for &length in &lengths {
                bytes.push(0);
                bytes.extend((length as u32).to_be_bytes());
                bytes.resize(bytes.len() + length, 7);
                within.extend([None; HEAD]);
                within.extend((1..=length).map(|at| (at < length).then_some(length as u64)));
            }
            let (mut coming, mut at) = (Coming::default(), 0);
            for cut in cuts {
                let end = (at + cut).min(bytes.len());
                if end > at {
                    prop_assert_eq!(coming.pass(&bytes[at..end]), within[end - 1]);
                }
                at = end;
            }
        }
    }
}
