//! What became of logs, for the agent that still holds their file.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What became of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every message has left the resend window.
    Left,
    /// At least one has not and never will: read the file again. The reason is
    /// for people.
    Lost(&'static str),
}

/// Who sends loads of logs in an order that must be kept. When one is lost, all
/// that were sent after it are stale, until the source has begun again.
/// Clones are the same source.
#[derive(Clone, Debug)]
pub struct Source(Arc<Sender>);

#[derive(Debug)]
struct Sender {
    /// How often the source had to begin again.
    generation: AtomicU64,
    outcomes: UnboundedSender<(u64, Outcome)>,
    /// Nobody can send again what it sent, once it hears nothing any more.
    ends: bool,
}

impl Source {
    /// A source, and the end where it hears what became of its loads, by their ids.
    pub fn new() -> (Self, UnboundedReceiver<(u64, Outcome)>) {
        Self::that(false)
    }

    /// A source whose files go with it, as those of a sidecar do with its pod.
    pub fn of_a_sidecar() -> (Self, UnboundedReceiver<(u64, Outcome)>) {
        Self::that(true)
    }

    fn that(ends: bool) -> (Self, UnboundedReceiver<(u64, Outcome)>) {
        let (outcomes, heard) = unbounded_channel();
        (Self(Arc::new(Sender { generation: AtomicU64::new(0), outcomes, ends })), heard)
    }

    /// How often it had to begin again.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// A sidecar that is gone.
    fn is_over(&self) -> bool {
        self.0.ends && self.0.outcomes.is_closed()
    }

    /// The receipt of load `id`, sent after the source began again for the
    /// `generation`th time.
    pub fn receipt(&self, id: u64, generation: u64) -> Receipt {
        Receipt::of(Waiter::Source(id), self.clone(), generation)
    }
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
    source: Source,
    generation: u64,
}

/// Who has to know.
#[derive(Debug)]
enum Waiter {
    /// The source, by this id.
    Source(u64),
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
    /// The receipt of a part of what this one stands for.
    pub fn part(&self) -> Self {
        Self::of(Waiter::Load(self.clone()), self.load.source.clone(), self.load.generation)
    }

    fn of(waiter: Waiter, source: Source, generation: u64) -> Self {
        let waiting = Mutex::new(vec![waiter]);
        let load = Load { waiting, lost: OnceLock::new(), outcome: Arc::default(), source, generation };
        Self { load: Arc::new(load), settled: false }
    }

    /// Something that the source sent before, or this, was lost: it is all sent
    /// again, and to send this now would break the order.
    pub fn is_stale(&self) -> bool {
        self.load.is_stale()
    }

    /// Nobody can send again what this stands for.
    pub fn is_last(&self) -> bool {
        self.load.source.is_over()
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
        self.load.lose(why);
    }
}

impl Fate {
    /// Has `receipt` settled as this load is, now or when it is. `false`: the
    /// load is lost, and `receipt` is where it was.
    pub fn share(&self, receipt: &Receipt) -> bool {
        match self.outcome.get() {
            Some(outcome) => *outcome == Outcome::Left,
            None => match self.load.upgrade() {
                Some(load) if !load.is_stale() => {
                    load.waiting().push(Waiter::Load(receipt.clone()));
                    true
                }
                // It will be lost, or is being settled at this moment.
                _ => false,
            },
        }
    }
}

impl Load {
    /// The list is whole after every push, so a panic elsewhere has not harmed it.
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stale(&self) -> bool {
        self.generation < self.source.generation() && !self.source.is_over()
    }

    fn lose(&self, why: &'static str) {
        let _first_reason_counts = self.lost.set(why);
        let _once_for_all_of_a_generation = self.source.0.generation.compare_exchange(
            self.generation,
            self.generation + 1,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
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
            self.load.lose("dropped on its way");
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
                (Waiter::Source(id), outcome) => {
                    // The agent may be gone, then nobody waits for this.
                    let _nobody_waits = self.source.0.outcomes.send((id, outcome));
                }
                (Waiter::Load(receipt), Outcome::Left) => receipt.left(),
                (Waiter::Load(receipt), Outcome::Lost(why)) => receipt.lost(why),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> (Receipt, UnboundedReceiver<(u64, Outcome)>) {
        let (source, outcomes) = Source::new();
        (source.receipt(7, 0), outcomes)
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
        assert!(fate.share(&second));
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
        assert!(!fate.share(&late));
    }

    #[test]
    fn after_a_loss_all_is_stale_until_the_source_has_begun_again() {
        let (source, mut outcomes) = Source::new();
        let (first, second) = (source.receipt(1, 0), source.receipt(2, 0));
        let part = second.part();
        let held = first.clone();
        first.lost("gone");
        assert!(outcomes.try_recv().is_err() && held.is_stale(), "known before the whole load is settled");
        let next = source.receipt(3, 1);
        assert!(!part.fate().share(&next), "it will be lost as well");
        next.left();
        assert!(second.is_stale() && part.is_stale() && source.receipt(3, 0).is_stale());
        assert_eq!(source.generation(), 1);
        drop((held, part, second));
        assert_eq!(source.generation(), 1, "one loss, whatever follows from it");
        let again = source.receipt(4, 1);
        assert!(!again.is_stale());
        again.left();
        assert_eq!(source.generation(), 1);
    }

    #[test]
    fn what_a_sidecar_sent_before_it_was_gone_is_not_given_up_for_a_loss_before_it() {
        for (is_sidecar, (source, outcomes)) in [(false, Source::new()), (true, Source::of_a_sidecar())] {
            let (first, second) = (source.receipt(1, 0), source.receipt(2, 0));
            first.lost("gone");
            assert!(second.is_stale() && !second.is_last());
            drop(outcomes);
            assert_eq!((second.is_stale(), second.is_last()), (!is_sidecar, is_sidecar));
        }
    }
}
