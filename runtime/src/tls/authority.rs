//! A certificate authority of our own, for connections inside the cluster.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::sign::CertifiedKey;

use super::{Invalid, certified_key};

/// Ten years: those who trust the authority (sidecars, a webhook
/// configuration) may live very long. It is replaced by deleting its Secret.
pub const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Clocks of two nodes may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// An authority that can sign server certificates.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Why an authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The stored certificate or key is damaged.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Signing failed.
    #[error("certificate can't be made: {0}")]
    Signing(#[from] rcgen::Error),
}

impl Authority {
    /// A new authority with a new key, valid for [`LIFETIME`].
    ///
    /// # Errors
    /// No key can be generated.
    pub fn generate(common_name: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, LIFETIME);
        let certificate_pem = params.self_signed(&key)?.pem();
        Self::from_pem(&certificate_pem, &key.serialize_pem())
    }

    /// The authority that [`Authority::certificate_pem`] and [`Authority::key_pem`] stored.
    ///
    /// # Errors
    /// Damaged PEM text, or a key that does not fit.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        certified_key(certificate_pem.as_bytes(), key_pem.as_bytes())?;
        let key = KeyPair::from_pem(key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        Ok(Self { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned(), issuer })
    }

    /// Its certificate, which is what others trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key, for the Secret that keeps it.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A server certificate for `names` (DNS names or IP addresses) with a key
    /// that exists only in this process.
    ///
    /// # Errors
    /// A name that can't be in a certificate.
    pub fn server_certificate(
        &self,
        names: &[String],
        lifetime: Duration,
    ) -> Result<CertifiedKey, AuthorityError> {
        let (certificate, key) = self.server_pem(names, lifetime)?;
        Ok(certified_key(certificate.as_bytes(), key.as_bytes())?)
    }

    /// The same as PEM texts: the certificate, and its key.
    ///
    /// # Errors
    /// A name that can't be in a certificate.
    pub fn server_pem(
        &self,
        names: &[String],
        lifetime: Duration,
    ) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        if let Some(first) = names.first() {
            params.distinguished_name.push(DnType::CommonName, first.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        valid_for(&mut params, lifetime);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn valid_for(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
}
