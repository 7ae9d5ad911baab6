//! Which window counts an entry: that of the ten seconds in which it ended.
//!
//! Both ends of a conversation log a request when it ends. Counted over the same times, their views can be compared.

use std::{collections::VecDeque, time::Duration};

use kestrel_proto::node::FLOW_SPAN;

use crate::{Counts, Key, Window};

/// What ended within the same ten seconds.
#[derive(Debug, Default)]
pub struct Span {
    /// What streams brought.
    pub own: Window,
    /// What was counted elsewhere.
    pub sent: Window,
}

impl Span {
    /// All that was counted.
    pub fn rows(&self) -> impl Iterator<Item = (Key<'_>, &Counts)> {
        self.own.rows().chain(self.sent.rows())
    }
}

/// The spans that are open: the present one, and for some seconds the one before.
#[derive(Debug)]
pub(crate) struct Spans {
    /// Each with its number, oldest first.
    open: VecDeque<(u64, Span)>,
    /// All before this one have been taken.
    first: u64,
    /// This long after its end a span is over.
    settles: Duration,
}

impl Spans {
    pub(crate) fn new(settles: Duration) -> Self {
        Self { open: VecDeque::new(), first: 0, settles }
    }

    /// Number of that of what ended at `end` and is heard of `now`, both nanoseconds since 1970. What ended too long ago is
    /// counted with what is open still, and what has not ended yet with the present.
    pub(crate) fn number(&self, end: u64, now: u64) -> u64 {
        let present = now / FLOW_SPAN;
        let oldest = self.first.min(present).max(present.saturating_sub(1));
        (end / FLOW_SPAN).clamp(oldest, present)
    }

    /// That of what ended at `end` and is heard of `now`.
    pub(crate) fn of(&mut self, end: u64, now: u64) -> &mut Span {
        let span = self.number(end, now);
        let at = self.open.partition_point(|(of, _)| *of < span);
        if self.open.get(at).is_none_or(|(of, _)| *of != span) {
            self.open.insert(at, (span, Span::default()));
        }
        &mut self.open[at].1
    }

    /// A span for which nothing more is to be expected, with its number: it is over, or the clock was set back since.
    pub(crate) fn settled(&mut self, now: u64) -> Option<(u64, Span)> {
        let present = now / FLOW_SPAN;
        self.first = now.saturating_sub(self.settles.as_nanos() as u64) / FLOW_SPAN;
        let until = self.first;
        let over = self.open.pop_front_if(|(span, _)| *span < until);
        over.or_else(|| self.open.pop_back_if(|(span, _)| *span > present))
    }

    /// The oldest span.
    pub(crate) fn next(&mut self) -> Option<(u64, Span)> {
        self.open.pop_front()
    }

    /// Number of the newest.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.open.back().map(|(span, _)| *span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reporter, entry::Entry};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_entry_is_of_the_time_in_which_it_ended_as_long_as_that_is_open() {
        let mut spans = Spans::new(Duration::from_secs(5));
        let add = |spans: &mut Spans, end: u64, now: u64| {
            let reporter = Reporter { number: 0, address: [].into() };
            spans.of(end * SECOND, now * SECOND).own.add(&reporter, &Entry::default(), 1 << 20);
        };
        let sizes = |spans: &Spans| {
            spans
                .open
                .iter()
                .map(|(number, span)| (*number, span.own.rows().next().unwrap().1.count))
                .collect::<Vec<_>>()
        };
        add(&mut spans, 1009, 1010);
        add(&mut spans, 1010, 1010);
        add(&mut spans, 5000, 1011);
        add(&mut spans, 3, 1011);
        assert_eq!((sizes(&spans), spans.newest()), (vec![(100, 2), (101, 2)], Some(101)));
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
