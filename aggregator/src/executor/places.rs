//! Which batches run: some at once, of each stream some of these, and between two parts of one the next that waits; and whose
//! answer goes next.

use tokio::{
    sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use crate::uplink::lanes::{Lanes, Over};

/// Batches that run at the same time. Each may hold some 20 MiB, and some 60 where a filter sorts, beside the objects of
/// commands, which have a room of their own.
pub(super) const AT_ONCE: usize = 8;
/// Of them, those that came over one stream: what floods the one leaves room for what comes over the other.
const AT_ONCE_OVER_ONE: usize = 6;
/// What batches without a place may hold, all together: what their answers have so far.
const HELD_BYTES: usize = 32 * 1024 * 1024;

/// To wait for room in a lane, and to fill it.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

/// What batches share.
pub(super) struct Places {
    all: Semaphore,
    /// For each stream.
    shares: [Semaphore; 2],
    held: Semaphore,
    /// Whose turn it is to wait for room in the lane of each stream.
    turns: [Mutex<()>; 2],
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            all: Semaphore::new(AT_ONCE),
            shares: [AT_ONCE_OVER_ONE; 2].map(Semaphore::new),
            held: Semaphore::new(HELD_BYTES),
            turns: Default::default(),
        }
    }

    /// Waits until a batch may run; `None` if that is not before the deadline.
    pub(super) async fn take(&self, over: Over, deadline: Instant) -> Option<Place<'_>> {
        let mut place = Place { of: Some((self, over)), ..Place::alone(deadline) };
        timeout_at(deadline, place.again()).await.ok()?;
        Some(place)
    }

    /// Waits for room where the answer goes: answers of the largest size would push each other out unsent. The room is taken
    /// while the turn is held.
    pub(super) async fn turn(&self, lanes: &Lanes, over: impl Fn() -> Over) -> Turn<'_> {
        loop {
            let lane = over();
            let turn = self.turns[lane as usize].lock().await;
            if over() == lane {
                lanes.answers(lane).room().await;
            }
            if over() == lane {
                return turn;
            }
        }
    }
}

/// A batch may run, until its deadline.
pub(super) struct Place<'a> {
    pub deadline: Instant,
    of: Option<(&'a Places, Over)>,
    permits: Option<[SemaphorePermit<'a>; 2]>,
    held: Option<SemaphorePermit<'a>>,
}

impl Place<'_> {
    /// That of a batch beside which no other runs.
    pub(super) fn alone(deadline: Instant) -> Self {
        Self { deadline, of: None, permits: None, held: None }
    }

    /// Between two parts of a batch, of whose answer there are `bytes`: who waits has its turn first.
    pub(super) async fn pass(&mut self, bytes: usize) {
        self.lend(bytes);
        self.again().await;
    }

    /// Gives the place to others while the batch holds no more than `bytes`; without room for them it keeps it.
    pub(super) fn lend(&mut self, bytes: usize) {
        let Some((places, _)) = self.of else { return };
        if let Ok(held) = places.held.try_acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)) {
            self.held = Some(held);
            self.permits = None;
        }
    }

    async fn again(&mut self) {
        let Some((places, over)) = self.of.filter(|_| self.permits.is_none()) else { return };
        let share = &places.shares[over as usize];
        // The stream's own share first: who waits for it takes nothing from others. Neither is ever closed.
        if let (Ok(share), Ok(one)) = (share.acquire().await, places.all.acquire().await) {
            self.permits = Some([share, one]);
            self.held = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn between_two_parts_who_waits_has_its_turn_and_what_is_held_has_a_bound() {
        let places = Places::new();
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        let mut batches = Vec::new();
        for _ in 0..AT_ONCE_OVER_ONE {
            batches.push(places.take(Over::Control, deadline).await.unwrap());
        }
        let mut waits = Box::pin(places.take(Over::Control, deadline));
        assert!(waits.as_mut().now_or_never().is_none());
        let (first, others) = batches.split_first_mut().unwrap();
        // There is room for the answers of one so far, and so the others keep their places.
        let mut passes = Box::pin(first.pass(HELD_BYTES));
        assert!(passes.as_mut().now_or_never().is_none());
        for other in others {
            assert!(other.pass(1).now_or_never().is_some());
        }
        let has_its_turn = waits.await.unwrap();
        assert!(passes.as_mut().now_or_never().is_none());
        drop(has_its_turn);
        passes.await;
        assert_eq!(places.held.available_permits(), HELD_BYTES);
        assert!(places.take(Over::Control, deadline).await.is_none(), "until the deadline");
    }

    #[tokio::test]
    async fn a_place_that_is_lent_is_had_again_or_given_up() {
        let places = Places::new();
        let mut place = places.take(Over::Data, Instant::now()).await.unwrap();
        place.lend(1000);
        assert_eq!(places.all.available_permits(), AT_ONCE);
        place.pass(2000).await;
        assert_eq!(places.all.available_permits(), AT_ONCE - 1);
        place.lend(HELD_BYTES);
        drop(place);
        assert_eq!((places.all.available_permits(), places.held.available_permits()), (AT_ONCE, HELD_BYTES));
        Place::alone(Instant::now()).pass(1).await;
    }
}
