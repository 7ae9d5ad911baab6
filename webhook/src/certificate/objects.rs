//! The Secret and the webhook configuration, read and written.

use axum::http::Uri;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration, WebhookClientConfig},
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kestrel_runtime::{
    service_account::ServiceAccount,
    tls::{authority::Authority, pem},
};

use super::rotation::{Configured, Stored};

/// The one webhook of the configuration that is ours.
pub(super) const WEBHOOK: &str = "inject.kestrel.ai";

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const PREVIOUS: &str = "previous.crt";
const PREVIOUS_UNTIL: &str = "previous.until";

/// The authority in the Secret, and what the Secret says about others.
pub(super) fn read_secret(secret: &Secret) -> anyhow::Result<(Authority, Stored)> {
    let text = |key| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
    };
    let current = pem::split(&text(CERTIFICATE)).into_iter().next().unwrap_or_default();
    let authority = Authority::from_pem(&current, &text(KEY))?;
    let stored = Stored {
        current,
        ends: authority.ends().try_into()?,
        previous: pem::split(&text(PREVIOUS)),
        until: text(PREVIOUS_UNTIL).parse().ok(),
    };
    Ok((authority, stored))
}

/// A Secret with a new authority, which goes when its owner goes.
pub(super) fn new_secret(name: &str, authority: &Authority, owner: Option<&ServiceAccount>) -> Secret {
    let owner = owner.map(|owner| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        ..OwnerReference::default()
    });
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let mut secret = Secret { metadata, ..Secret::default() };
    set(&mut secret, CERTIFICATE, authority.certificate_pem());
    set(&mut secret, KEY, authority.key_pem());
    secret
}

/// Says in the Secret which other authorities may be in use until then.
pub(super) fn remember(secret: &mut Secret, previous: &[String], until: Timestamp) {
    set(secret, PREVIOUS, &pem::join(previous));
    set(secret, PREVIOUS_UNTIL, &until.to_string());
}

/// Says in the Secret that the previous authorities are not in use. They stay
/// in it, so that a bundle that still has them is known to be out of date.
pub(super) fn retire(secret: &mut Secret) {
    secret.data.get_or_insert_default().remove(PREVIOUS_UNTIL);
}

fn set(secret: &mut Secret, key: &str, text: &str) {
    let data = secret.data.get_or_insert_default();
    data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
}

/// What the configuration says about our webhook, if it is in there.
pub(super) fn read_configuration(configuration: &MutatingWebhookConfiguration) -> Option<Configured> {
    let MutatingWebhook { client_config, .. } =
        configuration.webhooks.iter().flatten().find(|webhook| webhook.name == WEBHOOK)?;
    let bundle = client_config.ca_bundle.as_ref().map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    Some(Configured { bundle: pem::split(&bundle.unwrap_or_default()), names: names(client_config) })
}

/// The names that an API server expects in our certificate.
fn names(client_config: &WebhookClientConfig) -> Vec<String> {
    let service =
        client_config.service.iter().map(|service| format!("{}.{}.svc", service.name, service.namespace));
    let url = client_config.url.iter().filter_map(|url| {
        let url: Uri = url.parse().ok()?;
        Some(url.host()?.trim_matches(['[', ']']).to_owned())
    });
    service.chain(url).collect()
}

/// The part of the configuration that we apply: the bundle, and nothing else.
/// With the version that was read, so that what changed since is not undone.
pub(super) fn trust(name: &str, version: Option<&str>, bundle: &[String]) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "resourceVersion": version},
        "webhooks": [{
            "name": WEBHOOK,
            "clientConfig": {"caBundle": ByteString(pem::join(bundle).into_bytes())},
        }],
    })
}
