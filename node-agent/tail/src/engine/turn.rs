//! One turn: some bytes of one file become records.

use std::{
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    Engine, PATIENCE, Policy, Record, Stats, add,
    context::{Before, REACH},
    file::{Tracked, Unfinished},
    folding::Folding,
    gap::{Gaps, Reason},
    splice::Splice,
};
use crate::{
    budget::Room,
    class,
    discover::Origin,
    fold::Folds,
    identity::FileId,
    multiline,
    position::{Owed, Reached},
    read::{READ, Reader, WINDOW, Window},
    redact::Redactor,
    severity::{self, Level},
    split::{self, Format, Raw, Splitter},
    text::{clean, fit},
};

/// What a turn gave.
pub(super) struct Turn {
    pub(super) file: FileId,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) left_out: u64,
    pub(super) entries: usize,
    /// Bytes of their texts.
    pub(super) bytes: u64,
}

/// How a file is read in a turn.
struct Task<'a> {
    reader: &'a mut Reader,
    splitter: &'a mut Splitter,
    again: &'a mut Splitter,
    redactor: &'a mut Redactor,
    stats: &'a mut Stats,
    gaps: &'a mut Gaps,
    folds: &'a mut Folds,
    series: u64,
    previous_instance: bool,
    origin: &'a Origin,
    format: Format,
    policy: Policy,
    room: Room,
    now: Instant,
    ending: bool,
}

impl Engine {
    /// The next file's turn: its series, its place there, and what it gave.
    pub(super) fn take_turn(
        &mut self,
        batch: u64,
        now: Instant,
        emit: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Option<(u64, usize, Turn)> {
        while let Some(id) = self.ready.pop_front() {
            let Some(series) = self.series.get_mut(&id) else { continue };
            series.is_queued = false;
            let Some(policy @ (Policy::All | Policy::Errors)) = series.policy else { continue };
            let room = self.budget.room(&series.origin, now);
            if policy.waits(room) {
                series.is_queued = true;
                self.held.push_back(id);
                continue;
            }
            let mut task = Task {
                reader: &mut self.reader,
                splitter: &mut self.splitter,
                again: &mut self.again,
                redactor: &mut self.redactor,
                stats: &mut self.stats,
                gaps: &mut self.gaps,
                folds: &mut self.folds,
                series: id,
                previous_instance: false,
                origin: &series.origin,
                format: series.format,
                policy,
                room,
                now,
                ending: self.ending,
            };
            let newest = series.files.last().map(|file| file.order.instance);
            for at in 0..series.files.len() {
                let (files, newer) = series.files.split_at_mut(at + 1);
                let Some(file) = files.last_mut() else { break };
                let mut next =
                    newer.first_mut().filter(|next| task.format == Format::Cri && file.goes_on_in(next));
                task.previous_instance = Some(file.order.instance) < newest;
                let in_flight = |file: &Tracked, next: Option<&Tracked>| {
                    file.ledger.in_flight() + next.map_or(0, |next| next.ledger.in_flight())
                };
                let before = in_flight(file, next.as_deref());
                match task.read(file, next.as_deref_mut(), batch, emit) {
                    Ok(None) => {
                        let is_begun = next.is_none_or(|next| next.ledger.read() > 0);
                        if !is_begun && !task.ending && file.is_settling(now) {
                            // What comes next may begin with the end of its last line.
                            break;
                        }
                    }
                    Ok(Some(turn)) => {
                        self.in_flight += in_flight(file, next.as_deref()) - before;
                        if turn.entries > 0 {
                            self.unanswered.insert(id);
                        }
                        let packed = file.packed;
                        series.is_queued = series.files.iter().any(Tracked::is_unread);
                        // A packed file is read in one go: going back and forth
                        // between two would unpack them again and again.
                        match (series.is_queued, packed) {
                            (false, _) => {}
                            (true, true) => self.ready.push_front(id),
                            (true, false) => self.ready.push_back(id),
                        }
                        self.budget.spend(&series.origin, turn.bytes);
                        return Some((id, at, turn));
                    }
                    Err(error) => {
                        let path = series.directory.join(&file.name);
                        let sentence = format!("cannot be read on: {error}");
                        add(&mut self.problems, path, sentence.clone());
                        if file.packed {
                            // It is damaged, and will not be whole again.
                            task.gaps.add(&series.origin, Reason::Damaged, file.give_up(sentence), None);
                            break;
                        }
                    }
                }
            }
            if series.files.iter().any(Tracked::is_unread) {
                self.waiting.insert(id);
            }
        }
        None
    }
}

impl Task<'_> {
    /// A turn of `file`, which `next` goes on from.
    fn read(
        &mut self,
        file: &mut Tracked,
        next: Option<&mut Tracked>,
        batch: u64,
        emit: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> io::Result<Option<Turn>> {
        let Some(id) = file.id.filter(|_| file.is_unread()) else { return Ok(None) };
        let start = file.ledger.read();
        let waited = file.unfinished.filter(|unfinished| unfinished.offset == start);
        // Before that, what a runtime still holds may follow.
        let is_over = self.ending || file.packed || file.quiet(self.now) >= multiline::PAUSE;
        let next = next.filter(|next| next.id.is_some());
        let follows = next.is_some();
        let next = next.filter(|_| is_over);
        let since = waited.map_or(Duration::ZERO, |waited| self.now.saturating_duration_since(waited.since));
        let is_late = self.ending || since >= PATIENCE;
        let patience = self.patience(file, since, follows, next.is_some());
        if next.is_none() && waited.is_some_and(|w| w.size == file.size() && w.patience == patience) {
            return Ok(None);
        }
        let seam = start - file.lead();
        let mut from = file.ledger.settled();
        let mut want = READ;
        let mut splice: Option<Splice> = None;
        let mut left_out = 0;
        let mut over_budget = 0;
        let mut folding = Folding {
            folds: self.folds,
            origin: self.origin,
            series: self.series,
            file: id,
            previous_instance: self.previous_instance,
            now: self.now,
        };
        let mut outlet = Outlet::new(self.stats, self.redactor, self.policy, self.room, emit);
        let (end, before, taken) = loop {
            let base = match &splice {
                Some(splice) => splice.base,
                None if file.packed => from,
                None => from.min(seam),
            };
            let lead = (from - base) as usize;
            let window = match &splice {
                Some(splice) => Window { bytes: &splice.bytes, at_end: true },
                None => file.window(self.reader, base, lead + want)?,
            };
            // The rest is the next file's.
            let own = splice.as_ref().map_or(window.bytes.len(), |splice| splice.own);
            let place = |offset: u64| own.min((offset - base) as usize);
            if !file.packed && !file.joins(&window.bytes[place(seam)..place(start)]) {
                let former = file.begin_again();
                self.gaps.add(self.origin, Reason::Emptied, former.unread, None);
                self.gaps.watch(self.origin, Reason::Emptied, former.ledger);
                return Ok(None);
            }
            if file.packed && window.at_end && base + own as u64 <= start {
                // Its size was a guess.
                file.found(start, true);
                return Ok(None);
            }
            let bytes = &window.bytes[place(from)..];
            let unfinished = match want {
                _ if splice.is_some() => split::Unfinished::Ends,
                _ if window.at_end => patience,
                READ => split::Unfinished::GoesOn,
                _ => split::Unfinished::Full,
            };
            outlet.known = usize::try_from(start - from).unwrap_or(usize::MAX);
            let own = own.saturating_sub(lead);
            // Nearly all of it is given out, or next to nothing.
            let text = if self.policy == Policy::All { outlet.glance(bytes) } else { "" };
            let mut before = Before::default();
            let used = self.splitter.split(self.format, bytes, unfinished, |raw| {
                if raw.end <= outlet.known {
                    if from + raw.begin as u64 >= file.context.begin {
                        before.add(&raw);
                    }
                    return ControlFlow::Continue(());
                }
                if splice.as_ref().is_some_and(|splice| splice.has_known(&raw, own)) {
                    return ControlFlow::Continue(());
                }
                outlet.count(&raw);
                let level = level_of(&raw);
                let owed = file.context.owed;
                if self.policy == Policy::Errors && !file.context.wants(level, raw.continued) {
                    left_out += before.add(&raw);
                    return outlet.flow;
                }
                if self.policy == Policy::Errors
                    && let Some(level) = level.filter(|level| *level >= Level::Warn && !raw.continued)
                    && folding.takes(&raw, level, from, outlet.redactor)
                {
                    // It is no reason for context, nor is it any.
                    file.context.pass(owed);
                    left_out += std::mem::take(&mut before).lines();
                    outlet.stats.folded += u64::from(raw.lines);
                    return outlet.flow;
                }
                if outlet.is_only_for_errors() {
                    over_budget += std::mem::take(&mut before).lines();
                    if level < Some(Level::Warn) {
                        over_budget += u64::from(raw.lines);
                        return outlet.flow;
                    }
                }
                for place in before.places() {
                    let window = &bytes[place.from..];
                    self.again.split(self.format, window, split::Unfinished::Ends, |raw| {
                        let raw = raw.after(place.from);
                        if raw.begin == place.begin {
                            outlet.give(&raw, level_of(&raw), "");
                            return ControlFlow::Break(());
                        }
                        ControlFlow::Continue(())
                    });
                }
                before.clear();
                outlet.give(&raw, level, text);
                outlet.flow
            });
            if used > outlet.known {
                let own_used = used.min(own);
                let end = from + own_used as u64;
                if file.packed {
                    file.found(end, window.at_end && own_used == own);
                } else {
                    file.keep_seam(&window.bytes[..lead + own_used]);
                }
                let is_over = unfinished == split::Unfinished::Ends;
                left_out += before.pass(if is_over { used } else { used.saturating_sub(REACH) });
                // What lies beyond is the next file's.
                break (end, before, (used - own_used) as u64);
            }
            if !window.at_end && want < WINDOW {
                want = WINDOW;
            } else if unfinished.is_forced() && from < start {
                // What is not waited for has to begin the window.
                left_out += std::mem::take(&mut file.context.open);
                from = start;
            } else if let Some(next) = &next
                && splice.is_none()
                && let own = window.bytes.to_vec()
                && let Some(spliced) =
                    Splice::new(base, own, (start - base) as usize, next, self.reader, is_late)
            {
                splice = Some(spliced);
            } else {
                let since = waited.map_or(self.now, |waited| waited.since);
                file.unfinished = Some(Unfinished { offset: start, size: file.size(), since, patience });
                return Ok(None);
            }
        };
        let Outlet { entries, first, bytes, .. } = outlet;
        self.stats.bytes_read += end - start;
        self.stats.left_out += left_out;
        self.stats.over_budget += over_budget;
        file.left_out += left_out + over_budget;
        file.unfinished = None;
        file.context.open = before.lines();
        let settled = before.places().first().map_or(end, |place| {
            file.context.begin = from + place.begin as u64;
            end.min(from + place.from as u64)
        });
        let reached = Reached { settled, read: end, owed: file.context.owed };
        file.whole = (self.policy == Policy::All).then(|| file.whole.unwrap_or(start));
        if entries > 0 {
            file.ledger.claim(batch, reached);
            left_out = std::mem::take(&mut file.left_out);
        } else {
            file.ledger.skip(reached);
        }
        if let Some(next) = next.filter(|next| taken > 0 && next.ledger.read() == 0) {
            // It has arrived when the line has that it is the rest of.
            let reached = Reached { settled: taken, read: taken, owed: Owed::default() };
            if entries > 0 {
                next.ledger.claim(batch, reached)
            } else {
                next.ledger.skip(reached)
            }
            self.stats.bytes_read += taken;
            next.whole = (self.policy == Policy::All).then_some(0);
        }
        if file.packed && !file.is_unread() {
            self.reader.close_packed();
        }
        let start = first.map_or(start, |first| from + first as u64);
        Ok(Some(Turn { file: id, start, end, left_out, entries, bytes }))
    }

    /// What is still waited for at the end of a file, after a record waited for it `since`. The next file may have it where
    /// one `follows`, and is looked into if `goes_on`.
    fn patience(&self, file: &Tracked, since: Duration, follows: bool, goes_on: bool) -> split::Unfinished {
        if !goes_on && (self.ending || file.packed || (since >= PATIENCE && !follows)) {
            split::Unfinished::Ends
        } else if goes_on || file.quiet(self.now) >= multiline::PAUSE || since >= multiline::SPAN {
            split::Unfinished::Quiet
        } else {
            split::Unfinished::Wait
        }
    }
}

/// The severity that a record's first line names; a trace that names none is an error.
pub(super) fn level_of(raw: &Raw<'_>) -> Option<Level> {
    let first = match raw.lines {
        1 => raw.content,
        _ => raw.content.split(|byte| *byte == b'\n').next().unwrap_or_default(),
    };
    severity::level(first).or(raw.trace.then_some(Level::Error))
}

/// Makes records fit to send and gives them out.
pub(super) struct Outlet<'a, F> {
    stats: &'a mut Stats,
    redactor: &'a mut Redactor,
    emit: &'a mut F,
    /// Up to here an earlier turn looked at the window.
    known: usize,
    /// Where the chunk begins in the window, if something was given.
    pub(super) first: Option<usize>,
    pub(super) entries: usize,
    pub(super) bytes: u64,
    policy: Policy,
    room: Room,
    pub(super) flow: ControlFlow<()>,
}

impl<'a, F: FnMut(Record<'_>) -> ControlFlow<()>> Outlet<'a, F> {
    pub(super) fn new(
        stats: &'a mut Stats,
        redactor: &'a mut Redactor,
        policy: Policy,
        room: Room,
        emit: &'a mut F,
    ) -> Self {
        let flow = ControlFlow::Continue(());
        Self { stats, redactor, emit, known: 0, first: None, entries: 0, bytes: 0, policy, room, flow }
    }

    /// There is no room for context.
    fn is_only_for_errors(&self) -> bool {
        self.policy == Policy::Errors && self.room.others <= 0
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

    /// Looks over the window whose records are given next, and returns its beginning that is text as it is.
    pub(super) fn glance<'w>(&mut self, window: &'w [u8]) -> &'w str {
        self.redactor.glance(window);
        fit(window)
    }

    /// `text`: what [`glance`](Self::glance) returned, if it was called.
    pub(super) fn give(&mut self, raw: &Raw<'_>, level: Option<Level>, text: &str) {
        self.entries += 1;
        let cleaned;
        let text = if let Some(line) = raw.line_of(text) {
            self.redactor.redact_line(line, raw.begin..raw.end).unwrap_or(line)
        } else {
            cleaned = clean(raw.content);
            self.stats.cleaned += u64::from(matches!(cleaned, std::borrow::Cow::Owned(_)));
            self.redactor.redact(&cleaned).unwrap_or(&cleaned)
        };
        // A chunk goes back as far as the records in it do.
        let first = *self.first.get_or_insert(raw.from.min(self.known));
        let end = u32::try_from(raw.end - first).unwrap_or(u32::MAX);
        self.bytes += text.len() as u64;
        self.room.shrink(text.len());
        let class = if level >= Some(Level::Error) { class::class(text) } else { None };
        self.flow = (self.emit)(Record { timestamp: raw.timestamp, text, level, class, end });
        if self.policy.waits(self.room) {
            self.flow = ControlFlow::Break(());
        }
    }
}
