//! Tokens: what is read of them, and which one is used.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::choice::{Fingerprint, Refused};
use crate::uplink::problem::{Problem, Setting};

/// A token that is fit to be shown.
#[derive(Clone)]
pub(crate) struct Token {
    /// Where it is from.
    pub setting: Setting,
    /// Its text.
    pub secret: SecretString,
    /// The cluster's tenant.
    pub tenant: HeaderValue,
    /// When it was made.
    pub issued: Option<Timestamp>,
    /// When it ends.
    pub ends: Option<Timestamp>,
    /// Which one it is.
    pub fingerprint: Fingerprint,
}

/// What is read of a token; who signed it is the server's business.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    tenant: String,
    #[serde(default)]
    iat: Value,
    exp: Option<f64>,
}

impl Token {
    /// A token that may have ended.
    ///
    /// # Errors
    /// It can't be of use.
    pub(crate) fn parse(text: &str, setting: Setting) -> Result<Self, Problem> {
        let text = text.trim();
        let malformed = |why| Problem::Malformed(setting, why);
        let [_, claims, _] = text.split('.').collect::<Vec<_>>()[..] else {
            return Err(malformed(if text.is_empty() { "it is empty" } else { "it has not three parts" }));
        };
        let claims = URL_SAFE_NO_PAD
            .decode(claims.trim_end_matches('='))
            .map_err(|_| malformed("its second part is not base64url"))?;
        // The error of the parser would show a piece of the token.
        let claims: Claims =
            serde_json::from_slice(&claims).map_err(|_| malformed("its claims can't be understood"))?;
        if claims.tenant.is_empty() {
            return Err(Problem::NoTenant(setting));
        }
        let tenant = HeaderValue::try_from(&claims.tenant)
            .map_err(|_| malformed("its tenant has characters that no header can carry"))?;
        let time = |seconds: f64| Timestamp::from_second(seconds as i64).ok();
        Ok(Self {
            setting,
            fingerprint: Fingerprint::of([text.as_bytes()]),
            secret: SecretString::from(text),
            tenant,
            issued: claims.iat.as_f64().and_then(time),
            ends: claims.exp.and_then(time),
        })
    }

    /// The token that the runtime Secret keeps.
    ///
    /// # Errors
    /// It can't be of use.
    pub(super) fn parse_kept(text: &[u8]) -> Result<Self, Problem> {
        let setting = Setting::RuntimeSecret;
        let text = std::str::from_utf8(text).map_err(|_| Problem::Malformed(setting, "it is no text"))?;
        Self::parse(text, setting)
    }

    /// Whether the runtime Secret holds this token already, or a newer one of
    /// the same tenant.
    pub(super) fn is_kept_by(&self, kept: Option<&[u8]>) -> bool {
        kept.and_then(|text| Self::parse_kept(text).ok()).is_some_and(|kept| {
            kept.fingerprint == self.fingerprint
                || (kept.check_owner(self).is_ok() && !self.is_newer_than(&kept))
        })
    }

    /// # Errors
    /// It has ended at `now`.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), Problem> {
        match self.ends {
            Some(at) if at <= now => Err(Problem::Expired { setting: self.setting, at }),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// It is of another tenant than `given`. No other claim that names an owner
    /// is in the contract.
    pub(crate) fn check_owner(&self, given: &Self) -> Result<(), Problem> {
        if self.tenant == given.tenant {
            return Ok(());
        }
        let [other, own] = [self, given].map(|token| token.tenant.to_str().unwrap_or_default().to_owned());
        Err(Problem::Foreign { setting: self.setting, other, given: given.setting, own })
    }

    /// `Bearer <token>`, marked so that nothing prints it.
    pub(crate) fn bearer(&self) -> Result<HeaderValue, Problem> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.secret.expose_secret()))
            .map_err(|_| Problem::Malformed(self.setting, "it has characters that no header can carry"))?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }

    fn is_newer_than(&self, other: &Self) -> bool {
        match (self.issued, other.issued) {
            (Some(one), Some(two)) if one != two => one > two,
            // No end is later than any.
            _ => self.ends.is_none_or(|end| other.ends.is_some_and(|other| end >= other)),
        }
    }
}

/// The newest of the tokens that are valid at `now`, and what must be said of
/// the others; if none is, the newest of those that have ended: this machine's
/// clock may be wrong, and the server judges. The `given` one says whose all
/// must be. Of equals the last wins.
///
/// # Errors
/// There is none; what is wrong with the given one.
pub(super) fn choose(
    given: Result<Token, Problem>,
    runtime: Vec<Result<Token, Problem>>,
    refused: &mut Refused,
    now: Timestamp,
) -> (Result<Token, Problem>, Vec<Problem>) {
    let (mut remarks, mut usable) = (Vec::new(), Vec::new());
    for token in runtime {
        let checked = token.and_then(|token| match &given {
            Ok(given) => token.check_owner(given).map(|()| token),
            Err(_) => Ok(token),
        });
        match checked {
            Ok(token) => usable.push(token),
            Err(problem) => remarks.push(problem),
        }
    }
    let usable = given.iter().chain(&usable);
    let (valid, ended): (Vec<_>, Vec<_>) = usable.cloned().partition(|token| token.check(now).is_ok());
    let candidates = if valid.is_empty() { ended } else { valid };
    let candidates = refused.sift(candidates, |token| token.fingerprint).into_iter();
    match candidates.reduce(|best, token| if token.is_newer_than(&best) { token } else { best }) {
        None => (given, remarks),
        Some(newest) => {
            // Nothing is said of an old token beside its successor: that is how it should be.
            remarks.extend(given.err().into_iter().chain(newest.check(now).err()));
            (Ok(newest), remarks)
        }
    }
}

#[cfg(test)]
mod tests;
