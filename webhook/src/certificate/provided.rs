//! Carries out what [`super::handover`] decides about a mounted certificate.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use kestrel_runtime::tls::mounted::Mounted;
use tracing::info;

use super::{
    configuration::WebhookConfiguration,
    handover::{Certificate, Handover, Step},
    keeper::Window,
};

/// One look leads to two steps; more means that somebody undoes them.
const MOST_STEPS: usize = 16;

/// The mounted folder, and what of it is shown.
pub(super) struct Provided {
    mounted: Mounted,
    handover: Handover,
    window: Window,
}

impl Provided {
    pub(super) fn new(mounted: Mounted, trust_delay: Duration, window: Window) -> Self {
        Self { mounted, handover: Handover::new(trust_delay), window }
    }

    /// Waits until the folder holds something else.
    pub(super) async fn changed(&self) {
        self.mounted.changed().await;
    }

    /// Takes steps until there is nothing left to do for the returned time.
    pub(super) async fn settle(&mut self, configuration: &WebhookConfiguration) -> anyhow::Result<Duration> {
        for _ in 0..MOST_STEPS {
            let read = configuration.read().await?;
            let Some(configured) = &read.configured else { return Err(configuration.missing()) };
            let offered = self.mounted.look(&configured.names).with_context(|| {
                format!(
                    "the certificate in {} can't be used, see the Secret that is mounted there",
                    self.mounted.folder().display()
                )
            })?;
            let certificate = Certificate {
                leaf: offered.certificate.cert.first().map(|leaf| leaf.to_vec()).unwrap_or_default(),
                authorities: offered.authorities.clone(),
            };
            let now = Timestamp::now();
            match self.handover.next(&certificate, configured, now) {
                Step::Trust { bundle } => configuration.trust(&bundle, &read).await?,
                Step::Show => {
                    self.window.certificate.replace(offered.certificate);
                    self.window.ready.set(true);
                    info!("shows a certificate for {} from the mounted Secret", configured.names.join(", "));
                    self.handover.show(certificate);
                }
                Step::Wait { until } => {
                    return Ok(until.duration_since(now).try_into().unwrap_or(Duration::ZERO));
                }
            }
        }
        bail!("the webhook's configuration changes all the time: does someone else manage it?")
    }
}
