//! What waits for the connection: one lane for each class of message, so that
//! a flood in one class delays no other.

mod ends;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelValue;
use tokio::sync::{Notify, futures::Notified};
use tracing::{info, warn};

pub use super::queue::{Depth, Number};
use super::{
    message::{MAX_MESSAGE_BYTES, Message},
    metrics::{Kind, LaneLabel, Metrics},
    queue::Queue,
    receipt::Receipt,
    spool::{
        Room, Spool,
        log::{Log, Refused},
    },
};
pub use ends::{AnswerLane, FlowLane, LogLane, Over, OwnLogLane, SignalLane, StatsLane};

/// Messages on disk whose agents wait: their receipts are in memory.
const MOST_RECEIPTS: usize = 64 * 1024;

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
            Self::Logs | Self::Flows => 8 * 1024 * 1024,
        }
    }

    /// The name of its folder in the spool.
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Signals => Some("signals"),
            Self::Logs => Some("logs"),
            Self::Flows => Some("flows"),
            Self::ControlAnswers | Self::DataAnswers | Self::Stats | Self::OwnLogs => None,
        }
    }

    /// What is in it, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ControlAnswers | Self::DataAnswers => "answers",
            Self::Signals => "signals",
            Self::Stats => "measurements",
            Self::OwnLogs => "warnings of the operator",
            Self::Logs => "logs",
            Self::Flows => "flows",
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
    /// The spool's room, and how long it keeps anything.
    spool: Option<(Arc<Room>, Duration)>,
    bell: Notify,
    /// Rings when a lane has less than before.
    room: Notify,
    /// Whose turn it is to wait for room for logs.
    turn: tokio::sync::Mutex<()>,
    metrics: Metrics,
    clock: fn() -> Timestamp,
}

impl Lanes {
    /// Empty lanes, in memory alone.
    pub fn new(metrics: Metrics) -> Self {
        Self::build(metrics, None, Timestamp::now)
    }

    /// Lanes with what an earlier process left in the spool. Where the disk can't
    /// be used, it is said, and the lane is in memory alone.
    pub fn with_spool(metrics: Metrics, spool: &Spool) -> Self {
        Self::build(metrics, Some(spool), Timestamp::now)
    }

    fn build(metrics: Metrics, spool: Option<&Spool>, clock: fn() -> Timestamp) -> Self {
        let room = spool.map(Spool::room);
        let queues = Lane::ALL.map(|lane| {
            let parts = spool.zip(room.as_ref()).zip(lane.folder());
            let log = parts.and_then(|((spool, room), folder)| {
                spool.open(folder, room).inspect_err(|error| say_failed(lane, error)).ok()
            });
            let mut queue = Queue::new(lane.budget(), log);
            if lane == Lane::Logs {
                queue.discard();
            }
            let recovered = queue.depth().messages;
            metrics.spool_recovered.get_or_create(&LaneLabel { lane }).inc_by(recovered);
            if recovered > 0 {
                info!("{recovered} {} that an earlier process left on disk are sent now", lane.name());
            }
            Mutex::new(if lane == Lane::Signals { queue.held() } else { queue })
        });
        let lanes = Self(Arc::new(Shared {
            queues,
            spool: room.zip(spool.map(|spool| spool.age)),
            bell: Notify::new(),
            room: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            metrics,
            clock,
        }));
        for lane in Lane::ALL {
            lanes.settle(lane, &mut lanes.queue(lane));
        }
        lanes
    }

    /// The end where signals go in.
    pub fn signals(&self) -> SignalLane {
        SignalLane::new(self)
    }

    /// The end where the logs of pods go in.
    pub fn logs(&self) -> LogLane {
        LogLane::new(self)
    }

    /// The end where the operator's own warnings go in.
    pub fn own_logs(&self) -> OwnLogLane {
        OwnLogLane::new(self)
    }

    /// The end where flows go in.
    pub fn flows(&self) -> FlowLane {
        FlowLane::new(self)
    }

    /// The end where measurements go in.
    pub fn stats(&self) -> StatsLane {
        StatsLane::new(self)
    }

    /// The end where answers go in, for requests that came `over` a stream.
    pub fn answers(&self, over: Over) -> AnswerLane {
        AnswerLane::new(self, over)
    }

    /// This process leads from now on: its signals are due, beginning with the
    /// oldest that is kept, and written to disk before they are sent.
    pub fn lead(&self) {
        let mut queue = self.queue(Lane::Signals);
        queue.release();
        self.on_disk(Lane::Signals, &mut queue, Queue::write_ahead);
        self.settle(Lane::Signals, &mut queue);
        drop(queue);
        self.ring();
    }

    /// The process ends: what is due is sent while there is time, without a bound
    /// for what may not have arrived.
    pub(crate) fn finish(&self) {
        for lane in Lane::ALL {
            self.queue(lane).finish();
        }
        self.ring();
    }

    /// Every signal that came before this time has left the resend window.
    pub fn told_until(&self) -> Timestamp {
        // The clock is read with the lane locked: no signal comes in between.
        let mut queue = self.queue(Lane::Signals);
        queue.oldest().unwrap_or_else(self.0.clock)
    }

    /// Another leader told all signals that came at `since` or later, but before
    /// `before`: what is kept of them is dropped.
    pub fn forget_told(&self, since: Timestamp, before: Timestamp) {
        let mut queue = self.queue(Lane::Signals);
        queue.forget(since, before);
        self.settle(Lane::Signals, &mut queue);
    }

    /// What waits in a lane.
    pub fn depth(&self, lane: Lane) -> Depth {
        let mut queue = self.queue(lane);
        self.expire(&mut queue);
        self.settle(lane, &mut queue);
        queue.depth()
    }

    /// Says what stays behind on disk when this process ends.
    pub(crate) fn say_what_stays(&self) {
        for lane in [Lane::Signals, Lane::Flows] {
            let count = self.queue(lane).disk().map_or(0, Log::live);
            if count > 0 {
                let name = lane.name();
                info!(
                    "{count} {name} are left on disk: a restart of the container sends them, the end of the pod loses them"
                );
            }
        }
    }

    /// Resolves at the next change of any lane; made before the lanes are looked at.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.0.bell.notified()
    }

    /// Wakes everyone who waits for a change.
    pub(crate) fn ring(&self) {
        self.0.bell.notify_waiters();
    }

    /// The oldest message that is due. `None` with a ring if there is one, but
    /// much had to be dropped before it.
    pub(crate) fn take(&self, lane: Lane) -> Option<(Number, Message)> {
        let mut queue = self.queue(lane);
        self.expire(&mut queue);
        let taken = queue.take();
        if taken.is_none() && queue.is_due() {
            self.ring();
        }
        self.settle(lane, &mut queue);
        taken
    }

    /// A taken message has left the resend window.
    pub(crate) fn left(&self, lane: Lane, number: Number) {
        let mut queue = self.queue(lane);
        queue.left(number);
        self.settle(lane, &mut queue);
    }

    /// The stream of a taken message ended before that: the message must be sent
    /// again.
    pub(crate) fn again(&self, lane: Lane, number: Number) {
        let mut queue = self.queue(lane);
        queue.again(number);
        self.settle(lane, &mut queue);
        drop(queue);
        self.ring();
    }

    fn push(&self, lane: Lane, message: Message) {
        let mut queue = self.queue(lane);
        let now = (self.0.clock)();
        self.expire(&mut queue);
        let on_disk = match lane {
            // Before they are sent, so that a kill costs none.
            Lane::Signals => !queue.is_held(),
            Lane::Flows => !queue.has_room(message.bytes()),
            _ => false,
        };
        let is_there = on_disk
            && self.could_hold(&message)
            && self.on_disk(lane, &mut queue, |queue| queue.spool(&message, now).map(|()| false));
        if !is_there {
            queue.push(message, now);
        }
        self.settle(lane, &mut queue);
        drop(queue);
        self.ring();
    }

    /// Adds a message in place of what is due.
    fn replace(&self, lane: Lane, message: Message) {
        let mut queue = self.queue(lane);
        queue.replace(message, (self.0.clock)());
        self.settle(lane, &mut queue);
        drop(queue);
        self.ring();
    }

    /// Adds logs if there is room for them, else gives them back.
    fn push_logs(&self, message: Message, receipt: Receipt) -> Option<(Message, Receipt)> {
        let mut queue = self.queue(Lane::Logs);
        if receipt.is_stale() {
            receipt.lost("something before it was lost");
            return None;
        }
        let now = (self.0.clock)();
        self.expire(&mut queue);
        if queue.has_room(message.bytes()) {
            queue.push_with(message, receipt, now);
        } else if queue.receipts() < MOST_RECEIPTS
            && self.could_hold(&message)
            && self.on_disk(Lane::Logs, &mut queue, |queue| queue.spool(&message, now).map(|()| false))
        {
            queue.attach(receipt);
        } else {
            self.settle(Lane::Logs, &mut queue);
            return Some((message, receipt));
        }
        self.settle(Lane::Logs, &mut queue);
        drop(queue);
        self.ring();
        None
    }

    fn could_hold(&self, message: &Message) -> bool {
        self.0.spool.as_ref().is_some_and(|(room, _)| room.could_hold(message.bytes()))
    }

    /// Writes to the lane's part of the spool while `write` says that there is
    /// more, and makes room for it. Says whether all was written.
    fn on_disk(
        &self,
        lane: Lane,
        queue: &mut Queue,
        mut write: impl FnMut(&mut Queue) -> Result<bool, Refused>,
    ) -> bool {
        loop {
            match write(queue) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(Refused::Full) if self.make_room(lane, queue) => {}
                Err(Refused::Failed(error)) => {
                    say_failed(lane, &error);
                    return false;
                }
                Err(Refused::Full | Refused::Paused) => return false,
            }
        }
    }

    /// Drops the oldest of the least urgent on disk that is less urgent than
    /// `lane`, or of the lane itself; says whether that gave room. Lanes are locked
    /// in their order.
    fn make_room(&self, lane: Lane, queue: &mut Queue) -> bool {
        let evict = |other: Lane| {
            let mut queue = self.queue(other);
            let gave = queue.evict();
            self.settle(other, &mut queue);
            gave
        };
        match lane {
            Lane::Signals => evict(Lane::Flows) || evict(Lane::Logs) || queue.evict(),
            // Agents hold their logs: they wait rather than drop older ones.
            Lane::Logs => evict(Lane::Flows),
            _ => !queue.oldest_is_in_memory() && queue.evict(),
        }
    }

    fn expire(&self, queue: &mut Queue) {
        if let Some((_, age)) = self.0.spool
            && let Ok(limit) = (self.0.clock)().checked_sub(age)
        {
            queue.expire(limit);
        }
    }

    /// A queue is whole after every one of its operations, so a panic elsewhere
    /// while it was locked has not harmed it.
    fn queue(&self, lane: Lane) -> MutexGuard<'_, Queue> {
        self.0.queues[lane as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what an operation cost, measures the queue after it, and wakes those
    /// who waited for what it gave back.
    fn settle(&self, lane: Lane, queue: &mut Queue) {
        let (metrics, label) = (&self.0.metrics, LaneLabel { lane });
        for (reason, count) in queue.drops() {
            metrics.drop(lane, reason, count);
        }
        let memory = i64::try_from(queue.bytes()).unwrap_or(i64::MAX);
        metrics.lane_bytes.get_or_create(&label).set(memory);
        if let Some(disk) = queue.disk() {
            let disk = i64::try_from(disk.bytes()).unwrap_or(i64::MAX);
            metrics.spool_bytes.get_or_create(&label).set(disk);
        }
        let news = queue.news();
        if news.room {
            self.0.room.notify_waiters();
        }
        if news.due {
            self.ring();
        }
    }
}

fn say_failed(lane: Lane, error: &io::Error) {
    warn!(
        "{} can't be written to disk and wait in memory alone, which a restart of this pod loses: {error}; \
         check the volume at KESTREL_STATE_DIR and its size (Helm: aggregator.stateSizeLimit)",
        lane.name()
    );
}

#[cfg(test)]
mod outage;
#[cfg(test)]
mod tests;
