//! Network flows of all nodes, and requests that proxies logged, on their way to the cloud.

mod conversation;
mod edge;
pub mod metrics;
pub mod relay;
pub mod requests;
mod resolve;
mod table;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::{
    cloud::v1::stream_flows_request::Request,
    node::v1::{Flow, FlowDirection, FlowReport, FlowSource, NameFailure},
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{excluded::Excluded, inventory::Mirror, signals::edges::Edges, uplink::lanes::FlowLane};
use conversation::Seen;
use metrics::{LeftOut, Metrics};
use resolve::{Conversation, resolve};
use table::Table;

/// How often it is looked for flows that have settled.
const LOOK: Duration = Duration::from_secs(1);

/// Nodes whose last report is remembered. When there were more over the time, all are forgotten.
const MOST_NODES: usize = 20_000;

/// An agent that reads Hubble tells flows of it every ten seconds: the kubelet's probes alone are some.
const READS_HUBBLE: Duration = Duration::from_mins(5);

/// The flows of all nodes. Clones share them.
#[derive(Clone)]
pub struct Traffic(Arc<Shared>);

struct Shared {
    mirror: Mirror,
    excluded: Excluded,
    edges: Edges,
    lane: FlowLane,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    table: Table,
    /// The last report of each node: its run and its number.
    last: HashMap<String, (u64, u64)>,
    /// When an agent last told what Hubble saw on its node.
    hubble: Option<Instant>,
}

impl Traffic {
    /// No flows yet. Who is who says `mirror`; flows of `excluded` namespaces stay in the cluster. What does not get
    /// through `edges` is told.
    pub fn new(mirror: Mirror, excluded: Excluded, edges: Edges, lane: FlowLane, metrics: Metrics) -> Self {
        Self(Arc::new(Shared { mirror, excluded, edges, lane, metrics, state: Mutex::default() }))
    }

    /// Takes what the agent of `node` reports, once.
    pub(crate) fn take(&self, node: &str, report: FlowReport) {
        let mut state = self.state();
        let FlowReport { run, number, flows, name_failures } = report;
        if state.last.get(node).is_some_and(|(of, last)| *of == run && *last >= number) {
            return self.0.metrics.left_out(LeftOut::Repeated, flows.len());
        }
        if state.last.len() >= MOST_NODES {
            state.last.clear();
        }
        state.last.insert(node.to_owned(), (run, number));
        if flows.iter().any(|flow| flow.seen_by() == FlowSource::Hubble) {
            state.hubble = Some(Instant::now());
        }
        self.add(state, Some(node), flows);
        self.add_failures(Some(node), name_failures);
    }

    /// Takes what Relay shows, of all nodes.
    pub(crate) fn take_of_relay(&self, flows: Vec<Flow>) {
        self.add(self.state(), None, flows);
    }

    /// Takes what Relay shows of name servers, likewise.
    pub(crate) fn take_failures_of_relay(&self, failures: Vec<NameFailure>) {
        self.add_failures(None, failures);
    }

    /// Whether agents read Hubble on their nodes.
    pub(crate) fn has_hubble_of_agents(&self) -> bool {
        self.state().hubble.is_some_and(|told| told.elapsed() < READS_HUBBLE)
    }

    /// Adds what `node` saw, or something that sees all.
    fn add(&self, mut state: MutexGuard<'_, State>, node: Option<&str>, flows: Vec<Flow>) {
        let Shared { mirror, excluded, metrics, .. } = &*self.0;
        let now = Instant::now();
        for mut flow in flows {
            metrics.received(&flow);
            match judge(node, &flow, mirror, excluded) {
                Ok(conversation) => {
                    if let Some(node) = node
                        && flow.direction() == FlowDirection::Unspecified
                    {
                        flow.set_direction(conversation.direction_at(node));
                    }
                    let policies = state.table.add(conversation, &flow, now);
                    if policies > 0 {
                        metrics.left_out(LeftOut::Policy, policies);
                    }
                }
                Err(reason) => metrics.left_out(reason, 1),
            }
        }
        let full = state.table.surplus();
        drop(state);
        self.send(full);
    }

    /// Tells what `node`, or something that sees all, saw of name servers that could not answer.
    fn add_failures(&self, node: Option<&str>, failures: Vec<NameFailure>) {
        let Shared { mirror, excluded, metrics, edges, .. } = &*self.0;
        for failure in failures {
            match judge(node, &edge::as_flow(&failure), mirror, excluded) {
                Ok(conversation) => edge::unresolved(edges, &conversation, &failure, Timestamp::now()),
                Err(reason) => metrics.left_out(reason, 1),
            }
        }
    }

    /// Sends what has settled, until the drain; then all.
    pub async fn run(self, drain: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while drain.run_until_cancelled(look.tick()).await.is_some() {
            let settled = self.state().table.settled(Instant::now());
            self.send(settled);
        }
        let all = self.state().table.all();
        self.send(all);
    }

    fn send(&self, settled: Vec<Seen>) {
        let now = Timestamp::now();
        for seen in settled {
            for flow in seen.told() {
                edge::tell(&self.0.edges, &flow, &seen, now);
                self.0.lane.send(Request::Flow(flow));
            }
        }
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose flow it is, unless it is none to tell.
fn judge(
    node: Option<&str>,
    flow: &Flow,
    mirror: &Mirror,
    excluded: &Excluded,
) -> Result<Conversation, LeftOut> {
    let conversation = resolve(flow, |address, time| mirror.resident(address, time));
    if conversation.ends().any(|end| excluded.has(&end.endpoint.ns)) {
        return Err(LeftOut::Kept);
    }
    // An agent speaks for its node: of what is between two others it can know nothing.
    if node.is_some_and(|node| conversation.ends().all(|end| !end.node.is_empty() && *end.node != *node)) {
        return Err(LeftOut::Foreign);
    }
    Ok(conversation)
}

#[cfg(test)]
mod tests;
