//! What the server gives: checked, kept in the runtime Secret, and read from there.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use kestrel_runtime::tls::{self, Invalid};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::{
    About, Credentials,
    found::kept_pair,
    material::Pair,
    secret::{self, Contents},
    token::Token,
};
use crate::uplink::problem::{Place, Problem, Setting};

/// A pushed text is not larger; a Secret could not hold it.
const PUSHED_BYTES: usize = 256 * 1024;

impl Credentials {
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
    pub(in crate::uplink) async fn renewed(&self, text: &str, old: &Token) -> Result<Token, Problem> {
        let (token, now) = (Token::parse(text, Setting::Renewal)?, Timestamp::now());
        // If the old one has ended by our clock too, the clock may be wrong.
        if old.check(now).is_ok() {
            token.check(now)?;
        }
        token.check_owner(old)?;
        self.state().renewed = Some(token.clone());
        self.ring();
        let _turn = self.0.looking.lock().await;
        self.keep_renewed().await;
        Ok(token)
    }

    /// Reads the Secret when it is time to.
    pub(super) async fn look_if_due(&self) {
        if self.state().next_look.is_none_or(|next| next <= Instant::now()) {
            self.look().await;
        }
    }

    /// Reads the Secret. What was there stays known while it can't be read.
    pub(super) async fn look(&self) {
        let begun = Instant::now();
        let _turn = self.0.looking.lock().await;
        let next = self.0.bootstrap.look;
        if self.state().next_look.is_some_and(|known| known > begun + next) {
            // Somebody has looked in the meantime.
            return;
        }
        if let Some(secret) = &self.0.secret {
            let failed = match secret.read().await {
                Ok(contents) => {
                    self.state().kept = contents;
                    None
                }
                Err(problem) => Some(problem),
            };
            self.caution(About::Reading, failed.into_iter().collect());
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
        let Some(token) = renewed else { return self.caution(About::Writing, Vec::new()) };
        let change = |contents: &mut Contents| {
            let missing = !token.is_kept_by(contents.get(secret::TOKEN));
            if missing {
                contents.set(secret::TOKEN, token.secret.expose_secret().as_bytes());
            }
            missing
        };
        let failed = match secret.change(change).await {
            Ok(contents) => {
                self.state().kept = contents;
                None
            }
            Err(problem) => Some(Problem::NotKept(problem.to_string())),
        };
        self.caution(About::Writing, failed.into_iter().collect());
    }
}

/// One of the texts that were pushed.
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
