//! How far each file was read, and how far that reached the other end.

pub mod store;

use std::collections::VecDeque;

/// One file's reading: `acked ≤ in flight ≤ settled ≤ read`.
///
/// Batches have increasing ids; a file's ranges in flight are in the order of
/// both ids and offsets.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    acked: u64,
    acked_owed: Owed,
    read: u64,
    in_flight: VecDeque<Range>,
}

/// Bytes up to `end`, from where the range before ends, travel in `batch`.
#[derive(Clone, Copy, Debug)]
struct Range {
    batch: u64,
    end: u64,
    owed: Owed,
}

/// How many of the next records are sent because one before them was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed(pub u8);

/// How far a turn came.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// What lies before is sent or left out for good.
    pub settled: u64,
    /// What lies before was looked at. Between `settled` and here lie records that are left
    /// out unless the next one makes them worth sending.
    pub read: u64,
    /// What follows `settled` and is to be sent for what came before it.
    pub owed: Owed,
}

impl Ledger {
    /// A file whose first `acked` bytes need not be read again.
    pub fn starting_at(acked: u64) -> Self {
        Self { acked, acked_owed: Owed::default(), read: acked, in_flight: VecDeque::new() }
    }

    /// The offset at which a new start would begin to read.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Up to where the file was looked at.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// The offset at which to read on: the records from here to [`Ledger::read`] may yet be
    /// sent.
    pub fn settled(&self) -> u64 {
        self.in_flight.back().map_or(self.acked, |last| last.end)
    }

    /// How many ranges wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes up to `reached` were read into `batch`.
    pub fn claim(&mut self, batch: u64, reached: Reached) {
        let Reached { settled: end, read, owed } = reached;
        match self.in_flight.back_mut() {
            Some(last) if last.batch == batch => (last.end, last.owed) = (end, owed),
            _ => self.in_flight.push_back(Range { batch, end, owed }),
        }
        self.read = read;
    }

    /// Bytes up to `reached` were read and hold nothing to send. They are done when
    /// what was read before them is.
    pub fn skip(&mut self, reached: Reached) {
        let Reached { settled, read, owed } = reached;
        match self.in_flight.back_mut() {
            Some(last) => (last.end, last.owed) = (settled, owed),
            None => (self.acked, self.acked_owed) = (settled, owed),
        }
        self.read = read;
    }

    /// Every batch up to and including `up_to` arrived.
    pub fn ack(&mut self, up_to: u64) {
        while let Some(range) = self.in_flight.pop_front_if(|range| range.batch <= up_to) {
            (self.acked, self.acked_owed) = (range.end, range.owed);
        }
        if self.in_flight.is_empty() {
            // Of many files nothing is under way most of the time.
            self.in_flight = VecDeque::new();
        }
    }

    /// What was not acknowledged is read again; later answers for it find nothing. Returns
    /// what is owed there.
    pub fn rewind(&mut self) -> Owed {
        self.in_flight.clear();
        self.read = self.acked;
        self.acked_owed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(offset: u64) -> Reached {
        Reached { settled: offset, read: offset, owed: Owed::default() }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read(u64),
        Skip(u64),
        NewBatch,
        Ack,
        Nack,
        Reconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_u64..50).prop_map(Step::Read),
            2 => (1_u64..50).prop_map(Step::Skip),
            4 => Just(Step::NewBatch),
            2 => Just(Step::Ack),
            1 => Just(Step::Nack),
            1 => Just(Step::Reconnect),
        ]
    }

    /// What the far end does with a batch, in the order in which it decides.
    #[derive(Clone, Copy, PartialEq)]
    enum Fate {
        Open,
        Arrived,
        Refused,
    }

    proptest! {
        #[test]
        fn no_byte_is_passed_that_did_not_arrive(steps in prop::collection::vec(step(), 0..120)) {
            let mut ledger = Ledger::default();
            // Bytes that arrived or hold nothing to send, by offset.
            let mut settled = vec![false; 120 * 50];
            let mut batches: Vec<(Fate, Vec<(u64, u64)>)> = vec![(Fate::Open, vec![])];
            let mut acked_to = 0;
            for step in steps {
                let from = ledger.read();
                match step {
                    Step::Read(length) => {
                        let batch = batches.len() - 1;
                        ledger.claim(batch as u64, to(from + length));
                        batches[batch].1.push((from, from + length));
                    }
                    Step::Skip(length) => {
                        ledger.skip(to(from + length));
                        settled[from as usize..(from + length) as usize].fill(true);
                    }
                    Step::NewBatch => batches.push((Fate::Open, vec![])),
                    Step::Ack => {
                        // All that were sent, and every one of them arrived unless refused.
                        let up_to = batches.len() - 1;
                        for (fate, ranges) in &mut batches[..up_to] {
                            if *fate == Fate::Open {
                                *fate = Fate::Arrived;
                                for (start, end) in ranges {
                                    settled[*start as usize..*end as usize].fill(true);
                                }
                            }
                        }
                        if up_to > 0 {
                            ledger.ack(up_to as u64 - 1);
                        }
                    }
                    Step::Nack => {
                        ledger.rewind();
                        for (fate, _) in batches.iter_mut().filter(|(fate, _)| *fate == Fate::Open) {
                            *fate = Fate::Refused;
                        }
                        batches.push((Fate::Open, vec![]));
                    }
                    Step::Reconnect => {
                        ledger.rewind();
                        batches = vec![(Fate::Open, vec![])];
                    }
                }
                prop_assert!(ledger.acked() >= acked_to && ledger.acked() <= ledger.read());
                acked_to = ledger.acked();
                prop_assert!(settled[..acked_to as usize].iter().all(|settled| *settled));
            }
            // Whatever happened, what is read again and acknowledged completes the file.
            let batch = batches.len() as u64;
            ledger.claim(batch, to(ledger.read() + 1));
            ledger.ack(batch);
            prop_assert_eq!(ledger.acked(), ledger.read());
            prop_assert_eq!(ledger.in_flight(), 0);
        }
    }

    #[test]
    fn what_is_read_again_is_done_only_with_its_new_batch() {
        let mut ledger = Ledger::default();
        ledger.claim(1, to(10));
        ledger.claim(2, to(20));
        ledger.skip(to(25));
        ledger.ack(1);
        ledger.rewind();
        assert_eq!((ledger.read(), ledger.in_flight()), (10, 0));
        ledger.claim(3, to(30));
        ledger.ack(2);
        assert_eq!(ledger.acked(), 10, "an answer to what was given up");
        ledger.ack(3);
        assert_eq!(ledger.acked(), 30);
    }

    #[test]
    fn what_may_yet_be_sent_is_looked_at_again_and_what_is_owed_is_remembered() {
        let mut ledger = Ledger::default();
        let owed = Owed(3);
        ledger.claim(1, Reached { settled: 10, read: 10, owed });
        ledger.claim(2, Reached { settled: 20, read: 25, owed: Owed::default() });
        assert_eq!((ledger.acked(), ledger.settled(), ledger.read()), (0, 20, 25));
        ledger.ack(1);
        assert_eq!(ledger.rewind(), owed);
        assert_eq!((ledger.settled(), ledger.read()), (10, 10));
        ledger.skip(Reached { settled: 20, read: 25, owed: Owed::default() });
        assert_eq!((ledger.acked(), ledger.settled(), ledger.read()), (20, 20, 25));
    }
}
