//! What the process is doing: in some ten lines for a person (`kestrel-aggregator
//! status`; the daemon makes them at its admin port, where the command asks), for
//! `/metrics`, and for the cloud.

mod gauges;
mod text;

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;

use crate::{
    inventory::Watches,
    istio::Istio,
    leader::standing::{Role, Standing},
    stats::Known,
    traffic::requests::{Requests, Tally, losses::Loss},
    uplink::{
        View,
        credentials::{Credentials, Ends},
        lanes::{Depth, Lane, Lanes},
        metrics::{DropReason, Metrics},
        state::State,
    },
};

/// Where all of it is known; clones know the same.
#[derive(Clone)]
pub struct Status {
    /// The pod's name.
    pub pod: String,
    /// Its role.
    pub standing: Standing,
    /// The connection.
    pub view: View,
    /// Token and certificate.
    pub credentials: Credentials,
    /// What waits.
    pub lanes: Lanes,
    /// What was dropped, and what lies on disk.
    pub metrics: Metrics,
    /// Bytes that may lie on disk; `None`: nothing is written there.
    pub spool: Option<u64>,
    /// The watches.
    pub watches: Watches,
    /// What proxies logged.
    pub requests: Requests,
    /// Whether their streams come here too, and not to agents and collectors alone.
    pub serves_proxies: bool,
    /// What was found of Istio; `None`: it is not looked for.
    pub istio: Option<Istio>,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Status {
    /// What is told to the cloud, while there is a connection.
    pub fn known(&self) -> Option<Known> {
        let state = self.view.state();
        state.connection.as_ref()?;
        let [data, control, ..] = &state.streams;
        Some(Known {
            data_stream: data.is_open(),
            control_stream: control.is_open(),
            sent: state.streams.iter().map(|stream| stream.sent.messages).sum(),
            dropped: self.metrics.drops().iter().map(|(_, _, count)| count).sum(),
            watches: self.watches.count(),
        })
    }

    /// The lines.
    pub fn text(&self) -> String {
        Moment {
            now: Timestamp::now(),
            pod: &self.pod,
            role: self.standing.now(),
            uplink: self.view.state(),
            ends: self.credentials.ends(),
            cautions: self.credentials.cautions(),
            waiting: Lane::ALL.map(|lane| (lane, self.lanes.depth(lane))),
            spool: self.spool.map(|limit| (self.metrics.spooled(), limit)),
            dropped: self.metrics.drops(),
            watches: self.watches.count().1,
            missing: self.watches.missing(),
            requests: Some(self.requests.tallies())
                .filter(|tallies| self.serves_proxies || !tallies.is_empty()),
            losses: self.requests.losses(),
            istio: self.istio.as_ref().map(Istio::line),
        }
        .text()
    }
}

/// All of it at one moment.
struct Moment<'a> {
    now: Timestamp,
    pod: &'a str,
    role: Role,
    uplink: State,
    ends: Ends,
    /// What is not right with the credentials.
    cautions: Vec<String>,
    waiting: [(Lane, Depth); Lane::ALL.len()],
    /// Bytes on disk, and how many there may be.
    spool: Option<(u64, u64)>,
    dropped: Vec<(Lane, DropReason, u64)>,
    watches: usize,
    /// Those whose list is not complete, and what has to be done for them.
    missing: Vec<(String, Option<String>)>,
    /// What became of the access logs of each workload's proxies; `None`: they are not received.
    requests: Option<BTreeMap<String, Tally>>,
    /// What proxies say of what they logged, and how much of it has not come.
    losses: BTreeMap<String, (Loss, u64)>,
    /// What was found of Istio.
    istio: Option<String>,
}
