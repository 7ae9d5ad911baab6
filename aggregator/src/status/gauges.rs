//! What is measured when somebody looks: it is known elsewhere, and would only
//! be old in a gauge.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use super::Status;
use crate::uplink::{
    lanes::Lane,
    metrics::{LaneLabel, StreamLabel},
    state::{StreamState, Traffic},
};

impl Collector for Status {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let state = self.view.state();
        page.number("leader", "1 while this replica leads", i64::from(self.standing.now().leads()))?;
        page.number("connected", "1 while there is a connection", i64::from(state.connection.is_some()))?;
        page.one("connections", "Connections made since the start", &ConstCounter::new(state.connections))?;
        let ends = self.credentials.ends();
        for (name, help, end) in [
            ("token_expiry_timestamp_seconds", "When the token ends; 0: not known", ends.token),
            (
                "certificate_expiry_timestamp_seconds",
                "When the client certificate ends; 0: not known",
                ends.certificate,
            ),
        ] {
            page.number(name, help, end.map_or(0, Timestamp::as_second))?;
        }

        let streams = || state.streams.iter().map(|stream| (StreamLabel { stream: stream.name }, stream));
        let up = |stream: &StreamState| i64::from(stream.is_open());
        page.numbers("stream_up", "1 while the server answers on a stream", streams(), up)?;
        page.counts("stream_opens", "Times a stream was asked for", streams(), |stream| stream.opened)?;
        let unsettled = |stream: &StreamState| whole(stream.unsettled);
        page.numbers("window_messages", "Messages in the resend window", streams(), unsettled)?;
        for (name, traffic) in [
            ("stream_sent", (|stream| stream.sent) as fn(&StreamState) -> Traffic),
            ("stream_received", |stream| stream.received),
        ] {
            let (messages, bytes) = (format!("{name}_messages"), format!("{name}_bytes"));
            page.counts(&messages, "gRPC messages on a stream", streams(), |stream| {
                traffic(stream).messages
            })?;
            page.counts(&bytes, "Their bytes", streams(), |stream| traffic(stream).bytes)?;
        }

        let depths = Lane::ALL.map(|lane| (LaneLabel { lane }, self.lanes.depth(lane)));
        let lanes = || depths.iter().map(|(label, depth)| (*label, depth));
        page.numbers("lane_messages", "Messages that wait in a lane", lanes(), |depth| {
            whole(depth.messages)
        })?;
        page.numbers("lane_waiting_bytes", "Their bytes", lanes(), |depth| whole(depth.bytes))?;
        let now = Timestamp::now();
        page.numbers("lane_oldest_age_seconds", "Age of the oldest of them", lanes(), |depth| {
            depth.oldest.map_or(0, |oldest| now.duration_since(oldest).as_secs().max(0))
        })
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn number(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value))
    }

    fn numbers<T, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        of: impl Iterator<Item = (L, T)>,
        value: impl Fn(T) -> i64,
    ) -> fmt::Result {
        self.family(name, help, of.map(|(label, of)| (label, ConstGauge::new(value(of)))))
    }

    fn counts<T, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        of: impl Iterator<Item = (L, T)>,
        value: impl Fn(T) -> u64,
    ) -> fmt::Result {
        self.family(name, help, of.map(|(label, of)| (label, ConstCounter::new(value(of)))))
    }

    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn family<M: EncodeMetric, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        metrics: impl Iterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut metrics = metrics.peekable();
        let Some((_, first)) = metrics.peek() else { return Ok(()) };
        let mut family = self.0.encode_descriptor(name, help, None, first.metric_type())?;
        metrics.try_for_each(|(label, metric)| metric.encode(family.encode_family(&label)?))
    }
}
