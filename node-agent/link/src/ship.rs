//! Files to the aggregator: batches are filled from the log engine as far as
//! credit goes, and answers move the engine's positions.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use kestrel_proto::node::v1::{FlowReport, HostRead, HostReport, LogGap, PodUpdate, RequestReport};
use kestrel_tail::{
    engine::{Engine, Record},
    position::store::StoreError,
};

use crate::{
    Event, Session,
    batch::{Builder, ended, log_gap},
    flush::Flush,
    reads::Reply,
    reports::Reports,
    requests::Requests,
};

/// A batch of this size is sent at once.
pub const FLUSH_BYTES: usize = 256 * 1024;

/// zstd's fast level: several times the speed of its default for about the
/// same size of log text.
const ZSTD_LEVEL: i32 = 1;

/// Turns of reading before others get theirs.
const TURNS: usize = 32;

/// Looking for new bytes starts with this pause and doubles while there are none.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How often positions are written at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// What was shipped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shipped {
    /// Batches handed to the link.
    pub batches: u64,
    /// Their records.
    pub lines: u64,
    /// Their bytes before compression.
    pub content_bytes: u64,
    /// Their bytes after compression.
    pub payload_bytes: u64,
    /// Times the aggregator had us read again what was under way.
    pub refusals: u64,
}

/// What happened on the link besides batches and their answers.
#[derive(Debug)]
pub enum Notice {
    /// A stream is open.
    Connected {
        /// Bytes of lines that a sidecar may send a second; 0: no limit.
        pod_bytes_per_second: u64,
        /// The aggregator's time, and when it was asked for it; an older one does not tell it.
        clock: Option<(SystemTime, Instant)>,
    },
    /// Pods came, changed or went.
    Pods(PodUpdate),
    /// The aggregator's time, when it took a report of the host.
    Clock(SystemTime),
    /// Something of the node is asked for.
    Asked(Box<HostRead>, Reply),
    /// Nobody waits for the answer to the read of this id any more.
    Unasked(u64),
    /// The stream ended, or could not be opened.
    Disconnected {
        /// Why, and what would help.
        reason: String,
        /// When the next attempt is made.
        retry_in: Duration,
    },
}

/// A batch that waits for credit.
#[derive(Debug)]
struct Held {
    payload: Bytes,
    content_bytes: usize,
    lines: u64,
}

/// The engine and the open stream, if there is one.
#[derive(Debug)]
pub struct Shipper {
    /// The log engine; its owner has it scan and decides policies.
    pub engine: Engine,
    session: Option<Session>,
    builder: Builder,
    flush: Flush,
    held: Option<Held>,
    reports: Reports,
    requests: Requests,
    pause: Duration,
    saved: Instant,
    save_error: Option<StoreError>,
    shipped: Shipped,
}

impl Shipper {
    /// Ships what `engine` reads once a stream is open.
    pub fn new(engine: Engine, now: Instant) -> Self {
        Self {
            engine,
            session: None,
            builder: Builder::default(),
            flush: Flush::new(now),
            held: None,
            reports: Reports::default(),
            requests: Requests::default(),
            pause: POLL.0,
            saved: now,
            save_error: None,
            shipped: Shipped::default(),
        }
    }

    /// Takes what the link reports, and passes on what its owner has to know.
    pub fn take(&mut self, event: Event) -> Option<Notice> {
        match event {
            Event::Connected { session, software_version, clock } => {
                tracing::debug!("the aggregator's version is {software_version}");
                let pod_bytes_per_second = session.pod_bytes_per_second();
                self.session = Some(session);
                self.pause = POLL.0;
                return Some(Notice::Connected { pod_bytes_per_second, clock });
            }
            Event::Ack(up_to) => {
                self.engine.ack(up_to);
                self.reports.ack(up_to);
            }
            Event::Nack(reason) => {
                tracing::debug!("what was not acknowledged is read again: {reason}");
                self.shipped.refusals += 1;
                if let Some(session) = &mut self.session {
                    session.begin_again();
                }
                self.read_again();
            }
            Event::Credit(bytes) => {
                if let Some(session) = &mut self.session {
                    session.grant(bytes);
                }
            }
            Event::RequestsTold(told) => self.requests.told(told),
            Event::Pods(update) => return Some(Notice::Pods(update)),
            Event::Clock(time) => return Some(Notice::Clock(time)),
            Event::Asked(read, reply) => return Some(Notice::Asked(read, reply)),
            Event::Unasked(id) => return Some(Notice::Unasked(id)),
            Event::Disconnected { reason, retry_in } => {
                self.session = None;
                self.read_again();
                return Some(Notice::Disconnected { reason, retry_in });
            }
        }
        None
    }

    /// Forgets what was read and has no answer.
    fn read_again(&mut self) {
        self.held = None;
        self.builder.clear();
        self.engine.rewind();
        self.reports.rewind();
        self.requests.rewind();
    }

    /// Does all that can be done now without waiting, and says after which
    /// time there is more to do if nothing happens on the link until then.
    pub fn pump(&mut self, now: Instant, wall: SystemTime) -> Duration {
        if now.saturating_duration_since(self.saved) >= SAVE_INTERVAL {
            self.save();
            self.saved = now;
        }
        // Also while nothing can be sent: what is unread, and how much of it is
        // removed and held open, is known only from this.
        self.engine.poll(now);
        if self.session.is_none() || !self.send_held() {
            return POLL.1;
        }
        for _ in 0..TURNS {
            let read = self.fill(now, wall);
            if read {
                self.pause = POLL.0;
            }
            let bytes = self.builder.content().len();
            let flush_in = self.flush.due_in(now);
            if bytes >= FLUSH_BYTES || (bytes > 0 && flush_in.is_zero()) {
                self.flush.sent(bytes, now);
                if !self.flush() {
                    return POLL.1;
                }
            }
            if !read {
                let pause = self.engine.pause(self.pause);
                self.pause = (self.pause * 2).min(POLL.1);
                let is_waiting = !self.builder.content().is_empty();
                return if is_waiting { flush_in.min(pause) } else { pause };
            }
        }
        Duration::ZERO
    }

    /// Sends what was read, whatever its age; false if the link does not take it.
    pub fn flush(&mut self) -> bool {
        if !self.send_held() {
            return false;
        }
        if self.builder.content().is_empty() {
            return true;
        }
        let content = self.builder.content();
        let payload = match zstd::bulk::compress(content, ZSTD_LEVEL) {
            Ok(payload) => payload.into(),
            Err(error) => {
                // Only memory can be short here: read it again later.
                tracing::warn!("a batch could not be compressed and is read again: {error}");
                self.read_again();
                return false;
            }
        };
        self.held = Some(Held { payload, content_bytes: content.len(), lines: self.builder.lines() });
        self.builder.clear();
        self.send_held()
    }

    /// Whether another report of flows may wait to be sent.
    pub fn has_room(&self) -> bool {
        self.reports.have_room()
    }

    /// Has flows sent, again and again until they have arrived.
    pub fn tell(&mut self, report: &FlowReport) {
        self.reports.push(report);
    }

    /// Number of the last report of flows that has arrived, with all before it.
    pub fn arrived(&self) -> u64 {
        self.reports.arrived()
    }

    /// Whether another report of requests may wait to be told.
    pub fn has_room_for_requests(&self) -> bool {
        self.requests.have_room()
    }

    /// Whether there are reports of requests that were not told, for an aggregator that takes them as far as one is known.
    pub fn has_requests(&self) -> bool {
        self.session.as_ref().is_none_or(Session::takes_requests) && !self.requests.is_empty()
    }

    /// Has requests sent, again and again until they were told.
    pub fn tell_requests(&mut self, report: &RequestReport) {
        self.requests.push(report);
    }

    /// Writes positions that changed.
    pub fn save(&mut self) {
        self.save_error = self.engine.save(SystemTime::now()).err();
    }

    /// Why positions could not be written, if that was so the last time.
    pub fn save_error(&self) -> Option<&StoreError> {
        self.save_error.as_ref()
    }

    /// Sends the node's conditions; false if the link does not take them now.
    pub fn report(&self, report: HostReport) -> bool {
        self.session.as_ref().is_some_and(|session| session.report(report))
    }

    /// What was not sent and will not be any more. For the very end: what is under way counts as
    /// delivered from here on, which is not to be written to the positions.
    pub fn missing(&mut self) -> Vec<LogGap> {
        // The stream keeps the order: who hears of this has had everything that went before.
        let next = self.session.as_ref().map_or(0, Session::next_id);
        self.engine.ack(next.saturating_sub(1));
        self.read_again();
        let gaps: Vec<_> = self.engine.tell_gaps(next).iter().map(log_gap).collect();
        let unread = self.engine.unread().into_iter().filter(|(_, bytes)| *bytes > 0);
        gaps.into_iter().chain(unread.map(|(origin, bytes)| ended(origin, bytes))).collect()
    }

    /// Says that nothing comes any more and that `gaps` are missing, and ends the stream; false if
    /// the link does not take it now.
    pub fn farewell(&mut self, gaps: &[LogGap]) -> bool {
        self.session.take_if(|session| session.farewell(gaps.to_vec())).is_some()
    }

    /// Whether a stream is open.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Payload bytes that the aggregator has not let go of.
    pub fn under_way(&self) -> u64 {
        self.session.as_ref().map_or(0, Session::under_way)
    }

    /// Whether everything that was read was taken off our hands.
    pub fn is_delivered(&self) -> bool {
        self.session.is_some()
            && self.under_way() == 0
            && self.held.is_none()
            && self.builder.content().is_empty()
    }

    /// Counters since the start.
    pub fn shipped(&self) -> Shipped {
        self.shipped
    }

    /// Adds to the batch how many errors were not sent because others like them were, and what is missing:
    /// nothing is read any more that would tell it.
    pub fn add_counts(&mut self, now: Instant) {
        let Some(session) = &self.session else { return };
        let builder = &mut self.builder;
        self.engine.tell_gaps(session.next_id()).iter().for_each(|gap| builder.gap(gap));
        loop {
            let emit = |record: Record<'_>| {
                builder.record(&record);
                ControlFlow::Continue(())
            };
            let Some(chunk) = self.engine.read_counts(session.next_id(), now, emit) else { break };
            builder.close(&chunk);
        }
    }

    /// Adds to the batch what was reported of requests, for the very end.
    pub fn add_requests(&mut self) {
        if self.session.as_ref().is_some_and(Session::takes_requests) {
            while let Some(report) = self.requests.next() {
                self.builder.requests(report);
            }
        }
    }

    /// One turn of reading into the batch; false if there was nothing to read.
    fn fill(&mut self, now: Instant, wall: SystemTime) -> bool {
        let Some(session) = &self.session else { return false };
        let builder = &mut self.builder;
        if session.takes_flows()
            && let Some(report) = self.reports.next(session.next_id())
        {
            builder.flows(report);
            return true;
        }
        if session.takes_requests()
            && let Some(report) = self.requests.next()
        {
            builder.requests(report);
            return true;
        }
        if self.engine.has_gaps() {
            self.engine.tell_gaps(session.next_id()).iter().for_each(|gap| builder.gap(gap));
        }
        let emit = |record: Record<'_>| {
            builder.record(&Record { timestamp: record.timestamp.or(Some(wall.into())), ..record });
            if builder.bytes() < FLUSH_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let Some(chunk) = self.engine.read(session.next_id(), now, emit) else { return false };
        builder.close(&chunk);
        true
    }

    fn send_held(&mut self) -> bool {
        let (Some(held), Some(session)) = (&self.held, &mut self.session) else { return true };
        if !session.send(&held.payload, held.content_bytes) {
            return false;
        }
        self.shipped.batches += 1;
        self.shipped.lines += held.lines;
        self.shipped.content_bytes += held.content_bytes as u64;
        self.shipped.payload_bytes += held.payload.len() as u64;
        self.held = None;
        true
    }
}
