//! The body of a gRPC request, received only as far as there is room for it.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::PollSemaphore;
use tonic::Status;

/// Bytes of a message that need no room, unless something else is said: a frame of HTTP/2 has as many before anybody can know of which message
/// they are.
const SMALL: usize = 16 * 1024;
/// A message must be complete within this time, unless something else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Compression flag and length before every gRPC message.
const PREFIX: usize = 5;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of messages that may be in memory at once, for all connections.
#[derive(Clone)]
pub struct Room {
    bytes: Arc<Semaphore>,
    most: u32,
    small: usize,
    timeout: Duration,
}

impl Room {
    /// Room for `most` bytes.
    pub fn new(most: u32) -> Self {
        Self { bytes: Arc::new(Semaphore::new(most as usize)), most, small: SMALL, timeout: TIMEOUT }
    }

    /// Of messages whose first `small` bytes need none, and which must be complete within `timeout`.
    #[must_use]
    pub fn of_messages(self, small: usize, timeout: Duration) -> Self {
        Self { small, timeout, ..self }
    }

    /// Waits for room for `bytes`; what needs more than there is gets all.
    /// The room is free again when the permit is dropped.
    pub async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.bytes).acquire_many_owned(self.part(bytes)).await.ok()
    }

    fn part(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.most)
    }
}

/// A body of gRPC messages. When the beginning of a large message has come, and
/// not when it was announced, it takes room for all of it before it receives the
/// rest, and keeps that until the reader, who reads on when it is done with a
/// message, asks for what follows. No message is waited for to its end for ever:
/// its time begins when it is first waited for, and again when it has room.
pub struct Metered<B> {
    inner: B,
    room: Room,
    semaphore: PollSemaphore,
    prefix: Vec<u8>,
    /// bytes of the present message that have not been received
    missing: usize,
    /// room that must be taken before more is received than needs none
    wanted: usize,
    taken: Option<OwnedSemaphorePermit>,
    /// made when something is first waited for, and kept for later messages
    deadline: Option<Pin<Box<Sleep>>>,
    /// the deadline is that of the present message
    is_timed: bool,
}

impl<B> Metered<B> {
    /// `inner`, as far as there is `room`.
    pub fn new(inner: B, room: Room) -> Self {
        let semaphore = PollSemaphore::new(Arc::clone(&room.bytes));
        Self {
            inner,
            room,
            semaphore,
            prefix: Vec::with_capacity(PREFIX),
            missing: 0,
            wanted: 0,
            taken: None,
            deadline: None,
            is_timed: false,
        }
    }

    /// Nothing of a message that is not complete has come.
    fn is_between(&self) -> bool {
        self.missing == 0 && self.prefix.is_empty()
    }

    /// Follows the messages' borders through `data`.
    fn follow(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.missing > 0 {
                let received = self.missing.min(data.len());
                self.missing -= received;
                data = &data[received..];
            } else {
                let (prefix, rest) = data.split_at(data.len().min(PREFIX - self.prefix.len()));
                self.prefix.extend_from_slice(prefix);
                data = rest;
                if let &[_flag, a, b, c, d] = &self.prefix[..] {
                    self.missing = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.wanted = if self.missing > self.room.small { self.missing } else { 0 };
                    self.prefix.clear();
                }
            }
            if self.is_between() {
                (self.wanted, self.is_timed) = (0, false);
            }
        }
    }

    /// The rest of a message is waited for; ready, when that is too late.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let timeout = self.room.timeout;
        let end = || Instant::now() + timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(end())));
        if !self.is_timed {
            deadline.as_mut().reset(end());
            self.is_timed = true;
        }
        let late = format!("a message did not arrive whole within {} s", timeout.as_secs());
        deadline.as_mut().poll(context).map(|()| Status::deadline_exceeded(late))
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        // What was taken was for the message before.
        if this.wanted > 0 || this.missing == 0 {
            this.taken = None;
        }
        if this.wanted > this.missing + this.room.small {
            let bytes = this.room.part(this.wanted);
            this.taken = ready!(this.semaphore.poll_acquire_many(context, bytes));
            (this.wanted, this.is_timed) = (0, false);
        }
        let frame = match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending if this.is_between() => return Poll::Pending,
            Poll::Pending => {
                let late = ready!(this.poll_late(context));
                return Poll::Ready(Some(Err(late.into())));
            }
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.follow(data);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    /// A body of `messages` in frames of `size`, followed by silence.
    fn body(
        messages: &[usize],
        size: usize,
        room: &Room,
    ) -> Metered<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
        let bytes = messages.iter().flat_map(|length| message(*length)).collect::<Vec<_>>();
        let frames: Vec<_> =
            bytes.chunks(size).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
        let frames = futures::StreamExt::chain(futures::stream::iter(frames), futures::stream::pending());
        Metered::new(StreamBody::new(frames), room.clone())
    }

    /// Bytes that can be received now.
    fn receive(body: &mut (impl Body<Data = Bytes, Error = BoxError> + Unpin)) -> usize {
        let mut received = 0;
        while let Some(Some(frame)) = body.frame().now_or_never() {
            received += frame.unwrap().data_ref().unwrap().len();
        }
        received
    }

    const LARGE: usize = 40_000;

    #[tokio::test]
    async fn a_large_message_waits_for_room_and_keeps_it_until_the_reader_reads_on() {
        let room = Room::new(50_000);
        let (mut first, mut second) = (body(&[LARGE, 100], 1000, &room), body(&[LARGE], 1000, &room));
        let mut received = 0;
        while received < PREFIX + LARGE {
            received += first.frame().await.unwrap().unwrap().data_ref().unwrap().len();
        }
        assert_eq!(receive(&mut second), 17_000, "what needs no room, and no more");
        assert_eq!(receive(&mut first), LARGE + 100 + 2 * PREFIX - received, "reads on");
        assert_eq!(receive(&mut second), LARGE + PREFIX - 17_000);
        drop(second);
        assert_eq!(room.bytes.available_permits(), 50_000);
    }

    #[tokio::test]
    async fn small_messages_need_no_room_and_huge_ones_all_of_it() {
        let room = Room::new(50_000);
        let all = room.take(usize::MAX).await;
        assert_eq!(receive(&mut body(&[SMALL, 10, SMALL], 700, &room)), 2 * SMALL + 10 + 3 * PREFIX);
        let mut huge = body(&[1_000_000], 1000, &room);
        assert_eq!(receive(&mut huge), 17_000);
        drop(all);
        assert_eq!(receive(&mut huge), 1_000_005 - 17_000);
    }

    #[tokio::test]
    async fn what_is_announced_and_not_sent_takes_no_room() {
        let room = Room::new(50_000).of_messages(20_000, TIMEOUT);
        let sent = |bytes| {
            let frame = Bytes::from(message(LARGE)).slice(..bytes);
            let frames = futures::stream::iter([Ok::<_, Infallible>(Frame::data(frame))]);
            let frames = futures::StreamExt::chain(frames, futures::stream::pending());
            Metered::new(StreamBody::new(frames), room.clone())
        };
        let (mut announced, mut begun) = (sent(PREFIX), sent(20_001 + PREFIX));
        assert_eq!((receive(&mut announced), room.bytes.available_permits()), (PREFIX, 50_000));
        assert_eq!((receive(&mut begun), room.bytes.available_permits()), (20_001 + PREFIX, 10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_has_its_own_time() {
        let room = Room::new(50_000);
        let bytes = Bytes::from([message(LARGE), message(10)].concat());
        let frames = [bytes.slice(..20_000), bytes.slice(20_000..LARGE + 8), bytes.slice(LARGE + 8..)];
        let frames = futures::StreamExt::then(futures::stream::iter(frames), |frame| async {
            tokio::time::sleep(TIMEOUT * 2 / 3).await;
            Ok::<_, Infallible>(Frame::data(frame))
        });
        let body = Metered::new(StreamBody::new(Box::pin(frames)), room);
        assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_become_complete_ends_the_stream() {
        let room = Room::new(50_000);
        // Of a large one, of a small one, and of what says which it is, after a whole one.
        for (length, sent) in [(LARGE, 20_000), (SMALL, 100), (10, PREFIX - 1)] {
            let whole = Bytes::from(message(100));
            let begun = Bytes::from(message(length)).slice(..sent);
            let frames =
                futures::stream::iter([whole, begun].map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
            let frames = futures::StreamExt::chain(frames, futures::stream::pending());
            let mut body = Metered::new(StreamBody::new(frames), room.clone());
            body.frame().await.unwrap().unwrap();
            body.frame().await.unwrap().unwrap();
            let error = body.frame().await.unwrap().unwrap_err();
            assert!(error.to_string().contains("did not arrive whole"), "{error}");
        }
        assert_eq!(room.bytes.available_permits(), 50_000);
    }

    /// Between two messages there may be any time.
    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent() {
        let frames = futures::stream::iter([message(SMALL), message(LARGE)]);
        let frames = futures::StreamExt::then(frames, |bytes| async {
            tokio::time::sleep(TIMEOUT * 100).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(bytes)))
        });
        let body = Metered::new(StreamBody::new(Box::pin(frames)), Room::new(50_000));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), SMALL + LARGE + 2 * PREFIX);
    }

    proptest! {
        #[test]
        fn borders_are_found_however_the_frames_are_cut(messages in prop::collection::vec(0..50_000_usize, 0..6), size in 1..20_000_usize) {
            let room = Room::new(60_000);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _in_runtime = runtime.enter();
            let mut body = body(&messages, size, &room);
            prop_assert_eq!(receive(&mut body), messages.iter().map(|length| length + PREFIX).sum::<usize>());
            prop_assert_eq!((body.missing, body.wanted, body.prefix.len()), (0, 0, 0));
            prop_assert!(body.taken.is_none());
        }
    }
}
