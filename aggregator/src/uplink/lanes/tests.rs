use std::time::Duration;

use futures::FutureExt as _;
use kestrel_proto::cloud::v1::{
    Flow, KubernetesEvent, LogEntry, OperatorStats, PodLogs, stream_events_request, stream_flows_request,
};
use tempfile::TempDir;

use super::*;
use crate::uplink::{
    metrics::{DropLabel, DropReason},
    queue::MOST_TAKEN,
    receipt::{Outcome, Source},
};

fn signal(bytes: usize) -> stream_events_request::Request {
    let message = "x".repeat(bytes);
    stream_events_request::Request::KubernetesEvent(KubernetesEvent { message, ..Default::default() })
}

fn logs(bytes: usize) -> Vec<u8> {
    let message = "x".repeat(bytes);
    let log_entries = vec![LogEntry { message, ..Default::default() }];
    prost::Message::encode_to_vec(&PodLogs { log_entries, ..Default::default() })
}

fn leading() -> Lanes {
    let lanes = Lanes::new(Metrics::default());
    lanes.lead();
    lanes
}

#[test]
fn a_full_lane_drops_the_oldest_signals_and_counts_them() {
    let lanes = leading();
    for _ in 0..10 {
        lanes.signals().send(signal(1024 * 1024));
    }
    let (first, _) = lanes.take(Lane::Signals).unwrap();
    assert_eq!(first, 3);
    let label = DropLabel { lane: Lane::Signals, reason: DropReason::LaneFull };
    assert_eq!(lanes.0.metrics.dropped.get_or_create(&label).get(), 3);
}

#[test]
fn a_signal_is_due_again_until_it_left() {
    let lanes = leading();
    lanes.signals().send(signal(1));
    let (number, message) = lanes.take(Lane::Signals).unwrap();
    assert!(lanes.take(Lane::Signals).is_none());
    lanes.again(Lane::Signals, number);
    assert_eq!(lanes.take(Lane::Signals).unwrap(), (number, message));
    lanes.left(Lane::Signals, number);
    lanes.again(Lane::Signals, number);
    assert!(lanes.take(Lane::Signals).is_none(), "it has arrived");
}

#[test]
fn a_standby_keeps_what_no_leader_told_and_sends_it_when_it_leads() {
    let lanes = Lanes::new(Metrics::default());
    lanes.signals().send(signal(1));
    let told = lanes.told_until();
    assert!(told <= Timestamp::now());
    let mark = Timestamp::now();
    lanes.signals().send(signal(2));
    lanes.forget_told(Timestamp::MIN, mark);
    assert!(lanes.take(Lane::Signals).is_none(), "another leads");
    lanes.lead();
    assert_eq!(lanes.take(Lane::Signals).unwrap().0, 1);
    assert!(lanes.take(Lane::Signals).is_none());
    assert!(lanes.told_until() >= mark && lanes.told_until() < Timestamp::now(), "it has not left");
    lanes.left(Lane::Signals, 1);
    let before = Timestamp::now();
    assert!(lanes.told_until() >= before);
}

#[test]
fn the_newest_measurement_replaces_and_flows_are_due_again() {
    let lanes = leading();
    for num_goroutines in 1..=2 {
        lanes.stats().send(OperatorStats { num_goroutines, ..Default::default() });
    }
    let (_, message) = lanes.take(Lane::Stats).unwrap();
    assert_eq!(message, OperatorStats { num_goroutines: 2, ..Default::default() }.into());
    assert!(lanes.take(Lane::Stats).is_none());
    lanes.flows().send(stream_flows_request::Request::Flow(Flow::default()));
    let (number, _) = lanes.take(Lane::Flows).unwrap();
    lanes.again(Lane::Flows, number);
    assert_eq!(lanes.depth(Lane::Flows).messages, 1);
}

#[tokio::test]
async fn logs_wait_for_room_and_get_it_when_earlier_ones_go() {
    let lanes = leading();
    let (source, mut outcomes) = Source::new();
    let all = Lane::Logs.budget();
    lanes.logs().send(logs(all - 100), source.receipt(1, 0)).await;
    let lane = lanes.logs();
    let mut second = std::pin::pin!(lane.send(logs(200), source.receipt(2, 0)));
    assert!((&mut second).now_or_never().is_none());
    let (number, _) = lanes.take(Lane::Logs).unwrap();
    lanes.left(Lane::Logs, number);
    second.await;
    let (number, _) = lanes.take(Lane::Logs).unwrap();
    lanes.again(Lane::Logs, number);
    assert_eq!(outcomes.recv().await.unwrap(), (1, Outcome::Left));
    assert!(matches!(outcomes.recv().await.unwrap(), (2, Outcome::Lost(_))));
}

#[tokio::test]
async fn logs_get_the_room_of_what_a_loss_made_worthless() {
    let lanes = leading();
    let ((lossy, _lossy), (other, _other)) = (Source::new(), Source::new());
    lanes.logs().send(logs(1 << 20), lossy.receipt(1, 0)).await;
    lanes.logs().send(logs(6 << 20), lossy.receipt(2, 0)).await;
    let lane = lanes.logs();
    let mut waiting = std::pin::pin!(lane.send(logs(3 << 20), other.receipt(1, 0)));
    assert!((&mut waiting).now_or_never().is_none());
    let (number, _) = lanes.take(Lane::Logs).unwrap();
    assert!((&mut waiting).now_or_never().is_none());
    lanes.again(Lane::Logs, number);
    assert!(lanes.take(Lane::Logs).is_none(), "it is stale");
    waiting.now_or_never().unwrap();
}

#[tokio::test]
async fn who_takes_hears_that_there_is_more_behind_a_lost_load() {
    let lanes = leading();
    let ((lossy, _lossy), (other, _other)) = (Source::new(), Source::new());
    for id in 0..100 {
        lanes.logs().send(logs(1), lossy.receipt(id, 0)).await;
    }
    lanes.logs().send(logs(2), other.receipt(1, 0)).await;
    lossy.receipt(100, 0).lost("gone");
    let changed = lanes.changed();
    assert!(lanes.take(Lane::Logs).is_none() && changed.now_or_never().is_some());
    assert!(lanes.take(Lane::Logs).is_some());
    let changed = lanes.changed();
    assert!(lanes.take(Lane::Logs).is_none() && changed.now_or_never().is_none());
}

#[test]
fn no_more_than_a_bounded_number_is_in_the_window_and_its_end_is_heard() {
    let lanes = leading();
    for _ in 0..MOST_TAKEN + 2 {
        lanes.flows().send(stream_flows_request::Request::Flow(Flow::default()));
    }
    let taken: Vec<_> = std::iter::from_fn(|| lanes.take(Lane::Flows)).map(|(number, _)| number).collect();
    assert_eq!(taken.len(), MOST_TAKEN);
    for (resolve, number) in [(Lanes::left as fn(&_, _, _), taken[0]), (Lanes::again, taken[1])] {
        let changed = lanes.changed();
        assert!(lanes.take(Lane::Flows).is_none());
        resolve(&lanes, Lane::Flows, number);
        assert!(changed.now_or_never().is_some());
        assert!(lanes.take(Lane::Flows).is_some());
    }
}

/// A spool of this many bytes in `folder`.
fn spool(folder: &TempDir, bytes: u64) -> Spool {
    Spool { folder: folder.path().join("spool"), bytes, age: Duration::from_secs(24 * 3600) }
}

fn flow(bytes: usize) -> stream_flows_request::Request {
    stream_flows_request::Request::Flow(Flow { src_ip: "x".repeat(bytes), ..Default::default() })
}

fn dropped(lanes: &Lanes, lane: Lane, reason: DropReason) -> u64 {
    lanes.0.metrics.dropped.get_or_create(&DropLabel { lane, reason }).get()
}

/// Takes everything of a lane, which leaves at once; the sizes.
fn leave(lanes: &Lanes, lane: Lane) -> Vec<usize> {
    std::iter::from_fn(|| lanes.take(lane))
        .map(|(number, message)| {
            lanes.left(lane, number);
            message.bytes()
        })
        .collect()
}

#[test]
fn a_restart_finds_the_signals_that_had_not_left_and_is_told_which_were_told() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(&folder, 1 << 20);
    let lanes = Lanes::with_spool(Metrics::default(), &spool);
    lanes.signals().send(signal(100));
    lanes.lead();
    for bytes in [200, 300, 400] {
        lanes.signals().send(signal(bytes));
    }
    let taken: Vec<_> = std::iter::from_fn(|| lanes.take(Lane::Signals)).collect();
    assert_eq!(taken.len(), 4);
    lanes.left(Lane::Signals, taken[1].0);
    drop(lanes);
    let lanes = Lanes::with_spool(Metrics::default(), &spool);
    let recovered = lanes.0.metrics.spool_recovered.get_or_create(&LaneLabel { lane: Lane::Signals }).get();
    assert_eq!((recovered, lanes.take(Lane::Signals)), (3, None));
    let mark = lanes.told_until();
    lanes.forget_told(Timestamp::MIN, mark + Duration::from_micros(1));
    lanes.signals().send(signal(500));
    lanes.lead();
    let mut sizes = leave(&lanes, Lane::Signals);
    // The oldest at least; what came in the same microsecond too.
    assert_eq!((sizes.pop().map(|size| size > 500), sizes.len() < 3), (Some(true), true));
    assert_eq!(lanes.depth(Lane::Signals), Depth::default());
    assert!(std::fs::read_dir(spool.folder.join("signals")).unwrap().next().is_none(), "space is given back");
}

#[tokio::test]
async fn logs_and_flows_wait_on_disk_when_memory_is_full_and_come_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(&folder, 1 << 30);
    let lanes = Lanes::with_spool(Metrics::default(), &spool);
    let mut heard = Vec::new();
    const MIB: usize = 1 << 20;
    for id in 0..20 {
        let (source, outcomes) = Source::new();
        heard.push(outcomes);
        lanes.logs().send(logs(MIB), source.receipt(id, 0)).await;
        lanes.flows().send(flow(MIB + id as usize));
    }
    for lane in [Lane::Logs, Lane::Flows] {
        assert_eq!(lanes.depth(lane).messages, 20);
        assert!(lanes.queue(lane).bytes() <= lane.budget());
    }
    // What is on disk survives the loss of a stream; of what was in memory only
    // the agent knows.
    let taken: Vec<_> = std::iter::from_fn(|| lanes.take(Lane::Logs)).collect();
    taken.iter().for_each(|(number, _)| lanes.again(Lane::Logs, *number));
    let again = leave(&lanes, Lane::Logs).len();
    assert!((1..20).contains(&again));
    let outcomes: Vec<_> = heard.iter_mut().filter_map(|heard| heard.try_recv().ok()).collect();
    let lost = outcomes.iter().filter(|(_, outcome)| *outcome != Outcome::Left).count();
    assert_eq!((outcomes.len(), lost), (20, 20 - again));
    let flows = leave(&lanes, Lane::Flows);
    assert!(flows.is_sorted() && flows.len() == 20);
}

#[tokio::test]
async fn a_loss_takes_back_what_its_source_sent_after_it_also_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(&folder, 1 << 30);
    let lanes = Lanes::with_spool(Metrics::default(), &spool);
    let (source, mut outcomes) = Source::new();
    for id in 0..20 {
        lanes.logs().send(logs(1 << 20), source.receipt(id, 0)).await;
    }
    let first = [lanes.take(Lane::Logs).unwrap().0, lanes.take(Lane::Logs).unwrap().0];
    lanes.left(Lane::Logs, first[0]);
    lanes.again(Lane::Logs, first[1]);
    assert!(lanes.take(Lane::Logs).is_none());
    lanes.logs().send(logs(1), source.receipt(20, 0)).await;
    assert!(lanes.take(Lane::Logs).is_none(), "sent before the source knew");
    let lost =
        std::iter::from_fn(|| outcomes.try_recv().ok()).filter(|(_, outcome)| *outcome != Outcome::Left);
    assert_eq!(lost.count(), 20);
    assert!(std::fs::read_dir(spool.folder.join("logs")).unwrap().next().is_none(), "space is given back");
    lanes.logs().send(logs(1), source.receipt(21, source.generation())).await;
    assert!(lanes.take(Lane::Logs).is_some());
}

#[tokio::test]
async fn after_a_restart_flows_are_there_and_logs_are_where_they_always_were() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(&folder, 1 << 30);
    let lanes = Lanes::with_spool(Metrics::default(), &spool);
    let (source, _outcomes) = Source::new();
    for id in 0..10 {
        lanes.logs().send(logs(1 << 20), source.receipt(id, 0)).await;
        lanes.flows().send(flow(1 << 20));
    }
    drop(lanes);
    let lanes = Lanes::with_spool(Metrics::default(), &spool);
    assert_eq!((lanes.depth(Lane::Logs), leave(&lanes, Lane::Flows).len()), (Depth::default(), 3));
    assert!(std::fs::read_dir(spool.folder.join("logs")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_full_disk_costs_flows_before_logs_and_logs_before_signals() {
    let folder = tempfile::tempdir().unwrap();
    let lanes = Lanes::with_spool(Metrics::default(), &spool(&folder, 4 << 20));
    lanes.lead();
    let (source, mut outcomes) = Source::new();
    const KIB_500: usize = 500 << 10;
    for _ in 0..30 {
        lanes.flows().send(flow(KIB_500));
    }
    let flows = lanes.depth(Lane::Flows).messages;
    let dropped_flows = || {
        dropped(&lanes, Lane::Flows, DropReason::SpoolFull)
            + dropped(&lanes, Lane::Flows, DropReason::LaneFull)
    };
    assert_eq!(flows + dropped_flows(), 30);
    let mut sent = 0;
    while lanes.logs().send(logs(KIB_500), source.receipt(sent, 0)).now_or_never().is_some() {
        sent += 1;
    }
    assert!(outcomes.try_recv().is_ok_and(|(id, _)| id == sent), "the one that was given up");
    assert!(outcomes.try_recv().is_err(), "no older logs were dropped");
    assert_eq!(lanes.queue(Lane::Flows).disk().unwrap().bytes(), 0);
    for _ in 0..4 {
        lanes.signals().send(signal(KIB_500));
    }
    let lost = std::iter::from_fn(|| outcomes.try_recv().ok()).count() as u64;
    assert!(lost > 0);
    assert_eq!(dropped(&lanes, Lane::Logs, DropReason::SpoolFull), 0, "their agent has them");
    for _ in 0..20 {
        lanes.signals().send(signal(KIB_500));
    }
    let kept = leave(&lanes, Lane::Signals).len() as u64;
    assert!((5..9).contains(&kept), "{kept}");
    assert_eq!(kept + dropped(&lanes, Lane::Signals, DropReason::SpoolFull), 24);
}

#[test]
fn without_a_disk_the_lanes_go_on_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spool"), "not a folder").unwrap();
    let lanes = Lanes::with_spool(Metrics::default(), &spool(&folder, 1 << 20));
    lanes.lead();
    lanes.signals().send(signal(1));
    assert_eq!(leave(&lanes, Lane::Signals).len(), 1);
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(&folder, 1 << 20);
    let lanes = Lanes::with_spool(Metrics::default(), &spool);
    lanes.lead();
    std::fs::remove_dir_all(&spool.folder).unwrap();
    for _ in 0..3 {
        lanes.signals().send(signal(1));
    }
    assert_eq!(leave(&lanes, Lane::Signals).len(), 3);
}
