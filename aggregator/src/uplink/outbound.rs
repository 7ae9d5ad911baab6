//! What a stream sends, in the order of the lanes.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use tokio_util::sync::CancellationToken;

use super::{
    chunk::Chunk,
    lanes::{Lane, Lanes},
    message::grpc_head,
    metrics::{Kind, KindLabel, Metrics, StreamLabel},
    queue::Number,
    stream::Stream,
    window::Window,
};
use crate::inventory::Mirror;

type Progress = Box<dyn FnMut(usize) + Send>;
/// The body of every request.
pub(crate) type RequestBody = UnsyncBoxBody<Chunk<Progress>, Infallible>;

/// What a message in the resend window stands for.
#[derive(Debug)]
pub(crate) enum Cargo {
    /// A message that its lane keeps.
    Kept(Lane, Number),
    /// A record of the mirror, which tells everything anew to the next stream.
    Inventory,
}

impl Cargo {
    /// Gives back what the end of the stream took.
    pub(crate) fn lost(self, lanes: &Lanes) {
        match self {
            Self::Kept(lane, number) => lanes.again(lane, number),
            Self::Inventory => {}
        }
    }
}

/// Where messages wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Lane(Lane),
    Inventory,
}

/// From the most to the least urgent.
const ORDER: [Source; 8] = [
    Source::Lane(Lane::ControlAnswers),
    Source::Lane(Lane::DataAnswers),
    Source::Lane(Lane::Signals),
    Source::Inventory,
    Source::Lane(Lane::Stats),
    Source::Lane(Lane::OwnLogs),
    Source::Lane(Lane::Logs),
    Source::Lane(Lane::Flows),
];

impl Source {
    fn home(self) -> Stream {
        match self {
            Self::Lane(Lane::ControlAnswers) => Stream::Control,
            Self::Lane(Lane::DataAnswers | Lane::Stats) | Self::Inventory => Stream::Data,
            Self::Lane(Lane::Signals) => Stream::Events,
            Self::Lane(Lane::OwnLogs | Lane::Logs) => Stream::Logs,
            Self::Lane(Lane::Flows) => Stream::Flows,
        }
    }

    /// Whether it is still sent while the process ends: what dies with it or is
    /// waited for.
    fn is_drained(self) -> bool {
        use Lane::{ControlAnswers, DataAnswers, Flows, Signals};
        matches!(self, Self::Lane(ControlAnswers | DataAnswers | Signals | Flows))
    }

    /// The stream that carries it; the data stream carries what has no other.
    fn carrier(self, absent: &Absent) -> Stream {
        let home = self.home();
        if absent.contains(home) { Stream::Data } else { home }
    }
}

/// The streams that the server does not offer.
#[derive(Debug, Default)]
pub(crate) struct Absent(AtomicU8);

impl Absent {
    pub(crate) fn contains(&self, stream: Stream) -> bool {
        self.0.load(Ordering::Acquire) & (1 << stream as u8) != 0
    }

    /// Says whether that is news.
    pub(crate) fn add(&self, stream: Stream) -> bool {
        let bit = 1 << stream as u8;
        self.0.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Says whether that is news.
    pub(crate) fn remove(&self, stream: Stream) -> bool {
        let bit = 1 << stream as u8;
        self.0.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }
}

/// The sending side of one stream.
pub(crate) struct Outbound {
    pub stream: Stream,
    pub lanes: Lanes,
    pub mirror: Mirror,
    pub absent: Arc<Absent>,
    pub window: Arc<Mutex<Window<Cargo>>>,
    pub metrics: Metrics,
    /// Cancelled when the stream is over.
    pub over: CancellationToken,
    /// Cancelled when the process ends: what the lanes keep is still sent.
    pub drain: CancellationToken,
}

/// A window is whole after every one of its operations, so a panic elsewhere
/// while it was locked has not harmed it.
pub(crate) fn lock(window: &Mutex<Window<Cargo>>) -> MutexGuard<'_, Window<Cargo>> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbound {
    /// The request body; it ends when the stream is over.
    pub(crate) fn into_body(self) -> RequestBody {
        let chunks = stream::unfold(self, async |outbound| {
            let chunk = outbound.next().await?;
            Some((Ok(Frame::data(chunk)), outbound))
        });
        StreamBody::new(chunks).boxed_unsync()
    }

    async fn next(&self) -> Option<Chunk<Progress>> {
        loop {
            let changed = self.lanes.changed();
            if self.over.is_cancelled() {
                return None;
            }
            let draining = self.drain.is_cancelled();
            if let Some((kind, (head, body), cargo)) = self.pick(draining) {
                let chunk = self.enter(head, body, cargo)?;
                self.metrics.sent.get_or_create(&KindLabel { kind }).inc();
                return Some(chunk);
            }
            if draining {
                return None;
            }
            tokio::select! {
                () = changed => {}
                () = self.inventory_due() => {}
                () = self.over.cancelled() => {}
                () = self.drain.cancelled() => {}
            }
        }
    }

    /// The most urgent message that is due and that this stream carries.
    fn pick(&self, draining: bool) -> Option<(Kind, (Bytes, Bytes), Cargo)> {
        let mine = |source: &Source| {
            source.carrier(&self.absent) == self.stream && (!draining || source.is_drained())
        };
        ORDER.into_iter().filter(mine).find_map(|source| match source {
            Source::Lane(lane) => {
                let (number, message) = self.lanes.take(lane)?;
                Some((lane.kind(), self.envelope(message), Cargo::Kept(lane, number)))
            }
            Source::Inventory => {
                let record = self.mirror.next()?;
                let head = grpc_head(record.len(), 0).freeze();
                Some((Kind::Inventory, (head, record), Cargo::Inventory))
            }
        })
    }

    fn envelope(&self, message: super::message::Message) -> (Bytes, Bytes) {
        match self.stream {
            Stream::Data => message.on_data_stream(),
            _ => message.on_own_stream(),
        }
    }

    /// The message on its way; `None` if the stream ended since it was picked.
    fn enter(&self, head: Bytes, body: Bytes, cargo: Cargo) -> Option<Chunk<Progress>> {
        let mut window = lock(&self.window);
        let place = match window.enter(cargo, Instant::now()) {
            Ok(place) => place,
            Err(cargo) => {
                drop(window);
                cargo.lost(&self.lanes);
                return None;
            }
        };
        let label = StreamLabel { stream: self.stream.name() };
        self.metrics.window.get_or_create(&label).set(i64::try_from(window.len()).unwrap_or(i64::MAX));
        drop(window);
        let window = Arc::clone(&self.window);
        let progress = move |rest| lock(&window).progress(place, rest, Instant::now());
        Some(Chunk::new(head, body, Box::new(progress)))
    }

    async fn inventory_due(&self) {
        match self.stream {
            Stream::Data => self.mirror.due().await,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kestrel_proto::cloud::v1::{KubernetesEvent, PodLogs, stream_events_request};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::uplink::receipt::{Outcome, Receipt};

    #[tokio::test]
    async fn what_is_picked_while_its_stream_ends_is_given_back() {
        let lanes = Lanes::new(Metrics::default());
        lanes.lead();
        let body = |stream| {
            let window = Mutex::new(Window::default());
            lock(&window).lose();
            Outbound {
                stream,
                lanes: lanes.clone(),
                mirror: Mirror::new(Duration::ZERO),
                absent: Arc::default(),
                window: Arc::new(window),
                metrics: Metrics::default(),
                over: CancellationToken::new(),
                drain: CancellationToken::new(),
            }
            .into_body()
        };
        lanes.signals().send(stream_events_request::Request::KubernetesEvent(KubernetesEvent::default()));
        assert!(body(Stream::Events).frame().await.is_none());
        assert!(lanes.take(Lane::Signals).is_some(), "the next stream sends it");
        let (to, mut outcomes) = unbounded_channel();
        lanes.logs().send(PodLogs::default(), Receipt::new(1, to)).await;
        assert!(body(Stream::Logs).frame().await.is_none());
        assert!(matches!(outcomes.recv().await, Some((1, Outcome::Lost(_)))));
    }

    #[test]
    fn what_has_no_stream_goes_over_the_data_stream_in_the_order_of_urgency() {
        let absent = Absent::default();
        let carried = |stream| ORDER.into_iter().filter(|source| source.carrier(&absent) == stream).count();
        assert_eq!(Stream::ALL.map(carried), [3, 1, 1, 1, 2]);
        for stream in [Stream::Control, Stream::Flows, Stream::Events, Stream::Logs] {
            assert!(absent.add(stream) && !absent.add(stream));
        }
        assert_eq!(Stream::ALL.map(carried), [8, 0, 0, 0, 0]);
        assert!(absent.remove(Stream::Logs) && !absent.remove(Stream::Logs));
        assert_eq!(Stream::ALL.map(carried), [6, 0, 0, 0, 2]);
    }
}
