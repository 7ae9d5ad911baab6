//! What is wrong in the cluster, told when it begins, changes and ends.

pub mod clock;
pub mod component;
pub mod cron_job;
pub mod edges;
pub mod event;
pub mod happened;
pub mod incident;
pub mod job;
pub mod lines;
mod node;
mod nodes;
pub mod note;
pub mod pod;
pub mod register;
pub mod rollout;
mod sink;
pub mod thresholds;
#[cfg(test)]
mod told;
pub(crate) mod uid;

pub use nodes::Nodes;
pub(crate) use sink::{JobSink, Judged};

use jiff::Timestamp;

use crate::{inventory, uplink::lanes::SignalLane};
use component::Components;
use cron_job::CronJob;
use edges::Edges;
use event::{Events, Networkless};
use happened::Happened;
use job::Job;
use lines::Lines;
use note::{Note, Voice};
use pod::PodSignals;
use register::Register;
use rollout::Rollout;
use thresholds::Thresholds;

/// The signals of everything that is watched. Clones share them.
#[derive(Clone)]
pub struct Signals {
    /// Of the nodes.
    pub nodes: Nodes,
    /// Of DNS, the network of pods, the mesh and kube-proxy.
    pub components: Components,
    /// Of the pods.
    pub pods: PodSignals,
    /// What containers wrote last.
    pub lines: Lines,
    /// Of the Deployments.
    pub deployments: Register<Rollout>,
    /// Of the StatefulSets.
    pub stateful_sets: Register<Rollout>,
    /// Of the DaemonSets.
    pub daemon_sets: Register<Rollout>,
    /// Of the Jobs that no CronJob made.
    pub jobs: Register<Job>,
    /// Of the CronJobs, and of the Jobs that they made.
    pub cron_jobs: Register<CronJob>,
    /// Warning events.
    pub events: Events,
    /// What happened on hosts.
    pub happened: Happened,
    /// What does not get through between workloads.
    pub edges: Edges,
    /// What of all that is open.
    pub note: Note,
}

impl Signals {
    /// Nothing is known yet; signals go to `lane`. While something is wrong with one
    /// of `pods`, all of its lines are asked for.
    pub fn new(thresholds: &Thresholds, lane: &SignalLane, pods: &inventory::Pods) -> Self {
        let (note, lines) = (Note::default(), Lines::default());
        let voice = || Voice { lane: lane.clone(), note: note.clone() };
        let components = Components::new(voice());
        let networkless = Networkless::new(thresholds.creating);
        let parts = || Register::with_components(thresholds.clone(), voice(), components.clone());
        let of_pods = Register::with_components(thresholds.clone(), voice(), components.clone());
        Self {
            nodes: Nodes::new(thresholds.clone(), voice()),
            pods: PodSignals::new(of_pods, pods.clone(), lines.clone(), networkless.clone()),
            lines,
            deployments: parts(),
            stateful_sets: Register::new(thresholds.clone(), voice()),
            daemon_sets: parts(),
            jobs: Register::new(thresholds.clone(), voice()),
            cron_jobs: Register::new(thresholds.clone(), voice()),
            happened: Happened::new(pods.clone(), lane.clone()),
            edges: Edges::new(components.clone(), voice()),
            events: Events::new(components.clone(), networkless, lane.clone()),
            components,
            note,
        }
    }

    /// Looks at what time alone may have changed.
    pub fn tick(&self, now: Timestamp) {
        self.nodes.tick(now);
        // They say on which nodes pods are held back.
        self.events.tick(now);
        self.pods.tick(now);
        self.deployments.tick(now);
        self.stateful_sets.tick(now);
        self.daemon_sets.tick(now);
        self.jobs.tick(now);
        self.cron_jobs.tick(now);
        self.components.tick(now);
        self.edges.tick(now);
    }
}

#[cfg(test)]
mod tests;
