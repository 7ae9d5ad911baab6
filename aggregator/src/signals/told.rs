//! What tests see of the signals.

use kestrel_proto::cloud::v1::{StreamEventsRequest, stream_events_request::Request};
use prost::Message as _;

use crate::uplink::{
    lanes::{Lane, Lanes, SignalLane},
    metrics::Metrics,
};

/// The far end of a lane of signals.
pub(super) struct Told(Lanes);

impl Told {
    pub(super) fn new() -> Self {
        let lanes = Lanes::new(Metrics::default());
        lanes.lead();
        Self(lanes)
    }

    pub(super) fn lane(&self) -> SignalLane {
        self.0.signals()
    }

    /// What was told since the last call.
    pub(super) fn next(&self) -> Vec<Request> {
        let signals = std::iter::from_fn(|| self.0.take(Lane::Signals));
        signals
            .map(|(number, message)| {
                let (head, body) = message.on_own_stream();
                let envelope = StreamEventsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap();
                self.0.left(Lane::Signals, number);
                envelope.request.unwrap()
            })
            .collect()
    }
}
