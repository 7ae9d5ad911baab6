//! What waits for the connection: one lane for each class of message, so that
//! a flood in one class delays no other.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{OperatorStats, PodLogs, stream_events_request, stream_flows_request};
use prometheus_client::encoding::EncodeLabelValue;
use tokio::sync::{Notify, futures::Notified};

pub use super::queue::{Depth, Number};
use super::{
    message::{Answer, MAX_MESSAGE_BYTES, Message},
    metrics::{DropReason, Kind, LaneLabel, Metrics},
    queue::{Evicted, Queue},
    receipt::Receipt,
};

/// A lane, from the most to the least urgent. The inventory, which its mirror
/// keeps, has its turn between signals and stats.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Lane {
    /// Answers to what came on the control stream.
    ControlAnswers,
    /// Answers to what came on the data stream.
    DataAnswers,
    /// Signals.
    Signals,
    /// The operator's measurements of itself.
    Stats,
    /// The operator's own warnings.
    OwnLogs,
    /// Logs of pods, which their agents hold until they have arrived.
    Logs,
    /// Flows and access logs.
    Flows,
}

impl Lane {
    /// All lanes, in their order.
    pub const ALL: [Self; 7] = [
        Self::ControlAnswers,
        Self::DataAnswers,
        Self::Signals,
        Self::Stats,
        Self::OwnLogs,
        Self::Logs,
        Self::Flows,
    ];

    /// Bytes that the lane may have in memory.
    fn budget(self) -> usize {
        match self {
            // Two answers of the largest size.
            Self::ControlAnswers | Self::DataAnswers => 16 * 1024 * 1024,
            // Signals are small (about 1 KiB): this is a storm of thousands.
            Self::Signals => 8 * 1024 * 1024,
            Self::Stats => MAX_MESSAGE_BYTES,
            Self::OwnLogs => 1024 * 1024,
            // Logs only pass through: the agents' files are their spool.
            Self::Logs | Self::Flows => 8 * 1024 * 1024,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::ControlAnswers | Self::DataAnswers => Kind::Answer,
            Self::Signals => Kind::Signal,
            Self::Stats => Kind::Stats,
            Self::OwnLogs | Self::Logs => Kind::Logs,
            Self::Flows => Kind::Flows,
        }
    }
}

/// All lanes; clones share them.
#[derive(Clone)]
pub struct Lanes(Arc<Shared>);

struct Shared {
    queues: [Mutex<Queue>; Lane::ALL.len()],
    leads: AtomicBool,
    bell: Notify,
    /// Rings when an answer or logs were taken.
    room: Notify,
    /// Whose turn it is to wait for room for logs.
    turn: tokio::sync::Mutex<()>,
    metrics: Metrics,
}

impl Lanes {
    /// Empty lanes.
    pub fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            queues: Lane::ALL.map(|lane| Mutex::new(Queue::new(lane.budget()))),
            leads: AtomicBool::new(false),
            bell: Notify::new(),
            room: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            metrics,
        }))
    }

    /// The end where signals go in.
    pub fn signals(&self) -> SignalLane {
        SignalLane(self.clone())
    }

    /// The end where the logs of pods go in.
    pub fn logs(&self) -> LogLane {
        LogLane(self.clone())
    }

    /// The end where the operator's own warnings go in.
    pub fn own_logs(&self) -> OwnLogLane {
        OwnLogLane(self.clone())
    }

    /// The end where flows go in.
    pub fn flows(&self) -> FlowLane {
        FlowLane(self.clone())
    }

    /// The end where measurements go in.
    pub fn stats(&self) -> StatsLane {
        StatsLane(self.clone())
    }

    /// The end where answers go in, for requests that came `over` a stream.
    pub fn answers(&self, over: Over) -> AnswerLane {
        AnswerLane(
            self.clone(),
            match over {
                Over::Control => Lane::ControlAnswers,
                Over::Data => Lane::DataAnswers,
            },
        )
    }

    /// This process leads from now on: its signals are due, beginning with the
    /// oldest that is kept.
    pub fn lead(&self) {
        self.0.leads.store(true, Ordering::Release);
        self.ring();
    }

    /// Every signal that came before this time has left the resend window.
    pub fn told_until(&self) -> Timestamp {
        // The clock is read with the lane locked: no signal comes in between.
        let queue = self.queue(Lane::Signals);
        queue.oldest().unwrap_or_else(Timestamp::now)
    }

    /// Another leader told all signals that came before this time: what is kept
    /// of them is dropped.
    pub fn forget_told(&self, before: Timestamp) {
        let mut queue = self.queue(Lane::Signals);
        queue.forget(before);
        self.measure(Lane::Signals, &queue);
    }

    /// What waits in a lane.
    pub fn depth(&self, lane: Lane) -> Depth {
        self.queue(lane).depth()
    }

    /// Resolves at the next change of any lane; made before the lanes are looked at.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.0.bell.notified()
    }

    /// Wakes everyone who waits for a change.
    pub(crate) fn ring(&self) {
        self.0.bell.notify_waiters();
    }

    /// The oldest message that is due.
    pub(crate) fn take(&self, lane: Lane) -> Option<(Number, Message)> {
        if lane == Lane::Signals && !self.leads() {
            return None;
        }
        let mut queue = self.queue(lane);
        let taken = queue.take();
        if taken.is_some() {
            self.measure(lane, &queue);
            self.0.room.notify_waiters();
        }
        taken
    }

    /// A taken message has left the resend window.
    pub(crate) fn left(&self, lane: Lane, number: Number) {
        let mut queue = self.queue(lane);
        queue.left(number);
        self.measure(lane, &queue);
    }

    /// The stream of a taken message ended before that: the message must be sent
    /// again.
    pub(crate) fn again(&self, lane: Lane, number: Number) {
        self.queue(lane).again(number);
        self.ring();
    }

    fn push(&self, lane: Lane, message: Message) {
        let mut queue = self.queue(lane);
        let Evicted { unsent, sent } = queue.push(message, Timestamp::now());
        self.measure(lane, &queue);
        drop(queue);
        let reason =
            if lane == Lane::Signals && !self.leads() { DropReason::Standby } else { DropReason::LaneFull };
        self.0.metrics.drop(lane.kind(), reason, unsent);
        self.0.metrics.drop(lane.kind(), DropReason::NotKept, sent);
        self.ring();
    }

    /// Adds logs if there is room for them, else gives them back.
    fn push_logs(&self, message: Message, receipt: Receipt) -> Option<(Message, Receipt)> {
        let mut queue = self.queue(Lane::Logs);
        if !queue.has_room(message.bytes()) {
            return Some((message, receipt));
        }
        queue.push_with(message, receipt, Timestamp::now());
        self.measure(Lane::Logs, &queue);
        drop(queue);
        self.ring();
        None
    }

    fn leads(&self) -> bool {
        self.0.leads.load(Ordering::Acquire)
    }

    /// A queue is whole after every one of its operations, so a panic elsewhere
    /// while it was locked has not harmed it.
    fn queue(&self, lane: Lane) -> MutexGuard<'_, Queue> {
        self.0.queues[lane as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, lane: Lane, queue: &Queue) {
        let bytes = i64::try_from(queue.bytes()).unwrap_or(i64::MAX);
        self.0.metrics.lane_bytes.get_or_create(&LaneLabel { lane }).set(bytes);
    }
}

/// The stream that carried a request, and so carries its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The control stream.
    Control,
    /// The data stream.
    Data,
}

/// Where answers go in. Over budget the oldest is dropped and counted.
#[derive(Clone)]
pub struct AnswerLane(Lanes, Lane);

impl AnswerLane {
    /// Waits until an answer of any size pushes out none that was not sent yet.
    pub async fn room(&self) {
        loop {
            let room = self.0.0.room.notified();
            let waits = self.0.depth(self.1).bytes as usize;
            if waits + MAX_MESSAGE_BYTES <= self.1.budget() {
                return;
            }
            room.await;
        }
    }

    /// Adds an answer; it is kept over reconnects until it left the resend window.
    pub fn send(&self, answer: Answer) {
        // A verdict has a place on the data stream alone.
        let lane = if matches!(answer, Answer::Policy(_)) { Lane::DataAnswers } else { self.1 };
        self.0.push(lane, answer.into());
    }
}

/// Where signals go in. Over budget the oldest is dropped and counted.
#[derive(Clone)]
pub struct SignalLane(Lanes);

impl SignalLane {
    /// Adds a signal; it is kept over reconnects until it left the resend window.
    /// Of a standby it waits until this process leads or another has told it.
    pub fn send(&self, signal: stream_events_request::Request) {
        self.0.push(Lane::Signals, signal.into());
    }
}

/// Where the operator's own warnings go in. Over budget the oldest is dropped and counted.
#[derive(Clone)]
pub struct OwnLogLane(Lanes);

impl OwnLogLane {
    /// Adds warnings; they are kept over reconnects until they left the resend window.
    pub fn send(&self, logs: PodLogs) {
        for message in Message::of_logs(logs) {
            self.0.push(Lane::OwnLogs, message);
        }
    }
}

/// Where flows go in. Over budget the oldest is dropped and counted.
#[derive(Clone)]
pub struct FlowLane(Lanes);

impl FlowLane {
    /// Adds a flow; it is kept over reconnects until it left the resend window.
    pub fn send(&self, flow: stream_flows_request::Request) {
        self.0.push(Lane::Flows, flow.into());
    }
}

/// Where measurements go in.
#[derive(Clone)]
pub struct StatsLane(Lanes);

impl StatsLane {
    /// Adds a measurement in place of one that was not sent yet.
    pub fn send(&self, stats: OperatorStats) {
        let mut queue = self.0.queue(Lane::Stats);
        queue.replace(stats.into(), Timestamp::now());
        self.0.measure(Lane::Stats, &queue);
        drop(queue);
        self.0.ring();
    }
}

/// Where the logs of pods go in.
#[derive(Clone)]
pub struct LogLane(Lanes);

impl LogLane {
    /// Adds logs, waiting for room. Their bytes are not kept after they were
    /// sent: what the connection loses is read again by the agent that hears of
    /// it through `receipt`.
    pub async fn send(&self, logs: PodLogs, receipt: Receipt) {
        let _turn = self.0.0.turn.lock().await;
        for message in Message::of_logs(logs) {
            let mut waiting = (message, receipt.clone());
            loop {
                let room = self.0.0.room.notified();
                match self.0.push_logs(waiting.0, waiting.1) {
                    None => break,
                    Some(refused) => waiting = refused,
                }
                room.await;
            }
        }
        receipt.left();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use kestrel_proto::cloud::v1::{Flow, KubernetesEvent, LogEntry, NetworkPoliciesWithErrors};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::uplink::{metrics::DropLabel, receipt::Outcome};

    fn signal(bytes: usize) -> stream_events_request::Request {
        let message = "x".repeat(bytes);
        stream_events_request::Request::KubernetesEvent(KubernetesEvent { message, ..Default::default() })
    }

    fn logs(bytes: usize) -> PodLogs {
        let message = "x".repeat(bytes);
        PodLogs { log_entries: vec![LogEntry { message, ..Default::default() }], ..Default::default() }
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
        let label = DropLabel { kind: Kind::Signal, reason: DropReason::LaneFull };
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
        lanes.forget_told(mark);
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
    fn a_policy_verdict_goes_to_the_data_stream_whoever_asked() {
        let lanes = leading();
        lanes.answers(Over::Control).send(Answer::Policy(NetworkPoliciesWithErrors::default()));
        assert!(lanes.take(Lane::ControlAnswers).is_none());
        assert!(lanes.take(Lane::DataAnswers).is_some());
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
        let (to, mut outcomes) = unbounded_channel();
        let all = Lane::Logs.budget();
        lanes.logs().send(logs(all - 100), Receipt::new(1, to.clone())).await;
        let lane = lanes.logs();
        let mut second = std::pin::pin!(lane.send(logs(200), Receipt::new(2, to)));
        assert!((&mut second).now_or_never().is_none());
        let (number, _) = lanes.take(Lane::Logs).unwrap();
        lanes.left(Lane::Logs, number);
        second.await;
        let (number, _) = lanes.take(Lane::Logs).unwrap();
        lanes.again(Lane::Logs, number);
        assert_eq!(outcomes.recv().await.unwrap(), (1, Outcome::Left));
        assert!(matches!(outcomes.recv().await.unwrap(), (2, Outcome::Lost(_))));
    }
}
