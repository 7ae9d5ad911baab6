//! Which records of a file [`Policy::Errors`](super::Policy::Errors) wants.

use crate::{position::Owed, severity::Level, split::Raw};

/// Records sent before a warning or error, beside those that are sent already.
pub(super) const BEFORE: usize = 5;

/// Records sent after it, whatever they are. What belongs to it, as the lines of a stack trace do, is one
/// record with it ([`crate::multiline`]).
const AFTER: u8 = 5;

/// How far back in a file records before a warning are looked for, in bytes, if it was read
/// in an earlier turn.
pub(super) const REACH: usize = 32 * 1024;

/// What is known of a file from one turn to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    /// What the next records are owed to.
    pub(super) owed: Owed,
    /// The last record was wanted, and so is what continues it.
    wanted: bool,
    /// So many lines up to where the file was read are left out unless the next is a
    /// warning. They lie in the file from the ledger's `settled` on; nothing else is kept
    /// of them.
    pub(super) open: u64,
    /// Where the first of them begins.
    pub(super) begin: u64,
}

impl Context {
    /// As it was where reading begins again.
    pub(super) fn owing(owed: Owed) -> Self {
        Self { owed, ..Self::default() }
    }

    /// The last record, after `owed` was, is not sent after all, nor is what continues it.
    pub(super) fn pass(&mut self, owed: Owed) {
        (self.owed, self.wanted) = (owed, false);
    }

    /// Whether the next record, of this level, is wanted.
    pub(super) fn wants(&mut self, level: Option<Level>, continued: bool) -> bool {
        if continued {
            return self.wanted;
        }
        let Owed(after) = self.owed;
        let is_warning = level >= Some(Level::Warn);
        self.owed = Owed(if is_warning { AFTER } else { after.saturating_sub(1) });
        self.wanted = is_warning || after > 0;
        self.wanted
    }
}

/// The last records of a window that were not wanted, since one was.
#[derive(Debug, Default)]
pub(super) struct Before {
    places: [Place; BEFORE],
    length: usize,
}

/// A record of the window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Where it begins.
    pub(super) begin: usize,
    /// From where splitting gives it again.
    pub(super) from: usize,
    lines: u32,
}

impl Before {
    /// The record was not wanted; returns how many lines that makes left out for good.
    pub(super) fn add(&mut self, raw: &Raw<'_>) -> u64 {
        if raw.continued {
            // So long a line is nobody's context, and its beginning is not either.
            let begun = self.places().last().filter(|last| last.begin == raw.begin).map(|last| last.lines);
            self.length -= usize::from(begun.is_some());
            return u64::from(raw.lines) + u64::from(begun.unwrap_or(0));
        }
        let left_out = if self.length == BEFORE { self.remove(1) } else { 0 };
        self.places[self.length] = Place { begin: raw.begin, from: raw.from, lines: raw.lines };
        self.length += 1;
        left_out
    }

    /// Those that begin earlier than what splitting from `from` gives are left out for good;
    /// returns how many lines.
    pub(super) fn pass(&mut self, from: usize) -> u64 {
        self.remove(self.places().iter().take_while(|place| place.from < from).count())
    }

    /// Forgets the oldest records; returns their lines.
    fn remove(&mut self, count: usize) -> u64 {
        let lines = self.places[..count].iter().map(|place| u64::from(place.lines)).sum();
        self.places.copy_within(count.., 0);
        self.length -= count;
        lines
    }

    /// The lines of all of them.
    pub(super) fn lines(&self) -> u64 {
        self.places().iter().map(|place| u64::from(place.lines)).sum()
    }

    /// The records, the oldest first.
    pub(super) fn places(&self) -> &[Place] {
        &self.places[..self.length]
    }

    /// All of them are sent.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_with_so_many_records_after_it() {
        let mut context = Context::default();
        let mut wants = |level| context.wants(level, false);
        assert!(!wants(None) && !wants(Some(Level::Info)));
        assert!(wants(Some(Level::Warn)));
        assert!(wants(None) && wants(Some(Level::Info)) && wants(None));
        assert!(wants(Some(Level::Debug)) && wants(None) && !wants(None));
        assert!(wants(Some(Level::Fatal)) && wants(Some(Level::Error)));
        assert!((0..AFTER).all(|_| wants(Some(Level::Info))));
        assert!(!wants(Some(Level::Info)));
    }

    #[test]
    fn what_continues_a_line_shares_its_fate() {
        let mut context = Context::default();
        assert!(!context.wants(None, false) && !context.wants(Some(Level::Error), true));
        assert!(context.wants(Some(Level::Error), false) && context.wants(None, true));
        assert_eq!(context.owed, Owed(AFTER));
    }

    #[test]
    fn the_last_records_are_remembered_and_all_others_counted() {
        let raw = |begin, continued| Raw {
            timestamp: None,
            content: b"",
            begin,
            end: begin + 1,
            from: begin,
            lines: 1,
            trace: false,
            malformed: false,
            continued,
            joined: false,
        };
        let begins = |before: &Before| before.places().iter().map(|place| place.begin).collect::<Vec<_>>();
        let mut before = Before::default();
        let passed: u64 = (0..7).map(|begin| before.add(&raw(begin, false))).sum();
        assert_eq!((passed, begins(&before)), (2, vec![2, 3, 4, 5, 6]));
        assert_eq!(before.add(&raw(6, true)) + before.add(&raw(6, true)), 3);
        assert_eq!((before.pass(4), begins(&before)), (2, vec![4, 5]));
        before.clear();
        assert!(before.places().is_empty());
    }
}
