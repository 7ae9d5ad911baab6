//! Pods that change, and how long it takes until the cloud knows.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use kestrel_dev_cloud::{Record, record::Arrival};
use tokio::{task::JoinSet, time::interval};

use crate::{
    etcd::Etcd,
    objects::{Size, pod, pod_status, uid},
};

/// Updates in a second, and how many of them there must be at least for the figures to mean anything.
const RATE: usize = 200;
const LEAST_RATE: f64 = 0.9 * RATE as f64;
/// Every so many updates an incident begins or ends.
const INCIDENT_EVERY: usize = 5;
/// Pods that have incidents, again and again.
const INCIDENTS: usize = 100;

/// What was changed, and when it was written.
pub(crate) struct Churn {
    /// times of the writes by UID, each with whether the pod was well then
    written: BTreeMap<String, Vec<(Timestamp, bool)>>,
    /// updates in a second
    pub(crate) rate: f64,
}

/// Median and 99th percentile of the times from the write to the cloud, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) number: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Churn {
    /// Changes pods for so long, one after another, and then from the first again. Some fall
    /// ill and get well in turn; all others get another address each time.
    pub(crate) async fn run(etcd: &Etcd, size: Size, time: Duration) -> Self {
        let (mut written, mut writes) = (BTreeMap::<_, Vec<_>>::new(), JoinSet::new());
        let others = size.pods - size.nodes - INCIDENTS;
        let (begin, mut tick) = (Instant::now(), interval(Duration::from_secs(1) / RATE as u32));
        let count = RATE * time.as_secs() as usize;
        for number in 0..count {
            tick.tick().await;
            let (changed, address, is_well) = if number.is_multiple_of(INCIDENT_EVERY) {
                let turn = number / INCIDENT_EVERY;
                let changed = size.nodes + turn % INCIDENTS;
                (changed, changed, turn / INCIDENTS % 2 == 1)
            } else {
                let changed = size.nodes + INCIDENTS + number % others;
                (changed, changed + size.pods * (1 + number / others), true)
            };
            let etcd = etcd.clone();
            // To make an object takes longer than to store it.
            writes.spawn(async move {
                let mut object = pod(changed, size);
                object.content["status"] = pod_status(address, is_well);
                let at = Timestamp::now();
                etcd.put(object).await;
                (uid(7, changed), at, is_well)
            });
        }
        for (uid, at, is_well) in writes.join_all().await {
            written.entry(uid).or_default().push((at, is_well));
        }
        written.values_mut().for_each(|written| written.sort_unstable());
        Self { written, rate: count as f64 / begin.elapsed().as_secs_f64() }
    }

    /// Whether it was as much as was asked for.
    pub(crate) fn is_enough(&self) -> bool {
        self.rate >= LEAST_RATE
    }

    /// Times of the inventory's updates; `None`: the cloud does not have the
    /// last state of every pod.
    pub(crate) fn inventory(&self, record: &Record) -> Option<Latency> {
        let pods: BTreeMap<&str, &Arc<Arrival>> =
            record.inventory.of_kind("pod").map(|pod| (pod.facts.uid.as_str(), pod)).collect();
        let times = self.written.iter().map(|(uid, written)| {
            let (arrival, (written, _)) = (pods.get(uid.as_str())?, written.last()?);
            let is_told = arrival.facts.action.as_deref() == Some("UPDATE") && arrival.at >= *written;
            is_told.then(|| arrival.at.duration_since(*written))
        });
        latency(times.collect::<Option<_>>()?)
    }

    /// Times of the incidents' beginnings and ends; `None`: the cloud was not told of
    /// each, once and in their order.
    pub(crate) fn signals(&self, record: &Record) -> Option<Latency> {
        let mut told: BTreeMap<&str, Vec<&Arrival>> = BTreeMap::new();
        for signal in record.signals.iter() {
            told.entry(&signal.facts.uid).or_default().push(signal);
        }
        let mut times = Vec::new();
        for (uid, written) in self.written.iter().filter(|(_, written)| !written[0].1) {
            let told = told.get(uid.as_str()).filter(|told| told.len() == written.len())?;
            for ((written, is_well), signal) in written.iter().zip(told) {
                let action = if *is_well { "UPDATE" } else { "CREATE" };
                let is_told = signal.facts.action.as_deref() == Some(action) && signal.at >= *written;
                times.push(is_told.then(|| signal.at.duration_since(*written))?);
            }
        }
        latency(times)
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
