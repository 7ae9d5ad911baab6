//! A queue that keeps what it gave out until that is known to have arrived.

use std::collections::BTreeMap;

/// Names a message of a [`Queue`]; ascending in the order of arrival.
pub(crate) type Number = u64;

/// Messages in the order of their arrival, bounded in bytes. A message that was
/// taken stays here until [`Queue::left`]; [`Queue::again`] makes it due once more,
/// at its old place.
#[derive(Debug)]
pub(crate) struct Queue<M> {
    due: BTreeMap<Number, M>,
    taken: BTreeMap<Number, M>,
    next: Number,
    bytes: usize,
    budget: usize,
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

/// What has a size in bytes.
pub(crate) trait Size {
    /// The size.
    fn bytes(&self) -> usize;
}

impl<M: Size + Clone> Queue<M> {
    /// An empty queue for at most `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self { due: BTreeMap::new(), taken: BTreeMap::new(), next: 0, bytes: 0, budget }
    }

    /// Adds a message. Over budget, what was sent already is forgotten first,
    /// because it most likely arrived; then the oldest goes.
    pub(crate) fn push(&mut self, message: M) -> Evicted {
        self.bytes += message.bytes();
        self.due.insert(self.next, message);
        self.next += 1;
        let mut evicted = Evicted::default();
        while self.bytes > self.budget {
            if let Some((_, message)) = self.taken.pop_first() {
                self.bytes -= message.bytes();
                evicted.sent += 1;
            } else if let Some((_, message)) = self.due.pop_first() {
                self.bytes -= message.bytes();
                evicted.unsent += 1;
            } else {
                break;
            }
        }
        evicted
    }

    /// The oldest message that is due.
    pub(crate) fn take(&mut self) -> Option<(Number, M)> {
        let (number, message) = self.due.pop_first()?;
        self.taken.insert(number, message.clone());
        Some((number, message))
    }

    /// Forgets a message that arrived.
    pub(crate) fn left(&mut self, number: Number) {
        if let Some(message) = self.taken.remove(&number) {
            self.bytes -= message.bytes();
        }
    }

    /// Makes a message due again that may not have arrived.
    pub(crate) fn again(&mut self, number: Number) {
        if let Some(message) = self.taken.remove(&number) {
            self.due.insert(number, message);
        }
    }

    /// Bytes of what is due.
    pub(crate) fn due_bytes(&self) -> usize {
        self.due.values().map(Size::bytes).sum()
    }

    /// Bytes of everything that is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Message {
        name: u64,
        bytes: usize,
    }

    impl Size for Message {
        fn bytes(&self) -> usize {
            self.bytes
        }
    }

    #[test]
    fn what_was_sent_goes_before_what_was_not() {
        let mut queue = Queue::new(10);
        for name in 0..2 {
            assert_eq!(queue.push(Message { name, bytes: 5 }), Evicted::default());
        }
        let (first, _) = queue.take().unwrap();
        assert_eq!(queue.push(Message { name: 2, bytes: 5 }), Evicted { unsent: 0, sent: 1 });
        assert_eq!(queue.push(Message { name: 3, bytes: 5 }), Evicted { unsent: 1, sent: 0 });
        queue.again(first);
        assert_eq!(queue.take().unwrap().1.name, 2);
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
                (1_usize..40).prop_map(Step::Push),
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
                        let more = queue.push(Message { name: pushed, bytes });
                        pushed += 1;
                        evicted.unsent += more.unsent;
                        evicted.sent += more.sent;
                    }
                    Step::Take => {
                        if let Some((number, message)) = queue.take() {
                            prop_assert_eq!(number, message.name);
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
                let kept = queue.due.values().chain(queue.taken.values());
                prop_assert_eq!(queue.bytes(), kept.map(|message| message.bytes).sum::<usize>());
                prop_assert!(queue.bytes() <= 100);
                let here = (queue.due.len() + queue.taken.len()) as u64;
                prop_assert_eq!(pushed, here + left + evicted.unsent + evicted.sent);
            }
        }
    }
}
