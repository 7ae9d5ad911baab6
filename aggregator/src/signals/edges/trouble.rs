//! Whether something fails again and again: of one edge, without knowing which.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use super::{super::event::budget::Budget, Matter, after};

/// Seconds of which failures count as one: a packet that is sent again, and what flows are counted over.
const SPAN: i64 = 10;
/// It is an incident when it failed in so many different of them …
const SPANS: usize = 3;
/// … of which the first is no longer ago than this. A SYN is sent again after 1, 3, 7, 15 and 31 seconds.
const WITHIN: Duration = Duration::from_mins(2);
/// It is over when nothing failed for so long, if meanwhile it works; a SYN may be sent again after 64 seconds. Who asks
/// for a name that is not found asks again soon, so there silence alone says it.
const QUIET: Duration = Duration::from_mins(3);
/// The same, if nothing is tried: who was stopped may have given up.
const GIVEN_UP: Duration = Duration::from_mins(10);

/// Things that are named of each kind, and their bytes.
const MOST: usize = 4;
const MOST_BYTES: usize = 120;

/// What a person needs to find the cause. Each of a few different ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Where it fails, or how: a protocol and port, a code, an error.
    pub(super) what: Vec<String>,
    /// What lets it fail, as far as that is known: a policy, a reason.
    pub(super) by: Vec<String>,
    /// An example of what was asked for.
    pub(super) such_as: Vec<String>,
}

impl Evidence {
    /// Of one failure.
    pub fn new<'a>(
        what: &str,
        by: impl IntoIterator<Item = &'a str>,
        such_as: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut evidence = Self::default();
        add(&mut evidence.what, [what]);
        add(&mut evidence.by, by);
        add(&mut evidence.such_as, such_as);
        evidence
    }

    /// Adds what is in another one; whether there is news in it. Another example is none.
    pub fn take(&mut self, more: &Self) -> bool {
        let news = add(&mut self.what, more.what.iter().map(String::as_str))
            + add(&mut self.by, more.by.iter().map(String::as_str));
        add(&mut self.such_as, more.such_as.iter().map(String::as_str));
        news > 0
    }
}

/// Adds those that are not there, as long as there is room; how many.
fn add<'a>(all: &mut Vec<String>, more: impl IntoIterator<Item = &'a str>) -> usize {
    let before = all.len();
    for one in more {
        let one = &one[..one.floor_char_boundary(MOST_BYTES)];
        if !one.is_empty() && all.len() < MOST && all.iter().all(|known| known != one) {
            all.push(one.to_owned());
        }
    }
    all.len() - before
}

/// What failed on an edge lately.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Since when, with no pause that would have ended it.
    pub(super) since: Timestamp,
    /// When it failed last.
    pub(super) last: Timestamp,
    /// How often it failed, and how often it worked meanwhile.
    pub(super) failed: u64,
    pub(super) worked: u64,
    pub(super) evidence: Evidence,
    /// The last few spans in which it failed, each once, in their order.
    spans: VecDeque<i64>,
    /// When something of what had failed worked after that.
    works: Option<Timestamp>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    is_news: bool,
    budget: Budget,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    None,
    /// It would be an incident, and there are too many.
    NoRoom,
    /// It never was one.
    Forgotten,
    Opened,
    Changed,
    Over,
}

impl Trouble {
    /// It failed for the first time.
    pub(super) fn new(counts: [u64; 2], at: Timestamp, evidence: Evidence) -> Self {
        let mut trouble = Self { evidence, ..Self::unseen(at) };
        trouble.count(counts, at);
        trouble
    }

    /// Of which nothing is known but that it was.
    pub(super) fn unseen(at: Timestamp) -> Self {
        Self {
            since: at,
            last: at,
            failed: 0,
            worked: 0,
            evidence: Evidence::default(),
            spans: VecDeque::new(),
            works: None,
            open: None,
        }
    }

    /// Whether what failed then says nothing of now.
    pub(super) fn is_past(at: Timestamp, now: Timestamp) -> bool {
        after(at, WITHIN) < now
    }

    /// It failed so often again, and worked beside that. What comes late may have been before what came first.
    pub(super) fn failed(&mut self, counts: [u64; 2], at: Timestamp, evidence: Evidence) {
        let is_news = self.evidence.take(&evidence);
        if let Some(open) = &mut self.open {
            open.is_news |= is_news;
        } else if Self::is_past(self.last, at) {
            *self = Self::new([0, 0], at, evidence);
        }
        self.count(counts, at);
    }

    fn count(&mut self, [failed, worked]: [u64; 2], at: Timestamp) {
        self.failed = self.failed.saturating_add(failed);
        self.worked = self.worked.saturating_add(worked);
        self.since = self.since.min(at);
        self.last = self.last.max(at);
        self.works = self.works.filter(|works| *works > self.last);
        let span = at.as_second().div_euclid(SPAN);
        if let Err(place) = self.spans.binary_search(&span) {
            self.spans.insert(place, span);
        }
        if self.spans.len() > SPANS {
            self.spans.pop_front();
        }
    }

    /// It worked, where `what` says: what was never stopped says nothing.
    pub(super) fn worked(&mut self, times: u64, what: &str, at: Timestamp) {
        if self.evidence.what.iter().any(|failed| failed == what) {
            self.worked = self.worked.saturating_add(times);
            if at > self.last {
                self.works = self.works.max(Some(at));
            }
        }
    }

    /// So few failed beside what worked that it works.
    pub(super) fn went_on(&mut self, [failed, worked]: [u64; 2], at: Timestamp) {
        self.failed = self.failed.saturating_add(failed);
        self.worked = self.worked.saturating_add(worked);
        if worked > 0 && at > self.last {
            self.works = self.works.max(Some(at));
        }
    }

    /// Whether it is an incident.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What there is to tell now. The answer is acted on.
    pub(super) fn judge(&mut self, matter: Matter, has_room: bool, now: Timestamp) -> Turn {
        let is_quiet = |time| after(self.last, time) <= now;
        let Some(open) = &mut self.open else {
            if Self::is_past(self.last, now) {
                return Turn::Forgotten;
            }
            let is_sustained = self.spans.len() == SPANS
                && self
                    .spans
                    .iter()
                    .all(|span| span * SPAN + WITHIN.as_secs().cast_signed() >= self.last.as_second());
            return match (is_sustained, has_room) {
                (false, _) => Turn::None,
                (true, false) => {
                    // Counted once; it has to last for as long again.
                    self.spans.clear();
                    Turn::NoRoom
                }
                (true, true) => {
                    let mut budget = Budget::default();
                    // A fresh budget has one.
                    let _taken = budget.take(now);
                    self.open = Some(Open { is_news: false, budget });
                    Turn::Opened
                }
            };
        };
        let says_enough = matter == Matter::Names || self.works.is_some();
        if is_quiet(GIVEN_UP) || says_enough && is_quiet(QUIET) {
            return Turn::Over;
        }
        if open.is_news && open.budget.take(now).is_ok() {
            open.is_news = false;
            return Turn::Changed;
        }
        Turn::None
    }

    /// Whether it works again, as far as anybody has seen.
    pub(super) fn works(&self) -> bool {
        self.works.is_some()
    }
}
