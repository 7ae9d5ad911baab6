//! Messages by their numbers; the first in memory and all bytes are at hand.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Number;
use crate::uplink::{message::Message, receipt::Receipt, spool::log::Place};

#[derive(Debug)]
pub(super) struct Entry {
    pub enqueued: Timestamp,
    pub body: Body,
    pub receipt: Option<Receipt>,
}

#[derive(Debug)]
pub(super) enum Body {
    Memory(Message),
    Disk(Place),
    /// It was sent, and only the receipt is kept.
    Sent,
}

impl Entry {
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.body, Body::Memory(_))
    }

    /// Its bytes in memory.
    fn bytes(&self) -> usize {
        match &self.body {
            Body::Memory(message) => message.bytes(),
            Body::Disk(_) | Body::Sent => 0,
        }
    }
}

/// The messages that are due, or those that were taken.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: BTreeMap<Number, Entry>,
    /// Numbers of those in memory.
    in_memory: BTreeSet<Number>,
    /// Bytes in memory.
    bytes: usize,
}

impl Entries {
    pub(super) fn insert(&mut self, number: Number, entry: Entry) {
        if entry.is_in_memory() {
            self.in_memory.insert(number);
        }
        self.bytes += entry.bytes();
        self.all.insert(number, entry);
    }

    pub(super) fn remove(&mut self, number: Number) -> Option<Entry> {
        let entry = self.all.remove(&number)?;
        self.in_memory.remove(&number);
        self.bytes -= entry.bytes();
        Some(entry)
    }

    /// Removes all for which `is_meant` is true.
    pub(super) fn extract(&mut self, mut is_meant: impl FnMut(&Entry) -> bool) -> Vec<(Number, Entry)> {
        let removed: Vec<_> = self.all.extract_if(.., |_, entry| is_meant(entry)).collect();
        for (number, entry) in &removed {
            self.in_memory.remove(number);
            self.bytes -= entry.bytes();
        }
        removed
    }

    pub(super) fn first(&self) -> Option<(Number, &Entry)> {
        self.all.first_key_value().map(|(number, entry)| (*number, entry))
    }

    pub(super) fn first_in_memory(&self) -> Option<(Number, &Entry)> {
        let number = self.in_memory.first()?;
        self.all.get(number).map(|entry| (*number, entry))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether what is at hand is what is there.
    #[cfg(test)]
    pub(super) fn is_whole(&self) -> bool {
        let in_memory = self.all.iter().filter(|(_, entry)| entry.is_in_memory());
        in_memory.map(|(number, _)| *number).eq(self.in_memory.iter().copied())
            && self.bytes == self.all.values().map(Entry::bytes).sum::<usize>()
    }
}
