//! Which batches of a stream are settled, so that they are answered in order.

use std::collections::VecDeque;

use kestrel_proto::node::v1::{Ack, AggregatorMessage, Nack, aggregator_message::Message};

use crate::uplink::receipt::Outcome;

/// The batches of one stream that have not been answered, in their order.
#[derive(Default)]
pub(super) struct Ledger {
    open: VecDeque<Open>,
    last: u64,
    nacks: u64,
}

struct Open {
    id: u64,
    has_left: bool,
}

/// What is to be said, and how many batches it settles.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) answers: Vec<AggregatorMessage>,
    pub(super) acked: usize,
    pub(super) given_up: usize,
}

impl Ledger {
    /// Takes up batch `id`, whose sender had seen `nacks_seen` of our Nacks;
    /// `false`: it is one of those that were given up.
    ///
    /// # Errors
    /// The id is not greater than the one before, or there were no such Nacks.
    pub(super) fn begin(&mut self, id: u64, nacks_seen: u64) -> Result<bool, String> {
        if id <= self.last {
            return Err(format!("batch {id} came after batch {}: ids must increase", self.last));
        }
        if nacks_seen > self.nacks {
            return Err(format!("batch {id} speaks of {nacks_seen} Nacks; there were {}", self.nacks));
        }
        self.last = id;
        let taken = nacks_seen == self.nacks;
        if taken {
            self.open.push_back(Open { id, has_left: false });
        }
        Ok(taken)
    }

    /// Notes what became of batch `id`. If it is lost, all that have no answer
    /// are given up: their lines come again, in their order. What is heard of
    /// those later finds nothing.
    pub(super) fn settle(&mut self, id: u64, outcome: Outcome) -> Settled {
        let Ok(place) = self.open.binary_search_by_key(&id, |open| open.id) else {
            return Settled::default();
        };
        let mut settled = Settled::default();
        self.open[place].has_left = outcome == Outcome::Left;
        while let Some(Open { id, .. }) = self.open.pop_front_if(|open| open.has_left) {
            settled.acked += 1;
            settled.answers = vec![answer(Message::Ack(Ack { up_to_id: id }))];
        }
        if let Outcome::Lost(reason) = outcome {
            settled.given_up = self.open.len();
            self.open.clear();
            self.nacks += 1;
            settled.answers.push(answer(Message::Nack(Nack { reason: reason.to_owned() })));
        }
        settled
    }
}

fn answer(message: Message) -> AggregatorMessage {
    AggregatorMessage { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Acks by their id, nacks as `None`.
    fn read(settled: &Settled) -> Vec<Option<u64>> {
        let read = |answer: &AggregatorMessage| match answer.message.as_ref().unwrap() {
            Message::Ack(ack) => Some(ack.up_to_id),
            Message::Nack(_) => None,
            other => panic!("{other:?}"),
        };
        settled.answers.iter().map(read).collect()
    }

    #[test]
    fn an_ack_waits_for_every_batch_before_it_and_a_loss_gives_up_what_is_open() {
        let mut ledger = Ledger::default();
        for id in [1, 2, 5, 6, 7] {
            assert!(ledger.begin(id, 0).unwrap());
        }
        assert_eq!(ledger.settle(2, Outcome::Left).acked, 0);
        let settled = ledger.settle(1, Outcome::Left);
        assert_eq!((read(&settled), settled.acked), (vec![Some(2)], 2));
        assert_eq!(ledger.settle(7, Outcome::Left).acked, 0);
        let settled = ledger.settle(6, Outcome::Lost("gone"));
        assert_eq!((read(&settled), settled.given_up), (vec![None], 3));
        for late in [5, 6, 7, 99] {
            assert!(ledger.settle(late, Outcome::Lost("gone")).answers.is_empty());
        }
        assert!(!ledger.begin(8, 0).unwrap(), "sent before the Nack was seen");
        assert!(ledger.begin(9, 1).unwrap());
        assert_eq!(read(&ledger.settle(9, Outcome::Left)), [Some(9)]);
        assert!(ledger.begin(10, 2).is_err(), "a Nack that nobody sent");
    }

    #[test]
    fn ids_must_increase() {
        let mut ledger = Ledger::default();
        assert!(ledger.begin(0, 0).is_err());
        ledger.begin(3, 0).unwrap();
        assert_eq!(ledger.begin(3, 0).unwrap_err(), "batch 3 came after batch 3: ids must increase");
    }

    proptest! {
        /// An ack speaks of batches that left; every batch is acked, given up or open.
        #[test]
        fn no_batch_is_acked_that_did_not_leave(
            (outcomes, order) in prop::collection::vec(prop::bool::weighted(0.9), 1..30).prop_flat_map(|outcomes| {
                let order: Vec<_> = (0..outcomes.len()).collect();
                (Just(outcomes), Just(order).prop_shuffle())
            })
        ) {
            let mut ledger = Ledger::default();
            for id in 1..=outcomes.len() as u64 {
                ledger.begin(id, 0).unwrap();
            }
            let (mut acked, mut given_up) = (0, 0);
            for place in order {
                let outcome = if outcomes[place] { Outcome::Left } else { Outcome::Lost("lost") };
                let settled = ledger.settle(place as u64 + 1, outcome);
                acked += settled.acked;
                given_up += settled.given_up;
                if let Some(Some(id)) = read(&settled).first() {
                    prop_assert_eq!(*id as usize, acked);
                    prop_assert!(outcomes[..acked].iter().all(|left| *left));
                }
                prop_assert_eq!(acked + given_up + ledger.open.len(), outcomes.len());
                prop_assert!(given_up == 0 || ledger.open.is_empty());
            }
        }
    }
}
