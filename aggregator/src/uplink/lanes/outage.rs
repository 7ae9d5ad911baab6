//! A day without the cloud, in the time of a clock that the test sets.

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use futures::FutureExt as _;
use kestrel_proto::cloud::v1::{
    Flow, KubernetesEvent, LogEntry, PodLogs, stream_events_request, stream_flows_request,
};

use super::*;
use crate::uplink::{
    metrics::{DropLabel, DropReason},
    receipt::{Outcome, Source},
};

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(1_800_000_000) };
}

fn clock() -> Timestamp {
    Timestamp::from_second(NOW.get()).unwrap()
}

const HOURS: i64 = 26;
/// Seconds from one step to the next.
const STEP: i64 = 4;
const DISK: u64 = 24 << 20;

fn text(number: usize, bytes: usize) -> String {
    format!("{number:0bytes$}")
}

/// Takes everything of a lane, which leaves at once; the first ten bytes of the
/// text in it.
fn arrived(lanes: &Lanes, lane: Lane, text: fn(&[u8]) -> String) -> Vec<usize> {
    std::iter::from_fn(|| lanes.take(lane))
        .map(|(number, message)| {
            lanes.left(lane, number);
            text(message.record()[1]).parse().unwrap()
        })
        .collect()
}

#[test]
fn after_a_day_without_the_cloud_signals_are_kept_before_logs_and_logs_before_flows() {
    use prost::Message as _;

    let folder = tempfile::tempdir().unwrap();
    let spool =
        Spool { folder: folder.path().join("spool"), bytes: DISK, age: Duration::from_secs(24 * 3600) };
    let lanes = Lanes::build(Metrics::default(), Some(&spool), clock);
    lanes.lead();
    // Each batch is of an agent of its own: the loss of one takes back no other.
    let mut agents = Vec::new();
    let (mut signals, mut logs, mut flows) = (0, 0, 0);
    let mut given_up = BTreeSet::new();
    let on_disk = || {
        let bytes = |lane| lanes.0.metrics.spool_bytes.get_or_create(&LaneLabel { lane }).get();
        [Lane::Signals, Lane::Logs, Lane::Flows].map(bytes)
    };
    let steps = HOURS * 3600 / STEP;
    let first = NOW.get();
    for step in 0..steps {
        NOW.set(first + step * STEP);
        if step % 3 == 0 {
            let message = text(signals, 1000);
            let event = KubernetesEvent { message, ..Default::default() };
            lanes.signals().send(stream_events_request::Request::KubernetesEvent(event));
            signals += 1;
        }
        let log_entries = vec![LogEntry { message: text(logs, 2000), ..Default::default() }];
        let batch = PodLogs { log_entries, ..Default::default() }.encode_to_vec();
        let (agent, outcomes) = Source::new();
        agents.push(outcomes);
        if lanes.logs().send(batch, agent.receipt(logs as u64, 0)).now_or_never().is_none() {
            // The agent waits: the batch is still in its file.
            given_up.insert(logs as u64);
        }
        logs += 1;
        for _ in 0..5 {
            let flow = Flow { src_ip: text(flows, 400), ..Default::default() };
            lanes.flows().send(stream_flows_request::Request::Flow(flow));
            flows += 1;
        }
        if step % 500 == 0 {
            for lane in Lane::ALL {
                assert!(lanes.queue(lane).bytes() <= lane.budget());
            }
            assert!(lanes.queue(Lane::Logs).receipts() <= MOST_RECEIPTS);
            assert!(on_disk().iter().sum::<i64>() <= DISK as i64);
            let files = ["signals", "logs", "flows"].map(|lane| {
                let files = std::fs::read_dir(spool.folder.join(lane)).unwrap();
                files.map(|file| file.unwrap().metadata().unwrap().len() as i64).sum::<i64>()
            });
            assert_eq!(files, on_disk());
        }
    }
    let [signal_bytes, log_bytes, flow_bytes] = on_disk();
    assert!(signal_bytes > 6 << 20 && log_bytes > 8 << 20 && flow_bytes == 0, "{:?}", on_disk());

    // The cloud is back.
    let dropped =
        |lane, reason| lanes.0.metrics.dropped.get_or_create(&DropLabel { lane, reason }).get() as usize;
    let got = arrived(&lanes, Lane::Signals, |body| KubernetesEvent::decode(body).unwrap().message);
    let too_old = dropped(Lane::Signals, DropReason::TooOld);
    assert!(got.iter().copied().eq(too_old..signals), "in order, and none but the oldest are missing");
    // Of the two hours that are too many, give or take one.
    assert!((300..=900).contains(&too_old), "{too_old}");

    let line = |body: &[u8]| PodLogs::decode(body).unwrap().log_entries[0].message.clone();
    let got = arrived(&lanes, Lane::Logs, line);
    assert!(got.is_sorted());
    let mut outcomes: Vec<_> = agents.iter_mut().filter_map(|outcomes| outcomes.try_recv().ok()).collect();
    outcomes.retain(|(id, _)| !given_up.contains(id));
    let (left, lost): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|(_, outcome)| *outcome == Outcome::Left);
    assert!(left.iter().map(|(id, _)| *id as usize).eq(got), "every batch that arrived is settled so");
    assert_eq!(left.len() + lost.len() + given_up.len(), logs);
    let why: BTreeSet<_> = lost.into_iter().map(|(_, outcome)| format!("{outcome:?}")).collect();
    let pushed_out = Outcome::Lost("more urgent messages took its place on disk");
    assert_eq!(why, BTreeSet::from([format!("{pushed_out:?}")]));
    let counted = [DropReason::SpoolFull, DropReason::TooOld].map(|reason| dropped(Lane::Logs, reason));
    assert_eq!(counted, [0, 0], "the agents have them");

    let got = arrived(&lanes, Lane::Flows, |body| Flow::decode(body).unwrap().src_ip);
    let reasons = [DropReason::SpoolFull, DropReason::LaneFull, DropReason::TooOld];
    let counted: usize = reasons.map(|reason| dropped(Lane::Flows, reason)).into_iter().sum();
    assert!(got.is_sorted() && got.last() == Some(&(flows - 1)), "the newest are kept");
    assert_eq!(got.len() + counted, flows);
    assert_eq!(on_disk(), [0; 3]);
}
