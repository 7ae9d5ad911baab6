//! What the cloud proves itself with and hands out: one certificate authority
//! and one token key, kept in a folder.

pub mod tokens;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

pub use tokens::{Claims, Tokens};

/// The authority's own files in the state folder.
pub const STATE_FILES: [&str; 3] = ["ca.crt", "ca.key", "token.key"];

/// How long certificates are valid; they begin an hour early, for clocks that differ.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const EARLY: Duration = Duration::from_secs(3600);

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
    certificate: String,
    key: String,
    token_key: String,
    issuer: Issuer<'static, KeyPair>,
    tokens: Tokens,
}

impl Authority {
    /// A new authority that is nowhere kept.
    ///
    /// # Errors
    /// No key can be made.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        // Two authorities of one name would confuse whoever reads "bad signature".
        let id: String =
            key.public_key_raw().iter().skip(1).take(4).map(|byte| format!("{byte:02x}")).collect();
        let mut params = params(&format!("Kestrel development cloud {id}"), Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Self::from_pem(certificate, key.serialize_pem(), KeyPair::generate()?.serialize_pem())
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
        Self::from_pem(certificate?, key?, token_key?)
    }

    fn from_pem(certificate: String, key: String, token_key: String) -> Result<Self, Error> {
        let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
        let tokens = Tokens::new(&KeyPair::from_pem(&token_key)?)?;
        Ok(Self { certificate, key, token_key, issuer, tokens })
    }

    /// The texts of [`STATE_FILES`].
    pub fn state(&self) -> [&str; 3] {
        [&self.certificate, &self.key, &self.token_key]
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Mints and checks tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A certificate for a server with these DNS names and addresses.
    ///
    /// # Errors
    /// A name that can't be in a certificate.
    pub fn server(&self, names: &[String]) -> Result<Identity, Error> {
        let mut params = params("Kestrel development cloud", names.to_vec())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate for an operator called `name`.
    ///
    /// # Errors
    /// A name that can't be in a certificate.
    pub fn client(&self, name: &str) -> Result<Identity, Error> {
        let mut params = params(name, Vec::new())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// Writes `ca.crt`, `client.crt` and `client.key` into `folder`, and so
    /// everything but the token that an operator needs to connect.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn write_client(&self, folder: &Path, client: &Identity) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
        write_private(&folder.join("ca.crt"), &self.certificate)?;
        write_private(&folder.join("client.crt"), &client.certificate)?;
        write_private(&folder.join("client.key"), &client.key)
    }
}

fn params(common_name: &str, names: Vec<String>) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    params.not_before = (now - EARLY).into();
    params.not_after = (now + VALIDITY).into();
    Ok(params)
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
