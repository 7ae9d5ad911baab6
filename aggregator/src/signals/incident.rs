//! What is wrong with an object, as a pure function of the object and the time.

use std::borrow::Cow;

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
    /// How often it has happened, where it is counted.
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
    /// Whether somebody who was told `told` has to hear of it.
    pub(super) fn is_news_after(&self, told: &[Finding]) -> bool {
        self.findings.len() != told.len()
            || self.findings.iter().zip(told).any(|(now, told)| now.is_news_after(told))
    }
}

/// An object as it was last seen, as far as signals need it.
pub trait Subject: Send + 'static {
    /// Takes over from an earlier view of the object what the object itself can't
    /// show.
    fn follows(&mut self, _earlier: &Self) {}

    /// What is wrong with it at `now`. The same answer whenever it is asked.
    fn judge(&self, now: Timestamp, thresholds: &Thresholds) -> Judgement;

    /// Whether it has to be remembered although nothing is wrong with it.
    fn is_kept(&self) -> bool {
        false
    }

    /// What it is of a component that tells of it in its place, if it is any.
    fn part(&self) -> Option<&Part> {
        None
    }

    /// The signal that tells of it: what is wrong, and what no longer is since
    /// the signal before.
    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], now: Timestamp) -> Request;
}
