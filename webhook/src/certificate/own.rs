//! Carries out what [`super::rotation`] decides about an authority of our own.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{Stream, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kestrel_runtime::{service_account::ServiceAccount, tls::authority::Authority};
use kube::{
    Api, Client,
    api::PostParams,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use tracing::info;

use super::{
    configuration::{self, FIELD_MANAGER, WebhookConfiguration, unless_overtaken},
    keeper::Window,
    objects,
    rotation::{Rotation, Shown, Step, World},
};

/// A certificate's life, and when in it the next one is signed.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const RENEW_AFTER: Duration = Duration::from_secs(16 * 3600);
/// One look leads to a few steps; more means that somebody undoes them.
const MOST_STEPS: usize = 16;

/// The authority in its Secret, and what was signed by it.
pub(super) struct OwnAuthority {
    client: Client,
    namespace: String,
    secret: String,
    owner: Option<ServiceAccount>,
    rotation: Rotation,
    window: Window,
}

/// What was read, and the objects it was read from.
struct Read {
    world: World,
    secret: Option<(Secret, Authority)>,
    configuration: configuration::Read,
}

impl OwnAuthority {
    pub(super) fn new(
        client: Client,
        namespace: String,
        secret: String,
        trust_delay: Duration,
        window: Window,
    ) -> Self {
        let owner = ServiceAccount::own();
        Self { client, namespace, secret, owner, rotation: Rotation::new(trust_delay), window }
    }

    /// A message for every change of the Secret.
    pub(super) fn changes(&self) -> impl Stream<Item = watcher::Result<()>> + use<> {
        let metadata: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.client.clone(), &self.namespace);
        watcher::watch_object(metadata, &self.secret).default_backoff().map_ok(drop)
    }

    /// Takes steps until there is nothing left to do for the returned time.
    pub(super) async fn settle(&mut self, configuration: &WebhookConfiguration) -> anyhow::Result<Duration> {
        for _ in 0..MOST_STEPS {
            let read = self.read(configuration).await?;
            let now = Timestamp::now();
            match self.rotation.next(&read.world, now) {
                Step::Wait { until: None } => return Err(configuration.missing()),
                Step::Wait { until: Some(until) } => {
                    return Ok(until.duration_since(now).try_into().unwrap_or(Duration::ZERO));
                }
                Step::Trust { bundle } => configuration.trust(&bundle, &read.configuration).await?,
                step => self.take(step, read).await?,
            }
        }
        bail!(
            "Secret {} and the webhook's configuration change all the time: does someone else manage them?",
            self.secret
        )
    }

    /// The configuration first: a Secret that changes in between is then newer
    /// than the configuration, which is put right, and never older.
    async fn read(&self, configuration: &WebhookConfiguration) -> anyhow::Result<Read> {
        let name = &self.secret;
        let configuration = configuration.read().await?;
        let found = self.secrets().get_opt(name).await;
        let found = found.with_context(|| format!("Secret {name} cannot be read"))?;
        let (stored, secret) = match found {
            None => (None, None),
            Some(found) => {
                let (authority, stored) = objects::read_secret(&found).with_context(|| {
                    format!("Secret {name} holds no usable authority; delete it, and a new one is made")
                })?;
                (Some(stored), Some((found, authority)))
            }
        };
        let world = World { stored, configured: configuration.configured.clone() };
        Ok(Read { world, secret, configuration })
    }

    async fn take(&mut self, step: Step, read: Read) -> anyhow::Result<()> {
        match (step, read.secret) {
            (Step::Generate { previous, until }, replaced) => {
                self.generate(replaced.map(|(secret, _)| secret), &previous, until).await?;
            }
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
            (Step::Show { names }, Some((_, authority))) => self.show(&authority, names)?,
            // Only a Secret that was read leads to the first three; the others are carried out above.
            (Step::Remember { .. } | Step::Retire | Step::Show { .. }, None)
            | (Step::Trust { .. } | Step::Wait { .. }, _) => {}
        }
        Ok(())
    }

    /// Makes an authority, in place of the one in the Secret that was read.
    async fn generate(
        &self,
        replaced: Option<Secret>,
        previous: &[String],
        until: Timestamp,
    ) -> anyhow::Result<()> {
        let name = &self.secret;
        let mut secret = objects::new_secret(name, &Authority::generate(FIELD_MANAGER)?, self.owner.as_ref());
        if !previous.is_empty() {
            objects::remember(&mut secret, previous, until);
        }
        let is_stored = if let Some(replaced) = replaced {
            secret.metadata.resource_version = replaced.metadata.resource_version;
            self.replace(&secret).await?
        } else {
            let created = self.secrets().create(&PostParams::default(), &secret).await;
            unless_overtaken(created).with_context(|| format!("Secret {name} cannot be created"))?
        };
        if is_stored {
            info!("made a new authority and stored it in Secret {name}");
        }
        Ok(())
    }

    fn show(&mut self, authority: &Authority, names: Vec<String>) -> anyhow::Result<()> {
        let now = Timestamp::now();
        self.window.certificate.replace(authority.server_certificate(&names, LIFETIME)?);
        self.window.ready.set(true);
        info!("shows a certificate for {} that is valid until {:.0}", names.join(", "), now + LIFETIME);
        let authority = authority.certificate_pem().to_owned();
        self.rotation.show(Shown { authority, names, renew_at: now + RENEW_AFTER });
        Ok(())
    }

    /// Writes the Secret, unless it has changed since it was read.
    async fn replace(&self, secret: &Secret) -> anyhow::Result<bool> {
        let name = &self.secret;
        let replaced = self.secrets().replace(name, &PostParams::default(), secret).await;
        unless_overtaken(replaced).with_context(|| format!("Secret {name} cannot be updated"))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
