//! What passes all the time: numbered signals, lines and flows, and changes of
//! the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kestrel_aggregator::uplink::{
    lanes::Lanes,
    receipt::{Outcome, Source},
};
use kestrel_proto::cloud::v1::{
    Flow, KubernetesEvent, LogEntry, ObjectReference, PodLogs, stream_events_request::Request as Signal,
    stream_flows_request::Request as FlowRequest,
};
use tokio::{sync::Notify, task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// From one signal, line and flow to the next.
const PACE: Duration = Duration::from_millis(5);
/// Objects that the signals are about, in turns.
const OBJECTS: u64 = 3;
/// Batches of an agent that may wait for their outcome.
const CREDIT: usize = 512;

/// What went in so far; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The greatest number of each series.
    signals: AtomicU64,
    lines: AtomicU64,
    flows: AtomicU64,
    /// Lines that the agent may forget.
    acked: AtomicU64,
    more_lines: Notify,
}

impl Counts {
    pub(crate) fn signals(&self) -> u64 {
        self.0.signals.load(Ordering::SeqCst)
    }

    pub(crate) fn lines(&self) -> u64 {
        self.0.lines.load(Ordering::SeqCst)
    }

    pub(crate) fn flows(&self) -> u64 {
        self.0.flows.load(Ordering::SeqCst)
    }

    pub(crate) fn acked(&self) -> u64 {
        self.0.acked.load(Ordering::SeqCst)
    }
}

/// Traffic that passes until it is paused.
pub(crate) struct Traffic {
    lanes: Lanes,
    cluster: Cluster,
    counts: Counts,
    passing: Option<(CancellationToken, JoinHandle<()>)>,
    agent: JoinHandle<()>,
}

impl Traffic {
    pub(crate) fn new(lanes: Lanes, cluster: Cluster) -> Self {
        let counts = Counts::default();
        let agent = tokio::spawn(follow(lanes.clone(), counts.clone()));
        Self { lanes, cluster, counts, passing: None, agent }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Lets it pass.
    pub(crate) fn resume(&mut self) {
        let stop = CancellationToken::new();
        let (lanes, cluster, counts) = (self.lanes.clone(), self.cluster.clone(), self.counts.clone());
        let passing = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut pace = interval(PACE);
                while stop.run_until_cancelled(pace.tick()).await.is_some() {
                    lanes.signals().send(signal(counts.0.signals.fetch_add(1, Ordering::SeqCst) + 1));
                    lanes.flows().send(flow(counts.0.flows.fetch_add(1, Ordering::SeqCst) + 1));
                    counts.0.lines.fetch_add(1, Ordering::SeqCst);
                    counts.0.more_lines.notify_one();
                    cluster.change();
                }
            }
        });
        self.passing = Some((stop, passing));
    }

    /// Lets no more in; what is in goes on.
    pub(crate) async fn pause(&mut self) {
        if let Some((stop, passing)) = self.passing.take() {
            stop.cancel();
            passing.await.unwrap();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.agent.abort();
        if let Some((_, passing)) = &self.passing {
            passing.abort();
        }
    }
}

/// What one Kubernetes event of the series is.
fn signal(number: u64) -> Signal {
    let name = format!("web-{}", number % OBJECTS);
    Signal::KubernetesEvent(KubernetesEvent {
        name: format!("{name}.{number}"),
        namespace: "shop".to_owned(),
        message: format!("signal {number}"),
        involved_object: Some(ObjectReference { name, ..ObjectReference::default() }),
        ..KubernetesEvent::default()
    })
}

fn flow(number: u64) -> FlowRequest {
    FlowRequest::Flow(Flow { src_ip: number.to_string(), port: 443, count: 1, ..Flow::default() })
}

/// The logs of one container, encoded.
pub(crate) fn logs(pod: &str, messages: impl Iterator<Item = String>) -> Vec<u8> {
    let log_entries: Vec<_> = messages.map(|message| LogEntry { message, ..LogEntry::default() }).collect();
    let logs = PodLogs {
        namespace: "shop".to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: format!("uid-of-{pod}"),
        container_name: "app".to_owned(),
        total_lines: i64::try_from(log_entries.len()).unwrap(),
        log_entries,
        ..PodLogs::default()
    };
    prost::Message::encode_to_vec(&logs)
}

/// A node agent with one file: it sends every line once, and begins again with
/// the first that it hears is lost.
async fn follow(lanes: Lanes, counts: Counts) {
    let (source, mut outcomes) = Source::new();
    let mut under_way: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let (mut due, mut lost) = (BTreeSet::new(), BTreeSet::new());
    let (mut batch, mut read, mut generation) = (0, 0, 0);
    loop {
        if !lost.is_empty() && under_way.is_empty() {
            due.append(&mut lost);
            generation = source.generation();
        }
        let written = counts.lines();
        if due.is_empty() && written > read {
            due.insert((read + 1, written));
            read = written;
        }
        if lost.is_empty()
            && under_way.len() < CREDIT
            && let Some((first, last)) = due.pop_first()
        {
            batch += 1;
            under_way.insert(batch, (first, last));
            let lines = (first..=last).map(|number| format!("line {number}"));
            lanes.logs().send(logs("web-0", lines), source.receipt(batch, generation)).await;
            continue;
        }
        tokio::select! {
            () = counts.0.more_lines.notified() => {}
            outcome = outcomes.recv() => {
                let (batch, outcome) = outcome.unwrap();
                let (first, last) = under_way.remove(&batch).unwrap();
                match outcome {
                    Outcome::Left => drop(counts.0.acked.fetch_add(last - first + 1, Ordering::SeqCst)),
                    Outcome::Lost(_) => drop(lost.insert((first, last))),
                }
            }
        }
    }
}
