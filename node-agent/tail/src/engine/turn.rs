//! One turn: some bytes of one file become records.

use std::{
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    Engine, MOST_IN_FLIGHT, PATIENCE, Policy, Record, Stats, add,
    context::{Before, REACH},
    file::{Tracked, Unfinished},
};
use crate::{
    identity::FileId,
    multiline,
    position::Reached,
    read::{READ, Reader, WINDOW},
    redact::Redactor,
    severity::{self, Level},
    split::{self, Format, Raw, Splitter},
    text::clean,
};

/// What a turn gave.
pub(super) struct Turn {
    pub(super) file: FileId,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) left_out: u64,
    pub(super) entries: usize,
}

/// How a file is read in a turn.
struct Task<'a> {
    reader: &'a mut Reader,
    splitter: &'a mut Splitter,
    again: &'a mut Splitter,
    redactor: &'a mut Redactor,
    stats: &'a mut Stats,
    format: Format,
    policy: Policy,
    now: Instant,
    ending: bool,
}

impl Engine {
    /// The next file's turn: its series, its place there, and what it gave.
    pub(super) fn take_turn(
        &mut self,
        batch: u64,
        now: Instant,
        mut emit: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Option<(u64, usize, Turn)> {
        if self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(series) = self.series.get_mut(&id) else { continue };
            let Some(policy @ (Policy::All | Policy::Errors)) = series.policy else { continue };
            let mut task = Task {
                reader: &mut self.reader,
                splitter: &mut self.splitter,
                again: &mut self.again,
                redactor: &mut self.redactor,
                stats: &mut self.stats,
                format: series.format,
                policy,
                now,
                ending: self.ending,
            };
            for (at, file) in series.files.iter_mut().enumerate() {
                let before = file.ledger.in_flight();
                match task.read(file, batch, &mut emit) {
                    Ok(None) => {}
                    Ok(Some(turn)) => {
                        self.in_flight += file.ledger.in_flight() - before;
                        // A packed file is read in one go: going back and forth
                        // between two would unpack them again and again.
                        if file.packed {
                            self.ready.push_front(id)
                        } else {
                            self.ready.push_back(id)
                        }
                        return Some((id, at, turn));
                    }
                    Err(error) => {
                        let path = series.directory.join(&file.name);
                        add(&mut self.problems, path, format!("cannot be read on: {error}"));
                        if file.packed {
                            // It is damaged, and will not be whole again.
                            self.stats.bytes_lost += file.give_up();
                            break;
                        }
                    }
                }
            }
        }
        None
    }
}

impl Task<'_> {
    fn read(
        &mut self,
        file: &mut Tracked,
        batch: u64,
        emit: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> io::Result<Option<Turn>> {
        let Some(id) = file.id.filter(|_| file.is_unread()) else { return Ok(None) };
        let start = file.ledger.read();
        let waited = file.unfinished.filter(|unfinished| unfinished.offset == start);
        let patience = self.patience(file, waited);
        if waited.is_some_and(|w| w.size == file.size() && w.patience == patience) {
            return Ok(None);
        }
        if self.format == Format::Plain && start > 0 && file.head(self.reader, true)? != Some(id.head) {
            file.begin_again();
            return Ok(None);
        }
        let mut from = file.ledger.settled();
        let mut want = READ;
        let mut left_out = 0;
        let mut outlet = Outlet::new(self.stats, self.redactor, emit);
        let (end, before) = loop {
            let window = if file.packed {
                self.reader.packed(&file.file, from, want)?
            } else {
                self.reader.plain(&file.file, from, want)?
            };
            let unfinished = match want {
                _ if window.at_end => patience,
                READ => split::Unfinished::GoesOn,
                _ => split::Unfinished::Full,
            };
            outlet.known = usize::try_from(start - from).unwrap_or(usize::MAX);
            let mut before = Before::default();
            let used = self.splitter.split(self.format, window.bytes, unfinished, |raw| {
                if raw.end <= outlet.known {
                    if from + raw.begin as u64 >= file.context.begin {
                        before.add(&raw);
                    }
                    return ControlFlow::Continue(());
                }
                outlet.count(&raw);
                let level = level_of(&raw);
                if self.policy == Policy::Errors && !file.context.wants(level, raw.continued) {
                    left_out += before.add(&raw);
                    return outlet.flow;
                }
                for place in before.take() {
                    let window = &window.bytes[place.from..];
                    self.again.split(self.format, window, split::Unfinished::Ends, |raw| {
                        let raw = raw.after(place.from);
                        if raw.begin == place.begin {
                            outlet.give(&raw, level_of(&raw));
                            return ControlFlow::Break(());
                        }
                        ControlFlow::Continue(())
                    });
                }
                outlet.give(&raw, level);
                outlet.flow
            });
            if used > outlet.known {
                if file.packed && window.at_end && used == window.bytes.len() {
                    file.set_size(from + used as u64);
                }
                let is_over = unfinished == split::Unfinished::Ends;
                left_out += before.pass(if is_over { used } else { used.saturating_sub(REACH) });
                break (from + used as u64, before);
            }
            if !window.at_end && want < WINDOW {
                want = WINDOW;
            } else if unfinished.is_forced() && from < start {
                // What is not waited for has to begin the window.
                left_out += std::mem::take(&mut file.context.open);
                from = start;
            } else {
                let since = waited.map_or(self.now, |waited| waited.since);
                file.unfinished = Some(Unfinished { offset: start, size: file.size(), since, patience });
                return Ok(None);
            }
        };
        let Outlet { entries, first, .. } = outlet;
        self.stats.bytes_read += end - start;
        self.stats.left_out += left_out;
        file.left_out += left_out;
        file.unfinished = None;
        file.context.open = before.lines();
        let settled = before.places().first().map_or(end, |place| {
            file.context.begin = from + place.begin as u64;
            from + place.from as u64
        });
        let reached = Reached { settled, read: end, owed: file.context.owed };
        if entries > 0 {
            file.ledger.claim(batch, reached);
            left_out = std::mem::take(&mut file.left_out);
        } else {
            file.ledger.skip(reached);
        }
        if file.packed && !file.is_unread() {
            self.reader.close_packed();
        }
        let start = first.map_or(start, |first| from + first as u64);
        Ok(Some(Turn { file: id, start, end, left_out, entries }))
    }

    /// What is still waited for at the end of a file, after a record `waited` for it.
    fn patience(&self, file: &Tracked, waited: Option<Unfinished>) -> split::Unfinished {
        let since = waited.map_or(Duration::ZERO, |waited| self.now.saturating_duration_since(waited.since));
        if self.ending || file.packed || since >= PATIENCE {
            split::Unfinished::Ends
        } else if file.quiet(self.now) >= multiline::PAUSE || since >= multiline::SPAN {
            split::Unfinished::Quiet
        } else {
            split::Unfinished::Wait
        }
    }
}

/// The severity that a record's first line names; a trace that names none is an error.
fn level_of(raw: &Raw<'_>) -> Option<Level> {
    let first = match raw.lines {
        1 => raw.content,
        _ => raw.content.split(|byte| *byte == b'\n').next().unwrap_or_default(),
    };
    severity::level(first).or(raw.trace.then_some(Level::Error))
}

/// Makes records fit to send and gives them out.
struct Outlet<'a, F> {
    stats: &'a mut Stats,
    redactor: &'a mut Redactor,
    emit: &'a mut F,
    /// Up to here an earlier turn looked at the window.
    known: usize,
    /// Where the chunk begins in the window, if something was given.
    first: Option<usize>,
    entries: usize,
    flow: ControlFlow<()>,
}

impl<'a, F: FnMut(Record<'_>) -> ControlFlow<()>> Outlet<'a, F> {
    fn new(stats: &'a mut Stats, redactor: &'a mut Redactor, emit: &'a mut F) -> Self {
        let flow = ControlFlow::Continue(());
        Self { stats, redactor, emit, known: 0, first: None, entries: 0, flow }
    }

    /// The record is seen for the first time, or has grown by lines that came later.
    fn count(&mut self, raw: &Raw<'_>) {
        let has_grown = raw.begin < self.known;
        self.stats.lines += u64::from(raw.lines) - u64::from(has_grown);
        self.stats.followed += u64::from(raw.lines - 1);
        self.stats.malformed += u64::from(raw.malformed);
        self.stats.continued += u64::from(raw.continued);
        self.stats.joined += u64::from(raw.joined);
    }

    fn give(&mut self, raw: &Raw<'_>, level: Option<Level>) {
        self.entries += 1;
        let text = clean(raw.content);
        self.stats.cleaned += u64::from(matches!(text, std::borrow::Cow::Owned(_)));
        let text = self.redactor.redact(&text).unwrap_or(&text);
        // A chunk goes back as far as the records in it do.
        let first = *self.first.get_or_insert(raw.from.min(self.known));
        let end = u32::try_from(raw.end - first).unwrap_or(u32::MAX);
        self.flow = (self.emit)(Record { timestamp: raw.timestamp, text, level, end });
    }
}
