//! Sending what was left out, when it turns out to matter: a pod's last lines are read again
//! from the files that are still there.

use std::{collections::VecDeque, io, ops::ControlFlow, time::Instant};

use memchr::memchr;

use super::{
    Engine, Policy, Record, Series, add,
    file::Tracked,
    turn::{Outlet, Turn, level_of},
};
use crate::{
    identity::FileId,
    position::{Ledger, Owed, Reached},
    read::{READ, Reader, WINDOW},
    seek::offset_at,
    split::{Format, Splitter, Unfinished},
    time::Timestamp,
};

/// Bytes of a pod's files that are read again at most, the last of them, unless all are asked for.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// Files that may wait to be read again.
const MOST_FILES: usize = 4096;

/// Bytes of a file that are read again. They are not part of its position: what was not
/// sent of them when the process ends is not sent.
#[derive(Debug)]
pub(super) struct LookBack {
    series: u64,
    file: FileId,
    ledger: Ledger,
    /// Where they end.
    end: u64,
    /// Before that they hold the rest of a line, which is passed over; the end of time until its end was seen.
    lines_from: u64,
    /// What was written before is passed over.
    since: Timestamp,
}

impl Engine {
    /// Has what was written of a pod since `since`, and was read already but left out, sent too, as far as
    /// files still hold it; since 1970: all of it. What was sent of it is sent again, with the same places in its file.
    pub fn look_back(&mut self, uid: &str, since: Timestamp) {
        let is_meant = |series: &Series| series.origin.uid == uid && series.is_wanted();
        let ids: Vec<_> =
            self.series.iter().filter(|(_, series)| is_meant(series)).map(|(id, _)| *id).collect();
        for id in &ids {
            let Some(series) = self.series.get_mut(id) else { continue };
            let mut room =
                if since == Timestamp::default() { u64::MAX } else { MOST_BYTES / ids.len() as u64 };
            let mut found = VecDeque::new();
            for file in series.files.iter_mut().rev() {
                if self.look_backs.len() + found.len() >= MOST_FILES {
                    let path = series.directory.join(&file.name);
                    let text = format!(
                        "cannot be read again: {MOST_FILES} files wait for that already; ask again later"
                    );
                    add(&mut self.problems, path, text);
                    break;
                }
                let (Some(name), end) = (file.id, file.whole.unwrap_or(file.ledger.read())) else { continue };
                let by_time = if file.packed || series.format == Format::Plain {
                    Ok(0)
                } else {
                    offset_at(&file.file, end, since)
                };
                let from = by_time.unwrap_or_else(|error| {
                    let path = series.directory.join(&file.name);
                    add(&mut self.problems, path, format!("cannot be read again: {error}"));
                    end
                });
                let begin = from.max(end.saturating_sub(room));
                file.whole = Some(begin);
                room -= end - begin;
                if begin < end {
                    let ledger = Ledger::starting_at(begin);
                    let lines_from = if begin > from { u64::MAX } else { begin };
                    found.push_front(LookBack { series: *id, file: name, ledger, end, lines_from, since });
                }
                if begin > 0 {
                    break;
                }
            }
            self.look_backs.extend(found);
        }
    }

    /// A turn of a file that is read again: for when nothing new is to be read.
    pub(super) fn take_look_back(
        &mut self,
        batch: u64,
        now: Instant,
        emit: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Option<(u64, usize, Turn)> {
        for look_back in &mut self.look_backs {
            let Some(series) = self.series.get(&look_back.series).filter(|series| series.is_wanted()) else {
                look_back.end = look_back.ledger.read();
                continue;
            };
            let room = self.budget.room(&series.origin, now);
            if !look_back.is_unread() || Policy::All.waits(room) {
                continue;
            }
            let Some(at) = series.files.iter().position(|file| file.id == Some(look_back.file)) else {
                look_back.end = look_back.ledger.read();
                continue;
            };
            let mut outlet = Outlet::new(&mut self.stats, &mut self.redactor, Policy::All, room, &mut *emit);
            let before = look_back.ledger.in_flight();
            let file = &series.files[at];
            match look_back.turn(batch, file, series.format, &mut self.reader, &mut self.again, &mut outlet) {
                Ok(Some(turn)) => {
                    if file.packed && !look_back.is_unread() {
                        self.reader.close_packed();
                    }
                    self.stats.looked_back += turn.entries as u64;
                    self.in_flight += look_back.ledger.in_flight() - before;
                    self.budget.spend(&series.origin, turn.bytes);
                    return Some((look_back.series, at, turn));
                }
                Ok(None) => look_back.end = look_back.ledger.read(),
                Err(error) => {
                    look_back.end = look_back.ledger.read();
                    let sentence = format!("cannot be read again: {error}");
                    add(&mut self.problems, series.directory.join(&file.name), sentence);
                }
            }
        }
        None
    }

    /// Whether something is to be read again.
    pub(super) fn looks_back(&self) -> bool {
        self.look_backs.iter().any(LookBack::is_unread)
    }

    /// Batches up to `up_to` arrived.
    pub(super) fn ack_look_backs(&mut self, up_to: u64) {
        self.look_backs.iter_mut().for_each(|look_back| look_back.ledger.ack(up_to));
        self.look_backs.retain(|look_back| !look_back.is_done());
        self.in_flight += self.look_backs.iter().map(|look_back| look_back.ledger.in_flight()).sum::<usize>();
    }

    /// What has no answer is read again once more.
    pub(super) fn rewind_look_backs(&mut self) {
        for look_back in &mut self.look_backs {
            look_back.ledger.rewind();
        }
    }
}

impl LookBack {
    /// Bytes from here on were not sent yet and may be.
    pub(super) fn is_unread(&self) -> bool {
        self.ledger.read() < self.end
    }

    fn is_done(&self) -> bool {
        !self.is_unread() && self.ledger.in_flight() == 0
    }

    /// Reads some of it; `None` if the file is shorter than it was.
    fn turn<F: FnMut(Record<'_>) -> ControlFlow<()>>(
        &mut self,
        batch: u64,
        file: &Tracked,
        format: Format,
        reader: &mut Reader,
        splitter: &mut Splitter,
        outlet: &mut Outlet<'_, F>,
    ) -> io::Result<Option<Turn>> {
        let start = self.ledger.read();
        for want in [READ, WINDOW] {
            let left = usize::try_from(self.end - start).unwrap_or(usize::MAX);
            let window = if file.packed {
                reader.packed(&file.file, start, want.min(left))?
            } else {
                reader.plain(&file.file, start, want.min(left))?
            };
            let cut = if start >= self.lines_from {
                0
            } else if let Some(end) = memchr(b'\n', window.bytes) {
                self.lines_from = start + end as u64 + 1;
                end + 1
            } else {
                window.bytes.len()
            };
            let bytes = &window.bytes[cut..];
            let unfinished = match want {
                _ if window.bytes.len() >= left || window.at_end => Unfinished::Ends,
                READ => Unfinished::GoesOn,
                _ => Unfinished::Full,
            };
            let used = cut
                + splitter.split(format, bytes, unfinished, |raw| {
                    if raw.timestamp.is_none_or(|written| written >= self.since) {
                        let raw = raw.after(cut);
                        outlet.give(&raw, level_of(&raw), "");
                    }
                    outlet.flow
                });
            if used > 0 {
                let end = start + used as u64;
                let reached = Reached { settled: end, read: end, owed: Owed::default() };
                let (entries, bytes) = (outlet.entries, outlet.bytes);
                if entries > 0 {
                    self.ledger.claim(batch, reached);
                } else {
                    self.ledger.skip(reached);
                }
                let start = start + outlet.first.unwrap_or_default() as u64;
                return Ok(Some(Turn { file: self.file, start, end, left_out: 0, entries, bytes }));
            }
        }
        Ok(None)
    }
}
