//! Certificates with their keys, and the authorities that are trusted.

use std::sync::Arc;

use jiff::Timestamp;
use kestrel_runtime::tls::{self, Invalid};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

use super::choice::{Fingerprint, Refused};
use crate::uplink::problem::{Place, Problem};

/// A client certificate with its key.
#[derive(Clone)]
pub(crate) struct Pair {
    /// Where the certificate is from.
    pub place: Place,
    certified: Arc<CertifiedKey>,
    begins: Timestamp,
    /// When it ends.
    pub ends: Timestamp,
    /// Which one it is.
    pub fingerprint: Fingerprint,
}

impl Pair {
    /// A chain and the key that fits it; PEM. Its time may be over.
    ///
    /// # Errors
    /// They are not that; the problem is at one of the two places.
    pub(super) fn parse(chain: (Place, &[u8]), key: (Place, &[u8])) -> Result<Self, Problem> {
        let certified = tls::certified_key(chain.1, key.1).map_err(|invalid| {
            let place = if matches!(invalid, Invalid::Certificate(_)) { chain.0.clone() } else { key.0 };
            Problem::Unusable { place, invalid }
        })?;
        let unusable = |why: &str| Problem::Unusable {
            place: chain.0.clone(),
            invalid: Invalid::Certificate(why.to_owned()),
        };
        let own = certified.cert.first().ok_or_else(|| unusable("no CERTIFICATE section"))?;
        let (_, own) = parse_x509_certificate(own).map_err(|_| unusable("it is not X.509"))?;
        let time = |time: ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| unusable("its dates are not usable"))
        };
        let (begins, ends) = (time(own.validity().not_before)?, time(own.validity().not_after)?);
        let fingerprint = Fingerprint::of(certified.cert.iter().map(AsRef::as_ref));
        Ok(Self { place: chain.0, certified: Arc::new(certified), begins, ends, fingerprint })
    }

    /// # Errors
    /// It is not valid at `now`.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Problem> {
        let when = if now < self.begins {
            format!("is not valid before {}", self.begins)
        } else if self.ends < now {
            format!("expired at {}", self.ends)
        } else {
            return Ok(());
        };
        Err(Problem::CertificateTime { place: self.place.clone(), when, ends: self.ends })
    }

    /// Whether it was made before another.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        self.begins < other.begins
    }
}

/// The certificates that are valid at `now`; if none is, all: this machine's
/// clock may be wrong, and the server judges.
pub(super) fn candidates(pairs: Vec<Pair>, now: Timestamp) -> Vec<Pair> {
    let (valid, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| pair.check(now).is_ok());
    if valid.is_empty() { others } else { valid }
}

/// The newest of the certificates, unless the server refused it. Of equals the last wins.
pub(super) fn newest(candidates: Vec<Pair>, refused: &mut Refused) -> Option<Pair> {
    let candidates = refused.sift(candidates, |pair| pair.fingerprint).into_iter();
    candidates.reduce(|best, pair| if pair.is_older_than(&best) { best } else { pair })
}

/// What a connection shows and trusts.
pub(super) fn client_config(pair: &Pair, trust: Trust) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder();
    let builder = match trust {
        Trust::Roots(roots) => builder.with_root_certificates(roots),
        Trust::AnyServer => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(tls::provider())))
        }
    };
    let shown = Arc::new(SingleCertAndKey::from(Arc::clone(&pair.certified)));
    let mut config = builder.with_client_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Whose word is taken for who the server is.
pub(super) enum Trust {
    /// That of these authorities.
    Roots(RootCertStore),
    /// Its own.
    AnyServer,
}

/// Takes any certificate, but still demands that its key is in the server's hands.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
