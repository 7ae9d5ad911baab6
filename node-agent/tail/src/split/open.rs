//! A record that may go on.

use super::{LINE_LIMIT, line::Line};
use crate::{
    multiline::{LIMIT, PAUSE, SPAN, Shape},
    time::Timestamp,
};

/// A record whose first lines are known.
pub(super) struct Open<'a> {
    shape: Shape<'a>,
    /// The end of its last line is yet to come.
    piece_missing: bool,
    /// Bytes of content.
    length: usize,
    /// Where it begins in the window.
    at: usize,
    began: Option<Timestamp>,
    /// When its last piece was written.
    last: Option<Timestamp>,
    cut: bool,
}

impl<'a> Open<'a> {
    pub(super) fn begin(line: &Line<'a>) -> Self {
        Self {
            shape: Shape::begin(line.first, line.content),
            piece_missing: !line.last,
            length: line.content.len(),
            at: line.at,
            began: line.timestamp,
            last: line.timestamp,
            cut: false,
        }
    }

    /// Whether the next line of its stream is a part of it; if so, it is from now on.
    pub(super) fn takes(&mut self, line: &Line<'_>) -> bool {
        let is_mine =
            self.piece_missing || (!self.is_late(line) && self.shape.takes(line.first, line.content));
        let has_room = self.length + line.content.len() <= LINE_LIMIT
            && (self.piece_missing || line.next - self.at <= LIMIT);
        self.cut = is_mine && !has_room;
        if !is_mine || self.cut {
            return false;
        }
        self.last = line.timestamp;
        self.length += line.content.len();
        self.piece_missing = !line.last;
        true
    }

    /// Whether it may go on after a line of the other stream.
    pub(super) fn outlasts(&self, line: &Line<'_>) -> bool {
        self.piece_missing || (self.shape.is_trace() && line.next - self.at <= LIMIT && !self.is_late(line))
    }

    /// Whether it has ended before `line`, because that came too late.
    fn is_late(&self, line: &Line<'_>) -> bool {
        let is_later = |since: Option<Timestamp>, most| {
            since.zip(line.timestamp).is_some_and(|(since, now)| now.since(since) > most)
        };
        is_later(self.last, PAUSE) || is_later(self.began, SPAN)
    }

    /// Whether the line that it did not take is its rest.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    pub(super) fn is_trace(&self) -> bool {
        self.shape.is_trace()
    }

    /// The end of its last line is yet to come.
    pub(super) fn is_piece_missing(&self) -> bool {
        self.piece_missing
    }

    /// Whether it likely goes on.
    pub(super) fn is_awaited(&self) -> bool {
        self.piece_missing || self.shape.is_awaited()
    }
}
