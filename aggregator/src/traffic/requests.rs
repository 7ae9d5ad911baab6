//! Requests and connections that Envoys logged, on their way to the cloud.

mod answers;
mod behind;
mod ends;
pub mod losses;
pub mod metrics;
mod sources;
mod spans;
mod tell;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use kestrel_als::{
    Counts, Fold, Key, Reporter, Window,
    entry::{self, Found},
    headers::Headers,
    identity::Identity,
};
use kestrel_proto::cloud::v1::stream_flows_request::Request;
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    excluded::Excluded,
    inventory::Mirror,
    signals::edges::{Edges, End},
    uplink::lanes::FlowLane,
};
use behind::Behind;
use ends::Ends;
use losses::{Counted, Loss, Losses};
use metrics::{LeftOut, Metrics, Outcome, Refused};
use sources::Sources;
pub use sources::Tally;
use spans::Spans;
use tell::{Kept, Told};

/// How often it is looked for windows that have settled.
const LOOK: Duration = Duration::from_secs(1);
/// From one warning that paths are folded to the next.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// The requests of the cluster. Clones share them.
#[derive(Clone)]
pub struct Requests(Arc<Shared>);

struct Shared {
    mirror: Mirror,
    excluded: Excluded,
    /// The operator's own namespace.
    own: String,
    edges: Edges,
    /// Those that may be told.
    headers: Headers,
    lane: FlowLane,
    metrics: Metrics,
    state: Mutex<State>,
    behind: Mutex<Behind>,
    losses: Mutex<Losses>,
    warned: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    spans: Spans,
    sources: Sources,
}

/// A stream of a proxy. Its end is told by dropping it.
pub(crate) struct Stream {
    requests: Requests,
    reporter: Reporter,
    workload: String,
    /// Address of the connection: of a proxy that does not say where it is.
    peer: IpAddr,
}

impl Requests {
    /// No requests yet. Who is who says `mirror`; requests of `excluded` namespaces stay in the cluster, and those of the
    /// operator itself, in the namespace `own`, are not told. Those that fail are told to `edges` too. Of headers those
    /// of `headers` are told, of one request of many.
    pub fn new(
        mirror: Mirror,
        excluded: Excluded,
        own: String,
        edges: Edges,
        headers: Headers,
        lane: FlowLane,
        metrics: Metrics,
    ) -> Self {
        let (state, behind, losses, warned) = Default::default();
        Self(Arc::new(Shared {
            mirror,
            excluded,
            own,
            edges,
            headers,
            lane,
            metrics,
            state,
            behind,
            losses,
            warned,
        }))
    }

    /// A stream begins, over a connection from `peer`.
    pub(crate) fn stream(&self, peer: IpAddr) -> Stream {
        let reporter = self.state().sources.open(Identity::default());
        Stream { requests: self.clone(), reporter, workload: "unknown".to_owned(), peer: peer.to_canonical() }
    }

    /// What became of entries, by the workload whose proxy sent them.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.state().sources.tallies().clone()
    }

    /// What proxies themselves say of what they logged, by workload, and how much of that has not come; of those that were asked.
    pub fn losses(&self) -> BTreeMap<String, (Loss, u64)> {
        let (tallies, losses) = (self.tallies(), self.asked().workloads().clone());
        let received = |name: &str| tallies.get(name).copied().unwrap_or_default().received();
        losses.into_iter().map(|(name, loss)| (name.clone(), (loss, loss.missing(received(&name))))).collect()
    }

    /// Addresses of the proxies of which something was heard lately.
    pub(crate) fn proxies(&self) -> Vec<IpAddr> {
        self.asked().addresses()
    }

    /// What some of them have counted.
    pub(crate) fn counted(&self, said: Vec<(IpAddr, Counted)>) {
        let tallies = self.tallies();
        let received = |name: &str| tallies.get(name).copied().unwrap_or_default().received();
        let mut losses = self.asked();
        said.into_iter().for_each(|(proxy, counted)| losses.said(proxy, counted, received));
    }

    /// Tells what has settled, until the drain; then all.
    pub(crate) async fn run(self, drain: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while drain.run_until_cancelled(look.tick()).await.is_some() {
            while let Some(window) = self.settled(now()) {
                self.tell(window).await;
            }
        }
        while let Some(window) = self.next() {
            self.tell(window).await;
        }
    }

    fn settled(&self, now: u64) -> Option<Window> {
        let mut state = self.state();
        let window = state.spans.settled(now)?;
        state.sources.forget();
        Some(window)
    }

    fn next(&self) -> Option<Window> {
        let mut state = self.state();
        let window = state.spans.next()?;
        state.sources.forget();
        Some(window)
    }

    /// A window has some ten thousand rows: nothing else waits for them.
    async fn tell(&self, window: Window) {
        let this = self.clone();
        if let Err(problem) = spawn_blocking(move || this.send(&window, Timestamp::now())).await {
            error!("requests of ten seconds were not told: {problem}");
        }
    }

    fn send(&self, window: &Window, now: Timestamp) {
        let identities = self.state().sources.identities();
        self.hear_of(&identities);
        let unknown = Arc::default();
        let ends = |key: &Key<'_>, counts: &Counts| {
            self.ends(key, counts, identities.get(&key.reporter).unwrap_or(&unknown))
        };
        let Told { messages, entries, twice, excluded, own, answers } = tell::tell(window, ends);
        self.behind().turn();
        let metrics = &self.0.metrics;
        metrics.told(messages.len(), entries);
        metrics.left_out(LeftOut::OtherEnd, twice);
        metrics.left_out(LeftOut::Kept, excluded);
        metrics.left_out(LeftOut::Own, own);
        for (ends, answers) in answers {
            let named = |end: &ends::End| End::new(&end.named.ns, &end.named.kind, &end.named.name);
            self.0.edges.answered(|| Some([named(&ends.source)?, named(&ends.destination)?]), answers, now);
        }
        messages.into_iter().for_each(|log| self.0.lane.send(Request::L7AccessLog(log)));
    }

    fn ends(&self, key: &Key<'_>, counts: &Counts, identity: &Identity) -> Result<(Ends, Arc<str>), Kept> {
        let Shared { mirror, excluded, own, .. } = &*self.0;
        let time = Timestamp::from_nanosecond(counts.last.into()).unwrap_or(Timestamp::MAX);
        let mut ends = ends::resolve(key, identity, time, |address, time| mirror.resident(address, time));
        self.behind().name(&mut ends, key.side, key.cluster);
        let namespaces = [&ends.source.named.ns, &ends.destination.named.ns];
        if namespaces.contains(&own) {
            return Err(Kept::Own);
        }
        if namespaces.iter().any(|namespace| excluded.has(namespace)) {
            return Err(Kept::Excluded);
        }
        Ok((ends, identity.id.as_str().into()))
    }

    /// These are the proxies now. Of those that say nothing of themselves nobody knows how many they are.
    fn hear_of(&self, identities: &HashMap<u32, Arc<Identity>>) {
        let mut losses = self.asked();
        if losses.are_asked() {
            let named = |identity: &Arc<Identity>| Some((identity.address?, self.workload(identity)));
            losses.heard(identities.values().filter_map(named));
        }
    }

    /// By what name the entries of a proxy are counted.
    fn workload(&self, identity: &Identity) -> String {
        let mirror = &self.0.mirror;
        let end = ends::reporter(identity, Timestamp::now(), |address, time| mirror.resident(address, time));
        match &*end.named.ns {
            "" => end.named.name,
            namespace => format!("{namespace}/{}", end.named.name),
        }
    }

    /// Says it in the log, of which the cloud has the warnings too.
    fn warn_of_folding(&self, workload: &str) {
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            warn!(
                "the proxy of {workload} logs more different requests in ten seconds than are told apart: those of more \
                 are told with the path {}, all in one (kestrel_requests_received_total says how many)",
                kestrel_als::template::OTHER
            );
        }
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Likewise.
    fn asked(&self) -> MutexGuard<'_, Losses> {
        self.0.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Likewise.
    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.0.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Counts the entries of a message.
    pub(crate) fn take(&mut self, message: &[u8]) {
        let requests = self.requests.clone();
        let now = now();
        let mut state = requests.state();
        let State { spans, sources } = &mut *state;
        let (mut tally, mut malformed, mut unfinished) = (Tally::default(), 0, 0);
        entry::read(message, |found| match found {
            Found::Identifier(identifier) => self.introduce(identifier, sources),
            Found::Entry(entry) if entry.is_intermediate => unfinished += 1,
            Found::Entry(entry) => {
                let window = spans.window(entry.end(), now);
                match window.add(&self.reporter, entry, spans::MOST_BYTES) {
                    Fold::Nothing => {
                        tally.aggregated += 1;
                        window.sample(entry, &requests.0.headers, spans::MOST_BYTES);
                    }
                    Fold::Path | Fold::Detail | Fold::All => tally.folded += 1,
                }
            }
            Found::Malformed => malformed += 1,
        });
        tally.refused = malformed + unfinished;
        sources.count(&self.workload, tally);
        drop(state);
        let metrics = &requests.0.metrics;
        metrics.received(Outcome::Aggregated, tally.aggregated);
        metrics.received(Outcome::Folded, tally.folded);
        metrics.refused(Refused::Malformed, malformed);
        metrics.refused(Refused::Unfinished, unfinished);
        if tally.folded > 0 {
            requests.warn_of_folding(&self.workload);
        }
    }

    /// Counts how many entries a message has, of a stream that sends more than it may.
    pub(crate) fn pass_over(&mut self, message: &[u8]) {
        let refused = entry::count(message);
        self.requests.state().sources.count(&self.workload, Tally { refused, ..Tally::default() });
        self.requests.0.metrics.refused(Refused::Rate, refused);
    }

    /// It says who it is.
    fn introduce(&mut self, identifier: &[u8], sources: &mut Sources) {
        let mut identity = Identity::read(identifier);
        identity.address = identity.address.or(Some(self.peer));
        self.workload = self.requests.workload(&identity);
        sources.close(&self.reporter);
        self.reporter = sources.open(identity);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.requests.state().sources.close(&self.reporter);
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
