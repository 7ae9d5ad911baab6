//! What does not get through between two workloads: traffic that is stopped again and again, names that DNS does
//! not resolve, and requests that fail.

mod core_dns;
mod end;
pub mod requests;
mod trouble;
mod wire;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, KubernetesEvent, stream_events_request::Request};
use prometheus_client::metrics::counter::Counter;

use super::{component::Components, incident::after, note::Voice};
use crate::inventory::pods::Known;
pub use end::End;
use requests::{Answers, Failing};
pub use trouble::Evidence;
use trouble::{Trouble, Turn};
use wire::Edge;

/// Edges on which something failed lately.
const MOST: usize = 4096;
/// Incidents that are open at a time. Their names travel with the Lease.
const MOST_OPEN: usize = 100;
/// What an earlier leader left open and has not failed again by then, after there was time to settle, is over.
const REAPPEARS: Duration = Duration::from_mins(4);

/// What goes on between two ends, or at one. The same for all that is told as one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Matter {
    /// Packets and connections from the first to the second.
    Traffic,
    /// Answers of the second, a name server, to the first; or, without a second, what a name server itself
    /// cannot find out.
    Names,
    /// Requests of the first to the second, as proxies logged them.
    Requests(Failing),
}

/// The edges of all workloads. Clones share them.
#[derive(Clone)]
pub struct Edges(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    components: Components,
    voice: Voice,
    left_out: Counter,
}

#[derive(Default)]
struct State {
    troubles: HashMap<Edge, Trouble>,
    open: usize,
}

impl Edges {
    /// Nothing has failed so far. Which pods are those of DNS, `components` knows; signals go to `voice`.
    pub fn new(components: Components, voice: impl Into<Voice>) -> Self {
        let (state, left_out) = (Mutex::default(), Counter::default());
        Self(Arc::new(Shared { state, components, voice: voice.into(), left_out }))
    }

    /// What was not watched or not told, because too much failed at a time.
    pub fn left_out(&self) -> Counter {
        self.0.left_out.clone()
    }

    /// So much of what the first sent to the second was stopped by then.
    pub fn stopped(&self, ends: [End; 2], times: u64, at: Timestamp, evidence: Evidence, now: Timestamp) {
        let [from, to] = ends;
        let edge = Edge { matter: Matter::Traffic, from, to: Some(to) };
        self.failed(&edge, [times, 0], at, evidence, now);
    }

    /// So much passed. From and to whom, and where, as of what is stopped, says `who` if anybody wants to know.
    pub fn passed(&self, who: impl FnOnce() -> Option<([End; 2], String)>, times: u64, at: Timestamp) {
        let mut state = self.state();
        // Nearly always nothing fails, and nobody has to know who speaks with whom.
        if state.troubles.is_empty() {
            return;
        }
        let Some(([from, to], what)) = who() else { return };
        let edge = Edge { matter: Matter::Traffic, from, to: Some(to) };
        if let Some(trouble) = state.troubles.get_mut(&edge) {
            trouble.worked(times, &what, at);
        }
    }

    /// So many questions of the first for names were not answered by the second.
    pub fn unresolved(&self, ends: [End; 2], times: u64, at: Timestamp, evidence: Evidence, now: Timestamp) {
        let [from, to] = ends;
        let edge = Edge { matter: Matter::Names, from, to: Some(to) };
        self.failed(&edge, [times, 0], at, evidence, now);
    }

    /// What came of the requests of the first to the second in one window. Who they are says `ends` if anybody wants to know.
    pub fn answered(&self, ends: impl FnOnce() -> Option<[End; 2]>, answers: Answers, now: Timestamp) {
        let Answers { failures, all, last } = answers;
        if failures.is_empty() && self.state().troubles.is_empty() {
            return;
        }
        let Some([from, to]) = ends() else { return };
        let mut edge = Edge { matter: Matter::Traffic, from, to: Some(to) };
        for failing in Failing::ALL {
            edge.matter = Matter::Requests(failing);
            let failure = failures.iter().find(|failure| failure.failing == failing);
            let mut state = self.state();
            let trouble = state.troubles.get_mut(&edge);
            match failure {
                Some(failure) if failure.counts(trouble.as_deref()) => {
                    drop(state);
                    let counts = [failure.share.some, failure.others()];
                    self.failed(&edge, counts, failure.at, failure.evidence.clone(), now);
                }
                // Too few to count: that is how it ends.
                Some(failure) => {
                    if let Some(trouble) = trouble {
                        trouble.went_on([failure.share.some, failure.others()], failure.at);
                    }
                }
                None => {
                    if let Some(trouble) = trouble {
                        trouble.went_on([0, all], last);
                    }
                }
            }
        }
    }

    /// A container of a pod wrote these lines. Those in which CoreDNS says that it could not resolve a name count.
    pub fn wrote<'a>(
        &self,
        pod: &Known,
        lines: impl Iterator<Item = (Option<Timestamp>, &'a str)>,
        now: Timestamp,
    ) {
        let Some((kind, name)) = self.0.components.dns_of(&pod.info.namespace, &pod.owners) else { return };
        let Some(server) = End::new(&pod.info.namespace, kind, &name) else { return };
        for (at, line) in lines {
            if let Some(failure) = core_dns::read(line) {
                let evidence = Evidence::new(failure.why, None, failure.name);
                let edge = Edge { matter: Matter::Names, from: server.clone(), to: None };
                self.failed(&edge, [failure.times, 0], at.unwrap_or(now), evidence, now);
            }
        }
    }

    /// So often it failed, and worked beside that.
    fn failed(&self, edge: &Edge, counts: [u64; 2], at: Timestamp, evidence: Evidence, now: Timestamp) {
        let mut state = self.state();
        let State { troubles, open } = &mut *state;
        let at = at.min(now);
        if !troubles.contains_key(edge) {
            if Trouble::is_past(at, now) {
                return;
            }
            if troubles.len() >= MOST {
                self.0.left_out.inc();
                return;
            }
        }
        let is_kept = match troubles.entry(edge.clone()) {
            Entry::Occupied(trouble) => {
                let trouble = trouble.into_mut();
                trouble.failed(counts, at, evidence);
                self.judge(edge, trouble, open, now)
            }
            Entry::Vacant(room) => {
                let trouble = room.insert(Trouble::new(counts, at, evidence));
                self.judge(edge, trouble, open, now)
            }
        };
        if !is_kept {
            troubles.remove(edge);
        }
    }

    /// Looks at what time alone may have changed.
    pub fn tick(&self, now: Timestamp) {
        let mut state = self.state();
        let State { troubles, open } = &mut *state;
        troubles.retain(|edge, trouble| self.judge(edge, trouble, open, now));
        for name in self.0.voice.note.owed(now, REAPPEARS) {
            let Some(edge) = Edge::of_name(&name) else { continue };
            self.send(edge.signal(&Trouble::unseen(now), Action::Update, true, now));
            self.0.voice.note.turned(&name, false);
        }
    }

    /// Tells what there is to tell; whether the trouble is to be remembered. Called with the lock held, so that signals
    /// are in order.
    fn judge(&self, edge: &Edge, trouble: &mut Trouble, open: &mut usize, now: Timestamp) -> bool {
        match trouble.judge(edge.matter, *open < MOST_OPEN, now) {
            Turn::None => true,
            Turn::Forgotten => false,
            Turn::NoRoom => {
                self.0.left_out.inc();
                true
            }
            Turn::Opened => {
                *open += 1;
                self.send(edge.signal(trouble, Action::Create, false, now));
                self.0.voice.note.turned(&edge.name(), true);
                true
            }
            Turn::Changed => {
                self.send(edge.signal(trouble, Action::Update, false, now));
                true
            }
            Turn::Over => {
                *open -= 1;
                self.send(edge.signal(trouble, Action::Update, true, now));
                self.0.voice.note.turned(&edge.name(), false);
                false
            }
        }
    }

    fn send(&self, signal: KubernetesEvent) {
        self.0.voice.lane.send(Request::KubernetesEvent(signal));
    }

    /// The state is whole after each of its operations.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
