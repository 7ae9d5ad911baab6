//! Network flows of all nodes, and requests that proxies logged, on their way to the cloud.

mod conversation;
pub mod metrics;
pub mod requests;
mod resolve;
mod table;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kestrel_proto::{
    cloud::v1::{self, stream_flows_request::Request},
    node::v1::{Flow, FlowDirection, FlowReport},
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{excluded::Excluded, inventory::Mirror, uplink::lanes::FlowLane};
use metrics::{LeftOut, Metrics};
use resolve::{Conversation, resolve};
use table::Table;

/// How often it is looked for flows that have settled.
const LOOK: Duration = Duration::from_secs(1);

/// Nodes whose last report is remembered. When there were more over the time, all are forgotten.
const MOST_NODES: usize = 20_000;

/// The flows of all nodes. Clones share them.
#[derive(Clone)]
pub struct Traffic(Arc<Shared>);

struct Shared {
    mirror: Mirror,
    excluded: Excluded,
    lane: FlowLane,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    table: Table,
    /// The last report of each node: its run and its number.
    last: HashMap<String, (u64, u64)>,
}

impl Traffic {
    /// No flows yet. Who is who says `mirror`; flows of `excluded` namespaces stay in the cluster.
    pub fn new(mirror: Mirror, excluded: Excluded, lane: FlowLane, metrics: Metrics) -> Self {
        Self(Arc::new(Shared { mirror, excluded, lane, metrics, state: Mutex::default() }))
    }

    /// Takes what the agent of `node` reports, once.
    pub(crate) fn take(&self, node: &str, report: FlowReport) {
        let Shared { mirror, excluded, metrics, .. } = &*self.0;
        let mut state = self.state();
        let FlowReport { run, number, flows } = report;
        if state.last.get(node).is_some_and(|(of, last)| *of == run && *last >= number) {
            return metrics.left_out(LeftOut::Repeated, flows.len());
        }
        if state.last.len() >= MOST_NODES {
            state.last.clear();
        }
        state.last.insert(node.to_owned(), (run, number));
        let now = Instant::now();
        for mut flow in flows {
            metrics.received(&flow);
            match judge(node, &flow, mirror, excluded) {
                Ok(conversation) => {
                    if flow.direction() == FlowDirection::Unspecified {
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

    fn send(&self, flows: Vec<v1::Flow>) {
        flows.into_iter().for_each(|flow| self.0.lane.send(Request::Flow(flow)));
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose flow it is, unless it is none to tell.
fn judge(node: &str, flow: &Flow, mirror: &Mirror, excluded: &Excluded) -> Result<Conversation, LeftOut> {
    let conversation = resolve(flow, |address, time| mirror.resident(address, time));
    if conversation.ends().any(|end| excluded.has(&end.endpoint.ns)) {
        return Err(LeftOut::Kept);
    }
    // An agent speaks for its node: of what is between two others it can know nothing.
    if conversation.ends().all(|end| !end.node.is_empty() && *end.node != *node) {
        return Err(LeftOut::Foreign);
    }
    Ok(conversation)
}

#[cfg(test)]
mod tests;
