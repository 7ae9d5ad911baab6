//! Who may run, and whose answer goes next.

use tokio::{
    sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use crate::uplink::lanes::{Lanes, Over};

/// Batches that run at the same time; each may hold some 20 MiB.
pub(super) const AT_ONCE: usize = 8;
/// Of them, those that came over one stream: what floods the one leaves room for what comes over the other.
const AT_ONCE_OVER_ONE: usize = 6;

/// A batch may run, among all and among those of its stream.
pub(super) type Place<'a> = (SemaphorePermit<'a>, SemaphorePermit<'a>);

/// To wait for room in a lane, and to fill it.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

/// What batches share.
pub(super) struct Places {
    all: Semaphore,
    /// For each stream.
    shares: [Semaphore; 2],
    /// Whose turn it is to wait for room in the lane of each stream.
    turns: [Mutex<()>; 2],
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: Semaphore::new(AT_ONCE),
            shares: [AT_ONCE_OVER_ONE; 2].map(Semaphore::new),
            turns: Default::default(),
        }
    }
}

impl Places {
    /// Waits until a batch may run; `None` if that is not before the deadline.
    pub(super) async fn take(&self, over: Over, deadline: Instant) -> Option<Place<'_>> {
        let place = async {
            // The stream's own share first: who waits for it takes nothing from others.
            let share = self.shares[number(over)].acquire().await;
            Some((self.all.acquire().await.ok()?, share.ok()?))
        };
        timeout_at(deadline, place).await.ok()?
    }

    /// Waits for room where the answer goes: answers of the largest size would
    /// push each other out unsent. The room is taken while the turn is held.
    pub(super) async fn turn(&self, lanes: &Lanes, over: impl Fn() -> Over) -> Turn<'_> {
        loop {
            let lane = over();
            let turn = self.turns[number(lane)].lock().await;
            if over() == lane {
                lanes.answers(lane).room().await;
            }
            if over() == lane {
                return turn;
            }
        }
    }
}

fn number(over: Over) -> usize {
    match over {
        Over::Control => 0,
        Over::Data => 1,
    }
}
