//! Keeps a certificate shown that the API servers trust, wherever it comes from.

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use anyhow::anyhow;
use futures::{StreamExt as _, stream};
use kestrel_runtime::{
    admin::Ready,
    backoff::Backoff,
    tls::{mounted::Mounted, server::ServingCertificate},
};
use kube::Client;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{configuration::WebhookConfiguration, own::OwnAuthority, provided::Provided};

/// The world is read this often even where nothing reports a change.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(60);
/// All of a look's steps together.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// An authority of our own, kept in this Secret.
    Own {
        /// Where the Secret is.
        namespace: String,
        /// Its name.
        secret: String,
    },
    /// A mounted folder with `tls.crt`, `tls.key` and `ca.crt`, which somebody
    /// else renews.
    Mounted(PathBuf),
}

/// Keeps a certificate shown that the API servers trust.
pub struct Keeper {
    configuration: WebhookConfiguration,
    source: Source,
    problem: String,
}

enum Source {
    Own(OwnAuthority),
    Mounted(Provided),
}

/// Where certificates are shown.
pub(super) struct Window {
    pub(super) certificate: Arc<ServingCertificate>,
    /// Met from the first certificate on.
    pub(super) ready: Ready,
}

impl Keeper {
    /// Shows its certificates through `certificate`; `ready` is met from the
    /// first one on. `configuration` is the name of the
    /// MutatingWebhookConfiguration, and `trust_delay` how long an API server
    /// may take to notice a change of it.
    pub fn new(
        client: Client,
        configuration: String,
        origin: Origin,
        trust_delay: Duration,
        certificate: Arc<ServingCertificate>,
        ready: Ready,
    ) -> Self {
        let window = Window { certificate, ready };
        let source = match origin {
            Origin::Own { namespace, secret } => {
                Source::Own(OwnAuthority::new(client.clone(), namespace, secret, trust_delay, window))
            }
            Origin::Mounted(folder) => {
                Source::Mounted(Provided::new(Mounted::new(folder), trust_delay, window))
            }
        };
        let configuration = WebhookConfiguration::new(client, configuration);
        Self { configuration, source, problem: String::new() }
    }

    /// Works for ever.
    pub async fn keep(mut self) {
        let secrets = match &self.source {
            Source::Own(own) => own.changes().left_stream(),
            Source::Mounted(_) => stream::pending().right_stream(),
        };
        let mut changes = pin!(stream::select(secrets, self.configuration.changes()));
        let mut backoff = new_backoff();
        loop {
            let settled = timeout(ANSWERS_WITHIN, self.settle()).await;
            let pause = match settled.unwrap_or_else(|_| Err(anyhow!("the API server does not answer"))) {
                Ok(pause) => {
                    backoff = new_backoff();
                    self.problem.clear();
                    pause.min(LOOK_AT_LEAST_EVERY)
                }
                Err(problem) => {
                    self.complain(format!("{problem:#}"));
                    backoff.next(Duration::ZERO)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.source.changed() => {}
                Some(change) = changes.next() => if let Err(problem) = change {
                    self.complain(format!("changes of the certificate's objects are seen late: {problem}"));
                }
            }
        }
    }

    /// Takes steps until there is nothing left to do for the returned time.
    async fn settle(&mut self) -> anyhow::Result<Duration> {
        match &mut self.source {
            Source::Own(own) => own.settle(&self.configuration).await,
            Source::Mounted(provided) => provided.settle(&self.configuration).await,
        }
    }

    /// Says what is wrong, once.
    fn complain(&mut self, problem: String) {
        if self.problem != problem {
            warn!("{problem}");
            self.problem = problem;
        }
    }
}

impl Source {
    /// Waits until mounted files change.
    async fn changed(&self) {
        match self {
            Self::Own(_) => std::future::pending().await,
            Self::Mounted(provided) => provided.changed().await,
        }
    }
}

fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
}
