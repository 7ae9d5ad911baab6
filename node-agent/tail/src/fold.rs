//! Equal errors: the first few are sent as they are, of the rest one record says how many there were.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{discover::Origin, identity::FileId, severity::Level, time::Timestamp};

/// So many of a pattern are sent as they are.
pub const FIRST: u32 = 5;

/// For so long the others are counted before that is told.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Patterns that are known at once; errors of others are sent as they are.
const PATTERNS: usize = 512;

/// Places where a pattern may be.
const WAYS: usize = 8;

/// Counts that wait to be told or to arrive.
const MOST_TOLD: usize = 1024;

/// Errors of one pattern that were not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// What they have in common.
    pub pattern: u64,
    /// Whose they are.
    pub origin: Origin,
    /// The file in which the first lies, and where it begins there.
    pub first: (FileId, u64),
    /// The file in which the last lies.
    pub file: FileId,
    /// A newer instance of the container existed.
    pub previous_instance: bool,
    /// Where the last begins and ends.
    pub last: (u64, u64),
    /// Their severity.
    pub level: Level,
    /// How many.
    pub count: u64,
    /// When the first and the last were written.
    pub times: Option<(Timestamp, Timestamp)>,
    /// One of them, or its beginning, fit to send.
    pub sample: String,
}

/// An error that may be one of many.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence {
    /// The same for equal errors of one container.
    pub pattern: u64,
    /// Its file.
    pub file: FileId,
    /// Where it begins and ends in it.
    pub place: (u64, u64),
    /// When it was written.
    pub timestamp: Option<Timestamp>,
}

/// What becomes of an error.
#[derive(Debug)]
pub enum Fate<'a> {
    /// It is sent as it is.
    Sent,
    /// It was counted.
    Counted,
    /// It is the first that is not sent: what there is to know of it goes in there.
    Begins(&'a mut Option<Box<Folded>>),
}

#[derive(Debug)]
struct Slot {
    pattern: u64,
    /// When the first was seen.
    began: Instant,
    sent: u32,
    folded: Option<Box<Folded>>,
}

/// All that is known of errors that are not sent. Its memory is bounded.
#[derive(Debug, Default)]
pub struct Folds {
    /// Empty until there is an error.
    slots: Vec<Option<Slot>>,
    /// When the next count is due, at the earliest.
    due: Option<Instant>,
    /// Counts that are to be told.
    open: VecDeque<Box<Folded>>,
    /// Those that were, and in which batch.
    told: VecDeque<(u64, Box<Folded>)>,
}

impl Folds {
    /// Decides what becomes of an error.
    pub fn take(&mut self, error: Occurrence, now: Instant) -> Fate<'_> {
        // What is read again was counted.
        let mut waiting = self.open.iter().chain(self.told.iter().map(|(_, folded)| folded));
        if waiting.any(|folded| folded.has(&error)) {
            return Fate::Counted;
        }
        self.slots.resize_with(PATTERNS, || None);
        let first = (error.pattern as usize % (PATTERNS / WAYS)) * WAYS;
        let set = &mut self.slots[first..first + WAYS];
        let known =
            set.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.pattern == error.pattern));
        let at = known.or_else(|| {
            // A place that is free, or the one of the pattern that was begun first, unless it has a count.
            let free = |slot: &Option<Slot>| slot.as_ref().is_none_or(|slot| slot.folded.is_none());
            let places = (0..WAYS).filter(|at| free(&set[*at]));
            places.min_by_key(|at| set[*at].as_ref().map(|slot| slot.began))
        });
        let Some(at) = at else { return Fate::Sent };
        let new = Slot { pattern: error.pattern, began: now, sent: 0, folded: None };
        if known.is_none() {
            set[at] = None;
        }
        let slot = set[at].get_or_insert(new);
        if slot.folded.is_none() && now.saturating_duration_since(slot.began) >= INTERVAL {
            (slot.began, slot.sent) = (now, 0);
        }
        if let Some(folded) = &slot.folded {
            if folded.has(&error) {
                return Fate::Counted;
            }
            // It was sent before the first was counted, and is read again.
            if folded.first.0 == error.file && error.place.0 < folded.first.1 {
                return Fate::Sent;
            }
        }
        if slot.sent < FIRST {
            slot.sent += 1;
            return Fate::Sent;
        }
        let due = slot.began + INTERVAL;
        match &mut slot.folded {
            Some(folded) => {
                folded.count += 1;
                (folded.file, folded.last) = (error.file, error.place);
                let first = folded.times.map(|(first, _)| first);
                folded.times = first.or(error.timestamp).zip(error.timestamp.or(folded.times.map(|t| t.1)));
                Fate::Counted
            }
            folded => {
                self.due = Some(self.due.map_or(due, |before| before.min(due)));
                Fate::Begins(folded)
            }
        }
    }

    /// Takes the next count to tell, for the batch with the given id; with `all`, whether it is due
    /// or not. False if there is none; else it is [`Self::told`].
    pub fn tell(&mut self, batch: u64, now: Instant, all: bool) -> bool {
        if self.due.is_some_and(|due| all || now >= due) {
            self.due = None;
            for slot in self.slots.iter_mut().flatten().filter(|slot| slot.folded.is_some()) {
                let due = slot.began + INTERVAL;
                if (all || now >= due) && self.open.len() + self.told.len() < MOST_TOLD {
                    self.open.extend(slot.folded.take());
                    (slot.began, slot.sent) = (now, 0);
                } else {
                    self.due = Some(self.due.map_or(due, |before| before.min(due)));
                }
            }
        }
        let next = self.open.pop_front();
        let is_any = next.is_some();
        self.told.extend(next.map(|folded| (batch, folded)));
        is_any
    }

    /// Whether there is nothing to tell, now or later.
    pub fn is_empty(&self) -> bool {
        self.due.is_none() && self.open.is_empty()
    }

    /// The count that was told last.
    pub fn told(&self) -> Option<&Folded> {
        self.told.back().map(|(_, folded)| &**folded)
    }

    /// Batches up to `up_to` arrived.
    pub fn ack(&mut self, up_to: u64) {
        while self.told.pop_front_if(|(batch, _)| *batch <= up_to).is_some() {}
    }

    /// What is not acknowledged is told again, and what was sent as it is may be read again.
    pub fn rewind(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            slot.sent = 0;
        }
        self.open.extend(self.told.drain(..).map(|(_, folded)| folded));
    }

    /// Counts that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.told.len()
    }
}

impl Folded {
    /// Whether it counts this error.
    fn has(&self, error: &Occurrence) -> bool {
        let (file, begin) = self.first;
        let (is_first, is_last) = (error.file == file, error.file == self.file);
        self.pattern == error.pattern
            && (is_first || is_last)
            && (!is_first || error.place.0 >= begin)
            && (!is_last || error.place.1 <= self.last.1)
    }

    /// What is told of them.
    pub fn text(&self) -> String {
        let seconds = self.times.map(|(first, last)| last.since(first).as_secs_f64());
        let within = seconds.map_or(String::new(), |seconds| format!(" within {seconds:.1} s"));
        format!("{} more like this{within}: {}", self.count, self.sample)
    }
}

#[cfg(test)]
mod tests;
