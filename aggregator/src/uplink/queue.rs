//! The messages of one lane, kept until they are known to have arrived.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    message::Message,
    metrics::DropReason,
    receipt::Receipt,
    spool::log::{Evicted, Log, Place, Record, Refused},
};

/// Names a message of a lane; ascending in the order of arrival.
pub type Number = u64;

/// Messages in the order of their arrival, in memory up to a budget and on disk.
/// A message that was taken stays here until [`Queue::left`]; [`Queue::again`]
/// makes it due once more, at its old place. Of a message with a receipt that is
/// in memory the bytes go when it is taken: its sender still has them, and hears
/// of a loss.
#[derive(Debug)]
pub(crate) struct Queue {
    /// What is due in memory, and what is due again.
    due: BTreeMap<Number, Entry>,
    taken: BTreeMap<Number, Entry>,
    next: Number,
    /// Bytes in memory of what is due.
    due_bytes: usize,
    /// Bytes in memory of everything.
    bytes: usize,
    budget: usize,
    /// Nothing is due yet.
    is_held: bool,
    /// Messages that were dropped while nothing was due, and when the newest of
    /// them came.
    forgone: Option<(u64, Timestamp)>,
    disk: Option<Log>,
    /// Receipts of messages on disk that were never taken.
    receipts: BTreeMap<Number, Receipt>,
    drops: Drops,
}

/// Messages that were dropped, by reason.
pub(crate) type Drops = BTreeMap<DropReason, u64>;

#[derive(Debug)]
struct Entry {
    enqueued: Timestamp,
    body: Body,
    receipt: Option<Receipt>,
}

#[derive(Debug)]
enum Body {
    Memory(Message),
    Disk(Place),
    /// It was sent, and only the receipt is kept.
    Sent,
}

impl Entry {
    fn is_in_memory(&self) -> bool {
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

/// What waits in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages, in memory and on disk.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest of them came.
    pub oldest: Option<Timestamp>,
}

impl Queue {
    /// An empty queue for at most `budget` bytes in memory, and what is on disk.
    pub(crate) fn new(budget: usize, disk: Option<Log>) -> Self {
        Self {
            due: BTreeMap::new(),
            taken: BTreeMap::new(),
            next: disk.as_ref().and_then(Log::last).map_or(0, |last| last + 1),
            due_bytes: 0,
            bytes: 0,
            budget,
            is_held: false,
            forgone: None,
            disk,
            receipts: BTreeMap::new(),
            drops: Drops::new(),
        }
    }

    /// Nothing is due until [`Queue::release`].
    pub(crate) fn held(self) -> Self {
        Self { is_held: true, ..self }
    }

    /// What is kept is due from now on. What could not be kept, and was not
    /// forgotten since, is lost.
    pub(crate) fn release(&mut self) {
        self.is_held = false;
        let lost = self.forgone.take().map_or(0, |(lost, _)| lost);
        self.count(DropReason::LaneFull, lost);
    }

    /// Drops all that is on disk; the senders still have it.
    pub(crate) fn discard(&mut self) {
        while self.disk.as_mut().is_some_and(|disk| disk.evict().is_some()) {}
    }

    /// Whether nothing is due yet.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Adds a message in memory. Over budget, what was sent already is forgotten
    /// first, because it most likely arrived; then the oldest goes.
    pub(crate) fn push(&mut self, message: Message, now: Timestamp) {
        self.add(message, None, now);
        while self.bytes > self.budget && (self.pop_taken() || self.pop_due(DropReason::LaneFull)) {}
    }

    /// Drops the oldest message that was taken and is in memory.
    fn pop_taken(&mut self) -> bool {
        let in_memory = |(number, entry): (&Number, &Entry)| entry.is_in_memory().then_some(*number);
        let Some(number) = self.taken.iter().find_map(in_memory) else { return false };
        self.bytes -= self.taken.remove(&number).map_or(0, |entry| entry.bytes());
        self.count(DropReason::NotKept, 1);
        true
    }

    /// Drops the oldest message that is due and in memory.
    fn pop_due(&mut self, reason: DropReason) -> bool {
        let first = self.first_in_memory().and_then(|number| self.due.remove(&number));
        let Some(entry) = first else { return false };
        self.bytes -= entry.bytes();
        self.due_bytes -= entry.bytes();
        if self.is_held {
            let before = self.forgone.map_or(0, |(count, _)| count);
            self.forgone = Some((before + 1, entry.enqueued));
        } else {
            self.count(reason, 1);
        }
        true
    }

    fn first_in_memory(&self) -> Option<Number> {
        let in_memory = |(number, entry): (&Number, &Entry)| entry.is_in_memory().then_some(*number);
        self.due.iter().find_map(in_memory)
    }

    /// Adds a message in place of all that are due.
    pub(crate) fn replace(&mut self, message: Message, now: Timestamp) {
        self.due.clear();
        self.bytes -= std::mem::take(&mut self.due_bytes);
        self.add(message, None, now);
    }

    /// Whether `bytes` more fit in memory. What is larger than the queue has it
    /// for itself.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= self.budget
    }

    /// Adds a message in memory whose sender waits for the receipt.
    pub(crate) fn push_with(&mut self, message: Message, receipt: Receipt, now: Timestamp) {
        self.add(message, Some(receipt), now);
    }

    fn add(&mut self, message: Message, receipt: Option<Receipt>, now: Timestamp) {
        self.bytes += message.bytes();
        self.due_bytes += message.bytes();
        self.due.insert(self.next, Entry { enqueued: now, body: Body::Memory(message), receipt });
        self.next += 1;
    }

    /// Adds a message on disk.
    ///
    /// # Errors
    /// It is not there, and why.
    pub(crate) fn spool(&mut self, message: &Message, now: Timestamp) -> Result<(), Refused> {
        let Some(disk) = &mut self.disk else { return Err(Refused::Paused) };
        disk.append(self.next, now, message.record())?;
        self.next += 1;
        Ok(())
    }

    /// Gives the message that came last a receipt.
    pub(crate) fn attach(&mut self, receipt: Receipt) {
        self.receipts.insert(self.next - 1, receipt);
    }

    /// Messages on disk whose senders wait for a receipt.
    pub(crate) fn receipts(&self) -> usize {
        self.receipts.len()
    }

    /// Moves the oldest message that is due in memory to the disk; `Ok(false)`:
    /// none is.
    ///
    /// # Errors
    /// It stays in memory, and why.
    pub(crate) fn write_ahead(&mut self) -> Result<bool, Refused> {
        let (Some(number), Some(disk)) = (self.first_in_memory(), &mut self.disk) else { return Ok(false) };
        if disk.last().is_some_and(|last| last >= number) {
            return Ok(false);
        }
        if let Some(Entry { enqueued, body: Body::Memory(message), .. }) = self.due.get(&number) {
            disk.append(number, *enqueued, message.record())?;
        }
        let bytes = self.due.remove(&number).map_or(0, |entry| entry.bytes());
        self.bytes -= bytes;
        self.due_bytes -= bytes;
        Ok(true)
    }

    /// Whether the oldest message that is due is in memory.
    pub(crate) fn oldest_is_in_memory(&mut self) -> bool {
        let on_disk = self.disk.as_mut().and_then(Log::peek);
        self.first_in_memory().is_some_and(|first| on_disk.is_none_or(|(number, _)| first < number))
    }

    /// The oldest message that is due.
    pub(crate) fn take(&mut self) -> Option<(Number, Message)> {
        if self.is_held {
            return None;
        }
        loop {
            let first = self.due.first_key_value().map(|(number, _)| *number);
            let taken = match self.disk.as_mut().and_then(Log::peek) {
                Some((number, _)) if first.is_none_or(|first| number < first) => self.take_unread(),
                Some(_) => self.take_due(first?),
                None => {
                    // Of what is on disk nothing can be read any more.
                    self.receipts.clear();
                    self.take_due(first?)
                }
            };
            // What can't be read is counted, and the next one has its turn.
            if taken.is_some() {
                return taken;
            }
        }
    }

    fn take_unread(&mut self) -> Option<(Number, Message)> {
        let Record { number, time, place, payload } = self.disk.as_mut()?.next()?;
        let receipt = self.receipts.remove(&number);
        // What came before it and was not taken is damaged.
        let damaged = self.receipts.extract_if(..number, |_, _| true);
        damaged.for_each(|(_, receipt)| receipt.lost("it can't be read from the disk any more"));
        if receipt.as_ref().is_some_and(Receipt::is_stale) {
            self.disk.as_mut()?.remove(place);
            return None;
        }
        let message = Message::from_record(payload)?;
        self.taken.insert(number, Entry { enqueued: time, body: Body::Disk(place), receipt });
        Some((number, message))
    }

    fn take_due(&mut self, number: Number) -> Option<(Number, Message)> {
        let mut entry = self.due.remove(&number)?;
        self.due_bytes -= entry.bytes();
        if entry.receipt.as_ref().is_some_and(Receipt::is_stale) {
            // Its sender sends it again, after what was lost.
            self.bytes -= entry.bytes();
            if let (Body::Disk(place), Some(disk)) = (entry.body, &mut self.disk) {
                disk.remove(place);
            }
            return None;
        }
        let message = match &entry.body {
            Body::Memory(message) => message.clone(),
            Body::Disk(place) => Message::from_record(self.disk.as_mut()?.read(*place)?)?,
            Body::Sent => return None,
        };
        if entry.receipt.is_some() && entry.is_in_memory() {
            self.bytes -= entry.bytes();
            entry.body = Body::Sent;
        }
        self.taken.insert(number, entry);
        Some((number, message))
    }

    /// Forgets a message that arrived.
    pub(crate) fn left(&mut self, number: Number) {
        let Some(entry) = self.taken.remove(&number) else { return };
        self.bytes -= entry.bytes();
        if let (Body::Disk(place), Some(disk)) = (entry.body, &mut self.disk) {
            disk.remove(place);
        }
        if let Some(receipt) = entry.receipt {
            receipt.left();
        }
    }

    /// Makes a message due again that may not have arrived; one that is not
    /// kept is lost, and its receipt says so.
    pub(crate) fn again(&mut self, number: Number) {
        let Some(entry) = self.taken.remove(&number) else { return };
        match entry {
            Entry { body: Body::Sent, receipt, .. } => {
                if let Some(receipt) = receipt {
                    if receipt.is_last() {
                        self.count(DropReason::SenderGone, 1);
                    }
                    receipt.lost("the stream to the cloud ended too soon after");
                }
            }
            entry => {
                self.due_bytes += entry.bytes();
                self.due.insert(number, entry);
            }
        }
    }

    /// Forgets what is due and came before `time`.
    pub(crate) fn forget(&mut self, time: Timestamp) {
        while let Some(first) = self.due.first_entry()
            && first.get().enqueued < time
        {
            let entry = first.remove();
            self.bytes -= entry.bytes();
            self.due_bytes -= entry.bytes();
            if let (Body::Disk(place), Some(disk)) = (entry.body, &mut self.disk) {
                disk.remove(place);
            }
        }
        if let Some(disk) = &mut self.disk {
            disk.forget(time);
        }
        self.forgone.take_if(|(_, newest)| *newest < time);
    }

    /// Drops what came before `time`, except what an agent holds in its file and
    /// is in memory here.
    pub(crate) fn expire(&mut self, time: Timestamp) {
        while let Some(evicted) = self.disk.as_mut().and_then(|disk| disk.expire(time)) {
            self.evicted(evicted, DropReason::TooOld);
        }
        while let Some((_, Entry { enqueued, body: Body::Memory(_), receipt: None })) =
            self.due.first_key_value()
            && *enqueued < time
            && self.pop_due(DropReason::TooOld)
        {}
    }

    /// Drops the oldest file of the disk; says whether there was one.
    pub(crate) fn evict(&mut self) -> bool {
        let evicted = self.disk.as_mut().and_then(Log::evict);
        evicted.map(|evicted| self.evicted(evicted, DropReason::SpoolFull)).is_some()
    }

    fn evicted(&mut self, evicted: Evicted, reason: DropReason) {
        let was_there =
            |_: &Number, entry: &mut Entry| matches!(entry.body, Body::Disk(place) if evicted.had(place));
        let gone = self.due.extract_if(.., was_there).chain(self.taken.extract_if(.., was_there));
        let waited = self.receipts.extract_if(..=evicted.last, |_, _| true).map(|(_, receipt)| receipt);
        for receipt in gone.filter_map(|(_, entry)| entry.receipt).chain(waited) {
            receipt.lost("more urgent messages took its place on disk");
        }
        self.count(reason, evicted.records);
    }

    fn count(&mut self, reason: DropReason, count: u64) {
        if count > 0 {
            *self.drops.entry(reason).or_default() += count;
        }
    }

    /// What was dropped since the last call.
    pub(crate) fn drops(&mut self) -> Drops {
        let corrupt = self.disk.as_mut().map_or(0, Log::corrupt);
        self.count(DropReason::Corrupt, corrupt);
        std::mem::take(&mut self.drops)
    }

    /// When the oldest message came that has not left.
    pub(crate) fn oldest(&mut self) -> Option<Timestamp> {
        let firsts = [self.due.first_key_value(), self.taken.first_key_value()];
        let firsts = firsts.into_iter().flatten().map(|(number, entry)| (*number, entry.enqueued));
        firsts.chain(self.disk.as_mut().and_then(Log::peek)).min().map(|(_, time)| time)
    }

    /// What is due.
    pub(crate) fn depth(&mut self) -> Depth {
        let again = self.due.first_key_value().map(|(number, entry)| (*number, entry.enqueued));
        let on_disk = self.disk.as_mut().and_then(Log::peek);
        let (records, bytes) = self.disk.as_ref().map_or((0, 0), Log::unread);
        Depth {
            messages: self.due.len() as u64 + records,
            bytes: self.due_bytes as u64 + bytes,
            oldest: again.into_iter().chain(on_disk).min().map(|(_, time)| time),
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The part on disk.
    pub(crate) fn disk(&self) -> Option<&Log> {
        self.disk.as_ref()
    }
}

#[cfg(test)]
mod tests;
