//! What is wrong with an object, as a pure function of the object and the time.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, stream_events_request::Request};

use super::{component::Part, thresholds::Thresholds};

/// Types of the conditions that are not Kubernetes' own begin with this.
pub const PREFIX: &str = "kestrel.ai/";

/// Something that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is, such as `CrashLoop`.
    pub kind: Cow<'static, str>,
    /// The reason that Kubernetes gives, such as `CrashLoopBackOff`.
    pub reason: String,
    /// Sentences on which a person can act.
    pub message: String,
    /// When it began.
    pub since: Timestamp,
    /// How often it has happened, or to how many parts of the object, where that
    /// is counted.
    pub count: u32,
}

impl Finding {
    /// Whether there is news in it for somebody who knows `told`. Messages change
    /// without anything having happened.
    fn is_news_after(&self, told: &Self) -> bool {
        (&self.kind, &self.reason, self.count) != (&told.kind, &told.reason, told.count)
    }
}

/// What is wrong with an object now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// At most one a kind, in the order of their kinds.
    pub findings: Vec<Finding>,
    /// When time alone may change the judgement.
    pub due: Option<Timestamp>,
}

impl Judgement {
    /// Something that is wrong from `from` on.
    pub(super) fn add_from(&mut self, from: Timestamp, now: Timestamp, finding: impl FnOnce() -> Finding) {
        if now >= from {
            self.findings.push(finding());
        } else {
            self.reconsider(from);
        }
    }

    /// Time alone may change the judgement at `due`.
    pub(super) fn reconsider(&mut self, due: Timestamp) {
        self.due = self.due.into_iter().chain([due]).min();
    }

    /// Without the findings that are held back until later than `now`, to be looked at
    /// again then.
    pub(super) fn hold_back(&mut self, until: impl Fn(&Finding) -> Option<Timestamp>, now: Timestamp) {
        let Self { findings, due } = self;
        findings.retain(|finding| {
            let until = until(finding).filter(|until| *until > now);
            *due = due.iter().copied().chain(until).min();
            until.is_none()
        });
    }

    /// The same judgement, its findings in their order.
    pub(super) fn in_order(mut self) -> Self {
        self.findings.sort_by(|a, b| a.kind.cmp(&b.kind));
        self.findings.dedup_by(|a, b| a.kind == b.kind);
        self
    }

    /// Whether somebody who was told `told` has to hear of it.
    pub(super) fn is_news_after(&self, told: &[Finding]) -> bool {
        self.findings.len() != told.len()
            || self.findings.iter().zip(told).any(|(now, told)| now.is_news_after(told))
    }
}

/// The time `wait` after `moment`.
pub(super) fn after(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// An object as it was last seen, as far as signals need it.
pub trait Subject: Send + 'static {
    /// Takes over from an earlier view of the object what the object itself can't
    /// show.
    fn follows(&mut self, _earlier: &Self) {}

    /// It has been watched, and until `now` nothing was about to be wrong with it, whatever the
    /// clocks say from which its times are.
    fn begins(&mut self, _now: Timestamp) {}

    /// Whether it is another object than `earlier`, which had the same name.
    fn replaces(&self, _earlier: &Self) -> bool {
        false
    }

    /// What is wrong with it at `now`. The same answer whenever it is asked.
    fn judge(&self, now: Timestamp, thresholds: &Thresholds) -> Judgement;

    /// Until when the finding does not begin, because another signal tells the cause.
    fn held_until(&self, _finding: &Finding) -> Option<Timestamp> {
        None
    }

    /// Whether it has to be remembered although nothing is wrong with it.
    fn is_kept(&self) -> bool {
        false
    }

    /// Whether nothing is wrong with it, and nothing seems to be that only time will show.
    fn is_well(&self, judgement: &Judgement) -> bool {
        *judgement == Judgement::default()
    }

    /// What it is of a component that tells of it in its place, if it is any.
    fn part(&self) -> Option<&Part> {
        None
    }

    /// What is wrong with it, with what a person needs beside it, such as log lines.
    fn in_full(&self, _uid: &str, open: &[Finding]) -> Vec<Finding> {
        open.to_vec()
    }

    /// Whether it is to be told now although nothing has changed; the answer is
    /// acted on, so it is not given twice.
    fn owes_a_signal(&mut self) -> bool {
        false
    }

    /// An incident of it has begun, or is over.
    fn turned(&self, _is_open: bool) {}

    /// The signal that tells of it: what is wrong, and what no longer is since
    /// the signal before.
    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], now: Timestamp) -> Request;
}
