//! Reports of flows on their way to the aggregator. Nothing but this has them: they are kept until they
//! have arrived.

use std::collections::VecDeque;

use kestrel_proto::node::v1::FlowReport;
use prost::Message as _;

/// With as many bytes of reports no more are taken.
const MOST_BYTES: usize = 1024 * 1024;

/// Those that have not arrived.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    arrived: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// Encoded.
    report: Vec<u8>,
    /// That it was sent with.
    batch: Option<u64>,
}

impl Reports {
    /// Whether there is room for another one.
    pub(crate) fn have_room(&self) -> bool {
        self.bytes < MOST_BYTES
    }

    /// Adds a report, whatever its size.
    pub(crate) fn push(&mut self, report: &FlowReport) {
        let number = report.number;
        let report = report.encode_to_vec();
        self.bytes += report.len();
        self.waiting.push_back(Waiting { number, report, batch: None });
    }

    /// The oldest that was not sent; it goes with the batch of this id.
    pub(crate) fn next(&mut self, batch: u64) -> Option<&[u8]> {
        let next = self.waiting.iter_mut().find(|waiting| waiting.batch.is_none())?;
        next.batch = Some(batch);
        Some(&next.report)
    }

    /// Batches up to `up_to` arrived.
    pub(crate) fn ack(&mut self, up_to: u64) {
        let has_arrived = |waiting: &mut Waiting| waiting.batch.is_some_and(|batch| batch <= up_to);
        while let Some(Waiting { number, report, .. }) = self.waiting.pop_front_if(has_arrived) {
            self.bytes -= report.len();
            self.arrived = number;
        }
    }

    /// What was sent and has no answer is sent again.
    pub(crate) fn rewind(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.batch = None);
    }

    /// Number of the last that has arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_kept_until_it_has_arrived_and_sent_again_in_its_order() {
        let mut reports = Reports::default();
        for number in [1, 2, 3] {
            reports.push(&FlowReport { run: 7, number, ..FlowReport::default() });
        }
        let next = |reports: &mut Reports, batch| {
            reports.next(batch).map(|report| FlowReport::decode(report).unwrap().number)
        };
        assert_eq!([4, 5].map(|batch| next(&mut reports, batch)), [Some(1), Some(2)]);
        reports.ack(4);
        assert_eq!(reports.arrived(), 1);
        reports.rewind();
        assert_eq!([1, 2, 3].map(|batch| next(&mut reports, batch)), [Some(2), Some(3), None]);
        reports.ack(2);
        assert_eq!((reports.arrived(), reports.bytes), (3, 0));
    }

    #[test]
    fn room_is_bounded_in_bytes() {
        let mut reports = Reports::default();
        let flow = kestrel_proto::node::v1::Flow { count: 1, ..Default::default() };
        let report =
            FlowReport { run: 1, number: 1, flows: vec![flow; MOST_BYTES / 4], ..FlowReport::default() };
        assert!(reports.have_room());
        reports.push(&report);
        assert!(!reports.have_room());
        reports.next(1);
        reports.ack(1);
        assert!(reports.have_room());
    }
}
