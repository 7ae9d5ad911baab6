//! What became of logs, for the agent that still holds their file.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::mpsc::UnboundedSender;

/// What became of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every message has left the resend window.
    Left,
    /// At least one has not and never will: read the file again. The reason is
    /// for people.
    Lost(&'static str),
}

/// Goes with every message of a load of logs; clones share one outcome, which
/// is reported when the last of them is gone.
///
/// A clone that is dropped counts as a lost message, so that a message can't
/// get lost without a word.
#[derive(Debug)]
pub struct Receipt {
    load: Arc<Load>,
    settled: bool,
}

#[derive(Debug)]
struct Load {
    waiting: Mutex<Vec<Waiter>>,
    lost: OnceLock<&'static str>,
    outcome: Arc<OnceLock<Outcome>>,
}

/// Who has to know.
#[derive(Debug)]
enum Waiter {
    /// An agent, of one of its batches.
    Batch(u64, UnboundedSender<(u64, Outcome)>),
    /// A larger load.
    Load(Receipt),
}

/// What may be asked of a load at any time.
#[derive(Debug)]
pub struct Fate {
    load: Weak<Load>,
    outcome: Arc<OnceLock<Outcome>>,
}

impl Receipt {
    /// The receipt of an agent's batch `id`; its outcome is sent to `to`.
    pub fn new(id: u64, to: UnboundedSender<(u64, Outcome)>) -> Self {
        Self::of(Waiter::Batch(id, to))
    }

    /// The receipt of a part of what this one stands for.
    pub fn part(&self) -> Self {
        Self::of(Waiter::Load(self.clone()))
    }

    fn of(waiter: Waiter) -> Self {
        let waiting = Mutex::new(vec![waiter]);
        let load = Load { waiting, lost: OnceLock::new(), outcome: Arc::default() };
        Self { load: Arc::new(load), settled: false }
    }

    /// Where to ask what became of it.
    pub fn fate(&self) -> Fate {
        Fate { load: Arc::downgrade(&self.load), outcome: Arc::clone(&self.load.outcome) }
    }

    /// The message of this clone has left the resend window, or there is no
    /// such message (the load was empty, or all of its messages carry clones
    /// of their own).
    pub fn left(mut self) {
        self.settled = true;
    }

    /// The message of this clone will not arrive.
    pub fn lost(self, why: &'static str) {
        let _first_reason_counts = self.load.lost.set(why);
    }
}

impl Fate {
    /// Has `receipt` settled as this load is, now or when it is. `false`: the
    /// load is lost, and `receipt` is where it was.
    pub fn share(&self, receipt: &Receipt) -> bool {
        match self.outcome.get() {
            Some(outcome) => *outcome == Outcome::Left,
            None => match self.load.upgrade() {
                Some(load) => {
                    load.waiting().push(Waiter::Load(receipt.clone()));
                    true
                }
                // It is being settled at this moment: nobody knows how yet.
                None => false,
            },
        }
    }

    /// Whether it is known to be lost.
    pub fn is_lost(&self) -> bool {
        matches!(self.outcome.get(), Some(Outcome::Lost(_)))
    }
}

impl Load {
    /// The list is whole after every push, so a panic elsewhere has not harmed it.
    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Receipt {
    fn clone(&self) -> Self {
        Self { load: Arc::clone(&self.load), settled: false }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled {
            let _first_reason_counts = self.load.lost.set("dropped on its way");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let outcome = self.lost.get().map_or(Outcome::Left, |why| Outcome::Lost(why));
        let _nobody_else_sets_it = self.outcome.set(outcome);
        let waiting = std::mem::take(&mut *self.waiting());
        for waiter in waiting {
            match (waiter, outcome) {
                (Waiter::Batch(id, to), outcome) => {
                    // The agent may be gone, then nobody waits for this.
                    let _nobody_waits = to.send((id, outcome));
                }
                (Waiter::Load(receipt), Outcome::Left) => receipt.left(),
                (Waiter::Load(receipt), Outcome::Lost(why)) => receipt.lost(why),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn receipt() -> (Receipt, UnboundedReceiver<(u64, Outcome)>) {
        let (to, outcomes) = unbounded_channel();
        (Receipt::new(7, to), outcomes)
    }

    #[test]
    fn the_last_clone_reports_that_all_left() {
        let (receipt, mut outcomes) = receipt();
        let clones = [receipt.clone(), receipt.clone()];
        receipt.left();
        for clone in clones {
            assert!(outcomes.try_recv().is_err(), "reported too early");
            clone.left();
        }
        assert_eq!(outcomes.try_recv().unwrap(), (7, Outcome::Left));
    }

    #[test]
    fn one_lost_message_loses_the_batch_and_the_first_reason_is_told() {
        let (receipt, mut outcomes) = receipt();
        receipt.clone().lost("connection lost");
        receipt.clone().lost("later reason");
        receipt.left();
        assert_eq!(outcomes.try_recv().unwrap(), (7, Outcome::Lost("connection lost")));
    }

    #[test]
    fn a_dropped_clone_is_a_lost_message() {
        let (receipt, mut outcomes) = receipt();
        drop(receipt.clone());
        receipt.left();
        assert_eq!(outcomes.try_recv().unwrap(), (7, Outcome::Lost("dropped on its way")));
    }

    #[test]
    fn who_comes_later_shares_the_fate_of_a_part() {
        let ((first, mut firsts), (second, mut seconds)) = (receipt(), receipt());
        let part = first.part();
        let fate = part.fate();
        first.left();
        assert!(firsts.try_recv().is_err(), "its part is under way");
        assert!(fate.share(&second) && !fate.is_lost());
        second.left();
        assert!(seconds.try_recv().is_err());
        part.left();
        assert_eq!(firsts.try_recv().unwrap(), (7, Outcome::Left));
        assert_eq!(seconds.try_recv().unwrap(), (7, Outcome::Left));
        let (late, mut lates) = receipt();
        assert!(fate.share(&late));
        late.left();
        assert_eq!(lates.try_recv().unwrap(), (7, Outcome::Left));
    }

    #[test]
    fn a_lost_part_loses_all_who_share_it_and_nobody_can_share_it_any_more() {
        let ((first, mut firsts), (second, mut seconds)) = (receipt(), receipt());
        let part = first.part();
        let fate = part.fate();
        assert!(fate.share(&second));
        first.left();
        second.left();
        part.lost("gone");
        for outcomes in [&mut firsts, &mut seconds] {
            assert_eq!(outcomes.try_recv().unwrap(), (7, Outcome::Lost("gone")));
        }
        let (late, _lates) = receipt();
        assert!(!fate.share(&late) && fate.is_lost());
    }
}
