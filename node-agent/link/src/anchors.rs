//! Whom a sidecar trusts on the link: what it was started with, and what it was told there
//! since. So a pod that has run since before the authority changed still connects.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use kestrel_runtime::tls::{self, MOST_ANCHOR_BYTES};
use kestrel_tail::position::store::replace;
use rustls::RootCertStore;
use tracing::{info, warn};

/// The certificates of authorities, as PEM text.
#[derive(Clone, Debug)]
pub struct Anchors {
    /// From the environment, which never changes.
    given: String,
    /// What was told last; empty before that.
    learned: String,
    /// Where it is kept over restarts.
    file: PathBuf,
}

impl Anchors {
    /// Those that were `given` and those that `file` keeps. A file that can't be used is passed
    /// over, because what was given may be enough.
    pub fn load(given: String, file: &Path) -> Self {
        let learned = match read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                warn!("{} cannot be used: {error}; trusting KESTREL_LINK_CA alone", file.display());
                String::new()
            }
        };
        Self { given, learned, file: file.to_owned() }
    }

    /// All of them.
    ///
    /// # Errors
    /// What was given can't be used, and nothing was learned.
    pub(crate) fn roots(&self) -> Result<RootCertStore, tls::Invalid> {
        let learned = tls::roots(self.learned.as_bytes());
        match (tls::roots(self.given.as_bytes()), learned) {
            (Ok(mut roots), Ok(learned)) => {
                roots.extend(learned.roots);
                Ok(roots)
            }
            (Err(_), Ok(roots)) | (Ok(roots), Err(_)) => Ok(roots),
            (Err(problem), Err(_)) => Err(problem),
        }
    }

    /// The aggregator, whom we trust already, says whom to trust from now on.
    pub(crate) fn learn(&mut self, pem: String) {
        if pem == self.learned {
            return;
        }
        if let Err(problem) = check(&pem) {
            warn!("the aggregator's list of authorities {problem}; those known before stay trusted");
            return;
        }
        match replace(&self.file, pem.as_bytes()) {
            Ok(()) => info!("the authorities of the agent link are kept in {}", self.file.display()),
            Err(error) => warn!(
                "{} cannot be written: {error}; if this container restarts after the agent link's authority has changed, it may not connect",
                self.file.display()
            ),
        }
        self.learned = pem;
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(file)?.take(MOST_ANCHOR_BYTES as u64 + 1).read_to_string(&mut text)?;
    check(&text).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
    Ok(text)
}

fn check(pem: &str) -> Result<(), String> {
    if pem.len() > MOST_ANCHOR_BYTES {
        return Err(format!("has more than {MOST_ANCHOR_BYTES} bytes"));
    }
    tls::roots(pem.as_bytes()).map(|_| ()).map_err(|problem| problem.to_string())
}

#[cfg(test)]
mod tests {
    use kestrel_runtime::tls::authority::Authority;

    use super::*;

    fn authority() -> String {
        Authority::generate("link").unwrap().certificate_pem().to_owned()
    }

    #[test]
    fn what_was_learned_is_trusted_beside_what_was_given_and_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("anchors");
        let (given, next) = (authority(), authority());
        let mut anchors = Anchors::load(given.clone(), &file);
        assert_eq!(anchors.roots().unwrap().len(), 1);
        anchors.learn(next.clone());
        assert_eq!(anchors.roots().unwrap().len(), 2);
        let again = Anchors::load(given, &file);
        assert_eq!((again.roots().unwrap().len(), again.learned), (2, next.clone()));
        assert_eq!(Anchors::load("no PEM".to_owned(), &file).roots().unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("anchors");
        let mut anchors = Anchors::load(authority(), &file);
        anchors.learn("no PEM".to_owned());
        anchors.learn(authority().repeat(MOST_ANCHOR_BYTES / 500));
        assert!(!file.exists() && anchors.learned.is_empty());
        for damaged in
            ["no PEM".to_owned(), authority().replace('M', "?"), authority().repeat(MOST_ANCHOR_BYTES / 500)]
        {
            fs::write(&file, damaged).unwrap();
            assert_eq!(Anchors::load(authority(), &file).roots().unwrap().len(), 1);
        }
        assert!(Anchors::load("no PEM".to_owned(), &file).roots().is_err());
    }

    #[test]
    fn without_a_place_to_keep_them_they_hold_as_long_as_the_process() {
        let mut anchors = Anchors::load(authority(), Path::new("/nowhere/anchors"));
        anchors.learn(authority());
        assert_eq!(anchors.roots().unwrap().len(), 2);
    }
}
