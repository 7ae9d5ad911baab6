//! What waits for the connection: one lane for each class of message, so that
//! a flood in one class delays no other.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kestrel_proto::cloud::v1::{PodLogs, stream_events_request};
use prometheus_client::encoding::EncodeLabelValue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::Notified};

use super::{
    message::{Answer, MAX_MESSAGE_BYTES, Message},
    metrics::{DropReason, Kind, LaneLabel, Metrics},
    queue::{Number, Queue, Size as _},
    receipt::Receipt,
};

/// An encoded message of the data stream (a `StreamDataRequest`), ready for the wire.
pub type Encoded = bytes::Bytes;

/// Signals are small (about 1 KiB): this is a storm of thousands.
const SIGNAL_BYTES: usize = 8 * 1024 * 1024;
/// Two answers of the largest size, on either stream.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Logs only pass through: the agents' files are their spool.
const LOG_BYTES: usize = 8 * 1024 * 1024;

/// All lanes; clones share them.
#[derive(Clone)]
pub struct Lanes(Arc<Shared>);

/// A lane whose messages are kept until they left the resend window.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Kept {
    /// Answers to what came on the control stream.
    ControlAnswers,
    /// Answers to what came on the data stream.
    DataAnswers,
    /// Signals.
    Signals,
}

impl Kept {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::ControlAnswers | Self::DataAnswers => Kind::Answer,
            Self::Signals => Kind::Signal,
        }
    }
}

struct Shared {
    kept: [Mutex<Queue<Message>>; 3],
    logs: Mutex<VecDeque<Waiting>>,
    log_room: Arc<Semaphore>,
    bell: Notify,
    metrics: Metrics,
}

struct Waiting {
    message: Message,
    receipt: Receipt,
    _room: OwnedSemaphorePermit,
}

impl Lanes {
    /// Empty lanes.
    pub fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            kept: [ANSWER_BYTES, ANSWER_BYTES, SIGNAL_BYTES].map(|budget| Mutex::new(Queue::new(budget))),
            logs: Mutex::default(),
            log_room: Arc::new(Semaphore::new(LOG_BYTES)),
            bell: Notify::new(),
            metrics,
        }))
    }

    /// The end where signals go in.
    pub fn signals(&self) -> SignalLane {
        SignalLane(self.clone())
    }

    /// The end where logs go in.
    pub fn logs(&self) -> LogLane {
        LogLane(self.clone())
    }

    /// The end where answers go in, for requests that came `over` a stream.
    pub fn answers(&self, over: Over) -> AnswerLane {
        AnswerLane(
            self.clone(),
            match over {
                Over::Control => Kept::ControlAnswers,
                Over::Data => Kept::DataAnswers,
            },
        )
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
    pub(crate) fn take(&self, lane: Kept) -> Option<(Number, Message)> {
        let taken = self.queue(lane).take();
        if taken.is_some() && lane.kind() == Kind::Answer {
            // There may be room for the next answer now.
            self.ring();
        }
        taken
    }

    /// A taken message has left the resend window.
    pub(crate) fn left(&self, lane: Kept, number: Number) {
        let mut queue = self.queue(lane);
        queue.left(number);
        self.measure(lane, &queue);
    }

    /// A taken message must be sent again.
    pub(crate) fn again(&self, lane: Kept, number: Number) {
        self.queue(lane).again(number);
        self.ring();
    }

    /// The oldest logs.
    pub(crate) fn take_logs(&self) -> Option<(Message, Receipt)> {
        let Waiting { message, receipt, .. } = lock(&self.0.logs).pop_front()?;
        Some((message, receipt))
    }

    fn push(&self, lane: Kept, message: Message) {
        if !message.fits() {
            self.0.metrics.drop(lane.kind(), DropReason::TooLarge, 1);
            return;
        }
        let mut queue = self.queue(lane);
        let evicted = queue.push(message);
        self.measure(lane, &queue);
        drop(queue);
        self.0.metrics.drop(lane.kind(), DropReason::LaneFull, evicted.unsent);
        self.0.metrics.drop(lane.kind(), DropReason::NotKept, evicted.sent);
        self.ring();
    }

    fn queue(&self, lane: Kept) -> MutexGuard<'_, Queue<Message>> {
        lock(&self.0.kept[lane as usize])
    }

    fn measure(&self, lane: Kept, queue: &Queue<Message>) {
        let bytes = i64::try_from(queue.bytes()).unwrap_or(i64::MAX);
        self.0.metrics.lane_bytes.get_or_create(&LaneLabel { lane }).set(bytes);
    }
}

/// A queue is whole after every one of its operations, so a panic elsewhere
/// while it was locked has not harmed it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
pub struct AnswerLane(Lanes, Kept);

impl AnswerLane {
    /// Waits until an answer of any size pushes out none that was not sent yet.
    pub async fn room(&self) {
        loop {
            let changed = self.0.changed();
            if self.0.queue(self.1).due_bytes() + MAX_MESSAGE_BYTES <= ANSWER_BYTES {
                return;
            }
            changed.await;
        }
    }

    /// Adds an answer; it is kept over reconnects until it left the resend window.
    pub fn send(&self, answer: Answer) {
        // A verdict has a place on the data stream alone.
        let lane = if matches!(answer, Answer::Policy(_)) { Kept::DataAnswers } else { self.1 };
        self.0.push(lane, answer.into());
    }
}

/// Where signals go in. Over budget the oldest is dropped and counted.
#[derive(Clone)]
pub struct SignalLane(Lanes);

impl SignalLane {
    /// Adds a signal; it is kept over reconnects until it left the resend window.
    pub fn send(&self, signal: stream_events_request::Request) {
        self.0.push(Kept::Signals, signal.into());
    }
}

/// Where logs go in.
#[derive(Clone)]
pub struct LogLane(Lanes);

impl LogLane {
    /// Adds logs, waiting for room. Their bytes are not kept after they were
    /// sent: what the connection loses is read again by the agent that hears of
    /// it through `receipt`.
    pub async fn send(&self, logs: PodLogs, receipt: Receipt) {
        let shared = &self.0.0;
        let message = Message::from(logs);
        if !message.fits() {
            shared.metrics.drop(Kind::Logs, DropReason::TooLarge, 1);
            // Reading them again would not make them smaller.
            receipt.left();
            return;
        }
        // What is larger than the lane has it for itself.
        let bytes = message.bytes().min(LOG_BYTES) as u32;
        let Ok(room) = Arc::clone(&shared.log_room).acquire_many_owned(bytes).await else {
            // Never closed; if it were, the drop of the receipt would tell.
            return;
        };
        lock(&shared.logs).push_back(Waiting { message, receipt, _room: room });
        self.0.ring();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use kestrel_proto::cloud::v1::{KubernetesEvent, LogEntry, NetworkPoliciesWithErrors};
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

    #[test]
    fn a_full_lane_drops_the_oldest_signals_and_counts_them() {
        let metrics = Metrics::default();
        let lanes = Lanes::new(metrics.clone());
        for _ in 0..10 {
            lanes.signals().send(signal(1024 * 1024));
        }
        let (first, _) = lanes.take(Kept::Signals).unwrap();
        assert_eq!(first, 3);
        let label = DropLabel { kind: Kind::Signal, reason: DropReason::LaneFull };
        assert_eq!(metrics.dropped.get_or_create(&label).get(), 3);
        lanes.signals().send(signal(MAX_TEST_MESSAGE));
        let label = DropLabel { kind: Kind::Signal, reason: DropReason::TooLarge };
        assert_eq!(metrics.dropped.get_or_create(&label).get(), 1);
    }

    const MAX_TEST_MESSAGE: usize = super::super::message::MAX_MESSAGE_BYTES;

    #[test]
    fn a_signal_is_due_again_until_it_left() {
        let lanes = Lanes::new(Metrics::default());
        lanes.signals().send(signal(1));
        let (number, message) = lanes.take(Kept::Signals).unwrap();
        assert!(lanes.take(Kept::Signals).is_none());
        lanes.again(Kept::Signals, number);
        assert_eq!(lanes.take(Kept::Signals).unwrap(), (number, message));
        lanes.left(Kept::Signals, number);
        lanes.again(Kept::Signals, number);
        assert!(lanes.take(Kept::Signals).is_none(), "it has arrived");
    }

    #[test]
    fn a_policy_verdict_goes_to_the_data_stream_whoever_asked() {
        let lanes = Lanes::new(Metrics::default());
        lanes.answers(Over::Control).send(Answer::Policy(NetworkPoliciesWithErrors::default()));
        assert!(lanes.take(Kept::ControlAnswers).is_none());
        assert!(lanes.take(Kept::DataAnswers).is_some());
    }

    #[tokio::test]
    async fn logs_wait_for_room_and_get_it_when_earlier_ones_go() {
        let lanes = Lanes::new(Metrics::default());
        let (to, mut outcomes) = unbounded_channel();
        lanes.logs().send(logs(LOG_BYTES - 100), Receipt::new(1, to.clone())).await;
        let lane = lanes.logs();
        let mut second = std::pin::pin!(lane.send(logs(200), Receipt::new(2, to.clone())));
        assert!((&mut second).now_or_never().is_none());
        let (_, receipt) = lanes.take_logs().unwrap();
        receipt.left();
        second.await;
        assert!(lanes.take_logs().is_some());
        assert_eq!(outcomes.recv().await.unwrap(), (1, Outcome::Left));
        assert!(matches!(outcomes.recv().await.unwrap(), (2, Outcome::Lost(_))));
        lanes.logs().send(logs(MAX_TEST_MESSAGE), Receipt::new(3, to)).await;
        assert_eq!(outcomes.recv().await.unwrap(), (3, Outcome::Left));
    }
}
