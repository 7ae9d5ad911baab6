//! The webhook configuration at the API server: read, watched, and its
//! `caBundle` set by server-side apply, so that whoever manages the rest of
//! that object (Helm, Argo CD, Flux) has no part in it.

use anyhow::Context as _;
use futures::{Stream, TryStreamExt as _};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use tracing::info;

use super::{objects, rotation::Configured};

/// Under this name the configuration's `caBundle` is ours.
pub(super) const FIELD_MANAGER: &str = "kestrel-webhook";

/// The way to the configuration.
pub(super) struct WebhookConfiguration {
    client: Client,
    name: String,
}

/// What it says, and the version of it that was read.
pub(super) struct Read {
    pub(super) configured: Option<Configured>,
    version: Option<String>,
}

impl WebhookConfiguration {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    pub(super) async fn read(&self) -> anyhow::Result<Read> {
        let found = self.api().get_opt(&self.name).await;
        let found =
            found.with_context(|| format!("MutatingWebhookConfiguration {} cannot be read", self.name))?;
        Ok(Read {
            configured: found.as_ref().and_then(objects::read_configuration),
            version: found.and_then(|found| found.metadata.resource_version),
        })
    }

    /// Makes API servers trust exactly these, unless the configuration has
    /// changed since it was read.
    pub(super) async fn trust(&self, bundle: &[String], read: &Read) -> anyhow::Result<()> {
        let name = &self.name;
        let patch = Patch::Apply(objects::trust(name, read.version.as_deref(), bundle));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patched = self.api().patch(name, &params, &patch).await;
        let context = || format!("caBundle of MutatingWebhookConfiguration {name} cannot be set");
        if unless_overtaken(patched).with_context(context)? {
            info!("MutatingWebhookConfiguration {name} trusts {} of our authorities", bundle.len());
        }
        Ok(())
    }

    /// A message for every change. They only wake us; what is decided on is
    /// always read anew.
    pub(super) fn changes(&self) -> impl Stream<Item = watcher::Result<()>> + use<> {
        let metadata: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(self.client.clone());
        watcher::watch_object(metadata, &self.name).default_backoff().map_ok(drop)
    }

    /// Why nothing can be done without it.
    pub(super) fn missing(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "MutatingWebhookConfiguration {} (KESTREL_WEBHOOK_CONFIGURATION) with the webhook {} does not exist: \
             no API server calls this webhook",
            self.name,
            objects::WEBHOOK
        )
    }

    fn api(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }
}

/// False if another replica was faster: what it did is read next.
pub(super) fn unless_overtaken<K>(result: kube::Result<K>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}
