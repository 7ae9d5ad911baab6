//! What is counted of entries that are alike.

use crate::{
    entry::{Cause, Entry},
    headers::Sample,
    sketch::Sketch,
};

/// Bytes of a text that says why.
pub(crate) const MOST_WHY: usize = 256;

/// What is counted of entries that have a key in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many.
    pub count: u64,
    /// Bytes to the server.
    pub sent: u64,
    /// Bytes from the server.
    pub received: u64,
    /// Bytes of bodies of requests.
    pub request_bodies: u64,
    /// Bytes of bodies of answers.
    pub response_bodies: u64,
    /// Sum of how long they took, microseconds.
    pub took: u64,
    /// How long they took, microseconds.
    pub times: Sketch,
    /// When the first began, nanoseconds since 1970.
    pub first: u64,
    /// When the last ended, nanoseconds since 1970.
    pub last: u64,
    /// Sum of their attempts, as far as they are known.
    pub attempts: u32,
    /// `HTTPVersion` of the first.
    pub version: u8,
    /// Why the first that says so failed. Unchecked.
    pub why: Option<Box<[u8]>>,
    /// Which text that is.
    pub cause: Cause,
    /// Headers of one of them.
    pub sample: Option<Box<Sample>>,
}

impl Counts {
    /// Counts an entry, in no more bytes than before where there is no room; bytes on the heap that this took.
    pub(crate) fn add(&mut self, entry: &Entry<'_>, has_room: bool) -> usize {
        let before = self.times.heap();
        let took = entry.took() / 1000;
        let is_known = entry.upstream_sent != 0 || entry.upstream_received != 0;
        let (sent, received) = if is_known {
            (entry.upstream_sent, entry.upstream_received)
        } else {
            (entry.request_bytes, entry.response_bytes)
        };
        if self.count == 0 {
            (self.first, self.version) = (entry.start, entry.version);
        }
        self.count += 1;
        self.sent = self.sent.saturating_add(sent);
        self.received = self.received.saturating_add(received);
        self.request_bodies = self.request_bodies.saturating_add(entry.request_body);
        self.response_bodies = self.response_bodies.saturating_add(entry.response_body);
        self.took = self.took.saturating_add(took);
        self.times.add_within(took, has_room);
        self.first = self.first.min(entry.start);
        self.last = self.last.max(entry.end());
        self.attempts = self.attempts.saturating_add(entry.attempts);
        let mut texts = 0;
        if self.why.is_none() && !entry.why.is_empty() && (has_room || self.count == 1) {
            let why = entry.why.get(..MOST_WHY).unwrap_or(entry.why);
            (self.why, self.cause) = (Some(why.into()), entry.cause);
            texts = why.len();
        }
        texts + self.times.heap() - before
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.merge_within(other, true);
    }

    /// Likewise, in no more bytes than before where there is no room.
    pub(crate) fn merge_within(&mut self, other: &Self, has_room: bool) {
        let has_room_for_texts = has_room || self.count == 0;
        if self.count == 0 {
            (self.first, self.version) = (other.first, other.version);
        }
        self.count = self.count.saturating_add(other.count);
        self.sent = self.sent.saturating_add(other.sent);
        self.received = self.received.saturating_add(other.received);
        self.request_bodies = self.request_bodies.saturating_add(other.request_bodies);
        self.response_bodies = self.response_bodies.saturating_add(other.response_bodies);
        self.took = self.took.saturating_add(other.took);
        self.times.merge_within(&other.times, has_room);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.attempts = self.attempts.saturating_add(other.attempts);
        if has_room_for_texts {
            self.explain(other);
        }
        if self.sample.is_none() && has_room_for_texts {
            self.sample.clone_from(&other.sample);
        }
    }

    /// Takes over why those failed, unless it is known why these did.
    pub fn explain(&mut self, other: &Self) {
        if self.why.is_none() {
            self.why.clone_from(&other.why);
            self.cause = other.cause;
        }
    }

    /// How many requests they are for the server's proxy, which logs each attempt of the client's.
    #[must_use]
    pub fn at_server(&self) -> u64 {
        self.count.max(self.attempts.into())
    }

    /// So many of them, with their part of all sums.
    #[must_use]
    pub fn part(self, count: u64) -> Self {
        let part = |sum: u64| {
            let part = u128::from(sum) * u128::from(count) / u128::from(self.count.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        Self {
            count,
            sent: part(self.sent),
            received: part(self.received),
            request_bodies: part(self.request_bodies),
            response_bodies: part(self.response_bodies),
            took: part(self.took),
            // No more than it was, as a part is.
            attempts: u32::try_from(part(self.attempts.into())).unwrap_or(u32::MAX),
            ..self
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        let sample = self.sample.as_ref().map_or(0, |sample| sample.heap());
        self.times.heap() + self.why.as_ref().map_or(0, |why| why.len()) + sample
    }
}
