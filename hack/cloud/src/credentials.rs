//! What the cloud proves itself with and hands out: one certificate authority
//! and one token key, kept in a folder.

pub mod tokens;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use kestrel_runtime::tls::authority::{self, AuthorityError, LIFETIME};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::sign::CertifiedKey;

pub use tokens::{Claims, Tokens};

/// The authority's own files in the state folder.
pub const STATE_FILES: [&str; 3] = ["ca.crt", "ca.key", "token.key"];

/// Why credentials could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Some of the three files are missing.
    #[error("{0} holds only a part of ca.crt, ca.key and token.key: delete the rest or give another --state")]
    Incomplete(PathBuf),
    /// The authority is not usable, or can't sign.
    #[error("ca.crt, ca.key: {0}")]
    Authority(#[from] AuthorityError),
    /// A certificate or key can't be made or is not usable.
    #[error("certificate or key: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The token key is not usable.
    #[error("token.key: {0}")]
    TokenKey(#[from] jsonwebtoken::errors::Error),
}

/// A certificate and its private key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// Signs certificates and tokens.
pub struct Authority {
    certificates: authority::Authority,
    token_key: String,
    tokens: Tokens,
}

impl Authority {
    /// A new authority that is nowhere kept.
    ///
    /// # Errors
    /// No key can be made.
    pub fn generate() -> Result<Self, Error> {
        // Two authorities of one name would make "unknown issuer" read "bad signature".
        let name = format!("Kestrel development cloud {:x}", jiff::Timestamp::now().as_nanosecond());
        let certificates = authority::Authority::generate(&name)?;
        Self::new(certificates, KeyPair::generate()?.serialize_pem())
    }

    /// The authority in `folder`, which is made if the folder holds none. A
    /// complete folder is only read, so it may be a mounted Secret.
    ///
    /// # Errors
    /// The folder can't be read or written, or is not whole.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let present = STATE_FILES.iter().filter(|name| folder.join(name).exists()).count();
        if present == 0 {
            let authority = Self::generate()?;
            fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
            for (name, text) in STATE_FILES.iter().zip(authority.state()) {
                write_private(&folder.join(name), text)?;
            }
            return Ok(authority);
        }
        if present < STATE_FILES.len() {
            return Err(Error::Incomplete(folder.to_owned()));
        }
        let [certificate, key, token_key] = STATE_FILES.map(|name| read(&folder.join(name)));
        Self::new(authority::Authority::from_pem(&certificate?, &key?)?, token_key?)
    }

    fn new(certificates: authority::Authority, token_key: String) -> Result<Self, Error> {
        let tokens = Tokens::new(&KeyPair::from_pem(&token_key)?)?;
        Ok(Self { certificates, token_key, tokens })
    }

    /// The texts of [`STATE_FILES`].
    pub fn state(&self) -> [&str; 3] {
        [self.certificate(), self.certificates.key_pem(), &self.token_key]
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        self.certificates.certificate_pem()
    }

    /// Mints and checks tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A certificate for a server with these DNS names and addresses.
    ///
    /// # Errors
    /// A name that can't be in a certificate.
    pub fn server(&self, names: &[String]) -> Result<CertifiedKey, Error> {
        Ok(self.certificates.server_certificate(names, LIFETIME)?)
    }

    /// A certificate for an operator called `name`.
    ///
    /// # Errors
    /// A name that can't be in a certificate.
    pub fn client(&self, name: &str) -> Result<Identity, Error> {
        let issuer_key = KeyPair::from_pem(self.certificates.key_pem())?;
        let issuer = Issuer::from_ca_cert_pem(self.certificate(), issuer_key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = (SystemTime::now() + LIFETIME).into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// Writes `ca.crt`, `client.crt` and `client.key` into `folder`, and so
    /// everything but the token that an operator needs to connect.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn write_client(&self, folder: &Path, client: &Identity) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
        write_private(&folder.join("ca.crt"), self.certificate())?;
        write_private(&folder.join("client.crt"), &client.certificate)?;
        write_private(&folder.join("client.key"), &client.key)
    }
}

/// Reads a text file.
///
/// # Errors
/// It can't be read.
pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// It can't be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_made_once_and_then_only_read() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let made = Authority::open(&state).unwrap();
        let read = Authority::open(&state).unwrap();
        assert_eq!(made.state(), read.state());
        let token = made.tokens().mint(&Claims::new("t", "c", jiff::Timestamp::now(), 60)).unwrap();
        assert!(read.tokens().check(&token, jiff::Timestamp::now()).is_ok());
    }

    #[test]
    fn a_part_of_the_files_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        Authority::open(folder.path()).unwrap();
        fs::remove_file(folder.path().join("token.key")).unwrap();
        assert!(matches!(Authority::open(folder.path()), Err(Error::Incomplete(_))));
    }
}
