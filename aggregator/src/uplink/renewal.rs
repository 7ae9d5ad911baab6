//! The token's renewal: at two thirds of its life, and at once when the server
//! does not take it any more.

use std::{convert::Infallible, time::Duration};

use jiff::Timestamp;
use kestrel_runtime::backoff::Backoff;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use super::{
    credentials::{About, Credentials, Fingerprint, Token},
    problem::{Problem, reason},
};

/// A renewal is due at a point of the token's life between these two.
const DUE: (f64, f64) = (0.62, 0.70);
/// From one attempt to the next at least.
const PAUSE: Duration = Duration::from_secs(1);
/// And, after failures, at most this and a jitter more.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A server that offers no renewal is asked again after this.
const NOT_OFFERED: Duration = Duration::from_secs(3600);
/// The clock is looked at this often: it may jump.
const LOOK: Duration = Duration::from_secs(60);

/// `server.v1.AutonpServerService/RenewClusterToken`, once.
pub(crate) trait Renew {
    /// Sends `token` as the authorization and as `current_token`; returns
    /// `access_token`. Takes 30 s at most.
    fn renew(&self, token: &Token) -> impl Future<Output = Result<SecretString, Status>> + Send;
}

/// Renews the token in time, for as long as there is a connection.
pub(crate) async fn keep_renewed(credentials: &Credentials, server: &impl Renew) -> Infallible {
    loop {
        let rung = credentials.rung();
        // A connection that is being left does this too.
        let turn = credentials.renewal_turn().await;
        let wait = match credentials.token().await {
            Ok(token) => {
                let wait = credentials.schedule().wait(&token, Timestamp::now(), Instant::now());
                if wait.is_zero() {
                    renew(credentials, server, &token).await;
                    continue;
                }
                wait
            }
            // A new connection could not be made either, and says so.
            Err(_) => LOOK,
        };
        drop(turn);
        tokio::select! {
            () = rung => {}
            () = sleep(wait.min(LOOK)) => {}
        }
    }
}

async fn renew(credentials: &Credentials, server: &impl Renew, token: &Token) {
    let renewed = match server.renew(token).await {
        Ok(text) => credentials.renewed(text.expose_secret(), token).await,
        Err(status) if status.code() == Code::Unimplemented => {
            Err(Problem::NoRenewal { setting: token.setting })
        }
        Err(status) => {
            if status.code() == Code::Unauthenticated {
                credentials.refused(token);
            }
            Err(Problem::NotRenewed(reason(&status, token.secret.expose_secret())))
        }
    };
    let outcome = match &renewed {
        Ok(_) => Outcome::Renewed,
        Err(Problem::NoRenewal { .. }) => Outcome::NotOffered,
        Err(_) => Outcome::Failed,
    };
    credentials.schedule().attempted(outcome, Instant::now());
    match renewed {
        Ok(new) => {
            let until = new.ends.map_or_else(|| "for ever".to_owned(), |end| format!("until {end}"));
            credentials.report().news(&format!("the token is renewed and valid {until}"));
            credentials.caution(About::Renewal, Vec::new());
        }
        Err(problem) => credentials.caution(About::Renewal, vec![problem]),
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Renewed,
    Failed,
    NotOffered,
}

/// When the next renewal is due. Outlives connections, so that a connection
/// that comes and goes makes no storm of renewals.
pub(super) struct Schedule {
    backoff: Backoff,
    /// No attempt before this.
    not_before: Option<Instant>,
    succeeded: Option<Instant>,
    /// The server did not take the token.
    wanted: bool,
    plan: Option<Plan>,
}

/// For one token.
struct Plan {
    token: Fingerprint,
    /// When it is due by the wall clock and, should that be set back, at the
    /// latest by the time that passed; `None` for a token without an end.
    due: Option<(Timestamp, Instant)>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(PAUSE, LONGEST_PAUSE),
            not_before: None,
            succeeded: None,
            wanted: false,
            plan: None,
        }
    }
}

impl Schedule {
    /// The server did not take the token.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// How long to wait before `token` is renewed.
    pub(super) fn wait(&mut self, token: &Token, now: Timestamp, instant: Instant) -> Duration {
        let plan = match &mut self.plan {
            Some(plan) if plan.token == token.fingerprint => plan,
            plan => plan.insert(Plan::new(token, now, instant)),
        };
        let due = match plan.due {
            _ if self.wanted => Duration::ZERO,
            None => Duration::MAX,
            Some((by_clock, by_time)) => until(now, by_clock).min(by_time.saturating_duration_since(instant)),
        };
        let pause = self.not_before.map(|end| end.saturating_duration_since(instant)).unwrap_or_default();
        due.max(pause)
    }

    /// An attempt has ended.
    pub(super) fn attempted(&mut self, outcome: Outcome, instant: Instant) {
        // A token that the server then did not take was no success.
        let lived = self.succeeded.take().map_or(Duration::ZERO, |success| instant - success);
        let pause = match outcome {
            Outcome::NotOffered => NOT_OFFERED,
            Outcome::Renewed | Outcome::Failed => PAUSE + self.backoff.next(lived),
        };
        self.not_before = Some(instant + pause);
        if outcome == Outcome::Renewed {
            self.succeeded = Some(instant);
        }
        if outcome != Outcome::Failed {
            self.wanted = false;
        }
    }
}

impl Plan {
    fn new(token: &Token, now: Timestamp, instant: Instant) -> Self {
        let due = token.ends.and_then(|end| {
            let begun = token.issued.unwrap_or(now);
            let point = DUE.0 + (DUE.1 - DUE.0) * fastrand::f64();
            let by_clock = begun.checked_add(until(begun, end).mul_f64(point)).ok()?;
            Some((by_clock, instant.checked_add(until(now, by_clock))?))
        });
        Self { token: token.fingerprint, due }
    }
}

/// From `now` until `then`; nothing if that is over.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
