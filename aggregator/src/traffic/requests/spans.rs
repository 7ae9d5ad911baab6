//! Which window counts an entry: that of the ten seconds in which it ended.
//!
//! Both ends of a conversation log a request when it ends. Counted over the same times, their views can be compared.

use std::{collections::VecDeque, time::Duration};

use kestrel_als::Window;
use kestrel_proto::node::FLOW_SPAN;

/// A proxy sends within a second or two what it logged; by then both ends' proxies have.
pub(super) const SETTLES: Duration = Duration::from_secs(5);

/// Bytes that the rows of one window may take: about 100,000.
pub(super) const MOST_BYTES: usize = 48 * 1024 * 1024;

/// The windows that are open: the present one, and for some seconds the one before.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// Each with the number of its ten seconds, oldest first.
    open: VecDeque<(u64, Window)>,
    /// All before this one have been told.
    first: u64,
}

impl Spans {
    /// The window for what ended at `end` and is heard of `now`, both nanoseconds since 1970. What ended too long ago is
    /// counted with what is open still, and what has not ended yet with the present.
    pub(super) fn window(&mut self, end: u64, now: u64) -> &mut Window {
        let present = now / FLOW_SPAN;
        let span = (end / FLOW_SPAN).clamp(self.first.min(present).max(present.saturating_sub(1)), present);
        let at = self.open.partition_point(|(of, _)| *of < span);
        if self.open.get(at).is_none_or(|(of, _)| *of != span) {
            self.open.insert(at, (span, Window::default()));
        }
        &mut self.open[at].1
    }

    /// A window for which nothing more is to be expected: it is over, or the clock was set back since.
    pub(super) fn settled(&mut self, now: u64) -> Option<Window> {
        let present = now / FLOW_SPAN;
        self.first = now.saturating_sub(SETTLES.as_nanos() as u64) / FLOW_SPAN;
        let until = self.first;
        let over = self.open.pop_front_if(|(span, _)| *span < until);
        over.or_else(|| self.open.pop_back_if(|(span, _)| *span > present)).map(|(_, window)| window)
    }

    /// The oldest window.
    pub(super) fn next(&mut self) -> Option<Window> {
        self.open.pop_front().map(|(_, window)| window)
    }
}

#[cfg(test)]
mod tests {
    use kestrel_als::{Reporter, entry::Entry};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_entry_is_of_the_time_in_which_it_ended_as_long_as_that_is_open() {
        let mut spans = Spans::default();
        let add = |spans: &mut Spans, end: u64, now: u64| {
            let reporter = Reporter { number: 0, address: [].into() };
            spans.window(end * SECOND, now * SECOND).add(&reporter, &Entry::default(), MOST_BYTES);
        };
        let sizes = |spans: &Spans| {
            spans
                .open
                .iter()
                .map(|(span, window)| (*span, window.rows().next().unwrap().1.count))
                .collect::<Vec<_>>()
        };
        add(&mut spans, 1009, 1010);
        add(&mut spans, 1010, 1010);
        add(&mut spans, 5000, 1011);
        add(&mut spans, 3, 1011);
        assert_eq!(sizes(&spans), [(100, 2), (101, 2)]);
        assert!(spans.settled(1014 * SECOND).is_none());
        assert!(spans.settled(1015 * SECOND).is_some() && spans.settled(1015 * SECOND).is_none());
        add(&mut spans, 1009, 1016);
        assert_eq!(sizes(&spans), [(101, 3)], "what comes late is not told apart any more");
        add(&mut spans, 900, 905);
        assert_eq!(sizes(&spans), [(90, 1), (101, 3)], "the clock was set back");
        assert!(spans.settled(906 * SECOND).is_some());
        assert_eq!(sizes(&spans), [(90, 1)]);
        assert!(spans.next().is_some() && spans.next().is_none());
    }
}
