//! Physical lines of a window.

use memchr::memchr;

use super::{Format, LINE_LIMIT, Raw, Unfinished};
use crate::{
    cri::{self, Piece, Stream},
    multiline::First,
    text::whole_characters,
    time::{Clock, Timestamp},
};

/// The lines of a window.
pub(super) struct Lines<'a> {
    format: Format,
    window: &'a [u8],
    /// A line that begins the window ends with it.
    ends: bool,
    clock: Clock,
}

/// A physical line: one of the program, or a piece of one.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    /// Where it begins in the window.
    pub(super) at: usize,
    /// Where the next begins.
    pub(super) next: usize,
    pub(super) stream: Stream,
    pub(super) timestamp: Option<Timestamp>,
    pub(super) content: &'a [u8],
    /// False if the next line of the stream is a piece of the same line.
    pub(super) last: bool,
    /// Not of the file's format.
    pub(super) malformed: bool,
    pub(super) first: First,
}

impl<'a> Lines<'a> {
    pub(super) fn new(format: Format, window: &'a [u8], unfinished: Unfinished) -> Self {
        Self { format, window, ends: unfinished.is_forced(), clock: Clock::default() }
    }

    /// The line that begins at `at`; `None` if its end is not in the window.
    pub(super) fn at(&mut self, at: usize) -> Option<Line<'a>> {
        let rest = &self.window[at..];
        let (text, next) = match memchr(b'\n', rest) {
            Some(length) => (&rest[..length], at + length + 1),
            None if self.format == Format::Plain && rest.len() > LINE_LIMIT => {
                let part = whole_characters(rest, LINE_LIMIT);
                (part, at + part.len())
            }
            None if at == 0 && !rest.is_empty() && self.ends => (rest, rest.len()),
            None => return None,
        };
        let piece = match self.format {
            Format::Cri => cri::parse(text, &mut self.clock),
            Format::Plain => None,
        };
        let malformed = self.format == Format::Cri && piece.is_none();
        Some(match piece {
            Some(Piece { timestamp, stream, last, content }) => {
                let first = First::of(content);
                Line { at, next, stream, timestamp: Some(timestamp), content, last, malformed, first }
            }
            None => {
                let time = if malformed { None } else { self.clock.read(text) };
                let timestamp = time.filter(|(_, length)| text.get(*length) == Some(&b' ')).map(|(t, _)| t);
                let first = First::of(text);
                let stream = Stream::Stdout;
                Line { at, next, stream, timestamp, content: text, last: true, malformed, first }
            }
        })
    }
}

impl<'a> Line<'a> {
    /// Not even a runtime's words.
    pub(super) fn is_nothing(&self) -> bool {
        self.malformed && self.content.is_empty()
    }

    /// It alone.
    pub(super) fn record(&self) -> Raw<'a> {
        Raw {
            timestamp: self.timestamp,
            content: self.content,
            begin: self.at,
            end: self.next,
            from: self.at,
            lines: 1,
            trace: false,
            malformed: self.malformed,
            continued: false,
            joined: false,
        }
    }
}
