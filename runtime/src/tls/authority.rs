//! A certificate authority of our own, for connections inside the cluster.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::{oid_registry::Oid, parse_x509_certificate};

use super::{Invalid, certified_key};

/// Ten years: those who trust the authority (sidecars, a webhook
/// configuration) may live very long.
pub const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Clocks of two nodes may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// An authority that can sign server certificates.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    ends: SystemTime,
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
        let chain = certified_key(certificate_pem.as_bytes(), key_pem.as_bytes())?.cert;
        check_name(&chain)?;
        let key = KeyPair::from_pem(key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        let ends = ends(&chain)?;
        Ok(Self { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned(), issuer, ends })
    }

    /// Its certificate, which is what others trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key, for the Secret that keeps it.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Nothing that it signed is accepted after this.
    pub fn ends(&self) -> SystemTime {
        self.ends
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

/// Whether the first certificate's name can be written into others: rcgen's writer panics at an identifier whose first
/// part is none of the three that there are.
fn check_name(chain: &[CertificateDer<'_>]) -> Result<(), Invalid> {
    let first = chain.first().map(|der| parse_x509_certificate(der)).transpose();
    let first = first.map_err(|error| Invalid::Certificate(error.to_string()))?;
    let Some((_, certificate)) = &first else { return Ok(()) };
    let is_known = |kind: &Oid<'_>| {
        let mut parts = kind.iter().into_iter().flatten();
        parts.next().is_some_and(|part| part < 3) && parts.next().is_some()
    };
    let mut kinds = certificate.subject().iter_attributes().map(|attribute| attribute.attr_type());
    match kinds.find(|kind| !is_known(kind)) {
        Some(kind) => {
            Err(Invalid::Certificate(format!("its subject has a part of kind {kind}, which is none")))
        }
        None => Ok(()),
    }
}

/// The end of the first certificate's validity.
fn ends(chain: &[CertificateDer<'_>]) -> Result<SystemTime, Invalid> {
    let first = chain.first().map(|der| parse_x509_certificate(der)).transpose();
    let first = first.map_err(|error| Invalid::Certificate(error.to_string()))?;
    let seconds = first.map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp());
    // One that ended before 1970 has ended.
    Ok(UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

fn valid_for(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
}
