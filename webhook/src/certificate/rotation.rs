//! What to do next about authority, trust and certificate. Pure: the state of
//! the world and the time in, one step out.
//!
//! The bundle in the webhook configuration follows from the Secret alone, so
//! that replicas never disagree about it; the clock only decides when the
//! Secret's previous authorities are forgotten.

use std::time::Duration;

use jiff::Timestamp;

/// Authorities are forgotten after this many trust delays: all replicas show
/// certificates of the new one after about one.
const FORGET_AFTER: u32 = 12;
/// Authorities that are kept when one rotation follows another.
const MOST_AUTHORITIES: usize = 4;

/// The world as it was just read.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// The Secret; `None` if there is none.
    pub(super) stored: Option<Stored>,
    /// The webhook configuration; `None` if it or its webhook is not there.
    pub(super) configured: Option<Configured>,
}

/// What the Secret says about authorities.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Signs new certificates.
    pub(super) current: String,
    /// Signed certificates that replicas may still show.
    pub(super) previous: Vec<String>,
    /// When [`Self::previous`] is forgotten.
    pub(super) until: Timestamp,
}

/// What the webhook configuration says.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    /// The authorities that API servers trust.
    pub(super) bundle: Vec<String>,
    /// The names by which API servers call us.
    pub(super) names: Vec<String>,
}

/// The certificate that is shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) authority: String,
    pub(super) names: Vec<String>,
    pub(super) renew_at: Timestamp,
}

/// What to do; the world is read again after each but [`Step::Wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the Secret with a new authority.
    Generate { previous: Vec<String>, until: Timestamp },
    /// Have the Secret say that these authorities are still in use.
    Remember { previous: Vec<String>, until: Timestamp },
    /// Have the configuration trust exactly these.
    Trust { bundle: Vec<String> },
    /// Sign and show a certificate of the current authority for these names.
    Show { names: Vec<String> },
    /// Nothing before this time, or before the world changes.
    Wait { until: Option<Timestamp> },
}

/// What one replica knows beyond the world: what it shows, and since when it
/// has seen that the current authority is trusted.
#[derive(Debug)]
pub(super) struct Rotation {
    trust_delay: Duration,
    shown: Option<Shown>,
    trusted: Option<(String, Timestamp)>,
}

impl Rotation {
    /// `trust_delay` is how long an API server may take to notice that the
    /// configuration has changed.
    pub(super) fn new(trust_delay: Duration) -> Self {
        Self { trust_delay, shown: None, trusted: None }
    }

    /// The certificate that was signed at [`Step::Show`] is shown.
    pub(super) fn show(&mut self, shown: Shown) {
        self.shown = Some(shown);
    }

    /// The next step.
    pub(super) fn next(&mut self, world: &World, now: Timestamp) -> Step {
        // Without a configuration nobody calls us, and nobody could trust us.
        let Some(configured) = &world.configured else {
            self.trusted = None;
            return Step::Wait { until: None };
        };
        let until = now + self.trust_delay * FORGET_AFTER;
        let Some(stored) = &world.stored else {
            let in_use = self.shown.iter().map(|shown| &shown.authority).chain(&configured.bundle);
            return Step::Generate { previous: distinct(in_use), until };
        };

        if let Some(Shown { authority, .. }) = &self.shown {
            if *authority == stored.current {
                if !stored.previous.is_empty() && stored.until <= now {
                    return Step::Remember { previous: Vec::new(), until };
                }
            } else if !stored.previous.contains(authority) {
                // Someone has replaced the Secret, or we slept through a rotation.
                let previous = distinct([authority].into_iter().chain(&stored.previous));
                return Step::Remember { previous, until };
            }
        }

        if !configured.bundle.contains(&stored.current) {
            self.trusted = None;
        }
        let bundle = distinct([&stored.current].into_iter().chain(&stored.previous));
        if configured.bundle != bundle {
            return Step::Trust { bundle };
        }
        let since = match &self.trusted {
            Some((authority, since)) if *authority == stored.current => *since,
            _ => {
                self.trusted = Some((stored.current.clone(), now));
                now
            }
        };

        let up_to_date = self.shown.as_ref().filter(|shown| {
            shown.authority == stored.current && shown.names == configured.names && now < shown.renew_at
        });
        let due = match up_to_date {
            Some(shown) => shown.renew_at,
            None if since + self.trust_delay <= now => return Step::Show { names: configured.names.clone() },
            None => since + self.trust_delay,
        };
        let forget = (!stored.previous.is_empty()).then_some(stored.until).filter(|until| *until > now);
        Step::Wait { until: Some(forget.map_or(due, |forget| forget.min(due))) }
    }
}

/// The first few, each once.
fn distinct<'a>(authorities: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    for authority in authorities {
        if result.len() < MOST_AUTHORITIES && !result.contains(authority) {
            result.push(authority.clone());
        }
    }
    result
}
