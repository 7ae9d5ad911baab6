//! The cluster tokens: minted here, and checked with a sentence for whoever
//! has to mend them.

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

/// What a token says. An operator reads `tenant` and `exp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whose cluster it is.
    #[serde(default)]
    pub tenant: String,
    /// The cluster.
    pub sub: String,
    /// When it was minted, seconds since 1970.
    pub iat: i64,
    /// When it ends, seconds since 1970.
    pub exp: i64,
}

impl Claims {
    /// Claims that last `seconds` from `now`; negative for a token that has ended.
    pub fn new(tenant: &str, cluster: &str, now: Timestamp, seconds: i64) -> Self {
        let iat = now.as_second();
        Self { tenant: tenant.to_owned(), sub: cluster.to_owned(), iat, exp: iat.saturating_add(seconds) }
    }
}

/// Why an RPC is not let in. The text is for the person who runs the operator.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No token.
    #[error("no token: send the metadata `authorization: Bearer <token>` (auth.token)")]
    Missing,
    /// Another scheme.
    #[error("authorization is not `Bearer <token>`")]
    NotBearer,
    /// Not a token, or not ours.
    #[error("token is not one of this cloud ({0}): set auth.token to one that it minted")]
    Invalid(jsonwebtoken::errors::Error),
    /// Too old.
    #[error("token expired at {0}: renew it, or set auth.token to a new one")]
    Expired(String),
    /// Nobody's.
    #[error("token has no tenant claim: set auth.token to one that was minted for a cluster")]
    NoTenant,
    /// The second piece of metadata is missing.
    #[error("no autonp-tenantid: send the token's tenant claim, which is {0:?}")]
    TenantMissing(String),
    /// The second piece of metadata does not fit the first.
    #[error("autonp-tenantid {sent:?} is not the token's tenant {claimed:?}")]
    TenantDiffers {
        /// What was sent.
        sent: String,
        /// What the token says.
        claimed: String,
    },
    /// A fault that was asked for.
    #[error("every token is refused by the fault refuse_tokens")]
    Fault,
}

/// Mints and checks tokens with one P-256 key (ES256).
pub struct Tokens {
    sign: EncodingKey,
    verify: DecodingKey,
}

impl Tokens {
    /// Tokens signed with `key`.
    ///
    /// # Errors
    /// It is not a P-256 key.
    pub fn new(key: &KeyPair) -> Result<Self, jsonwebtoken::errors::Error> {
        let sign = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes())?;
        Ok(Self { sign, verify: DecodingKey::from_ec_der(key.public_key_raw()) })
    }

    /// A signed token.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn mint(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &self.sign)
    }

    /// What a token says, if it is ours and has not ended at `now`.
    ///
    /// # Errors
    /// It is not, or it has.
    pub fn check(&self, token: &str, now: Timestamp) -> Result<Claims, Refusal> {
        let mut validation = Validation::new(Algorithm::ES256);
        // The time is judged below: exactly, and with the time in the sentence.
        validation.validate_exp = false;
        let claims: Claims =
            jsonwebtoken::decode(token, &self.verify, &validation).map_err(Refusal::Invalid)?.claims;
        if claims.exp <= now.as_second() {
            let at = Timestamp::from_second(claims.exp)
                .map_or_else(|_| claims.exp.to_string(), |at| at.to_string());
            return Err(Refusal::Expired(at));
        }
        Ok(claims)
    }

    /// What the token in `authorization` says.
    ///
    /// # Errors
    /// The RPC must be refused.
    pub fn admit(&self, authorization: Option<&str>, now: Timestamp) -> Result<Claims, Refusal> {
        let token =
            authorization.ok_or(Refusal::Missing)?.strip_prefix("Bearer ").ok_or(Refusal::NotBearer)?;
        self.check(token, now)
    }
}

impl Claims {
    /// Compares the tenant that was sent beside the token.
    ///
    /// # Errors
    /// The stream must be refused.
    pub fn admit_tenant(&self, sent: Option<&str>) -> Result<(), Refusal> {
        if self.tenant.is_empty() {
            return Err(Refusal::NoTenant);
        }
        match sent {
            Some(sent) if sent == self.tenant => Ok(()),
            Some(sent) => Err(Refusal::TenantDiffers { sent: sent.to_owned(), claimed: self.tenant.clone() }),
            None => Err(Refusal::TenantMissing(self.tenant.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&KeyPair::generate().unwrap()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_says_what_was_minted_until_the_second_it_ends() {
        let tokens = tokens();
        let claims = Claims::new("acme", "c1", at(1_000), 60);
        let bearer = format!("Bearer {}", tokens.mint(&claims).unwrap());
        assert_eq!(tokens.admit(Some(&bearer), at(1_059)).unwrap(), claims);
        let refusal = tokens.admit(Some(&bearer), at(1_060)).unwrap_err().to_string();
        assert!(refusal.starts_with("token expired at 1970-01-01T00:17:40Z"), "{refusal}");
    }

    #[test]
    fn another_clouds_token_is_refused() {
        let token = tokens().mint(&Claims::new("acme", "c1", at(1_000), 60)).unwrap();
        assert!(matches!(tokens().check(&token, at(1_000)), Err(Refusal::Invalid(_))));
        assert!(matches!(tokens().check("nonsense", at(1_000)), Err(Refusal::Invalid(_))));
        assert!(matches!(tokens().admit(None, at(0)), Err(Refusal::Missing)));
        assert!(matches!(tokens().admit(Some("Basic x"), at(0)), Err(Refusal::NotBearer)));
    }

    #[test]
    fn the_tenant_must_be_the_tokens() {
        let claims = Claims::new("acme", "c1", at(0), 60);
        assert!(claims.admit_tenant(Some("acme")).is_ok());
        let refusal = claims.admit_tenant(Some("other")).unwrap_err().to_string();
        assert_eq!(refusal, "autonp-tenantid \"other\" is not the token's tenant \"acme\"");
        assert!(matches!(claims.admit_tenant(None), Err(Refusal::TenantMissing(_))));
        let nobody = Claims::new("", "c1", at(0), 60);
        assert!(matches!(nobody.admit_tenant(Some("")), Err(Refusal::NoTenant)));
    }
}
