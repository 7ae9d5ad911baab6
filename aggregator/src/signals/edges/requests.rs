//! Requests of one workload to another that fail: in which way, and from which share of them it is an incident.

use jiff::Timestamp;

use super::{Evidence, trouble::Trouble};

/// In which way. A request fails in one of them: that which says most of the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failing {
    /// TLS could not be agreed upon.
    Tls,
    /// An authorization policy refused it.
    Denial,
    /// Who answers could not be connected to, or the connection broke.
    Connection,
    /// There was no answer in time.
    Timeout,
    /// It was tried as often as allowed.
    Retries,
    /// It was answered with a server's error.
    Error,
}

impl Failing {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Tls, Self::Denial, Self::Connection, Self::Timeout, Self::Retries, Self::Error];

    /// As a signal's reason, and as what it is noted by.
    pub(super) fn words(self) -> [&'static str; 2] {
        match self {
            Self::Tls => ["MutualTLSFailed", "tls"],
            Self::Denial => ["RequestsDenied", "denials"],
            Self::Connection => ["ConnectionsFailed", "connections"],
            Self::Timeout => ["RequestsTimedOut", "timeouts"],
            Self::Retries => ["RetriesExhausted", "retries"],
            Self::Error => ["RequestsFailed", "errors"],
        }
    }

    /// How a sentence says it of both ends.
    pub(super) fn between(self, from: &str, to: &str) -> String {
        match self {
            Self::Tls => format!("TLS between {from} and {to} fails"),
            Self::Denial => format!("{to} refuses what {from} asks for"),
            Self::Connection => format!("Connections of {from} to {to} fail"),
            Self::Timeout => format!("{to} does not answer {from} in time"),
            Self::Retries => format!("{from} has tried in vain, as often as it may, to be answered by {to}"),
            Self::Error => format!("{to} answers {from} with errors"),
        }
    }

    /// How a sentence calls what is over.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Tls => "TLS failures",
            Self::Denial => "refusals",
            Self::Connection => "failures of connections",
            Self::Timeout => "time-outs",
            Self::Retries => "attempts in vain",
            Self::Error => "errors",
        }
    }
}

/// What came of the requests of an edge in one window, or of its connections where nothing more is known of them.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Those that failed, at most one of each way.
    pub failures: Vec<Failure>,
    /// How many there were. Those of which nobody knows what came of them are not among them.
    pub all: u64,
    /// When the last of them ended.
    pub last: Timestamp,
}

/// Requests that failed in one way.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In which.
    pub failing: Failing,
    /// How many, and of how many.
    pub share: Share,
    /// The same of the route of which most failed.
    pub route: Share,
    /// When the last of them ended.
    pub at: Timestamp,
    /// Which they were.
    pub evidence: Evidence,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Some.
    pub some: u64,
    /// All.
    pub all: u64,
}

impl Share {
    fn is_at_least(self, percent: u64) -> bool {
        self.some.saturating_mul(100) >= self.all.saturating_mul(percent)
    }
}

/// From which share of an edge's requests on, in percent, they count as failing …
const BEGINS: u64 = 5;
/// … and down to which, once it is an incident.
const GOES_ON: u64 = 1;
/// A route is broken when half of its requests fail …
const BROKEN: u64 = 50;
/// … and so many. Of an edge with many routes they may be a small share.
const BROKEN_TIMES: u64 = 5;

impl Failure {
    /// Whether it counts, on an edge where that has been going on or has not.
    pub(super) fn counts(&self, trouble: Option<&Trouble>) -> bool {
        let least = if trouble.is_some_and(Trouble::is_open) { GOES_ON } else { BEGINS };
        let is_broken = self.route.some >= BROKEN_TIMES && self.route.is_at_least(BROKEN);
        self.share.some > 0 && (self.share.is_at_least(least) || is_broken)
    }

    /// How many did not fail so.
    pub(super) fn others(&self) -> u64 {
        self.share.all.saturating_sub(self.share.some)
    }
}
