//! Carries out what [`super::rotation`] decides.

use std::{pin::pin, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kestrel_runtime::{
    admin::Ready,
    backoff::Backoff,
    service_account::ServiceAccount,
    tls::{authority::Authority, server::ServingCertificate},
};
use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    objects,
    rotation::{Rotation, Shown, Step, World},
};

/// Under this name the configuration's `caBundle` is ours.
const FIELD_MANAGER: &str = "kestrel-webhook";
/// A certificate's life, and when in it the next one is signed.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const RENEW_AFTER: Duration = Duration::from_secs(16 * 3600);
/// The world is read this often even where no watch reports a change.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(60);
/// All of a look's steps together.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// One look leads to a few steps; more means that somebody undoes them.
const MOST_STEPS: usize = 16;

/// Which objects it is about.
#[derive(Clone, Debug)]
pub struct Names {
    /// Where the Secret is.
    pub namespace: String,
    /// The Secret with the authority.
    pub secret: String,
    /// The MutatingWebhookConfiguration.
    pub configuration: String,
}

/// Keeps a certificate shown that the API servers trust.
pub struct Keeper {
    client: Client,
    names: Names,
    owner: Option<ServiceAccount>,
    certificate: Arc<ServingCertificate>,
    ready: Ready,
    rotation: Rotation,
    problem: String,
}

/// What was read, and the objects it was read from.
struct Read {
    world: World,
    secret: Option<(Secret, Authority)>,
    version: Option<String>,
}

impl Keeper {
    /// Shows its certificates through `certificate`; `ready` is met from the
    /// first one on. `trust_delay` is how long an API server may take to notice
    /// a change of the configuration.
    pub fn new(
        client: Client,
        names: Names,
        trust_delay: Duration,
        certificate: Arc<ServingCertificate>,
        ready: Ready,
    ) -> Self {
        let owner = ServiceAccount::own();
        let rotation = Rotation::new(trust_delay);
        Self { client, names, owner, certificate, ready, rotation, problem: String::new() }
    }

    /// Works for ever.
    pub async fn keep(mut self) {
        let mut changes = pin!(self.changes());
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
                Some(change) = changes.next() => if let Err(problem) = change {
                    self.complain(format!("changes of the certificate's objects are seen late: {problem}"));
                }
            }
        }
    }

    /// A message for every change of the Secret or the configuration. They
    /// only wake us; what is decided on is always read anew.
    fn changes(&self) -> impl Stream<Item = watcher::Result<()>> + use<> {
        let secrets: Api<PartialObjectMeta<Secret>> =
            Api::namespaced(self.client.clone(), &self.names.namespace);
        let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> =
            Api::all(self.client.clone());
        stream::select(
            watcher::watch_object(secrets, &self.names.secret).default_backoff().map_ok(drop),
            watcher::watch_object(configurations, &self.names.configuration).default_backoff().map_ok(drop),
        )
    }

    /// Takes steps until there is nothing left to do for the returned time.
    async fn settle(&mut self) -> anyhow::Result<Duration> {
        for _ in 0..MOST_STEPS {
            let read = self.read().await?;
            let now = Timestamp::now();
            match self.rotation.next(&read.world, now) {
                Step::Wait { until: None } => bail!(
                    "MutatingWebhookConfiguration {} (KESTREL_WEBHOOK_CONFIGURATION) with the webhook {} \
                     does not exist: no API server calls this webhook",
                    self.names.configuration,
                    objects::WEBHOOK
                ),
                Step::Wait { until: Some(until) } => {
                    return Ok(until.duration_since(now).try_into().unwrap_or(Duration::ZERO));
                }
                step => self.take(step, read).await?,
            }
        }
        bail!(
            "Secret {} and MutatingWebhookConfiguration {} change all the time: does someone else manage them?",
            self.names.secret,
            self.names.configuration
        )
    }

    /// The configuration first: a Secret that changes in between is then newer
    /// than the configuration, which is put right, and never older.
    async fn read(&self) -> anyhow::Result<Read> {
        let Names { secret, configuration, .. } = &self.names;
        let found = self.configurations().get_opt(configuration).await;
        let found =
            found.with_context(|| format!("MutatingWebhookConfiguration {configuration} cannot be read"))?;
        let version = found.as_ref().and_then(|found| found.metadata.resource_version.clone());
        let configured = found.as_ref().and_then(objects::read_configuration);

        let found = self.secrets().get_opt(secret).await;
        let found = found.with_context(|| format!("Secret {secret} cannot be read"))?;
        let (stored, secret) = match found {
            None => (None, None),
            Some(found) => {
                let (authority, stored) = objects::read_secret(&found).with_context(|| {
                    format!("Secret {secret} holds no usable authority; delete it, and a new one is made")
                })?;
                (Some(stored), Some((found, authority)))
            }
        };
        Ok(Read { world: World { stored, configured }, secret, version })
    }

    async fn take(&mut self, step: Step, read: Read) -> anyhow::Result<()> {
        match (step, read.secret) {
            (Step::Generate { previous, until }, _) => self.generate(&previous, until).await?,
            (Step::Remember { previous, until }, Some((mut secret, _))) => {
                objects::remember(&mut secret, &previous, until);
                if self.replace(&secret).await? {
                    info!("previous authorities stay trusted until {until:.0}");
                }
            }
            (Step::Retire, Some((mut secret, _))) => {
                objects::retire(&mut secret);
                if self.replace(&secret).await? {
                    info!("certificates of previous authorities are no longer in use");
                }
            }
            (Step::Trust { bundle }, _) => self.trust(&bundle, read.version.as_deref()).await?,
            (Step::Show { names }, Some((_, authority))) => self.show(&authority, names)?,
            // Only a Secret that was read leads to the first three; the last is none.
            (Step::Remember { .. } | Step::Retire | Step::Show { .. }, None) | (Step::Wait { .. }, _) => {}
        }
        Ok(())
    }

    async fn generate(&self, previous: &[String], until: Timestamp) -> anyhow::Result<()> {
        let name = &self.names.secret;
        let mut secret = objects::new_secret(name, &Authority::generate(FIELD_MANAGER)?, self.owner.as_ref());
        if !previous.is_empty() {
            objects::remember(&mut secret, previous, until);
        }
        let created = self.secrets().create(&PostParams::default(), &secret).await;
        if unless_overtaken(created).with_context(|| format!("Secret {name} cannot be created"))? {
            info!("made a new authority and stored it in Secret {name}");
        }
        Ok(())
    }

    async fn trust(&self, bundle: &[String], version: Option<&str>) -> anyhow::Result<()> {
        let name = &self.names.configuration;
        let patch = Patch::Apply(objects::trust(name, version, bundle));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patched = self.configurations().patch(name, &params, &patch).await;
        let context = || format!("caBundle of MutatingWebhookConfiguration {name} cannot be set");
        if unless_overtaken(patched).with_context(context)? {
            info!("MutatingWebhookConfiguration {name} trusts {} of our authorities", bundle.len());
        }
        Ok(())
    }

    fn show(&mut self, authority: &Authority, names: Vec<String>) -> anyhow::Result<()> {
        let now = Timestamp::now();
        self.certificate.replace(authority.server_certificate(&names, LIFETIME)?);
        self.ready.set(true);
        info!("shows a certificate for {} that is valid until {:.0}", names.join(", "), now + LIFETIME);
        let authority = authority.certificate_pem().to_owned();
        self.rotation.show(Shown { authority, names, renew_at: now + RENEW_AFTER });
        Ok(())
    }

    /// Writes the Secret, unless it has changed since it was read.
    async fn replace(&self, secret: &Secret) -> anyhow::Result<bool> {
        let name = &self.names.secret;
        let replaced = self.secrets().replace(name, &PostParams::default(), secret).await;
        unless_overtaken(replaced).with_context(|| format!("Secret {name} cannot be updated"))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.names.namespace)
    }

    fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    /// Says what is wrong, once.
    fn complain(&mut self, problem: String) {
        if self.problem != problem {
            warn!("{problem}");
            self.problem = problem;
        }
    }
}

fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
}

/// False if another replica was faster: what it did is read next.
fn unless_overtaken<K>(result: kube::Result<K>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}
