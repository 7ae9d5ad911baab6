//! The messages of one lane, kept until they are known to have arrived.

mod entries;

use std::{collections::BTreeMap, ops::RangeBounds};

use jiff::Timestamp;

use super::{
    message::Message,
    metrics::DropReason,
    receipt::Receipt,
    spool::log::{Evicted, Log, Record, Refused},
};
use entries::{Body, Entries, Entry};

/// Messages that may be taken at a time: each costs some memory until it has left.
pub(super) const MOST_TAKEN: usize = 128 * 1024;

/// Messages that a take looks at: all that a lost load has made worthless would
/// hold up everyone else.
const MOST_TRIES: usize = 64;

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
    due: Entries,
    taken: Entries,
    next: Number,
    /// Bytes in memory, at most.
    budget: usize,
    /// Messages that are taken and have not left, at most.
    most_taken: usize,
    /// Nothing is due yet.
    is_held: bool,
    /// Messages that were dropped while nothing was due, and when the oldest and
    /// the newest of them came.
    forgone: Option<(u64, Timestamp, Timestamp)>,
    disk: Option<Log>,
    /// Receipts of messages on disk that were never taken.
    receipts: BTreeMap<Number, Receipt>,
    drops: Drops,
    /// As it was at the last [`Queue::news`].
    filling: Filling,
}

/// What somebody may wait for to become less.
#[derive(Clone, Copy, Debug, Default)]
struct Filling {
    due_bytes: usize,
    bytes: usize,
    receipts: usize,
    disk: u64,
    is_all_taken: bool,
}

/// Who need not wait any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News {
    /// Who waits for room: something became less.
    pub room: bool,
    /// Who waits for what is due: so much was taken that nothing more could be.
    pub due: bool,
}

/// Messages that were dropped, by reason.
pub(crate) type Drops = BTreeMap<DropReason, u64>;

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
            due: Entries::default(),
            taken: Entries::default(),
            next: disk.as_ref().and_then(Log::last).map_or(0, |last| last + 1),
            budget,
            most_taken: MOST_TAKEN,
            is_held: false,
            forgone: None,
            disk,
            receipts: BTreeMap::new(),
            drops: Drops::new(),
            filling: Filling::default(),
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
        let lost = self.forgone.take().map_or(0, |(lost, ..)| lost);
        self.count(DropReason::LaneFull, lost);
    }

    /// The process ends: what is due is taken, however much was before it.
    pub(crate) fn finish(&mut self) {
        self.most_taken = usize::MAX;
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
        while self.bytes() > self.budget && (self.pop_taken() || self.pop_due(DropReason::LaneFull)) {}
    }

    /// Drops the oldest message that was taken and is in memory.
    fn pop_taken(&mut self) -> bool {
        let Some((number, _)) = self.taken.first_in_memory() else { return false };
        self.taken.remove(number);
        self.count(DropReason::NotKept, 1);
        true
    }

    /// Drops the oldest message that is due and in memory.
    fn pop_due(&mut self, reason: DropReason) -> bool {
        let first = self.due.first_in_memory().map(|(number, _)| number);
        let Some(entry) = first.and_then(|number| self.due.remove(number)) else { return false };
        if self.is_held {
            let came = entry.enqueued;
            let (count, oldest, _) = self.forgone.unwrap_or((0, came, came));
            self.forgone = Some((count + 1, oldest, came));
        } else {
            self.count(reason, 1);
        }
        true
    }

    /// Adds a message in place of all that are due.
    pub(crate) fn replace(&mut self, message: Message, now: Timestamp) {
        self.due = Entries::default();
        self.add(message, None, now);
    }

    /// Whether `bytes` more fit in memory. What is larger than the queue has it
    /// for itself.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes() == 0 || self.bytes() + bytes <= self.budget
    }

    /// Adds a message in memory whose sender waits for the receipt.
    pub(crate) fn push_with(&mut self, message: Message, receipt: Receipt, now: Timestamp) {
        self.add(message, Some(receipt), now);
    }

    fn add(&mut self, message: Message, receipt: Option<Receipt>, now: Timestamp) {
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
        let (Some((number, entry)), Some(disk)) = (self.due.first_in_memory(), &mut self.disk) else {
            return Ok(false);
        };
        if disk.last().is_some_and(|last| last >= number) {
            return Ok(false);
        }
        if let Body::Memory(message) = &entry.body {
            disk.append(number, entry.enqueued, message.record())?;
        }
        self.due.remove(number);
        Ok(true)
    }

    /// Whether the oldest message that is due is in memory.
    pub(crate) fn oldest_is_in_memory(&mut self) -> bool {
        let unread = self.disk.as_mut().and_then(Log::peek);
        self.due.first().is_some_and(|(first, entry)| {
            entry.is_in_memory() && unread.is_none_or(|(number, _)| first < number)
        })
    }

    /// Number of the oldest message that is due and may be taken, and whether it is
    /// on disk and never was.
    fn next_due(&mut self) -> Option<(Number, bool)> {
        if self.is_held || self.is_all_taken() {
            return None;
        }
        let first = self.due.first().map(|(number, _)| number);
        let Some((unread, _)) = self.disk.as_mut().and_then(Log::peek) else {
            self.lose_damaged(..);
            return Some((first?, false));
        };
        match first {
            Some(first) if first < unread => Some((first, false)),
            _ => Some((unread, true)),
        }
    }

    /// Whether something may be taken, although the last take gave nothing.
    pub(crate) fn is_due(&mut self) -> bool {
        self.next_due().is_some()
    }

    fn is_all_taken(&self) -> bool {
        self.taken.len() >= self.most_taken
    }

    /// The oldest message that is due; `None` also if it would have to look for it
    /// for too long, see [`Queue::is_due`].
    pub(crate) fn take(&mut self) -> Option<(Number, Message)> {
        for _ in 0..MOST_TRIES {
            let (number, is_unread) = self.next_due()?;
            let taken = if is_unread { self.take_unread(number) } else { self.take_due(number) };
            // What can't be read is counted, and the next one has its turn.
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    fn take_unread(&mut self, number: Number) -> Option<(Number, Message)> {
        // Its sender sends it again, after what was lost.
        if self.receipts.get(&number).is_some_and(Receipt::is_stale) {
            self.receipts.remove(&number);
            self.disk.as_mut()?.skip();
            return None;
        }
        let Record { number, time, place, payload } = self.disk.as_mut()?.next()?;
        self.lose_damaged(..number);
        let receipt = self.receipts.remove(&number);
        if receipt.as_ref().is_some_and(Receipt::is_stale) {
            self.disk.as_mut()?.remove(place);
            return None;
        }
        let message = Message::from_record(payload)?;
        self.taken.insert(number, Entry { enqueued: time, body: Body::Disk(place), receipt });
        Some((number, message))
    }

    /// What was not taken, and came before what can be read, is damaged.
    fn lose_damaged(&mut self, numbers: impl RangeBounds<Number>) {
        let damaged = self.receipts.extract_if(numbers, |_, _| true);
        damaged.for_each(|(_, receipt)| receipt.lost("it can't be read from the disk any more"));
    }

    fn take_due(&mut self, number: Number) -> Option<(Number, Message)> {
        let mut entry = self.due.remove(number)?;
        if entry.receipt.as_ref().is_some_and(Receipt::is_stale) {
            self.gone(entry);
            return None;
        }
        let message = match &entry.body {
            Body::Memory(message) => message.clone(),
            Body::Disk(place) => Message::from_record(self.disk.as_mut()?.read(*place)?)?,
            Body::Sent => return None,
        };
        if entry.receipt.is_some() && entry.is_in_memory() {
            entry.body = Body::Sent;
        }
        self.taken.insert(number, entry);
        Some((number, message))
    }

    /// Forgets a message that arrived.
    pub(crate) fn left(&mut self, number: Number) {
        let Some(mut entry) = self.taken.remove(number) else { return };
        if let Some(receipt) = entry.receipt.take() {
            receipt.left();
        }
        self.gone(entry);
    }

    /// Makes a message due again that may not have arrived; one that is not
    /// kept is lost, and its receipt says so.
    pub(crate) fn again(&mut self, number: Number) {
        let Some(entry) = self.taken.remove(number) else { return };
        match entry {
            Entry { body: Body::Sent, receipt, .. } => {
                if let Some(receipt) = receipt {
                    if receipt.is_last() {
                        self.count(DropReason::SenderGone, 1);
                    }
                    receipt.lost("the stream to the cloud ended too soon after");
                }
            }
            entry => self.due.insert(number, entry),
        }
    }

    /// Forgets what is due and came at `since` or later, but before `before`.
    pub(crate) fn forget(&mut self, since: Timestamp, before: Timestamp) {
        let was_told = |time: Timestamp| since <= time && time < before;
        for (_, entry) in self.due.extract(|entry| was_told(entry.enqueued)) {
            self.gone(entry);
        }
        if let Some(disk) = &mut self.disk {
            disk.forget(since, before);
        }
        self.forgone.take_if(|(_, oldest, newest)| was_told(*oldest) && was_told(*newest));
    }

    /// Nobody asks for it any more.
    fn gone(&mut self, entry: Entry) {
        if let (Body::Disk(place), Some(disk)) = (entry.body, &mut self.disk) {
            disk.remove(place);
        }
    }

    /// Drops what came before `time`, except what an agent holds in its file and
    /// is in memory here.
    pub(crate) fn expire(&mut self, time: Timestamp) {
        while let Some(evicted) = self.disk.as_mut().and_then(|disk| disk.expire(time)) {
            self.evicted(evicted, DropReason::TooOld);
        }
        while let Some((_, Entry { enqueued, body: Body::Memory(_), receipt: None })) = self.due.first()
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
        let why = match reason {
            DropReason::TooOld => "it waited on disk for too long",
            _ => "more urgent messages took its place on disk",
        };
        let was_there = |entry: &Entry| matches!(entry.body, Body::Disk(place) if evicted.had(place));
        let sent = self.taken.extract(was_there);
        let due = self.due.extract(was_there).into_iter().filter_map(|(_, entry)| entry.receipt);
        let waited = self.receipts.extract_if(..=evicted.last, |_, _| true).map(|(_, receipt)| receipt);
        // What its sender still has is not dropped.
        let returned = due.chain(waited).map(|receipt| receipt.lost(why)).count();
        self.count(reason, evicted.records.saturating_sub((sent.len() + returned) as u64));
        for (number, entry) in sent {
            match entry.receipt {
                None => self.count(DropReason::NotKept, 1),
                receipt => self.taken.insert(number, Entry { body: Body::Sent, receipt, ..entry }),
            }
        }
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
        let firsts = [self.due.first(), self.taken.first()];
        let firsts = firsts.into_iter().flatten().map(|(number, entry)| (number, entry.enqueued));
        firsts.chain(self.disk.as_mut().and_then(Log::peek)).min().map(|(_, time)| time)
    }

    /// What is due.
    pub(crate) fn depth(&mut self) -> Depth {
        let again = self.due.first().map(|(number, entry)| (number, entry.enqueued));
        let on_disk = self.disk.as_mut().and_then(Log::peek);
        let (records, bytes) = self.disk.as_ref().map_or((0, 0), Log::unread);
        Depth {
            messages: self.due.len() as u64 + records,
            bytes: self.due.bytes() as u64 + bytes,
            oldest: again.into_iter().chain(on_disk).min().map(|(_, time)| time),
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.due.bytes() + self.taken.bytes()
    }

    /// What became less since the last call.
    pub(crate) fn news(&mut self) -> News {
        let now = Filling {
            due_bytes: self.due.bytes(),
            bytes: self.bytes(),
            receipts: self.receipts.len(),
            disk: self.disk.as_ref().map_or(0, Log::bytes),
            is_all_taken: self.is_all_taken(),
        };
        let before = std::mem::replace(&mut self.filling, now);
        News {
            room: now.due_bytes < before.due_bytes
                || now.bytes < before.bytes
                || now.receipts < before.receipts
                || now.disk < before.disk,
            due: before.is_all_taken && !now.is_all_taken,
        }
    }

    /// The part on disk.
    pub(crate) fn disk(&self) -> Option<&Log> {
        self.disk.as_ref()
    }
}

#[cfg(test)]
mod tests;
