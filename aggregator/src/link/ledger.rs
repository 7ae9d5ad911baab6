//! Which batches of a stream are settled, so that they are answered in order.

use std::collections::VecDeque;

use kestrel_proto::node::v1::{Ack, AggregatorMessage, Nack, aggregator_message::Message};

use crate::uplink::receipt::Outcome;

/// The batches of one stream that have not been answered, in their order.
#[derive(Default)]
pub(super) struct Ledger {
    open: VecDeque<(u64, Option<Outcome>)>,
    last: u64,
}

impl Ledger {
    /// Takes up batch `id`.
    ///
    /// # Errors
    /// The id is not greater than the one before.
    pub(super) fn begin(&mut self, id: u64) -> Result<(), String> {
        if id <= self.last {
            return Err(format!("batch {id} came after batch {}: ids must increase", self.last));
        }
        self.last = id;
        self.open.push_back((id, None));
        Ok(())
    }

    /// Notes what became of batch `id`, and returns the answers that can be
    /// given now, and how many batches they settle.
    pub(super) fn settle(&mut self, id: u64, outcome: Outcome) -> (Vec<AggregatorMessage>, usize) {
        if let Ok(place) = self.open.binary_search_by_key(&id, |(id, _)| *id) {
            self.open[place].1 = Some(outcome);
        }
        let (mut answers, mut settled, mut left) = (Vec::new(), 0, None);
        while let Some((id, Some(outcome))) = self.open.pop_front_if(|(_, outcome)| outcome.is_some()) {
            settled += 1;
            match outcome {
                Outcome::Left => left = Some(id),
                Outcome::Lost(reason) => {
                    answers.extend(left.take().map(ack));
                    answers.push(answer(Message::Nack(Nack { id, reason: reason.to_owned() })));
                }
            }
        }
        answers.extend(left.map(ack));
        (answers, settled)
    }
}

fn ack(up_to_id: u64) -> AggregatorMessage {
    answer(Message::Ack(Ack { up_to_id }))
}

fn answer(message: Message) -> AggregatorMessage {
    AggregatorMessage { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Acks as `(id, true)`, nacks as `(id, false)`.
    fn read(answers: Vec<AggregatorMessage>) -> Vec<(u64, bool)> {
        let read = |answer: AggregatorMessage| match answer.message.unwrap() {
            Message::Ack(ack) => (ack.up_to_id, true),
            Message::Nack(nack) => (nack.id, false),
            other => panic!("{other:?}"),
        };
        answers.into_iter().map(read).collect()
    }

    #[test]
    fn an_answer_waits_for_every_batch_before_it() {
        let mut ledger = Ledger::default();
        for id in [1, 2, 5, 6, 7] {
            ledger.begin(id).unwrap();
        }
        assert_eq!(ledger.settle(2, Outcome::Left).1, 0);
        assert_eq!(ledger.settle(5, Outcome::Lost("gone")).1, 0);
        let (answers, settled) = ledger.settle(1, Outcome::Left);
        assert_eq!((read(answers), settled), (vec![(2, true), (5, false)], 3));
        let (answers, settled) = ledger.settle(6, Outcome::Left);
        assert_eq!((read(answers), settled), (vec![(6, true)], 1));
        assert_eq!(ledger.settle(99, Outcome::Left).1, 0, "a batch that nobody sent");
    }

    #[test]
    fn ids_must_increase() {
        let mut ledger = Ledger::default();
        assert!(ledger.begin(0).is_err());
        ledger.begin(3).unwrap();
        assert_eq!(ledger.begin(3).unwrap_err(), "batch 3 came after batch 3: ids must increase");
    }

    proptest! {
        #[test]
        fn every_batch_is_answered_once_and_in_order(
            (outcomes, order) in prop::collection::vec(any::<bool>(), 1..30).prop_flat_map(|outcomes| {
                let order: Vec<_> = (0..outcomes.len()).collect();
                (Just(outcomes), Just(order).prop_shuffle())
            })
        ) {
            let mut ledger = Ledger::default();
            for id in 1..=outcomes.len() as u64 {
                ledger.begin(id).unwrap();
            }
            let (mut answered, mut settled) = (0, 0);
            for place in order {
                let outcome = if outcomes[place] { Outcome::Left } else { Outcome::Lost("lost") };
                let (answers, count) = ledger.settle(place as u64 + 1, outcome);
                settled += count;
                for (id, acked) in read(answers) {
                    prop_assert!(id > answered);
                    // An ack speaks of all since the answer before it, a nack of itself.
                    prop_assert!((answered..id).all(|before| outcomes[before as usize] == acked));
                    prop_assert!(acked || id == answered + 1);
                    answered = id;
                }
            }
            prop_assert_eq!((answered, settled), (outcomes.len() as u64, outcomes.len()));
        }
    }
}
