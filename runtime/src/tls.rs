//! TLS material and both ends of a TLS connection: one provider (aws-lc-rs),
//! certificates that can be replaced while they are in use, and errors that
//! say which of the parties has to change what.

pub mod authority;
pub mod client;
pub mod mounted;
pub mod pem;
pub mod proxy;
pub mod server;

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// Bytes of the longest list of authorities that a client of the agent link takes: it fits into an
/// environment variable, of which the kernel takes 128 KiB.
pub const MOST_ANCHOR_BYTES: usize = 64 * 1024;

/// What is wrong with a piece of PEM text.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// No certificate in the text, or one that is cut or not PEM.
    #[error("holds no usable certificate: {0}")]
    Certificate(String),
    /// No private key in the text, or one of a kind that TLS does not know.
    #[error("holds no usable private key: {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    Mismatch,
}

/// Makes aws-lc-rs the provider of the process. Called first in every `main`;
/// later calls change nothing.
pub fn install_provider() {
    // An error means that a provider is installed already, which is this one:
    // no other is compiled in.
    let _already = aws_lc_rs::default_provider().install_default();
}

/// The provider, for configurations built by hand.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// All certificates of a PEM text, in order.
///
/// # Errors
/// [`Invalid::Certificate`] if there is none or one is not PEM.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Invalid::Certificate(error.to_string()))?;
    if found.is_empty() {
        return Err(Invalid::Certificate("no CERTIFICATE section".to_owned()));
    }
    Ok(found)
}

/// A certificate chain and its key, checked to fit.
///
/// # Errors
/// Any of [`Invalid`].
pub fn certified_key(chain_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, Invalid> {
    let chain = certificates(chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| Invalid::Key(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Invalid::Mismatch,
        rustls::Error::InvalidCertificate(_) => Invalid::Certificate(error.to_string()),
        other => Invalid::Key(other.to_string()),
    })
}

/// The trust roots of a PEM text.
///
/// # Errors
/// [`Invalid::Certificate`] if there is none, or one that can't be a root.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, Invalid> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(|error| Invalid::Certificate(error.to_string()))?;
    }
    Ok(store)
}
