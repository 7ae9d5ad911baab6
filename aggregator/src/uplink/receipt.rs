//! What became of a batch of logs, for the agent that still holds its file.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::UnboundedSender;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every message of the batch has left the resend window.
    Left,
    /// At least one has not and never will: read the batch again. The reason
    /// is for people.
    Lost(&'static str),
}

/// Goes with every message of one batch; clones share one outcome, which is
/// reported when the last of them is gone.
///
/// A clone that is dropped counts as a lost message, so that a message can't
/// get lost without a word.
#[derive(Debug)]
pub struct Receipt {
    batch: Arc<Batch>,
    settled: bool,
}

#[derive(Debug)]
struct Batch {
    id: u64,
    to: UnboundedSender<(u64, Outcome)>,
    lost: OnceLock<&'static str>,
}

impl Receipt {
    /// The receipt of batch `id`; its outcome is sent to `to`.
    pub fn new(id: u64, to: UnboundedSender<(u64, Outcome)>) -> Self {
        Self { batch: Arc::new(Batch { id, to, lost: OnceLock::new() }), settled: false }
    }

    /// The message of this clone has left the resend window, or there is no
    /// such message (the batch was empty, or all of its messages carry clones
    /// of their own).
    pub fn left(mut self) {
        self.settled = true;
    }

    /// The message of this clone will not arrive.
    pub fn lost(self, why: &'static str) {
        let _first_reason_counts = self.batch.lost.set(why);
    }
}

impl Clone for Receipt {
    fn clone(&self) -> Self {
        Self { batch: Arc::clone(&self.batch), settled: false }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled {
            let _first_reason_counts = self.batch.lost.set("dropped on its way");
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let outcome = self.lost.get().map_or(Outcome::Left, |why| Outcome::Lost(why));
        // The agent may be gone, then nobody waits for this.
        let _nobody_waits = self.to.send((self.id, outcome));
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
}
