//! From a window of a file's bytes to its records.
//!
//! Nothing is carried from one window to the next: bytes that do not end a
//! record yet are left for the next window, which begins with them. So a
//! reader needs no memory per file, and any offset that [`Splitter::split`]
//! returns is one from which reading can start anew after a crash.

use std::ops::ControlFlow;

use memchr::memchr;

use crate::{
    cri::{self, Piece},
    text::whole_characters,
    time::{Timestamp, rfc3339},
};

/// The longest record, in bytes of content; a longer line becomes several.
pub const LINE_LIMIT: usize = 1024 * 1024;

/// What the bytes of a file mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A container runtime's log: see [`cri`].
    Cri,
    /// Lines as a program wrote them.
    Plain,
}

/// What becomes of a record whose end is not in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Its end will come: leave it.
    Wait,
    /// Its end will not come, or there is no room to wait for it: it ends here.
    Ends,
}

/// A record before its text is made fit to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// When it was written, if the file says so.
    pub timestamp: Option<Timestamp>,
    /// What the program wrote, without the line feed.
    pub content: &'a [u8],
    /// Where its first byte lies in the window.
    pub begin: usize,
    /// Where its last byte ends in the window.
    pub end: usize,
    /// The last offset up to `begin` from which splitting anew gives it again.
    pub from: usize,
    /// Not of the file's format; sent as it is.
    pub malformed: bool,
    /// The rest of a line that is longer than [`LINE_LIMIT`].
    pub continued: bool,
    /// Made of pieces.
    pub joined: bool,
}

impl Raw<'_> {
    /// The same record in a window that begins `offset` bytes earlier.
    pub fn after(self, offset: usize) -> Self {
        let Self { begin, end, from, .. } = self;
        Self { begin: begin + offset, end: end + offset, from: from + offset, ..self }
    }
}

/// Splits windows; holds the buffer in which pieces are joined.
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
        match format {
            Format::Cri => self.split_cri(window, unfinished, &mut emit),
            Format::Plain => split_plain(window, unfinished, &mut emit),
        }
    }

    fn split_cri(
        &mut self,
        window: &[u8],
        unfinished: Unfinished,
        emit: &mut impl FnMut(Raw<'_>) -> ControlFlow<()>,
    ) -> usize {
        let mut flow = ControlFlow::Continue(());
        let mut at = 0;
        // Lines up to here belong together: pieces of the two streams overlap.
        let mut group_end = 0;
        let mut group = 0;
        // Per stream, up to where its pieces are in a record already.
        let mut joined_to = [0; 2];
        while flow.is_continue() || at < group_end {
            let (line, next) = match next_line(window, at) {
                Some(found) => found,
                None if at == 0 && !window.is_empty() && unfinished == Unfinished::Ends => {
                    (window, window.len())
                }
                None => break,
            };
            if at >= group_end {
                group = at;
            }
            let span = Span { begin: at, end: next, from: group };
            match cri::parse(line) {
                None if line.is_empty() => {}
                None => flow = in_parts(Raw { malformed: true, ..raw(None, line, span) }, emit),
                Some(piece) if at < joined_to[piece.stream as usize] => {}
                Some(piece) if piece.last => {
                    flow = in_parts(raw(Some(piece.timestamp), piece.content, span), emit);
                }
                Some(piece) => {
                    if at >= group_end {
                        group_end = match (end_of_group(window, at), unfinished) {
                            (Some(end), _) => end,
                            (None, Unfinished::Ends) if at == 0 => window.len(),
                            (None, _) => return at,
                        };
                    }
                    let end = self.join(window, at, &piece);
                    joined_to[piece.stream as usize] = end;
                    let raw = raw(Some(piece.timestamp), &self.joined, Span { end, ..span });
                    flow = in_parts(Raw { joined: true, ..raw }, emit);
                }
            }
            at = next;
        }
        at
    }

    /// Joins the pieces of one stream from `at` until the last one, as far as
    /// they fit into a record; returns where the joined ones end.
    fn join(&mut self, window: &[u8], mut at: usize, first: &Piece<'_>) -> usize {
        self.joined.clear();
        let mut end = None;
        while let Some((line, next)) = next_line(window, at) {
            let Some(piece) = cri::parse(line) else { break };
            if piece.stream == first.stream {
                if !self.joined.is_empty() && self.joined.len() + piece.content.len() > LINE_LIMIT {
                    break;
                }
                self.joined.extend_from_slice(piece.content);
                end = Some(next);
                if piece.last {
                    break;
                }
            }
            at = next;
        }
        end.unwrap_or_else(|| {
            // A piece without a line feed that is not waited for.
            self.joined.extend_from_slice(first.content);
            window.len()
        })
    }
}

/// Where the line that begins at `at` with a piece that is not the last, and
/// every line of the other stream that begins meanwhile, have all ended. A
/// malformed line ends them too.
fn end_of_group(window: &[u8], mut at: usize) -> Option<usize> {
    let mut open = [false; 2];
    while let Some((line, next)) = next_line(window, at) {
        let Some(piece) = cri::parse(line) else { return Some(at) };
        open[piece.stream as usize] = !piece.last;
        if open == [false; 2] {
            return Some(next);
        }
        at = next;
    }
    None
}

fn split_plain(
    window: &[u8],
    unfinished: Unfinished,
    emit: &mut impl FnMut(Raw<'_>) -> ControlFlow<()>,
) -> usize {
    let mut flow = ControlFlow::Continue(());
    let mut at = 0;
    while flow.is_continue() {
        let (line, next) = match next_line(window, at) {
            Some(found) => found,
            None if window.len() - at > LINE_LIMIT => {
                let part = whole_characters(&window[at..], LINE_LIMIT);
                (part, at + part.len())
            }
            None if at == 0 && !window.is_empty() && unfinished == Unfinished::Ends => (window, window.len()),
            None => break,
        };
        let timestamp = rfc3339(line).filter(|(_, length)| line.get(*length) == Some(&b' ')).map(|(t, _)| t);
        flow = in_parts(raw(timestamp, line, Span { begin: at, end: next, from: at }), emit);
        at = next;
    }
    at
}

/// The line that begins at `at`, without its line feed, and where the next begins.
fn next_line(window: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = memchr(b'\n', &window[at..])?;
    Some((&window[at..at + length], at + length + 1))
}

/// Where a record lies: see [`Raw`].
#[derive(Clone, Copy)]
struct Span {
    begin: usize,
    end: usize,
    from: usize,
}

/// A record in one piece and of its file's format.
fn raw(timestamp: Option<Timestamp>, content: &[u8], span: Span) -> Raw<'_> {
    let Span { begin, end, from } = span;
    Raw { timestamp, content, begin, end, from, malformed: false, continued: false, joined: false }
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
        (raw.continued, raw.joined) = (true, false);
    }
    if emit(raw).is_break() { ControlFlow::Break(()) } else { flow }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Record = (String, usize, bool);

    fn split_with(
        format: Format,
        window: &[u8],
        unfinished: Unfinished,
        most: usize,
    ) -> (Vec<Record>, usize) {
        let mut records = Vec::new();
        let used = Splitter::default().split(format, window, unfinished, |raw| {
            records.push((String::from_utf8_lossy(raw.content).into_owned(), raw.end, raw.malformed));
            if records.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        (records, used)
    }

    fn split(window: &str, unfinished: Unfinished) -> (Vec<String>, usize) {
        let (records, used) = split_with(Format::Cri, window.as_bytes(), unfinished, usize::MAX);
        (records.into_iter().map(|(text, ..)| text).collect(), used)
    }

    fn line(stream: &str, tag: &str, content: &str) -> String {
        format!("2026-11-21T13:50:00Z {stream} {tag} {content}\n")
    }

    #[test]
    fn pieces_are_joined_per_stream_even_when_they_interleave() {
        let window = line("stdout", "P", "a")
            + &line("stderr", "P", "x")
            + &line("stdout", "P", "b")
            + &line("stderr", "F", "y")
            + &line("stderr", "F", "z")
            + &line("stdout", "F", "c");
        let (records, used) = split(&window, Unfinished::Wait);
        assert_eq!(records, ["abc", "xy", "z"]);
        assert_eq!(used, window.len());
    }

    #[test]
    fn an_open_piece_waits_with_everything_after_it() {
        let done = line("stdout", "F", "one");
        let open = line("stdout", "P", "two ") + &line("stderr", "F", "three");
        let (records, used) = split(&(done.clone() + &open), Unfinished::Wait);
        assert_eq!(records, ["one"]);
        assert_eq!(used, done.len());
        assert_eq!(split(&open, Unfinished::Wait), (vec![], 0));
        assert_eq!(split(&open, Unfinished::Ends), (vec!["two ".into(), "three".into()], open.len()));
    }

    #[test]
    fn a_malformed_line_costs_only_itself() {
        let window = line("stdout", "P", "a") + "what?\n\n" + &line("stdout", "F", "b");
        let (records, used) = split_with(Format::Cri, window.as_bytes(), Unfinished::Wait, usize::MAX);
        let seen: Vec<_> = records.iter().map(|(text, _, malformed)| (text.as_str(), *malformed)).collect();
        assert_eq!(seen, [("a", false), ("what?", true), ("b", false)]);
        assert_eq!(used, window.len());
    }

    #[test]
    fn a_line_of_the_limit_stays_whole_and_a_longer_one_becomes_several() {
        for (length, expected) in [(LINE_LIMIT, vec![LINE_LIMIT]), (LINE_LIMIT + 1, vec![LINE_LIMIT, 1])] {
            let text = "x".repeat(length);
            let mut pieces = String::new();
            for part in text.as_bytes().chunks(16 * 1024) {
                pieces += &line("stdout", "P", str::from_utf8(part).unwrap());
            }
            pieces += &line("stdout", "F", "");
            let lengths = |(records, used): (Vec<Record>, usize)| {
                (records.iter().map(|(text, ..)| text.len()).filter(|l| *l > 0).collect::<Vec<_>>(), used)
            };
            let cri = split_with(Format::Cri, pieces.as_bytes(), Unfinished::Wait, usize::MAX);
            assert_eq!(lengths(cri), (expected.clone(), pieces.len()));
            let plain = text + "\n";
            let plain_records = split_with(Format::Plain, plain.as_bytes(), Unfinished::Wait, usize::MAX);
            assert_eq!(lengths(plain_records), (expected, plain.len()));
        }
    }

    #[test]
    fn a_plain_line_without_an_end_waits_unless_it_is_over() {
        assert_eq!(split_with(Format::Plain, b"one\ntwo", Unfinished::Ends, 9).1, 4);
        assert_eq!(split_with(Format::Plain, b"two", Unfinished::Wait, 9).1, 0);
        assert_eq!(split_with(Format::Plain, b"two", Unfinished::Ends, 9).0, [("two".into(), 3, false)]);
    }

    /// A log of both streams as a runtime would write it, and its whole lines by stream.
    fn log() -> impl Strategy<Value = (Vec<u8>, [Vec<String>; 2])> {
        let piece = (any::<bool>(), prop::bool::weighted(0.6), "[a-z]{0,5}");
        prop::collection::vec(piece, 0..60).prop_map(|pieces| {
            let mut text = String::new();
            let mut lines = [Vec::new(), Vec::new()];
            let mut open = [None::<String>, None];
            for (stderr, last, content) in pieces {
                let stream = usize::from(stderr);
                text += &line(["stdout", "stderr"][stream], ["P", "F"][usize::from(last)], &content);
                let joined = open[stream].take().unwrap_or_default() + &content;
                if last { lines[stream].push(joined) } else { open[stream] = Some(joined) }
            }
            for stream in 0..2 {
                lines[stream].extend(open[stream].take());
            }
            (text.into_bytes(), lines)
        })
    }

    proptest! {
        #[test]
        fn any_windows_give_the_same_lines((bytes, lines) in log(), sizes in prop::collection::vec(1_usize..400, 1..9), stop in 1_usize..5) {
            let mut records = Vec::new();
            let (mut at, mut turn) = (0, 0);
            while at < bytes.len() {
                // A window that grows until it helps, as the reader's does.
                let mut size = sizes[turn % sizes.len()];
                turn += 1;
                loop {
                    let window = &bytes[at..(at + size).min(bytes.len())];
                    let over = at + size >= bytes.len();
                    let unfinished = if over { Unfinished::Ends } else { Unfinished::Wait };
                    let (found, used) = split_with(Format::Cri, window, Unfinished::Wait, stop);
                    let (found, used) = if used == 0 && over { split_with(Format::Cri, window, unfinished, stop) } else { (found, used) };
                    prop_assert!(found.iter().all(|(_, end, malformed)| *end <= used && !malformed));
                    records.extend(found.into_iter().map(|(text, ..)| text));
                    at += used;
                    if used > 0 { break }
                    size *= 2;
                }
            }
            let mut expected: Vec<_> = lines.into_iter().flatten().collect();
            expected.sort();
            records.sort();
            prop_assert_eq!(records, expected);
        }

        #[test]
        fn any_bytes_are_used_up(bytes in prop::collection::vec(prop::sample::select(b"\n PF2026-11-21T13:50:00Z stdout\0\xFF".to_vec()), 0..400)) {
            for format in [Format::Cri, Format::Plain] {
                let mut at = 0;
                while at < bytes.len() {
                    let (_, used) = split_with(format, &bytes[at..], Unfinished::Ends, usize::MAX);
                    prop_assert!(used > 0);
                    at += used;
                }
            }
        }
    }
}
