//! What the uplink shows the server and what it trusts, from wherever it is
//! newest: the files and variables that the operator was installed with, which
//! are read anew each time, so that a rotation needs no restart, and the runtime
//! Secret with what the server gave since.

mod choice;
mod found;
mod material;
mod secret;
mod taken;
mod token;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rustls::ClientConfig;
use secrecy::SecretString;
use tokio::{
    sync::{Notify, futures::Notified},
    time::{Instant, sleep_until},
};

use super::{problem::Problem, renewal::Schedule, report::Report};
use choice::Refused;
use found::Identity;
use material::{Pair, Trust};
use secret::Contents;

pub(crate) use choice::Fingerprint;
pub use secret::RuntimeSecret;
pub(crate) use token::Token;

/// Where the token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// The environment.
    Text(SecretString),
    /// A file.
    File(PathBuf),
}

/// What the operator was installed with.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Our certificate, PEM.
    pub client_certificate: PathBuf,
    /// Its key, PEM.
    pub client_key: PathBuf,
    /// The server's authority, PEM.
    pub authority: PathBuf,
    /// The cluster's token.
    pub token: TokenSource,
    /// Take any server certificate.
    pub insecure: bool,
    /// How often the files and the runtime Secret are looked at for a change.
    pub look: Duration,
}

/// When what is used ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// The token.
    pub token: Option<Timestamp>,
    /// The client certificate.
    pub certificate: Option<Timestamp>,
}

/// The one provider of token and certificate; clones share it.
#[derive(Clone)]
pub struct Credentials(Arc<Shared>);

struct Shared {
    bootstrap: Bootstrap,
    secret: Option<RuntimeSecret>,
    state: Mutex<State>,
    /// Whose turn it is to look at the Secret.
    looking: tokio::sync::Mutex<()>,
    bell: Notify,
    report: Report,
    schedule: Mutex<Schedule>,
    /// Whose turn it is to renew the token.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// What the runtime Secret had last.
    kept: Contents,
    /// When it is looked at next.
    next_look: Option<Instant>,
    /// The server's last answer to a renewal, which may not be in the Secret yet.
    renewed: Option<Token>,
    refused_tokens: Refused,
    refused_pairs: Refused,
    /// The certificates that may be shown, as found last.
    pairs: Vec<Pair>,
    /// What a connection was given last.
    given: Option<Identity>,
    ends: Ends,
    /// The token that was given last.
    used: Option<Fingerprint>,
    /// What is not right, until it is mended.
    cautions: BTreeMap<About, Vec<String>>,
}

/// What a caution is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// The tokens that are there.
    Token,
    /// Its renewal.
    Renewal,
    /// The certificates and authorities that are there.
    Certificate,
    /// Reading the runtime Secret.
    Reading,
    /// Writing the renewed token into it.
    Writing,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.0.bootstrap).finish()
    }
}

impl Credentials {
    /// Credentials without a cluster: what is renewed does not outlive the process.
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self::build(bootstrap, None)
    }

    /// The same, kept in a cluster.
    #[must_use]
    pub fn kept_in(&self, secret: RuntimeSecret) -> Self {
        Self::build(self.0.bootstrap.clone(), Some(secret))
    }

    fn build(bootstrap: Bootstrap, secret: Option<RuntimeSecret>) -> Self {
        Self(Arc::new(Shared {
            bootstrap,
            secret,
            state: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            bell: Notify::new(),
            report: Report::default(),
            schedule: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
        }))
    }

    /// What the operator was installed with.
    pub fn bootstrap(&self) -> &Bootstrap {
        &self.0.bootstrap
    }

    /// When the token and the certificate that were used last end.
    pub fn ends(&self) -> Ends {
        self.state().ends
    }

    /// What works, but will not for long or not as it should, and is not mended yet.
    pub fn cautions(&self) -> Vec<String> {
        self.state().cautions.values().flatten().cloned().collect()
    }

    /// The token of this moment, for one RPC.
    ///
    /// # Errors
    /// There is none that can be of use.
    pub(crate) async fn token(&self) -> Result<Token, Problem> {
        self.look_if_due().await;
        let given = self.given_token().await;
        let now = Timestamp::now();
        let (token, remarks) = {
            let mut state = self.state();
            if let Ok(given) = &given {
                state.renewed.take_if(|renewed| renewed.check_owner(given).is_err());
            }
            let kept = state.kept.get(secret::TOKEN).filter(|text| !text.is_empty());
            let kept = kept.map(Token::parse_kept);
            let runtime = kept.into_iter().chain(state.renewed.clone().map(Ok)).collect();
            let (token, remarks) = token::choose(given, runtime, &mut state.refused_tokens, now);
            state.ends.token = match &token {
                Ok(token) => token.ends,
                // What warns of the end must not vanish with it.
                Err(problem) => state.ends.token.filter(|end| *end <= now).max(problem.ended(now)),
            };
            if let Ok(token) = &token
                && state.used.replace(token.fingerprint) != Some(token.fingerprint)
            {
                // It was about another one.
                state.cautions.remove(&About::Renewal);
            }
            (token, remarks)
        };
        self.caution(About::Token, remarks);
        token
    }

    /// The server did not take this token (`Unauthenticated`): it is renewed at
    /// once, and another one is shown if there is one.
    pub(crate) fn refused(&self, token: &Token) {
        self.state().refused_tokens.add(token.fingerprint);
        self.schedule().want();
        self.ring();
    }

    /// What the next connection shows and trusts.
    ///
    /// # Errors
    /// There is no certificate or no authority that can be of use.
    pub(crate) async fn tls(&self) -> Result<Arc<ClientConfig>, Problem> {
        self.look().await;
        let material = self.material().await?;
        let trust = if self.0.bootstrap.insecure {
            self.0.report.caution(
                "the server's certificate is not verified: TLS_INSECURE_SKIP_VERIFY (Helm: \
                 server.tls.insecureSkipVerify) is true",
            );
            Trust::AnyServer
        } else {
            Trust::Roots(found::roots(&material.authorities).await)
        };
        let mut state = self.state();
        state.given = Some(material.identity());
        state.ends.certificate = Some(material.pair.ends);
        Ok(material::client_config(&material.pair, trust))
    }

    /// The server did not take the certificate that [`Self::tls`] gave last: the
    /// next connection shows another one if there is one.
    pub(crate) fn certificate_refused(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(given) = &mut state.given else { return };
        state.refused_pairs.add(given.pair);
        let refused = state.pairs.iter().find(|pair| pair.fingerprint == given.pair);
        let refused = refused.map(|pair| pair.place.clone());
        let Some(next) = material::newest(state.pairs.clone(), &mut state.refused_pairs) else { return };
        // The connection that shows it may be there still: that is no change.
        let changed = std::mem::replace(&mut given.pair, next.fingerprint) != next.fingerprint;
        drop(guard);
        if let Some(refused) = refused.filter(|_| changed) {
            self.0.report.caution(&format!(
                "the server refuses the client certificate ({refused}): the one before is shown again ({})",
                next.place
            ));
        }
    }

    /// Resolves when [`Self::tls`] would give something else than it gave last:
    /// a new connection should then take the place of the old one. May be dropped
    /// and called again at any time. Looks at the files and at the Secret again and again.
    pub(crate) async fn changed(&self) {
        loop {
            let rung = self.rung();
            self.look_if_due().await;
            if let Ok(material) = self.material().await
                && self.state().given.is_some_and(|given| given != material.identity())
            {
                return;
            }
            let again = self.state().next_look.unwrap_or_else(Instant::now);
            tokio::select! {
                () = rung => {}
                () = sleep_until(again) => {}
            }
        }
    }

    /// When the token is renewed.
    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.0.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One renews the token at a time.
    pub(super) async fn renewal_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.renewing.lock().await
    }

    /// Resolves at the next change; made before one looks.
    pub(super) fn rung(&self) -> Notified<'_> {
        self.0.bell.notified()
    }

    /// What the credentials say of themselves.
    pub(super) fn report(&self) -> &Report {
        &self.0.report
    }

    fn ring(&self) {
        self.0.bell.notify_waiters();
    }

    /// Says what is not right about one thing; it takes the place of what was
    /// not right before. Nothing: it is mended.
    pub(super) fn caution(&self, about: About, remarks: Vec<Problem>) {
        let sentences: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        for sentence in &sentences {
            self.0.report.caution(sentence);
        }
        self.state().cautions.insert(about, sentences);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
