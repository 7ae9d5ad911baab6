//! How many may be attached, and who goes first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::identity::Peer;

/// Whoever is refused comes back within this time, spread evenly.
const RETRY_WITHIN: Duration = Duration::from_secs(30);

/// The places at the link. Clones share them.
#[derive(Clone)]
pub(super) struct Admission {
    state: Arc<Mutex<State>>,
    most: usize,
}

#[derive(Default)]
struct State {
    places: HashMap<Peer, Place>,
    agents: usize,
    entered: u64,
}

struct Place {
    number: u64,
    replaced: CancellationToken,
}

/// There is no place; try again after this time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full(pub(super) Duration);

impl Admission {
    /// A link with `most` places.
    pub(super) fn new(most: usize) -> Self {
        Self { state: Arc::default(), most }
    }

    /// Gives `peer` a place, that of its older stream if it has one. Every one
    /// of the cluster's `nodes` has a place for its agent, whoever comes first.
    ///
    /// # Errors
    /// There is no place.
    pub(super) fn enter(&self, peer: &Peer, nodes: usize) -> Result<Seat, Full> {
        let mut state = self.state();
        let is_agent = matches!(peer, Peer::Agent { .. });
        if let Some(older) = state.places.remove(peer) {
            older.replaced.cancel();
        } else {
            let sidecars = state.places.len() - state.agents;
            let kept = if is_agent { state.agents } else { state.agents.max(nodes) };
            if sidecars + kept >= self.most {
                return Err(Full(RETRY_WITHIN.mul_f64(fastrand::f64())));
            }
            state.agents += usize::from(is_agent);
        }
        state.entered += 1;
        let (number, replaced) = (state.entered, CancellationToken::new());
        state.places.insert(peer.clone(), Place { number, replaced: replaced.clone() });
        Ok(Seat { admission: self.clone(), peer: peer.clone(), number, replaced })
    }

    /// How many places there are.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken, until this is dropped.
pub(super) struct Seat {
    admission: Admission,
    peer: Peer,
    number: u64,
    replaced: CancellationToken,
}

impl Seat {
    /// Resolves when a newer stream of the same peer has taken the place.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        if state.places.get(&self.peer).is_some_and(|place| place.number == self.number) {
            state.places.remove(&self.peer);
            state.agents -= usize::from(matches!(self.peer, Peer::Agent { .. }));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Attached agents, and attached sidecars.
    fn attached(admission: &Admission) -> (usize, usize) {
        let state = admission.state();
        (state.agents, state.places.len() - state.agents)
    }

    fn agent(node: usize) -> Peer {
        Peer::Agent { node: node.to_string() }
    }

    fn sidecar(pod: usize) -> Peer {
        Peer::Sidecar { namespace: "shop".to_owned(), pod: pod.to_string(), uid: pod.to_string() }
    }

    #[test]
    fn sidecars_leave_a_place_for_every_nodes_agent() {
        let admission = Admission::new(5);
        let sidecars: Vec<_> = (0..3).map(|pod| admission.enter(&sidecar(pod), 2).unwrap()).collect();
        let Err(Full(wait)) = admission.enter(&sidecar(3), 2) else {
            panic!("a sidecar took an agent's place")
        };
        assert!(wait <= RETRY_WITHIN);
        let agents: Vec<_> = (0..2).map(|node| admission.enter(&agent(node), 2).unwrap()).collect();
        assert_eq!(attached(&admission), (2, 3));
        assert!(admission.enter(&agent(2), 2).is_err(), "full");
        drop(sidecars);
        drop(agents);
        assert_eq!(attached(&admission), (0, 0));
        assert!(admission.enter(&sidecar(1), 9).is_err(), "more nodes than places");
        assert!(admission.enter(&agent(1), 9).is_ok());
    }

    #[test]
    fn a_newer_stream_takes_the_place_of_the_older_even_when_all_are_taken() {
        let admission = Admission::new(1);
        let older = admission.enter(&agent(1), 1).unwrap();
        assert!(older.replaced().now_or_never().is_none());
        let newer = admission.enter(&agent(1), 1).unwrap();
        assert!(older.replaced().now_or_never().is_some());
        drop(older);
        assert_eq!(attached(&admission), (1, 0));
        drop(newer);
        assert_eq!(attached(&admission), (0, 0));
    }
}
