//! Requests and connections that Envoys logged, on their way to the cloud.

mod answers;
mod behind;
mod ends;
pub mod losses;
pub mod metrics;
pub(crate) mod sent;
mod tell;
mod views;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
pub use kestrel_als::Tally;
use kestrel_als::{
    Counts, Key, Span,
    counter::{Counter, Limits},
    headers::Headers,
    identity::Identity,
};
use kestrel_proto::{cloud::v1::stream_flows_request::Request, node::FLOW_SPAN};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    excluded::Excluded,
    inventory::Mirror,
    signals::edges::{Edges, End},
    uplink::lanes::FlowLane,
};
use behind::Behind;
use ends::Ends;
use losses::{Counted, Loss, Losses};
use metrics::{LeftOut, Metrics};
use sent::Senders;
use tell::{Kept, Told};
use views::Open;

/// How often it is looked for what has settled.
const LOOK: Duration = Duration::from_secs(1);

/// Agents and collectors have found a new leader after as many spans: their reconnects are spread over half of that.
const FINDING: u64 = 6;

/// The requests of the cluster. Clones share them.
#[derive(Clone)]
pub struct Requests(Arc<Shared>);

struct Shared {
    mirror: Mirror,
    excluded: Excluded,
    /// The operator's own namespace.
    own: String,
    edges: Edges,
    lane: FlowLane,
    metrics: Metrics,
    counter: Counter,
    senders: Mutex<Senders>,
    behind: Mutex<Behind>,
    losses: Mutex<Losses>,
    open: Mutex<Open>,
    /// Of what the last leader has told before all had come, until this one leads; then of what this one has, when it has ended.
    note: Mutex<String>,
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
        let name = {
            let mirror = mirror.clone();
            Box::new(move |identity: &Identity| workload(&mirror, identity).1)
        };
        let counter = Counter::new(Limits::CLUSTER, name, headers, metrics.entries.clone());
        let (senders, behind, losses, open, note) = Default::default();
        Self(Arc::new(Shared {
            mirror,
            excluded,
            own,
            edges,
            lane,
            metrics,
            counter,
            senders,
            behind,
            losses,
            open,
            note,
        }))
    }

    /// What counts the entries of streams.
    pub(crate) fn counter(&self) -> &Counter {
        &self.0.counter
    }

    /// What became of entries, by the workload whose proxy sent them.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.0.counter.tallies()
    }

    /// What proxies themselves say of what they logged, by workload, and how much of that has not come; of those that were asked.
    pub fn losses(&self) -> BTreeMap<String, (Loss, u64)> {
        let (tallies, losses) = (self.tallies(), self.asked().workloads().clone());
        let received = |name: &str| tallies.get(name).copied().unwrap_or_default().received();
        let counted = losses.into_iter().filter(|(name, _)| tallies.contains_key(name));
        counted.map(|(name, loss)| (name.clone(), (loss, loss.missing(received(&name))))).collect()
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

    /// Tells what has settled, until `receiving` has ended; then all that streams brought.
    pub async fn run_while<T>(&self, receiving: impl Future<Output = T>) -> T {
        let over = CancellationToken::new();
        let receiving = async {
            let end = receiving.await;
            over.cancel();
            end
        };
        tokio::join!(receiving, self.clone().run(over.clone())).0
    }

    /// What the next leader has to know of what this one has told; empty until it has ended.
    pub fn left(&self) -> String {
        self.note().clone()
    }

    /// The last leader has left this.
    pub fn take_over(&self, note: String) {
        *self.note() = note;
    }

    /// Tells what has settled, until the drain; then all that streams brought. What agents and collectors sent and was not told
    /// they send to the next leader: not all of them have sent what ended in the same seconds.
    pub(crate) async fn run(self, drain: CancellationToken) {
        self.begin();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while drain.run_until_cancelled(look.tick()).await.is_some() {
            while let Some((number, span, identities)) = self.0.counter.settled() {
                self.tell((number, span), identities).await;
                self.senders().told(number);
            }
        }
        self.open().end(present());
        while let Some((number, Span { own, sent }, identities)) = self.0.counter.next() {
            let entries = sent.rows().fold(0, |sum: u64, (_, counts)| sum.saturating_add(counts.count));
            self.0.metrics.left_out(LeftOut::SentAgain, entries);
            self.tell((number, Span { own, ..Span::default() }), identities).await;
        }
        // Where nobody keeps anything, nothing comes that could have been told.
        if mem::take(&mut *self.senders()).are_known() {
            *self.note() = self.open().note();
        }
    }

    fn begin(&self) {
        let note = mem::take(&mut *self.note());
        self.open().begin(&note, present() + FINDING);
    }

    /// There are some ten thousand rows: nothing else waits for them.
    async fn tell(&self, span: (u64, Span), identities: HashMap<u32, Arc<Identity>>) {
        let this = self.clone();
        let send = move || this.send((span.0, &span.1), &identities, Timestamp::now());
        if let Err(problem) = spawn_blocking(send).await {
            error!("requests of ten seconds were not told: {problem}");
        }
    }

    fn send(&self, span: (u64, &Span), identities: &HashMap<u32, Arc<Identity>>, now: Timestamp) {
        self.hear_of(identities);
        let unknown = Arc::default();
        let ends = |key: &Key<'_>, counts: &Counts| {
            self.ends(key, counts, identities.get(&key.reporter).unwrap_or(&unknown))
        };
        let Told { messages, entries, folded, twice, excluded, own, answers } =
            tell::tell(span, &mut self.open(), ends, |log| self.0.lane.send(Request::L7AccessLog(log)));
        self.behind().turn();
        let metrics = &self.0.metrics;
        metrics.told(messages, entries, folded);
        metrics.left_out(LeftOut::OtherEnd, twice);
        metrics.left_out(LeftOut::Kept, excluded);
        metrics.left_out(LeftOut::Own, own);
        for (ends, answers) in answers {
            let named = |end: &ends::End| End::new(&end.named.ns, &end.named.kind, &end.named.name);
            self.0.edges.answered(|| Some([named(&ends.source)?, named(&ends.destination)?]), answers, now);
        }
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
            let tallies = self.tallies();
            losses.keep(|name| tallies.contains_key(name));
            let proxies = identities.values().map(|identity| workload(&self.0.mirror, identity));
            losses.heard(proxies.filter_map(|(address, name)| Some((address?, name))));
        }
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    fn asked(&self) -> MutexGuard<'_, Losses> {
        self.0.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Likewise.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Likewise.
    fn note(&self) -> MutexGuard<'_, String> {
        self.0.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Likewise.
    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.0.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number of the span that goes on.
fn present() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default() / FLOW_SPAN
}

/// Where a proxy is, and by what name its entries are counted.
fn workload(mirror: &Mirror, identity: &Identity) -> (Option<IpAddr>, String) {
    let end = ends::reporter(identity, Timestamp::now(), |address, time| mirror.resident(address, time));
    let name = match &*end.named.ns {
        "" => end.named.name,
        namespace => format!("{namespace}/{}", end.named.name),
    };
    (end.address, name)
}

#[cfg(test)]
mod tests;
