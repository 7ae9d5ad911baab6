//! What the uplink shows the server and what it trusts, from wherever it is
//! newest: the files and variables that the operator was installed with, which
//! are read anew each time, so that a rotation needs no restart, and the runtime
//! Secret with what the server gave since.

mod choice;
mod material;
mod secret;
mod token;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use kestrel_runtime::tls::{self, Invalid};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::{Notify, futures::Notified},
    time::{Instant, sleep_until},
};

use super::{
    problem::{Place, Problem, Setting},
    renewal::Schedule,
    report::Report,
};
use choice::Refused;
use material::{Pair, Trust};
use secret::Contents;

pub(crate) use choice::Fingerprint;
pub use secret::RuntimeSecret;
pub(crate) use token::Token;

/// Authorities that the machine (or the image) trusts; trusted beside
/// `CA_CERT_FILE`, as before.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// A pushed text is not larger; a Secret could not hold it.
const PUSHED_BYTES: usize = 256 * 1024;

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
    /// The valid certificates that were found last.
    pairs: Vec<Pair>,
    /// What a connection was given last.
    given: Option<Identity>,
    ends: Ends,
}

/// What makes two TLS configurations the same.
#[derive(Clone, Copy, PartialEq)]
struct Identity {
    pair: Fingerprint,
    trusted: Fingerprint,
}

/// What a connection would show and trust now.
struct Material {
    pair: Pair,
    authorities: Vec<CertificateDer<'static>>,
}

impl Material {
    fn identity(&self) -> Identity {
        let trusted = Fingerprint::of(self.authorities.iter().map(AsRef::as_ref));
        Identity { pair: self.pair.fingerprint, trusted }
    }
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
            state.ends.token = token.as_ref().ok().and_then(|token| token.ends);
            (token, remarks)
        };
        self.caution(remarks);
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
            Trust::Roots(roots(&material.authorities).await)
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

    /// Takes a certificate, its key and an authority that the server pushed,
    /// each base64 of PEM. They are used as soon as they are in the Secret.
    ///
    /// # Errors
    /// They can't be of use, or can't be kept; nothing has changed then.
    pub(crate) async fn renew_certificate(
        &self,
        certificate: &str,
        key: &str,
        authority: &str,
    ) -> Result<(), Problem> {
        let (chain, key) = (pushed("client_cert", certificate)?, pushed("client_key", key)?);
        let authority = pushed("ca_cert", authority)?;
        let pair = Pair::parse((chain.0, &chain.1), (key.0, &key.1))?;
        pair.check(Timestamp::now())?;
        tls::roots(&authority.1).map_err(|invalid| Problem::Unusable { place: authority.0, invalid })?;
        let secret = self.0.secret.as_ref().ok_or(Problem::NoCluster)?;
        if let Ok(now) = self.material().await
            && pair.is_older_than(&now.pair)
        {
            return Err(Problem::CertificateOlder);
        }
        let _turn = self.0.looking.lock().await;
        let kept = secret
            .change(|contents| {
                let before = kept_pair(contents, secret::CERTIFICATE, secret::KEY);
                if let Some(Ok(before)) = before
                    && before.fingerprint != pair.fingerprint
                    && !self.state().refused_pairs.has(before.fingerprint)
                {
                    contents.rename(secret::CERTIFICATE, secret::PREVIOUS_CERTIFICATE);
                    contents.rename(secret::KEY, secret::PREVIOUS_KEY);
                    contents.rename(secret::AUTHORITY, secret::PREVIOUS_AUTHORITY);
                }
                contents.set(secret::CERTIFICATE, &chain.1);
                contents.set(secret::KEY, &key.1);
                contents.set(secret::AUTHORITY, &authority.1);
                true
            })
            .await?;
        self.state().kept = kept;
        self.0.report.news(&format!("the server gave a new client certificate, valid until {}", pair.ends));
        self.ring();
        Ok(())
    }

    /// Takes the token that the server gave in place of `old`. It is used at
    /// once, and kept in the Secret as soon as that is possible.
    ///
    /// # Errors
    /// It can't be of use.
    pub(super) async fn renewed(&self, text: &str, old: &Token) -> Result<Token, Problem> {
        let token = Token::parse(text, Setting::Renewal)?;
        token.check(Timestamp::now())?;
        token.check_owner(old)?;
        self.state().renewed = Some(token.clone());
        self.ring();
        let _turn = self.0.looking.lock().await;
        self.keep_renewed().await;
        Ok(token)
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

    fn caution(&self, remarks: Vec<Problem>) {
        for remark in remarks {
            self.0.report.caution(&remark.to_string());
        }
    }

    async fn look_if_due(&self) {
        if self.state().next_look.is_none_or(|next| next <= Instant::now()) {
            self.look().await;
        }
    }

    /// Reads the Secret. What was there stays known while it can't be read.
    async fn look(&self) {
        let begun = Instant::now();
        let _turn = self.0.looking.lock().await;
        let next = self.0.bootstrap.look;
        if self.state().next_look.is_some_and(|known| known > begun + next) {
            // Somebody has looked in the meantime.
            return;
        }
        if let Some(secret) = &self.0.secret {
            match secret.read().await {
                Ok(contents) => self.state().kept = contents,
                Err(problem) => self.caution(vec![problem]),
            }
            self.keep_renewed().await;
        }
        self.state().next_look = Some(Instant::now() + next);
    }

    /// Writes the renewed token into the Secret, unless that has it or a newer one.
    async fn keep_renewed(&self) {
        let Some(secret) = &self.0.secret else { return };
        let renewed = {
            let state = self.state();
            let kept = state.kept.get(secret::TOKEN);
            state.renewed.clone().filter(|token| !token.is_kept_by(kept))
        };
        let Some(token) = renewed else { return };
        let change = |contents: &mut Contents| {
            let missing = !token.is_kept_by(contents.get(secret::TOKEN));
            if missing {
                contents.set(secret::TOKEN, token.secret.expose_secret().as_bytes());
            }
            missing
        };
        match secret.change(change).await {
            Ok(contents) => self.state().kept = contents,
            Err(problem) => self.0.report.caution(&format!(
                "the renewed token is used, but would not outlive this process: {problem}; tried again"
            )),
        }
    }

    async fn given_token(&self) -> Result<Token, Problem> {
        match &self.0.bootstrap.token {
            TokenSource::Text(text) => Token::parse(text.expose_secret(), Setting::AuthToken),
            TokenSource::File(path) => {
                let setting = Setting::AuthTokenFile;
                let text = tokio::fs::read_to_string(path).await.map(SecretString::from);
                let unreadable = |source| Problem::Unreadable { setting, path: path.clone(), source };
                Token::parse(text.map_err(unreadable)?.expose_secret(), setting)
            }
        }
    }

    async fn given_pair(&self) -> Result<Pair, Problem> {
        let Bootstrap { client_certificate, client_key, .. } = &self.0.bootstrap;
        let chain = read(Setting::ClientCertFile, client_certificate).await?;
        let key = read(Setting::ClientKeyFile, client_key).await?;
        let place = |setting, path: &Path| Place::File(setting, path.to_owned());
        Pair::parse(
            (place(Setting::ClientCertFile, client_certificate), &chain),
            (place(Setting::ClientKeyFile, client_key), &key),
        )
    }

    async fn material(&self) -> Result<Material, Problem> {
        let now = Timestamp::now();
        let given = self.given_pair().await.and_then(|pair| pair.check(now).map(|()| pair));
        let authority = self.given_authority().await;
        let (pair, authorities, remarks) = {
            let mut guard = self.state();
            let state = &mut *guard;
            let kept = |certificate, key| {
                let pair = kept_pair(&state.kept, certificate, key)?;
                Some(pair.and_then(|pair| pair.check(now).map(|()| pair)))
            };
            // Nobody has to mend what is over.
            let previous = kept(secret::PREVIOUS_CERTIFICATE, secret::PREVIOUS_KEY).and_then(Result::ok);
            let (pushed, mut remarks) = match kept(secret::CERTIFICATE, secret::KEY) {
                Some(Err(problem)) => (None, vec![problem]),
                pushed => (pushed.and_then(Result::ok), Vec::new()),
            };
            state.pairs = given.iter().cloned().chain(previous).chain(pushed).collect();
            let newest = material::newest(state.pairs.clone(), &mut state.refused_pairs);
            let pair = match newest {
                Some(pair) => {
                    remarks.extend(given.err());
                    Ok(pair)
                }
                None => given,
            };
            let pushed = [secret::AUTHORITY, secret::PREVIOUS_AUTHORITY];
            let pushed = pushed.iter().filter_map(|key| state.kept.get(key));
            let pushed: Vec<_> = pushed.filter_map(|pem| tls::certificates(pem).ok()).flatten().collect();
            (pair, with_pushed(authority, pushed, &mut remarks), remarks)
        };
        self.caution(remarks);
        Ok(Material { pair: pair?, authorities: authorities? })
    }

    async fn given_authority(&self) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let Bootstrap { authority, insecure, .. } = &self.0.bootstrap;
        if *insecure {
            return Ok(Vec::new());
        }
        let pem = read(Setting::CaCertFile, authority).await?;
        let checked = tls::roots(&pem).and_then(|_| tls::certificates(&pem));
        let place = Place::File(Setting::CaCertFile, authority.clone());
        checked.map_err(|invalid| Problem::Unusable { place, invalid })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The authorities that were pushed are trusted beside the given one: a server
/// that has not changed over yet is still known.
fn with_pushed(
    given: Result<Vec<CertificateDer<'static>>, Problem>,
    pushed: Vec<CertificateDer<'static>>,
    remarks: &mut Vec<Problem>,
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    match given {
        Err(problem) if pushed.is_empty() => Err(problem),
        given => {
            let given = given.unwrap_or_else(|problem| {
                remarks.push(problem);
                Vec::new()
            });
            Ok(given.into_iter().chain(pushed).collect())
        }
    }
}

async fn roots(authorities: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    // An image may come without them, and one that is odd costs only itself.
    if let Ok(pem) = tokio::fs::read(SYSTEM_AUTHORITIES).await
        && let Ok(certificates) = tls::certificates(&pem)
    {
        roots.add_parsable_certificates(certificates);
    }
    roots
}

async fn read(setting: Setting, path: &Path) -> Result<Vec<u8>, Problem> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| Problem::Unreadable { setting, path: path.to_owned(), source })
}

fn kept_pair(
    contents: &Contents,
    certificate: &'static str,
    key: &'static str,
) -> Option<Result<Pair, Problem>> {
    let chain = contents.get(certificate).filter(|pem| !pem.is_empty())?;
    let private = contents.get(key).unwrap_or_default();
    Some(Pair::parse((Place::Secret(certificate), chain), (Place::Secret(key), private)))
}

fn pushed(field: &'static str, text: &str) -> Result<(Place, Vec<u8>), Problem> {
    let unusable = |why: &str| Problem::Unusable {
        place: Place::Pushed(field),
        invalid: Invalid::Certificate(why.to_owned()),
    };
    if text.len() > PUSHED_BYTES {
        return Err(unusable("it is too large"));
    }
    let packed: String = text.split_ascii_whitespace().collect();
    let pem = STANDARD.decode(packed).map_err(|_| unusable("it is not base64"))?;
    Ok((Place::Pushed(field), pem))
}

#[cfg(test)]
mod tests;
