//! What a stream sends, in the order of the lanes.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use bytes::{Buf as _, Bytes};
use h2::SendStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Uplink,
    call::{Closed, room},
    chunk::{Chunk, Consumed},
    lanes::{Lane, Lanes},
    message::{Message, grpc_head},
    metrics::{Kind, KindLabel},
    queue::Number,
    session::{Session, lock},
    stream::Stream,
};
use crate::inventory::Deletion;

/// What HTTP/2 puts into one frame, if the server asks for nothing else.
pub(super) const FRAME: usize = 16 * 1024;

/// What a message in the resend window stands for.
#[derive(Debug)]
pub(crate) enum Cargo {
    /// A message that its lane keeps.
    Kept(Lane, Number),
    /// A record of the mirror, which tells everything anew to the next stream,
    /// and deletions until they have left.
    Inventory(Option<Deletion>),
}

impl Cargo {
    /// It has left the resend window.
    pub(crate) fn left(self, Uplink { lanes, mirror, .. }: &Uplink) {
        match self {
            Self::Kept(lane, number) => lanes.left(lane, number),
            Self::Inventory(deletion) => deletion.into_iter().for_each(|deletion| mirror.left(deletion)),
        }
    }

    /// Gives back what the end of the stream took.
    pub(crate) fn lost(self, lanes: &Lanes) {
        match self {
            Self::Kept(lane, number) => lanes.again(lane, number),
            Self::Inventory(_) => {}
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

impl Cargo {
    /// The stream on which it belongs.
    pub(crate) fn home(&self) -> Stream {
        match self {
            Self::Kept(lane, _) => Source::Lane(*lane).home(),
            Self::Inventory(_) => Source::Inventory.home(),
        }
    }
}

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

    /// Whether it is still sent while the process ends: what dies with it, its
    /// own last words among it, or is waited for.
    fn is_drained(self) -> bool {
        use Lane::{ControlAnswers, DataAnswers, Flows, OwnLogs, Signals};
        matches!(self, Self::Lane(ControlAnswers | DataAnswers | Signals | OwnLogs | Flows))
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
pub(crate) struct Outbound<'a> {
    pub uplink: &'a Uplink,
    pub session: &'a Session,
    pub stream: Stream,
    /// Cancelled when the process ends: what the lanes keep is still sent.
    pub drain: &'a CancellationToken,
}

/// A message on its way: its place in the resend window and its bytes.
struct Outgoing {
    place: u64,
    head: Bytes,
    body: Bytes,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// A message of which bytes are in a chunk.
struct Aboard {
    place: u64,
    /// Bytes of it in this chunk that have not left.
    bytes: usize,
    /// Bytes of it that are to come behind this chunk.
    behind: usize,
}

impl Outbound<'_> {
    /// Sends what is due until nothing more is to be sent here, then ends this
    /// side of the stream.
    ///
    /// # Errors
    /// The stream has ended.
    pub(crate) async fn pump(&self, sender: &mut SendStream<Chunk>) -> Result<(), Closed> {
        // Of which some bytes were handed over.
        let mut begun = None;
        loop {
            if begun.is_none() {
                // Chosen when it can be sent, and not before.
                begun = tokio::select! {
                    biased;
                    () = self.session.left.cancelled() => None,
                    room = room(sender, 1) => {
                        room?;
                        self.next().await
                    }
                };
            }
            let Some(message) = begun.take() else {
                return sender.send_data(Chunk::default(), true).map_err(|_| Closed);
            };
            let room = room(sender, message.bytes().max(FRAME)).await?;
            let (chunk, rest) = self.load(message, room);
            begun = rest;
            sender.send_data(chunk, false).map_err(|_| Closed)?;
            // HTTP/2 may take it all for as long as there is more: the other
            // streams, and what they say, have their turn in between.
            tokio::task::yield_now().await;
        }
    }

    /// The next message, when there is one; `None` if nothing more is to be sent.
    async fn next(&self) -> Option<Outgoing> {
        loop {
            let changed = self.uplink.lanes.changed();
            if self.session.left.is_cancelled() {
                return None;
            }
            let draining = self.drain.is_cancelled();
            if let Some(message) = self.pick(draining) {
                return Some(message);
            }
            if draining && !self.has_more() {
                return None;
            }
            tokio::select! {
                biased;
                () = self.session.left.cancelled() => {}
                () = self.drain.cancelled(), if !draining => {}
                () = changed => {}
                () = self.inventory_due() => {}
            }
        }
    }

    /// Whether something of what is sent to the end waits. A lane may give nothing for a
    /// moment although it has more.
    fn has_more(&self) -> bool {
        let Uplink { lanes, absent, .. } = self.uplink;
        ORDER.into_iter().any(|source| match source {
            Source::Lane(lane) if source.is_drained() && source.carrier(absent) == self.stream => {
                lanes.depth(lane).messages > 0
            }
            _ => false,
        })
    }

    /// As much as there is room for: of one message, or of several as long as
    /// they fill no frame. A frame for each small message would be more head than
    /// body, and a server may take many of them for an attack.
    fn load(&self, first: Outgoing, mut room: usize) -> (Chunk, Option<Outgoing>) {
        let (mut chunk, mut aboard, mut next) = (Chunk::default(), VecDeque::new(), Some(first));
        let rest = loop {
            let Some(mut message) = next else { break None };
            let before = chunk.remaining();
            chunk.push(message.head.split_to(room.min(message.head.len())));
            let taken = chunk.remaining() - before;
            chunk.push(message.body.split_to((room - taken).min(message.body.len())));
            let bytes = chunk.remaining() - before;
            room -= bytes;
            aboard.push_back(Aboard { place: message.place, bytes, behind: message.bytes() });
            if message.bytes() > 0 {
                break Some(message);
            }
            let full = room == 0 || chunk.remaining() >= FRAME || self.session.left.is_cancelled();
            next = if full { None } else { self.pick(self.drain.is_cancelled()) };
        };
        chunk.tell(self.progress(aboard));
        (chunk, rest)
    }

    /// Notes what has left of a chunk.
    fn progress(&self, mut aboard: VecDeque<Aboard>) -> Consumed {
        let (window, life) = (self.session.window(self.stream), &self.session.connection.life);
        let (window, life) = (Arc::clone(window), Arc::clone(life));
        let (board, stream) = (self.uplink.board.clone(), self.stream);
        Box::new(move |mut count| {
            let (now, mut window) = (Instant::now(), lock(&window));
            life.sent(count);
            while count > 0
                && let Some(Aboard { place, bytes, behind }) = aboard.front_mut()
            {
                let left = count.min(*bytes);
                count -= left;
                *bytes -= left;
                let rest = *bytes + *behind;
                window.progress(*place, rest, now);
                board.sent(stream, left, rest == 0);
                if *bytes == 0 {
                    aboard.pop_front();
                }
            }
        })
    }

    /// The most urgent message that is due and that this stream carries; it is in
    /// the resend window from now on.
    fn pick(&self, draining: bool) -> Option<Outgoing> {
        let Uplink { lanes, mirror, absent, .. } = self.uplink;
        let mine =
            |source: &Source| source.carrier(absent) == self.stream && (!draining || source.is_drained());
        let (kind, (head, body), cargo) = ORDER.into_iter().filter(mine).find_map(|source| match source {
            Source::Lane(lane) => {
                let (number, message) = lanes.take(lane)?;
                Some((lane.kind(), self.envelope(message), Cargo::Kept(lane, number)))
            }
            Source::Inventory => {
                let (record, deletion) = mirror.next()?;
                let head = grpc_head(record.len(), 0).freeze();
                Some((Kind::Inventory, (head, record), Cargo::Inventory(deletion)))
            }
        })?;
        let place = self.enter(cargo)?;
        self.uplink.metrics.sent.get_or_create(&KindLabel { kind }).inc();
        Some(Outgoing { place, head, body })
    }

    fn envelope(&self, message: Message) -> (Bytes, Bytes) {
        match self.stream {
            Stream::Data => message.on_data_stream(),
            _ => message.on_own_stream(),
        }
    }

    /// The place of a message in the window; `None` if the stream ended since it
    /// was picked.
    fn enter(&self, cargo: Cargo) -> Option<u64> {
        let mut window = lock(self.session.window(self.stream));
        let entered = window.enter(cargo, Instant::now());
        let count = window.len();
        drop(window);
        match entered {
            Ok(place) => {
                self.uplink.board.unsettled(self.stream, count);
                Some(place)
            }
            Err(cargo) => {
                cargo.lost(&self.uplink.lanes);
                None
            }
        }
    }

    async fn inventory_due(&self) {
        match self.stream {
            Stream::Data => self.uplink.mirror.due().await,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
