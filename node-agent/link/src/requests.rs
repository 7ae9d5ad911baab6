//! Reports of requests on their way to the cloud. Nothing but this has them, and the aggregator only counts them: they are kept
//! until they were told.

use std::collections::VecDeque;

use kestrel_proto::node::v1::{RequestReport, RequestsTold};
use prost::Message as _;

/// With as many bytes of reports no more are taken. What an aggregator counts it tells within 15 seconds, and after a
/// fail-over within some 75.
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// Those that were not told.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Of all of them.
    run: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// Encoded.
    report: Vec<u8>,
    was_sent: bool,
}

impl Requests {
    /// Whether there is room for another one.
    pub(crate) fn have_room(&self) -> bool {
        self.bytes < MOST_BYTES
    }

    /// Whether all were told.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a report, whatever its size.
    pub(crate) fn push(&mut self, report: &RequestReport) {
        self.run = report.run;
        let (number, report) = (report.number, report.encode_to_vec());
        self.bytes += report.len();
        self.waiting.push_back(Waiting { number, report, was_sent: false });
    }

    /// The oldest that was not sent; it is sent now.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let next = self.waiting.iter_mut().find(|waiting| !waiting.was_sent)?;
        next.was_sent = true;
        Some(&next.report)
    }

    /// The cloud has been told.
    pub(crate) fn told(&mut self, RequestsTold { run, number }: RequestsTold) {
        if run == self.run {
            while let Some(told) = self.waiting.pop_front_if(|waiting| waiting.number <= number) {
                self.bytes -= told.report.len();
            }
        }
    }

    /// What was sent and not told is sent again.
    pub(crate) fn rewind(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.was_sent = false);
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::node::v1::RequestRow;

    use super::*;

    #[test]
    fn a_report_is_kept_until_it_was_told_and_sent_again_in_its_order() {
        let mut requests = Requests::default();
        for number in [1, 2, 3] {
            requests.push(&RequestReport { run: 7, number, ..RequestReport::default() });
        }
        let next = |requests: &mut Requests| {
            requests.next().map(|report| RequestReport::decode(report).unwrap().number)
        };
        assert_eq!([(); 2].map(|()| next(&mut requests)), [Some(1), Some(2)]);
        requests.told(RequestsTold { run: 6, number: 9 });
        requests.told(RequestsTold { run: 7, number: 1 });
        requests.rewind();
        assert_eq!([(); 3].map(|()| next(&mut requests)), [Some(2), Some(3), None]);
        requests.told(RequestsTold { run: 7, number: 3 });
        assert!(requests.is_empty() && requests.bytes == 0);
    }

    #[test]
    fn room_is_bounded_in_bytes() {
        let row = RequestRow { count: 1, ..RequestRow::default() };
        let rows = vec![row; MOST_BYTES / 4];
        let mut requests = Requests::default();
        assert!(requests.have_room());
        requests.push(&RequestReport { run: 1, number: 1, rows, ..RequestReport::default() });
        assert!(!requests.have_room());
        requests.told(RequestsTold { run: 1, number: 1 });
        assert!(requests.have_room());
    }
}
