//! The connections that are served, and which of them gives way to a new one:
//! whoever holds places without use must not keep API servers out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    task::{Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// API servers hold a handful of connections each; one takes about 40 KiB.
const MOST: usize = 256;

/// What is known of one connection.
pub(super) struct Place {
    used: Mutex<Instant>,
    gives_way: CancellationToken,
}

/// All connections.
#[derive(Default)]
pub(super) struct Places {
    tasks: JoinSet<()>,
    by_task: HashMap<Id, Arc<Place>>,
}

impl Place {
    fn new() -> Self {
        Self { used: Mutex::new(Instant::now()), gives_way: CancellationToken::new() }
    }

    /// A review was answered. Nothing else is of use.
    pub(super) fn was_used(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When a review was last answered, or the connection made.
    pub(super) fn last_use(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another connection needs the place.
    pub(super) async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Places {
    /// Whether one more connection can be taken. Those that give way still end for a moment, and as many as there are
    /// places may be at that.
    pub(super) fn have_room(&self) -> bool {
        self.by_task.len() < 2 * MOST
    }

    /// Serves one more. Where all places are taken, the connection that was of no use for the longest time gives way;
    /// whether one had to.
    pub(super) fn take<F>(&mut self, serve: impl FnOnce(Arc<Place>) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let is_full = self.staying().count() >= MOST;
        if is_full && let Some(idle) = self.staying().min_by_key(|place| place.last_use()) {
            idle.gives_way.cancel();
        }
        let place = Arc::new(Place::new());
        let task = self.tasks.spawn(serve(Arc::clone(&place)));
        self.by_task.insert(task.id(), place);
        is_full
    }

    fn staying(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.by_task.values().filter(|place| !place.gives_way.is_cancelled())
    }

    /// Waits for the end of one; `None`: there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let id = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        self.by_task.remove(&id);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    /// Takes a connection that ends when it has to.
    fn take(places: &mut Places, taken: &mut Vec<Arc<Place>>) -> bool {
        let mut made = None;
        let displaced = places.take(|place| {
            made = Some(Arc::clone(&place));
            async move { place.gives_way().await }
        });
        taken.extend(made);
        displaced
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_every_place_without_use_keeps_nobody_out() {
        let (mut places, mut taken) = (Places::default(), Vec::new());
        for _ in 0..MOST {
            assert!(!take(&mut places, &mut taken));
            advance(Duration::from_millis(1)).await;
        }
        // That of an API server, which was the first.
        taken[0].was_used();
        assert!(take(&mut places, &mut taken) && places.have_room());
        let gave_way = |taken: &[Arc<Place>]| -> Vec<usize> {
            let all = taken.iter().enumerate();
            all.filter(|(_, place)| place.gives_way.is_cancelled()).map(|(number, _)| number).collect()
        };
        assert_eq!(gave_way(&taken), [1]);
        assert_eq!(places.ended().await, Some(()));
        assert!(take(&mut places, &mut taken));
        assert_eq!(gave_way(&taken), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_those_that_are_slow_to_give_way() {
        let mut places = Places::default();
        while places.have_room() {
            places.take(|_| std::future::pending());
        }
        assert_eq!(places.by_task.len(), 2 * MOST);
        assert_eq!(places.staying().count(), MOST);
    }
}
