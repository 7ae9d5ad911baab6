//! What `/metrics` shows.

use std::sync::atomic::Ordering;

use kestrel_flows::counts::Counts;
use kestrel_link::ship::Shipper;
use kestrel_tail::engine::Reason;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::host::{condition::Conditions, event::Events};

/// Why lines were left out, or bytes of log files lost.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The agent's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    lines_left_out: Family<ReasonLabel, Counter>,
    lines_read: Counter,
    lines_looked_back: Counter,
    bytes_read: Counter,
    lines_followed: Counter,
    lines_folded: Counter,
    lines_malformed: Counter,
    lines_continued: Counter,
    lines_cleaned: Counter,
    secrets_redacted: Counter,
    bytes_passed: Counter,
    bytes_lost: Family<ReasonLabel, Counter>,
    lines_sent: Counter,
    batches_sent: Counter,
    refusals: Counter,
    content_bytes: Counter,
    payload_bytes: Counter,
    link_up: Gauge,
    link_bytes_under_way: Gauge,
    ranges_in_flight: Gauge,
    files_followed: Gauge,
    bytes_unread: Gauge,
    held_back: Gauge,
    problems: Gauge,
    /// What is counted of flows, where they are seen.
    pub flows: Counts,
    host_events_dropped: Counter,
    host_left_out: Family<ReasonLabel, Counter>,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("kestrel_agent");
        for (name, help, counter) in [
            ("lines_read", "Lines read from container logs", &metrics.lines_read),
            (
                "lines_looked_back",
                "Lines from before an incident that were sent when it began",
                &metrics.lines_looked_back,
            ),
            ("bytes_read", "Bytes of log files that became lines", &metrics.bytes_read),
            (
                "lines_followed",
                "Lines that are one record with the line before, as those of a stack trace",
                &metrics.lines_followed,
            ),
            (
                "lines_folded",
                "Lines of errors that were counted because others like them were sent",
                &metrics.lines_folded,
            ),
            (
                "lines_malformed",
                "Lines not in the runtime's format, sent as they are",
                &metrics.lines_malformed,
            ),
            (
                "lines_continued",
                "Additional records that lines and stack traces over the limit became",
                &metrics.lines_continued,
            ),
            ("lines_cleaned", "Lines with invalid UTF-8 or NUL that were made text", &metrics.lines_cleaned),
            ("secrets_redacted", "Secrets taken out of lines before they left", &metrics.secrets_redacted),
            ("bytes_passed", "Bytes of log files from before the look-back", &metrics.bytes_passed),
            ("lines_sent", "Lines sent to the aggregator", &metrics.lines_sent),
            ("batches_sent", "Batches sent to the aggregator", &metrics.batches_sent),
            ("refusals", "Times the aggregator had us read again what was under way", &metrics.refusals),
            ("batch_content_bytes", "Bytes of sent batches before compression", &metrics.content_bytes),
            ("batch_payload_bytes", "Bytes of sent batches", &metrics.payload_bytes),
            (
                "host_events_dropped",
                "Events of the host that there was no room for while the link was down",
                &metrics.host_events_dropped,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register("lines_left_out", "Lines that were not sent", metrics.lines_left_out.clone());
        let help = "Bytes of log files that were gone before they were delivered";
        registry.register("bytes_lost", help, metrics.bytes_lost.clone());
        let help = "What of the host was passed over: too many folders of control groups, at each look at them; lines of the kernel's log about further devices; kills in pods that have no logs on this node";
        registry.register("host_left_out", help, metrics.host_left_out.clone());
        for (name, help, gauge) in [
            ("link_up", "Whether the link to the aggregator is open", &metrics.link_up),
            (
                "link_bytes_under_way",
                "Bytes of sent batches that the aggregator holds",
                &metrics.link_bytes_under_way,
            ),
            (
                "ranges_in_flight",
                "Ranges of files that wait for the aggregator's answer",
                &metrics.ranges_in_flight,
            ),
            ("files_followed", "Log files that are open", &metrics.files_followed),
            ("bytes_unread", "Bytes of log files that wait to be read", &metrics.bytes_unread),
            (
                "containers_held_back",
                "Containers that wait because their pod sent too much",
                &metrics.held_back,
            ),
            ("problems", "Files and directories that cannot be followed", &metrics.problems),
        ] {
            registry.register(name, help, gauge.clone());
        }
        metrics.flows.register(registry);
        metrics
    }

    /// Takes the numbers of those who count by themselves.
    pub fn update(&self, shipper: &Shipper, conditions: &Conditions, events: &Events) {
        let stats = shipper.engine.stats();
        let shipped = shipper.shipped();
        for (counter, value) in [
            (&self.lines_read, stats.lines),
            (&self.lines_looked_back, stats.looked_back),
            (&self.bytes_read, stats.bytes_read),
            (&self.lines_followed, stats.followed),
            (&self.lines_folded, stats.folded),
            (&self.lines_malformed, stats.malformed),
            (&self.lines_continued, stats.continued),
            (&self.lines_cleaned, stats.cleaned),
            (&self.secrets_redacted, stats.redacted),
            (&self.bytes_passed, stats.bytes_passed),
            (&self.lines_sent, shipped.lines),
            (&self.batches_sent, shipped.batches),
            (&self.refusals, shipped.refusals),
            (&self.content_bytes, shipped.content_bytes),
            (&self.payload_bytes, shipped.payload_bytes),
            (&self.host_events_dropped, events.dropped()),
        ] {
            counter.inner().store(value, Ordering::Relaxed);
        }
        for reason in Reason::ALL {
            let counter = self.bytes_lost.get_or_create(&ReasonLabel { reason: reason.as_str() });
            counter.inner().store(stats.bytes_lost.of(reason), Ordering::Relaxed);
        }
        for (reason, value) in [("policy", stats.left_out), ("budget", stats.over_budget)] {
            let counter = self.lines_left_out.get_or_create(&ReasonLabel { reason });
            counter.inner().store(value, Ordering::Relaxed);
        }
        for (reason, value) in conditions.left_out() {
            let counter = self.host_left_out.get_or_create(&ReasonLabel { reason });
            counter.inner().store(value, Ordering::Relaxed);
        }
        let gauge = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.link_up, shipper.is_connected().into());
        gauge(&self.link_bytes_under_way, shipper.under_way());
        gauge(&self.ranges_in_flight, shipper.engine.in_flight() as u64);
        gauge(&self.files_followed, shipper.engine.files() as u64);
        gauge(&self.bytes_unread, shipper.engine.unread_bytes());
        gauge(&self.held_back, shipper.engine.held_back() as u64);
        gauge(&self.problems, shipper.engine.problems().len() as u64);
    }
}
