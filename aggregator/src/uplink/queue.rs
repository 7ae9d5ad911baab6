//! The messages of one lane, kept until they are known to have arrived.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{message::Message, receipt::Receipt};

/// Names a message of a lane; ascending in the order of arrival.
pub type Number = u64;

/// Messages in the order of their arrival, bounded in bytes. A message that was
/// taken stays here until [`Queue::left`]; [`Queue::again`] makes it due once more,
/// at its old place. Of a message with a receipt the bytes go when it is taken:
/// its sender still has them, and hears of a loss.
#[derive(Debug)]
pub(crate) struct Queue {
    due: BTreeMap<Number, Entry>,
    taken: BTreeMap<Number, Entry>,
    next: Number,
    /// Bytes of what is due.
    due_bytes: usize,
    /// Bytes of everything that is kept.
    bytes: usize,
    budget: usize,
}

#[derive(Debug)]
struct Entry {
    enqueued: Timestamp,
    /// `None` when only the receipt is kept.
    message: Option<Message>,
    receipt: Option<Receipt>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.message.as_ref().map_or(0, Message::bytes)
    }
}

/// What the budget cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// Messages that were never sent.
    pub unsent: u64,
    /// Messages that were sent, but can't be sent again should the connection
    /// die now.
    pub sent: u64,
}

/// What waits in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest of them came.
    pub oldest: Option<Timestamp>,
}

impl Queue {
    /// An empty queue for at most `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self { due: BTreeMap::new(), taken: BTreeMap::new(), next: 0, due_bytes: 0, bytes: 0, budget }
    }

    /// Adds a message. Over budget, what was sent already is forgotten first,
    /// because it most likely arrived; then the oldest goes.
    pub(crate) fn push(&mut self, message: Message, now: Timestamp) -> Evicted {
        self.add(message, None, now);
        let mut evicted = Evicted::default();
        while self.bytes > self.budget {
            if let Some((_, entry)) = self.taken.pop_first() {
                self.bytes -= entry.bytes();
                evicted.sent += 1;
            } else if let Some((_, entry)) = self.due.pop_first() {
                self.bytes -= entry.bytes();
                self.due_bytes -= entry.bytes();
                evicted.unsent += 1;
            } else {
                break;
            }
        }
        evicted
    }

    /// Adds a message in place of all that are due.
    pub(crate) fn replace(&mut self, message: Message, now: Timestamp) {
        self.due.clear();
        self.bytes -= std::mem::take(&mut self.due_bytes);
        self.add(message, None, now);
    }

    /// Whether `bytes` more fit. What is larger than the queue has it for itself.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= self.budget
    }

    /// Adds a message whose sender waited for room and waits for the receipt.
    pub(crate) fn push_with(&mut self, message: Message, receipt: Receipt, now: Timestamp) {
        self.add(message, Some(receipt), now);
    }

    fn add(&mut self, message: Message, receipt: Option<Receipt>, now: Timestamp) {
        self.bytes += message.bytes();
        self.due_bytes += message.bytes();
        self.due.insert(self.next, Entry { enqueued: now, message: Some(message), receipt });
        self.next += 1;
    }

    /// The oldest message that is due.
    pub(crate) fn take(&mut self) -> Option<(Number, Message)> {
        let (number, mut entry) = self.due.pop_first()?;
        self.due_bytes -= entry.bytes();
        let message = if entry.receipt.is_some() {
            self.bytes -= entry.bytes();
            entry.message.take()
        } else {
            entry.message.clone()
        }?;
        self.taken.insert(number, entry);
        Some((number, message))
    }

    /// Forgets a message that arrived.
    pub(crate) fn left(&mut self, number: Number) {
        if let Some(entry) = self.taken.remove(&number) {
            self.bytes -= entry.bytes();
            if let Some(receipt) = entry.receipt {
                receipt.left();
            }
        }
    }

    /// Makes a message due again that may not have arrived; one that is not
    /// kept is lost, and its receipt says so.
    pub(crate) fn again(&mut self, number: Number) {
        let Some(entry) = self.taken.remove(&number) else { return };
        match entry {
            Entry { message: None, receipt: Some(receipt), .. } => {
                receipt.lost("the stream to the cloud ended too soon after");
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
            let bytes = first.remove().bytes();
            self.bytes -= bytes;
            self.due_bytes -= bytes;
        }
    }

    /// When the oldest message came that has not left.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let firsts = [self.due.first_key_value(), self.taken.first_key_value()];
        firsts.into_iter().flatten().min_by_key(|(number, _)| **number).map(|(_, entry)| entry.enqueued)
    }

    /// What is due.
    pub(crate) fn depth(&self) -> Depth {
        let oldest = self.due.first_key_value().map(|(_, entry)| entry.enqueued);
        Depth { messages: self.due.len() as u64, bytes: self.due_bytes as u64, oldest }
    }

    /// Bytes of everything that is kept in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::cloud::v1::PodLogs;
    use proptest::prelude::*;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::uplink::receipt::Outcome;

    /// A message of `bytes` bytes; two of them are its head.
    fn message(bytes: usize) -> Message {
        let message = PodLogs { pod_name: "x".repeat(bytes - 2), ..Default::default() };
        Message::of_logs(message).remove(0)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_was_sent_goes_before_what_was_not() {
        let mut queue = Queue::new(10);
        for _ in 0..2 {
            assert_eq!(queue.push(message(5), at(0)), Evicted::default());
        }
        let (first, _) = queue.take().unwrap();
        assert_eq!(queue.push(message(5), at(0)), Evicted { unsent: 0, sent: 1 });
        assert_eq!(queue.push(message(5), at(0)), Evicted { unsent: 1, sent: 0 });
        queue.again(first);
        assert_eq!(queue.take().unwrap().0, 2);
    }

    #[test]
    fn of_a_message_with_a_receipt_only_that_is_kept() {
        let (to, mut outcomes) = unbounded_channel();
        let mut queue = Queue::new(10);
        for id in 0..2 {
            queue.push_with(message(5), Receipt::new(id, to.clone()), at(0));
        }
        assert!(!queue.has_room(1));
        let taken = [queue.take().unwrap().0, queue.take().unwrap().0];
        assert_eq!((queue.bytes(), queue.has_room(10)), (0, true));
        queue.left(taken[1]);
        assert_eq!(outcomes.try_recv().unwrap(), (1, Outcome::Left));
        queue.again(taken[0]);
        assert!(matches!(outcomes.try_recv().unwrap(), (0, Outcome::Lost(_))));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn the_oldest_counts_until_it_left_and_the_told_are_forgotten() {
        let mut queue = Queue::new(100);
        for second in 1..=4 {
            queue.push(message(5), at(second));
        }
        let (first, _) = queue.take().unwrap();
        assert_eq!((queue.oldest(), queue.depth().oldest), (Some(at(1)), Some(at(2))));
        queue.left(first);
        queue.forget(at(4));
        assert_eq!(queue.oldest(), Some(at(4)));
        assert_eq!(queue.depth(), Depth { messages: 1, bytes: 5, oldest: Some(at(4)) });
        queue.replace(message(7), at(5));
        assert_eq!((queue.depth().bytes, queue.bytes()), (7, 7));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Take,
        Left(usize),
        Again(usize),
    }

    proptest! {
        /// Every message is due, taken, left or counted as evicted; the order of
        /// arrival is kept, and the budget is never exceeded.
        #[test]
        fn nothing_is_lost_without_being_counted(steps in prop::collection::vec(
            prop_oneof![
                (3_usize..40).prop_map(Step::Push),
                Just(Step::Take),
                any::<usize>().prop_map(Step::Left),
                any::<usize>().prop_map(Step::Again),
            ],
            0..200,
        )) {
            let mut queue = Queue::new(100);
            let (mut pushed, mut left, mut evicted) = (0_u64, 0_u64, Evicted::default());
            let mut out: Vec<Number> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(bytes) => {
                        let more = queue.push(message(bytes), at(0));
                        pushed += 1;
                        evicted.unsent += more.unsent;
                        evicted.sent += more.sent;
                    }
                    Step::Take => {
                        if let Some((number, _)) = queue.take() {
                            prop_assert!(queue.due.keys().all(|&later| later > number));
                            out.push(number);
                        }
                    }
                    Step::Left(which) if !out.is_empty() => {
                        let number = out.swap_remove(which % out.len());
                        left += u64::from(queue.taken.contains_key(&number));
                        queue.left(number);
                    }
                    Step::Again(which) if !out.is_empty() => {
                        queue.again(out.swap_remove(which % out.len()));
                    }
                    Step::Left(_) | Step::Again(_) => {}
                }
                let due: usize = queue.due.values().map(Entry::bytes).sum();
                let taken: usize = queue.taken.values().map(Entry::bytes).sum();
                prop_assert_eq!((queue.due_bytes, queue.bytes()), (due, due + taken));
                prop_assert!(queue.bytes() <= 100);
                let here = (queue.due.len() + queue.taken.len()) as u64;
                prop_assert_eq!(pushed, here + left + evicted.unsent + evicted.sent);
            }
        }
    }
}
