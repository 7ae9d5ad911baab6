//! What is there now: the files and variables, and what the runtime Secret had last.

use std::path::Path;

use jiff::Timestamp;
use kestrel_runtime::tls;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    About, Bootstrap, Credentials, TokenSource,
    choice::Fingerprint,
    material::{self, Pair},
    secret::{self, Contents},
    token::Token,
};
use crate::uplink::problem::{Place, Problem, Setting};

/// Authorities that the machine (or the image) trusts; trusted beside
/// `CA_CERT_FILE`, as before.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What makes two TLS configurations the same.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Identity {
    pub pair: Fingerprint,
    trusted: Fingerprint,
}

/// What a connection would show and trust now.
pub(super) struct Material {
    pub pair: Pair,
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Material {
    pub(super) fn identity(&self) -> Identity {
        let trusted = Fingerprint::of(self.authorities.iter().map(AsRef::as_ref));
        Identity { pair: self.pair.fingerprint, trusted }
    }
}

impl Credentials {
    /// The token that the operator was installed with.
    pub(super) async fn given_token(&self) -> Result<Token, Problem> {
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

    /// What a connection would show and trust now.
    ///
    /// # Errors
    /// There is no certificate or no authority that can be of use.
    pub(super) async fn material(&self) -> Result<Material, Problem> {
        let now = Timestamp::now();
        let given = self.given_pair().await;
        let authority = self.given_authority().await;
        let (pair, authorities, remarks) = {
            let mut guard = self.state();
            let state = &mut *guard;
            let kept = |certificate, key| kept_pair(&state.kept, certificate, key);
            // Nobody has to mend what is over.
            let previous = kept(secret::PREVIOUS_CERTIFICATE, secret::PREVIOUS_KEY).and_then(Result::ok);
            let pushed = kept(secret::CERTIFICATE, secret::KEY).transpose();
            let found = given.iter().cloned().chain(previous).chain(pushed.iter().flatten().cloned());
            state.pairs = material::candidates(found.collect(), now);
            // Whoever put a certificate there should know that its time is not now.
            let timely = |pair: &Pair| pair.check(now).err();
            let mut remarks: Vec<_> =
                given.iter().chain(pushed.iter().flatten()).filter_map(timely).collect();
            remarks.extend(pushed.err());
            let newest = material::newest(state.pairs.clone(), &mut state.refused_pairs);
            let pair = match newest {
                Some(pair) => {
                    remarks.extend(given.err());
                    Ok(pair)
                }
                None => {
                    let over = given.as_ref().err().into_iter().chain(&remarks);
                    let over = over.filter_map(|problem| problem.ended(now)).max();
                    state.ends.certificate = state.ends.certificate.max(over);
                    given
                }
            };
            let pushed = [secret::AUTHORITY, secret::PREVIOUS_AUTHORITY];
            let pushed = pushed.iter().filter_map(|key| state.kept.get(key));
            let pushed: Vec<_> = pushed.filter_map(|pem| tls::certificates(pem).ok()).flatten().collect();
            (pair, with_pushed(authority, pushed, &mut remarks), remarks)
        };
        self.caution(About::Certificate, remarks);
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

/// These authorities, and those of the system.
pub(super) async fn roots(authorities: &[CertificateDer<'static>]) -> RootCertStore {
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

/// A certificate and its key in the runtime Secret, if there is one.
pub(super) fn kept_pair(
    contents: &Contents,
    certificate: &'static str,
    key: &'static str,
) -> Option<Result<Pair, Problem>> {
    let chain = contents.get(certificate).filter(|pem| !pem.is_empty())?;
    let private = contents.get(key).unwrap_or_default();
    Some(Pair::parse((Place::Secret(certificate), chain), (Place::Secret(key), private)))
}
