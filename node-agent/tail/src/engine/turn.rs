//! One turn: some bytes of one file become records.

use std::{
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{Engine, MOST_IN_FLIGHT, PATIENCE, Policy, Record, Stats, add, file::Tracked, file::Unfinished};
use crate::{
    identity::FileId,
    multiline,
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
        let mut entries = 0;
        let mut left_out = 0;
        let mut used = 0;
        let mut flow = ControlFlow::Continue(());
        for want in [READ, WINDOW] {
            let window = if file.packed {
                self.reader.packed(&file.file, start, want)?
            } else {
                self.reader.plain(&file.file, start, want)?
            };
            let unfinished = match want {
                _ if window.at_end => patience,
                READ => split::Unfinished::GoesOn,
                _ => split::Unfinished::Full,
            };
            used = self.splitter.split(self.format, window.bytes, unfinished, |raw| {
                count(self.stats, &raw);
                let level = level(&raw);
                if self.policy == Policy::Errors && !file.is_kept(level) {
                    left_out += u64::from(raw.lines);
                    return flow;
                }
                entries += 1;
                let text = clean(raw.content);
                self.stats.cleaned += u64::from(matches!(text, std::borrow::Cow::Owned(_)));
                let text = self.redactor.redact(&text).unwrap_or(&text);
                let end = u32::try_from(raw.end).unwrap_or(u32::MAX);
                flow = emit(Record { timestamp: raw.timestamp, text, level, end });
                flow
            });
            if file.packed && window.at_end && used == window.bytes.len() {
                file.set_size(start + used as u64);
            }
            if used > 0 || window.at_end {
                break;
            }
        }
        if used == 0 {
            let since = waited.map_or(self.now, |waited| waited.since);
            file.unfinished = Some(Unfinished { offset: start, size: file.size(), since, patience });
            return Ok(None);
        }
        let end = start + used as u64;
        self.stats.bytes_read += used as u64;
        self.stats.left_out += left_out;
        file.left_out += left_out;
        file.unfinished = None;
        if entries > 0 {
            file.ledger.claim(batch, end);
            left_out = std::mem::take(&mut file.left_out);
        } else {
            file.ledger.skip(end);
        }
        if file.packed && !file.is_unread() {
            self.reader.close_packed();
        }
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
fn level(raw: &Raw<'_>) -> Option<Level> {
    let first = match raw.lines {
        1 => raw.content,
        _ => raw.content.split(|byte| *byte == b'\n').next().unwrap_or_default(),
    };
    severity::level(first).or(raw.trace.then_some(Level::Error))
}

fn count(stats: &mut Stats, raw: &Raw<'_>) {
    stats.lines += u64::from(raw.lines);
    stats.followed += u64::from(raw.lines - 1);
    stats.malformed += u64::from(raw.malformed);
    stats.continued += u64::from(raw.cut);
    stats.joined += u64::from(raw.joined);
}
