//! A certificate in a folder at which a Secret is mounted: files that somebody else
//! renews.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::time::sleep;

use super::{Invalid, certified_key, pem, provider, roots};

/// The kubelet itself needs up to a minute or two to bring a change to the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A chain, a key and a bundle are a few KiB each.
const MOST_BYTES: u64 = 256 * 1024;
/// Chain, key and authorities, as cert-manager names them too.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// The folder, and what it held when it was last looked at.
pub struct Mounted {
    folder: PathBuf,
    looked_at: Option<[Vec<u8>; 3]>,
}

/// A certificate that whoever trusts its authorities accepts.
#[derive(Debug)]
pub struct Offered {
    /// The certificate, its chain and its key.
    pub certificate: CertifiedKey,
    /// The authorities, a PEM text each.
    pub authorities: Vec<String>,
}

/// Why nothing of the folder can be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file is missing, not readable or far too large.
    #[error("{0} can't be read: {1}")]
    File(&'static str, io::Error),
    /// A file does not hold what its name says.
    #[error("{0} {1}")]
    Invalid(&'static str, Invalid),
    /// A client that trusts `ca.crt` would refuse `tls.crt`.
    #[error("tls.crt is not accepted as {name} by those who trust ca.crt: {error}")]
    Refused {
        /// The name under which the client calls.
        name: String,
        /// What it would say.
        error: rustls::Error,
    },
}

impl Mounted {
    /// Nothing is read yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, looked_at: None }
    }

    /// The folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// What the folder holds now, checked to be accepted under all of `names`.
    ///
    /// # Errors
    /// Any of [`Unusable`].
    pub fn look(&mut self, names: &[String]) -> Result<Offered, Unusable> {
        self.looked_at = None;
        let files = self.read()?;
        let [chain, key, authorities] = &files;
        let invalid = |file| move |invalid| Unusable::Invalid(file, invalid);
        let certificate = certified_key(chain, key).map_err(invalid("tls.crt, with tls.key,"))?;
        let trusted = roots(authorities).map_err(invalid("ca.crt"))?;
        for name in names {
            let refused = |error| Unusable::Refused { name: name.clone(), error };
            accepted(&certificate, trusted.clone(), name).map_err(refused)?;
        }
        let authorities = pem::split(&String::from_utf8_lossy(authorities));
        self.looked_at = Some(files);
        Ok(Offered { certificate, authorities })
    }

    /// Waits until the folder holds something else than when it was last
    /// looked at; files that could not be used then are looked at again soon.
    pub async fn changed(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            if self.read().ok() != self.looked_at || self.looked_at.is_none() {
                return;
            }
        }
    }

    /// All files of one version: the kubelet changes them by turning a link,
    /// and between two reads it may. They lie in memory, so that nobody waits.
    fn read(&self) -> Result<[Vec<u8>; 3], Unusable> {
        read(&self.folder, FILES)
    }
}

/// What a client trusts, and shows if the server asks for it, by the files that are in `folder` now: `ca.crt`, and, where
/// there are any, `tls.crt` and `tls.key`. `protocols` are offered.
///
/// # Errors
/// Any of [`Unusable`].
pub fn client(folder: &Path, protocols: &[&str]) -> Result<ClientConfig, Unusable> {
    let invalid = |file| move |invalid| Unusable::Invalid(file, invalid);
    let trusting = |authorities: &[u8]| {
        roots(authorities)
            .map_err(invalid("ca.crt"))
            .map(|roots| ClientConfig::builder().with_root_certificates(roots))
    };
    let mut config = match read(folder, FILES) {
        Ok([chain, key, authorities]) => {
            let shown = certified_key(&chain, &key).map_err(invalid("tls.crt, with tls.key,"))?;
            trusting(&authorities)?.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
        }
        Err(Unusable::File("tls.crt" | "tls.key", error)) if error.kind() == io::ErrorKind::NotFound => {
            let [authorities] = read(folder, ["ca.crt"])?;
            trusting(&authorities)?.with_no_client_auth()
        }
        Err(unusable) => return Err(unusable),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

fn read<const COUNT: usize>(
    folder: &Path,
    names: [&'static str; COUNT],
) -> Result<[Vec<u8>; COUNT], Unusable> {
    let folder = fs::canonicalize(folder.join("..data")).unwrap_or_else(|_| folder.to_owned());
    let mut files = [const { Vec::new() }; COUNT];
    for (name, bytes) in names.into_iter().zip(&mut files) {
        let read = File::open(folder.join(name)).and_then(|file| file.take(MOST_BYTES).read_to_end(bytes));
        read.map_err(|error| Unusable::File(name, error))?;
    }
    Ok(files)
}

fn accepted(
    certificate: &CertifiedKey,
    trusted: rustls::RootCertStore,
    name: &str,
) -> Result<(), rustls::Error> {
    let general = |error: &dyn ToString| rustls::Error::General(error.to_string());
    let verifier = WebPkiServerVerifier::builder_with_provider(trusted.into(), provider());
    let verifier = verifier.build().map_err(|error| general(&error))?;
    let name = ServerName::try_from(name).map_err(|error| general(&error))?;
    let (leaf, intermediates) =
        certificate.cert.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    verifier.verify_server_cert(leaf, intermediates, &name, &[], UnixTime::now()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::tls::authority::Authority;

    const NAME: &str = "webhook.ns.svc";

    /// A version of the files, as the kubelet brings it.
    fn bring(folder: &std::path::Path, version: &str, files: &[(&str, &str)]) {
        fs::create_dir(folder.join(version)).unwrap();
        for (name, text) in files {
            fs::write(folder.join(version).join(name), text).unwrap();
        }
        let _first = fs::remove_file(folder.join("..data"));
        symlink(version, folder.join("..data")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_fit_are_offered_and_others_are_named() {
        crate::tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let names = [NAME.to_owned()];
        let mut mounted = Mounted::new(folder.path().to_owned());
        let refused = |mounted: &mut Mounted| mounted.look(&names).unwrap_err().to_string();
        assert!(refused(&mut mounted).starts_with("tls.crt can't be read: No such file"));

        let (one, two) = (Authority::generate("one").unwrap(), Authority::generate("two").unwrap());
        let (chain, key) = one.server_pem(&names, Duration::from_secs(600)).unwrap();
        let ca = one.certificate_pem();
        let all = [("tls.crt", &*chain), ("tls.key", &*key), ("ca.crt", ca)];
        bring(folder.path(), "1", &all);
        mounted.changed().await;
        assert_eq!(mounted.look(&names).unwrap().authorities, [ca.trim()]);

        let other = two.certificate_pem();
        let (of_another_name, its_key) =
            one.server_pem(&["else".to_owned()], Duration::from_secs(600)).unwrap();
        for (version, file, text, complaint) in [
            ("2", 2, other, "tls.crt is not accepted as webhook.ns.svc by those who trust ca.crt"),
            ("3", 1, &*its_key, "the private key does not fit the certificate"),
            ("4", 0, "", "tls.crt, with tls.key, holds no usable certificate"),
            ("5", 2, "x", "ca.crt holds no usable certificate"),
        ] {
            let mut files = all;
            files[file].1 = text;
            bring(folder.path(), version, &files);
            mounted.changed().await;
            let why = refused(&mut mounted);
            assert!(why.contains(complaint), "{why}");
        }
        bring(folder.path(), "6", &[("tls.crt", &of_another_name), ("tls.key", &its_key), ("ca.crt", ca)]);
        assert!(refused(&mut mounted).contains("not valid for name"), "{}", refused(&mut mounted));
    }

    #[test]
    fn a_client_shows_what_there_is_to_show() {
        crate::tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let client =
            || client(folder.path(), &["h2"]).map(|config| config.client_auth_cert_resolver.has_certs());
        assert!(client().unwrap_err().to_string().starts_with("ca.crt can't be read"));
        let authority = Authority::generate("one").unwrap();
        fs::write(folder.path().join("ca.crt"), authority.certificate_pem()).unwrap();
        assert!(!client().unwrap());
        let (chain, key) = authority.server_pem(&[NAME.to_owned()], Duration::from_secs(600)).unwrap();
        fs::write(folder.path().join("tls.crt"), chain).unwrap();
        fs::write(folder.path().join("tls.key"), "x").unwrap();
        assert!(client().unwrap_err().to_string().starts_with("tls.crt, with tls.key,"));
        fs::write(folder.path().join("tls.key"), key).unwrap();
        assert!(client().unwrap());
    }
}
