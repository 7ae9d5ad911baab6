//! The certificate that the link's server shows, and the authorities that
//! clients are told to trust.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use kestrel_runtime::{
    backoff::Backoff,
    tls::{
        MOST_ANCHOR_BYTES,
        mounted::{Mounted, Offered},
        pem,
        server::ServingCertificate,
    },
};
use kube::Client;
use tokio::{sync::watch, time::sleep};
use tracing::{error, info, warn};

use super::{
    authority::{self, LEAF_LIFETIME},
    publish::LINK,
};

/// Clients know of a new authority after this time: those that are attached are
/// told, and to a node agent's files the kubelet brings it within two minutes.
const SPREAD: Duration = Duration::from_secs(180);

/// Where the certificate comes from.
enum Source {
    /// An authority of our own.
    Own(Client),
    /// A mounted Secret, which somebody else renews.
    Mounted(Mounted),
}

/// Keeps a certificate shown and its authorities made known.
pub(super) struct Keeper {
    source: Source,
    namespace: String,
    certificate: Arc<ServingCertificate>,
    anchors: watch::Sender<String>,
    /// Authorities of what is shown; none before the first.
    shown: Vec<String>,
}

impl Keeper {
    /// For the link's Service in `namespace`; `folder` is where a certificate is
    /// mounted, if one is. `anchors` is the PEM text of the authorities, empty
    /// until a certificate is shown.
    pub(super) fn new(
        client: Client,
        folder: Option<PathBuf>,
        namespace: String,
        certificate: Arc<ServingCertificate>,
        anchors: watch::Sender<String>,
    ) -> Self {
        let source = match folder {
            Some(folder) => Source::Mounted(Mounted::new(folder)),
            None => Source::Own(client),
        };
        Self { source, namespace, certificate, anchors, shown: Vec::new() }
    }

    /// Works for ever. Without a certificate nobody can attach, and the cloud is
    /// not concerned.
    pub(super) async fn keep(mut self) {
        let mut backoff = new_backoff();
        let mut said = String::new();
        loop {
            match self.offered().await {
                Ok(offered) => {
                    self.show(offered).await;
                    (backoff, said) = (new_backoff(), String::new());
                    match &self.source {
                        Source::Own(_) => sleep(LEAF_LIFETIME * 2 / 3).await,
                        Source::Mounted(mounted) => mounted.changed().await,
                    }
                }
                Err(problem) => {
                    // Between these two the client's errors repeat themselves.
                    let problem = format!("{problem}: {}", problem.root_cause());
                    if problem != said {
                        if self.shown.is_empty() {
                            error!("no agent can attach: {problem}");
                        } else {
                            warn!("the agent link's certificate can't be renewed: {problem}");
                        }
                        said = problem;
                    }
                    sleep(backoff.next(Duration::ZERO)).await;
                }
            }
        }
    }

    async fn offered(&mut self) -> anyhow::Result<Offered> {
        let service = format!("{LINK}.{}", self.namespace);
        match &mut self.source {
            Source::Own(client) => {
                let names = [
                    LINK.to_owned(),
                    service.clone(),
                    format!("{service}.svc"),
                    format!("{service}.svc.cluster.local"),
                ];
                authority::sign(client, &self.namespace, &names).await
            }
            // Agents and collectors know the link by this name.
            Source::Mounted(mounted) => {
                let offered = mounted.look(&[format!("{service}.svc")]);
                let folder = mounted.folder().display();
                let offered = offered.map_err(anyhow::Error::from).and_then(small_enough);
                offered.with_context(|| {
                    format!("the certificate in {folder} (KESTREL_LINK_TLS_DIR) can't be used")
                })
            }
        }
    }

    /// Shows it: at once if clients know its authorities, else when they have
    /// had the time to learn of them.
    async fn show(&mut self, offered: Offered) {
        let mut all = offered.authorities.clone();
        all.extend(self.shown.iter().filter(|known| !offered.authorities.contains(known)).cloned());
        let known = pem::split(&self.anchors.borrow());
        if !self.shown.is_empty() && offered.authorities.iter().any(|new| !known.contains(new)) {
            info!(
                "the agent link's certificate changes in {} s, when all know its authority",
                SPREAD.as_secs()
            );
            self.anchors.send_replace(pem::join(&all));
            sleep(SPREAD).await;
        }
        self.certificate.replace(offered.certificate);
        self.anchors.send_replace(pem::join(&offered.authorities));
        self.shown = offered.authorities;
    }
}

/// Clients take a list of authorities up to a size, and while one list follows another they are told of both.
fn small_enough(offered: Offered) -> anyhow::Result<Offered> {
    let most = MOST_ANCHOR_BYTES / 2;
    ensure!(
        pem::join(&offered.authorities).len() <= most,
        "ca.crt holds more than {most} bytes of certificates"
    );
    Ok(offered)
}

fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, fs, path::Path};

    use http::{Request, Response};
    use http_body_util::Empty;
    use kestrel_runtime::tls::{self, authority::Authority};
    use kube::client::Body;
    use tokio::time::{Instant, timeout};

    use super::*;

    /// No API server is asked for a mounted certificate.
    async fn nobody(request: Request<Body>) -> Result<Response<Empty<bytes::Bytes>>, Infallible> {
        panic!("{} was asked for", request.uri())
    }

    fn write(folder: &Path, authority: &Authority) {
        let names = [format!("{LINK}.ns.svc")];
        let (chain, key) = authority.server_pem(&names, Duration::from_secs(3600)).unwrap();
        for (name, text) in
            [("tls.crt", &*chain), ("tls.key", &*key), ("ca.crt", authority.certificate_pem())]
        {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    /// Scenario: a mounted certificate appears, is renewed, and is renewed by another authority.
    /// Guarantee: no certificate is shown before its authority was known for a while.
    #[tokio::test(start_paused = true)]
    async fn a_new_authority_is_known_before_its_certificate_is_shown() {
        tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let (anchors, mut known) = watch::channel(String::new());
        let certificate = Arc::<ServingCertificate>::default();
        let client = Client::new(tower::service_fn(nobody), "ns");
        let mounted = Some(folder.path().to_owned());
        let keeper = Keeper::new(client, mounted, "ns".to_owned(), certificate, anchors);
        let task = tokio::spawn(keeper.keep());
        let (one, two) = (Authority::generate("one").unwrap(), Authority::generate("two").unwrap());
        let pem = |authority: &Authority| pem::join(&[authority.certificate_pem().trim().to_owned()]);

        write(folder.path(), &one);
        known.wait_for(|known| *known == pem(&one)).await.unwrap();
        write(folder.path(), &one);
        known.changed().await.unwrap();
        assert_eq!(*known.borrow_and_update(), pem(&one), "renewed at once");

        write(folder.path(), &two);
        let both = pem(&two) + &pem(&one);
        known.wait_for(|known| *known == both).await.unwrap();
        let begun = Instant::now();
        known.wait_for(|known| *known == pem(&two)).await.unwrap();
        assert!(begun.elapsed() >= SPREAD);

        let crowd: String = (0..80)
            .map(|n| Authority::generate(&n.to_string()).unwrap().certificate_pem().to_owned())
            .collect();
        assert!(crowd.len() > MOST_ANCHOR_BYTES / 2, "{}", crowd.len());
        fs::write(folder.path().join("ca.crt"), crowd + two.certificate_pem()).unwrap();
        let changed = timeout(SPREAD * 2, known.changed()).await;
        assert!(changed.is_err(), "no client would take so many authorities");

        fs::remove_file(folder.path().join("tls.key")).unwrap();
        let changed = timeout(SPREAD * 2, known.changed()).await;
        assert!(changed.is_err(), "a file that is gone changes nothing");
        task.abort();
    }
}
