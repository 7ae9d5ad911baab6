//! The ends of the lanes where messages go in.

use kestrel_proto::cloud::v1::{OperatorStats, PodLogs, stream_events_request, stream_flows_request};

use super::{Lane, Lanes};
use crate::uplink::{
    message::{Answer, MAX_MESSAGE_BYTES, Message},
    metrics::DropReason,
    receipt::Receipt,
};

/// The stream that carries an answer: as a rule the one that carried the request.
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
    pub(super) fn new(lanes: &Lanes, over: Over) -> Self {
        let lane = match over {
            Over::Control => Lane::ControlAnswers,
            Over::Data => Lane::DataAnswers,
        };
        Self(lanes.clone(), lane)
    }

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
        self.0.push(self.1, answer.into());
    }

    /// Adds a tool's answer that is encoded already.
    pub(crate) fn send_encoded(&self, answer: Message) {
        self.0.push(self.1, answer);
    }
}

/// Where signals go in. Over budget the oldest is dropped and counted.
#[derive(Clone)]
pub struct SignalLane(Lanes);

impl SignalLane {
    pub(super) fn new(lanes: &Lanes) -> Self {
        Self(lanes.clone())
    }

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
    pub(super) fn new(lanes: &Lanes) -> Self {
        Self(lanes.clone())
    }

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
    pub(super) fn new(lanes: &Lanes) -> Self {
        Self(lanes.clone())
    }

    /// Adds a flow; it is kept over reconnects until it left the resend window.
    pub fn send(&self, flow: stream_flows_request::Request) {
        match Message::of_flow(flow) {
            Some(flow) => self.0.push(Lane::Flows, flow),
            None => self.0.0.metrics.drop(Lane::Flows, DropReason::TooLarge, 1),
        }
    }
}

/// Where measurements go in.
#[derive(Clone)]
pub struct StatsLane(Lanes);

impl StatsLane {
    pub(super) fn new(lanes: &Lanes) -> Self {
        Self(lanes.clone())
    }

    /// Adds a measurement in place of one that was not sent yet.
    pub fn send(&self, stats: OperatorStats) {
        self.0.replace(Lane::Stats, stats.into());
    }
}

/// Where the logs of pods go in.
#[derive(Clone)]
pub struct LogLane(Lanes);

impl LogLane {
    pub(super) fn new(lanes: &Lanes) -> Self {
        Self(lanes.clone())
    }

    /// Adds logs, an encoded `PodLogs` of at most 10 MiB, waiting for room. Their
    /// bytes are not kept after they were sent: what the connection loses is read
    /// again by the agent that hears of it through `receipt`.
    pub async fn send(&self, logs: Vec<u8>, receipt: Receipt) {
        let _turn = self.0.0.turn.lock().await;
        let mut waiting = (Message::of_encoded_logs(logs), receipt);
        loop {
            let room = self.0.0.room.notified();
            match self.0.push_logs(waiting.0, waiting.1) {
                None => return,
                Some(refused) => waiting = refused,
            }
            room.await;
        }
    }
}
