//! From a window of a file's bytes to its records.
//!
//! Nothing is carried from one window to the next: bytes that do not end a
//! record yet are left for the next window, which begins with them. So a
//! reader needs no memory per file, and any offset that [`Splitter::split`]
//! returns is one from which reading can start anew after a crash. The same holds for
//! lines that belong together, such as a stack trace ([`crate::multiline`]), and where
//! lines of the two streams of a container lie between each other.

mod line;
mod open;
mod rest;

use std::ops::ControlFlow;

use crate::{multiline::First, text::whole_characters, time::Timestamp};
use line::{Line, Lines};
use open::Open;
pub use rest::{Rest, rest};

/// The longest record, in bytes of content; a longer line becomes several.
pub const LINE_LIMIT: usize = 1024 * 1024;

/// What the bytes of a file mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A container runtime's log: see [`crate::cri`].
    Cri,
    /// Lines as a program wrote them.
    Plain,
}

/// What becomes of a record that may go on after the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// The file goes on after the window: leave it.
    GoesOn,
    /// The file goes on, but no window is larger: what begins at the window's start ends with it.
    Full,
    /// The file ends here for now. What a program likely goes on with is left.
    Wait,
    /// The file ends here and nothing came for a while: only a line without its end is left.
    Quiet,
    /// Its end will not come: it ends here.
    Ends,
}

/// A record before its text is made fit to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// When its first line was written, if the file says so.
    pub timestamp: Option<Timestamp>,
    /// What the program wrote, without the last line feed.
    pub content: &'a [u8],
    /// Where its first byte lies in the window.
    pub begin: usize,
    /// Where its last byte ends in the window.
    pub end: usize,
    /// The last offset up to `begin` from which splitting anew gives it again.
    pub from: usize,
    /// Lines that it was made of.
    pub lines: u32,
    /// It is an exception or a crash.
    pub trace: bool,
    /// Not of the file's format; sent as it is.
    pub malformed: bool,
    /// The rest of a record that came to the limit of its length.
    pub continued: bool,
    /// Made of pieces of a line.
    pub joined: bool,
}

impl Raw<'_> {
    /// Its content as a part of `text`, which is the beginning of its window; `None` if it reaches beyond that
    /// or was put together.
    pub fn line_of<'t>(&self, text: &'t str) -> Option<&'t str> {
        let end = self.end.checked_sub(1)?;
        let line = text.get(end.checked_sub(self.content.len())?..end)?;
        std::ptr::eq(line.as_ptr(), self.content.as_ptr()).then_some(line)
    }

    /// The same record in a window that begins `offset` bytes earlier.
    pub fn after(self, offset: usize) -> Self {
        let Self { begin, end, from, .. } = self;
        Self { begin: begin + offset, end: end + offset, from: from + offset, ..self }
    }
}

impl Unfinished {
    /// Whether what begins a window ends with it.
    pub fn is_forced(self) -> bool {
        matches!(self, Self::Full | Self::Ends)
    }
}

/// Splits windows; holds the buffer in which pieces and lines are joined.
#[derive(Debug, Default)]
pub struct Splitter {
    joined: Vec<u8>,
}

impl Splitter {
    /// Gives the records of `window` to `emit`, in the order in which they begin,
    /// and returns how many bytes they used. After `emit` breaks, splitting ends
    /// at the next offset from which it can go on.
    pub fn split(
        &mut self,
        format: Format,
        window: &[u8],
        unfinished: Unfinished,
        mut emit: impl FnMut(Raw<'_>) -> ControlFlow<()>,
    ) -> usize {
        let mut lines = Lines::new(format, window, unfinished);
        let mut flow = ControlFlow::Continue(());
        // Lines up to here belong together: records of the two streams overlap.
        let mut group_end = 0;
        let mut group = 0;
        // Per stream, up to where its lines are in a record already.
        let mut joined_to = [0; 2];
        // Per stream, whether its next record is the rest of one.
        let mut continued = [false; 2];
        let mut at = 0;
        let mut line = lines.at(at);
        while let Some(current) = line
            && (flow.is_continue() || at < group_end)
        {
            let next = lines.at(current.next);
            let stream = current.stream as usize;
            if at >= group_end {
                group = at;
            }
            if at < joined_to[stream] || current.is_nothing() {
                // It is in a record already, or holds none.
            } else if is_whole(&current, next.as_ref()) {
                let continued = std::mem::take(&mut continued[stream]);
                flow = in_parts(Raw { from: group, continued, ..current.record() }, &mut emit);
            } else {
                let Joined { record, is_cut, is_apart } = self.join(&mut lines, &current);
                let end = record.end;
                if at >= group_end {
                    let known = is_apart.then_some(end);
                    let Some(end) = known.or_else(|| end_of_group(&mut lines, &current, unfinished)) else {
                        return at;
                    };
                    group_end = end;
                }
                joined_to[stream] = end;
                let continued = std::mem::replace(&mut continued[stream], is_cut);
                flow = in_parts(Raw { from: group, continued, ..record }, &mut emit);
                if is_apart {
                    at = end;
                    line = lines.at(at);
                    continue;
                }
            }
            at = current.next;
            line = next;
        }
        at
    }

    /// The record that begins with `first`.
    fn join(&mut self, lines: &mut Lines<'_>, first: &Line<'_>) -> Joined<'_> {
        let mut open = Open::begin(first);
        let (mut is_closed, mut is_between, mut is_mixed) = (false, false, false);
        let mut record = Raw { joined: !first.last, ..first.record() };
        self.joined.clear();
        self.joined.extend_from_slice(first.content);
        let mut at = first.next;
        while let Some(line) = lines.at(at) {
            if line.malformed {
                is_closed = true;
                break;
            }
            if line.stream == first.stream {
                let is_piece = open.is_piece_missing();
                if !open.takes(&line) {
                    is_closed = true;
                    break;
                }
                is_mixed |= is_between;
                if !is_piece {
                    self.joined.push(b'\n');
                    record.lines += 1;
                }
                self.joined.extend_from_slice(line.content);
                record.joined |= is_piece;
                record.end = line.next;
            } else {
                is_between = true;
                if !open.outlasts(&line) {
                    is_closed = true;
                    break;
                }
            }
            at = line.next;
        }
        let record = Raw { content: &self.joined, trace: open.is_trace(), ..record };
        Joined { record, is_cut: open.is_cut(), is_apart: is_closed && !is_mixed }
    }
}

/// A record that was made of lines.
struct Joined<'a> {
    record: Raw<'a>,
    /// The next record of the stream is its rest.
    is_cut: bool,
    /// It has ended, and no line of the other stream lies in it.
    is_apart: bool,
}

/// Whether `line` is a record, which for most lines is plain from its beginning and the next one's.
fn is_whole(line: &Line<'_>, next: Option<&Line<'_>>) -> bool {
    let is_alone = |line: &Line<'_>| matches!(line.first, First::Other | First::Blank);
    line.malformed
        || line.last
            && is_alone(line)
            && next.is_some_and(|next| next.malformed || next.stream != line.stream || is_alone(next))
}

/// Where the record that begins with `first`, and every record of the other stream
/// that begins meanwhile, have all ended; `None` if that is to be waited for.
fn end_of_group(lines: &mut Lines<'_>, first: &Line<'_>, unfinished: Unfinished) -> Option<usize> {
    let mut open = [None, None];
    open[first.stream as usize] = Some(Open::begin(first));
    let mut at = first.next;
    while let Some(line) = lines.at(at) {
        if line.malformed {
            return Some(at);
        }
        let [out, err] = &mut open;
        let (own, other) = if line.stream as usize == 0 { (out, err) } else { (err, out) };
        other.take_if(|other| !other.outlasts(&line));
        if !own.as_mut().is_some_and(|own| own.takes(&line)) {
            if other.is_none() {
                return Some(at);
            }
            *own = Some(Open::begin(&line));
        }
        at = line.next;
    }
    let is_over = match unfinished {
        Unfinished::GoesOn => false,
        Unfinished::Full => first.at == 0,
        Unfinished::Wait => !open.iter().flatten().any(Open::is_awaited),
        Unfinished::Quiet => !open.iter().flatten().any(Open::is_piece_missing),
        Unfinished::Ends => first.at == 0 || !open.iter().flatten().any(Open::is_piece_missing),
    };
    is_over.then_some(at)
}

/// Emits a record, in several if it is too long for one.
fn in_parts(mut raw: Raw<'_>, emit: &mut impl FnMut(Raw<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    let mut flow = ControlFlow::Continue(());
    while raw.content.len() > LINE_LIMIT {
        let part = whole_characters(raw.content, LINE_LIMIT);
        if emit(Raw { content: part, ..raw }).is_break() {
            flow = ControlFlow::Break(());
        }
        raw.content = &raw.content[part.len()..];
        (raw.continued, raw.lines, raw.joined) = (true, 1, false);
    }
    if emit(raw).is_break() { ControlFlow::Break(()) } else { flow }
}

#[cfg(test)]
mod tests;
