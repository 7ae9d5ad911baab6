//! Places for connections and for streams, of which no peer gets all.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So many, and so many for one peer.
pub(super) struct Places {
    most: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One that somebody has, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
}

impl Places {
    /// Of `most` a peer may have one in so many as `share`.
    pub(super) fn new(most: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { most, each: most.div_ceil(share), taken: Mutex::default() })
    }

    /// `None`: there is none, or none for this peer.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let own = taken.by_peer.get(&peer).copied().unwrap_or_default();
        if taken.all >= self.most || own >= self.each {
            return None;
        }
        taken.all += 1;
        taken.by_peer.insert(peer, own + 1);
        Some(Place { places: Arc::clone(self), peer })
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Entry::Occupied(mut own) = taken.by_peer.entry(self.peer) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_gets_its_share_and_all_of_them_what_there_is() {
        let places = Places::new(5, 2);
        let [one, two] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut taken: Vec<_> = (0..3).map(|_| places.take(one).unwrap()).collect();
        assert!(places.take(one).is_none());
        taken.extend((0..2).map(|_| places.take(two).unwrap()));
        assert!(places.take(two).is_none());
        taken.remove(0);
        assert!(places.take(two).is_some());
        taken.clear();
        assert!(places.taken().by_peer.is_empty() && places.taken().all == 0);
    }
}
