//! Which window counts an entry: that of the ten seconds in which it ended.
//!
//! Both ends of a conversation log a request when it ends. Counted over the same times, their views can be compared. What ended while
//! nobody led comes to the next leader as its senders find it, one after another: it is counted together, with all that ends until the
//! last of them has come.

use std::{collections::VecDeque, time::Duration};

use kestrel_proto::node::FLOW_SPAN;

use crate::{Counts, Key, Window};

/// Senders have found a new leader after as many spans: their reconnects are spread over half of that.
const FINDING: u64 = 6;

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
    /// Until here senders may find this leader, which is new.
    found: u64,
    /// All that ended before this one is counted together, in the last one before; 0: nothing is.
    together: u64,
}

impl Spans {
    pub(crate) fn new(settles: Duration) -> Self {
        Self { open: VecDeque::new(), first: 0, settles, found: 0, together: 0 }
    }

    /// Who counts begins to lead.
    pub(crate) fn begin(&mut self, now: u64) {
        self.found = now / FLOW_SPAN + FINDING;
    }

    /// Number of that of what ended at `end` and is heard of `now`, both nanoseconds since 1970. What ended too long ago is
    /// counted with what is open still, and what has not ended yet with the present.
    pub(crate) fn number(&self, end: u64, now: u64) -> u64 {
        let present = now / FLOW_SPAN;
        let span = (end / FLOW_SPAN).clamp(self.oldest(present), present);
        if span < self.together { self.together - 1 } else { span }
    }

    /// The oldest that may be open.
    fn oldest(&self, present: u64) -> u64 {
        self.first.min(present).max(present.saturating_sub(1))
    }

    /// What was counted elsewhere is heard of `now`; of one of its rows the last ended at `end`. If that has waited for a leader, what
    /// both ends' senders have counted meanwhile can only be compared when all have come.
    pub(crate) fn hear(&mut self, end: u64, now: u64) {
        let present = now / FLOW_SPAN;
        if end / FLOW_SPAN < self.oldest(present) && present < self.found {
            self.together = self.found;
        }
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
        let (until, newest) = (self.first, if self.together > 0 { present + FINDING } else { present });
        let over = self.open.pop_front_if(|(span, _)| *span < until);
        let over = over.or_else(|| self.open.pop_back_if(|(span, _)| *span > newest));
        self.taken(over)
    }

    /// The oldest span.
    pub(crate) fn next(&mut self) -> Option<(u64, Span)> {
        let next = self.open.pop_front();
        self.taken(next)
    }

    fn taken(&mut self, taken: Option<(u64, Span)>) -> Option<(u64, Span)> {
        if taken.as_ref().is_some_and(|(span, _)| span + 1 == self.together) {
            self.together = 0;
        }
        taken
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

    /// Scenario: a new leader is found by one end's agent at once and by the other's half a minute later, each with what ended before.
    /// Guarantee: all of it is of one span, which is over when both have come; then time is told apart again, and of an old leader.
    #[test]
    fn what_has_waited_for_a_leader_is_counted_together() {
        let mut spans = Spans::new(Duration::from_secs(5));
        spans.begin(1000 * SECOND);
        let send = |spans: &mut Spans, end: u64, now: u64| {
            let reporter = Reporter { number: 0, address: [].into() };
            spans.hear(end * SECOND, now * SECOND);
            spans.of(end * SECOND, now * SECOND).sent.add(&reporter, &Entry::default(), 1 << 20);
            let (number, span) = spans.open.back().unwrap();
            (*number, span.sent.rows().next().unwrap().1.count)
        };
        assert_eq!(send(&mut spans, 1001, 1002), (100, 1), "of this leader's time");
        assert_eq!(send(&mut spans, 950, 1003), (105, 1));
        assert_eq!(
            send(&mut spans, 1012, 1014),
            (105, 2),
            "what ends later is compared with what the other one brings"
        );
        assert!(spans.settled(1016 * SECOND).is_some_and(|(number, _)| number == 100));
        assert_eq!(send(&mut spans, 940, 1033), (105, 3));
        assert_eq!(send(&mut spans, 1059, 1061), (105, 4));
        assert_eq!(send(&mut spans, 1060, 1061), (106, 1));
        assert!(spans.settled(1064 * SECOND).is_none());
        assert!(spans.settled(1065 * SECOND).is_some_and(|(number, _)| number == 105));
        assert_eq!(send(&mut spans, 940, 1066), (106, 2), "it is no new leader any more");
        assert!(spans.settled(1075 * SECOND).is_some() && spans.next().is_none());
        // It leads again, and stops before all have come.
        spans.begin(2000 * SECOND);
        assert_eq!(send(&mut spans, 1950, 2001), (205, 1));
        assert!(spans.next().is_some() && spans.next().is_none());
        assert_eq!(send(&mut spans, 2003, 2003), (200, 1));
    }
}
