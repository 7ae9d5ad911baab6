//! The agent link's authority, which the aggregator publishes and every
//! injected collector is given: a file that may appear later and may change.

use std::{fs::File, io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::ensure;
use kestrel_runtime::{
    admin::Ready,
    tls::{self, MOST_ANCHOR_BYTES},
};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::cluster::Shared;

/// The kubelet itself needs up to a minute to bring a change to the file.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps the settings' authority as the file has it. A file that is gone, damaged or
/// more than collectors take changes nothing: the last good authority stays.
pub struct LinkCa {
    path: PathBuf,
    cluster: Arc<Shared>,
    ready: Ready,
    problem: String,
}

impl LinkCa {
    /// Follows the file at `path`; `ready` is met once it held an authority.
    pub fn new(path: PathBuf, cluster: Arc<Shared>, ready: Ready) -> Self {
        Self { path, cluster, ready, problem: String::new() }
    }

    /// Follows for ever.
    pub async fn follow(mut self) {
        loop {
            self.look();
            sleep(LOOK_EVERY).await;
        }
    }

    fn look(&mut self) {
        let path = self.path.display();
        let (sentence, found) = match self.read() {
            Ok(found) => (String::new(), Some(found)),
            Err(problem) => (format!("the agent link's CA cannot be read from {path}: {problem}"), None),
        };
        if self.problem != sentence {
            if !sentence.is_empty() {
                warn!("{sentence}; the aggregator publishes it (KESTREL_LINK_CA_FILE names the file)");
            }
            self.problem = sentence;
        }
        if let Some(found) = found
            && self.cluster.read().settings.link_ca.as_ref() != Some(&found)
        {
            info!("collectors injected from now on trust the agent link's CA in {}", self.path.display());
            self.cluster.write().settings.link_ca = Some(found);
            self.ready.set(true);
        }
    }

    /// The file of a ConfigMap lies in memory, so that reading it blocks nobody.
    fn read(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        File::open(&self.path)?.take(MOST_ANCHOR_BYTES as u64 + 1).read_to_string(&mut text)?;
        ensure!(text.len() <= MOST_ANCHOR_BYTES, "it has more than {MOST_ANCHOR_BYTES} bytes");
        tls::roots(text.as_bytes())?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kestrel_runtime::{admin::Readiness, tls::authority::Authority};

    use super::*;
    use crate::{cluster::Cluster, inject::Settings};

    #[test]
    fn the_authority_appears_changes_and_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        let cluster = Arc::new(Shared::new(Cluster::new(Settings::default())));
        let readiness = Readiness::default();
        let mut link_ca = LinkCa::new(path.clone(), Arc::clone(&cluster), readiness.require("link CA"));
        let known = || cluster.read().settings.link_ca.clone();

        link_ca.look();
        assert_eq!((known(), readiness.missing()), (None, vec!["link CA"]));
        assert!(link_ca.problem.contains("No such file"), "{}", link_ca.problem);

        let (one, two) = (Authority::generate("one").unwrap(), Authority::generate("two").unwrap());
        for authority in [&one, &two] {
            fs::write(&path, authority.certificate_pem()).unwrap();
            link_ca.look();
            assert_eq!(known().as_deref(), Some(authority.certificate_pem()));
            assert!(readiness.missing().is_empty() && link_ca.problem.is_empty());
        }

        let endless = one.certificate_pem().repeat(MOST_ANCHOR_BYTES / 500);
        for (bad, why) in [
            ("-----BEGIN CERTIFICATE-----", "no usable certificate"),
            (&endless, "has more than 65536 bytes"),
        ] {
            fs::write(&path, bad).unwrap();
            link_ca.look();
            assert_eq!(known().as_deref(), Some(two.certificate_pem()));
            assert!(link_ca.problem.contains(why), "{}", link_ca.problem);
        }
    }
}
