//! Pods that change, and how long it takes until the cloud knows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kestrel_dev_cloud::{Record, record::Arrival};
use tokio::{task::JoinSet, time::interval};

use crate::{
    etcd::Etcd,
    objects::{Size, pod, pod_status, uid},
};

/// Updates in a second.
const RATE: usize = 200;
/// Every so many updates an incident begins, and after so many more it ends.
const INCIDENT_EVERY: usize = 10;
const INCIDENT_LASTS: usize = 5 * RATE + INCIDENT_EVERY / 2;

/// What was changed, and when it was written.
#[derive(Default)]
pub(crate) struct Churn {
    /// by UID
    written: BTreeMap<String, Vec<Timestamp>>,
    incidents: Vec<String>,
}

/// Median and 99th percentile of the times from the write to the cloud, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) number: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Churn {
    /// Changes pods for so long. Each changes once; those of incidents back again.
    pub(crate) async fn run(etcd: &Etcd, size: Size, time: Duration) -> Self {
        let (mut churn, mut writes) = (Self::default(), JoinSet::new());
        let mut tick = interval(Duration::from_secs(1) / RATE as u32);
        let count = RATE * time.as_secs() as usize;
        for number in 0..count.min(size.pods - size.nodes) {
            tick.tick().await;
            let changed = size.nodes + number;
            let (changed, status) = match number.checked_sub(INCIDENT_LASTS) {
                Some(begun) if begun % INCIDENT_EVERY == 0 => {
                    let changed = size.nodes + begun;
                    (changed, pod_status(changed, true))
                }
                _ if number % INCIDENT_EVERY == 0 => {
                    churn.incidents.push(uid(7, changed));
                    (changed, pod_status(changed, false))
                }
                // Another address than before.
                _ => (changed, pod_status(changed + size.pods, true)),
            };
            let mut object = pod(changed, size);
            object.content["status"] = status;
            churn.written.entry(uid(7, changed)).or_default().push(Timestamp::now());
            writes.spawn(etcd.clone().put(object));
        }
        writes.join_all().await;
        churn
    }

    /// Times of the inventory's updates; `None`: the cloud does not have the
    /// last state of every pod.
    pub(crate) fn inventory(&self, record: &Record) -> Option<Latency> {
        let pods: BTreeMap<&str, &Arc<Arrival>> =
            record.inventory.of_kind("pod").map(|pod| (pod.facts.uid.as_str(), pod)).collect();
        let times = self.written.iter().map(|(uid, written)| {
            let (arrival, written) = (pods.get(uid.as_str())?, written.last()?);
            let is_told = arrival.facts.action.as_deref() == Some("UPDATE") && arrival.at >= *written;
            is_told.then(|| arrival.at.duration_since(*written))
        });
        latency(times.collect::<Option<_>>()?)
    }

    /// Times of the incidents' beginnings and ends; `None`: none was told.
    pub(crate) fn signals(&self, record: &Record) -> Option<Latency> {
        let mut told: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
        for signal in record.signals.iter() {
            told.entry(&signal.facts.uid).or_default().push(signal.at);
        }
        let times = self.incidents.iter().flat_map(|uid| {
            let (written, told) = (self.written.get(uid), told.get(uid.as_str()));
            let pairs = written.into_iter().flatten().zip(told.into_iter().flatten());
            pairs.map(|(written, told)| told.duration_since(*written))
        });
        latency(times.collect())
    }
}

fn latency(mut times: Vec<SignedDuration>) -> Option<Latency> {
    times.sort_unstable();
    let number = times.len();
    let at = |percent: usize| {
        Some(times.get((number * percent).div_ceil(100).checked_sub(1)?)?.as_secs_f64() * 1000.0)
    };
    Some(Latency { number, p50: at(50)?, p99: at(99)? })
}
