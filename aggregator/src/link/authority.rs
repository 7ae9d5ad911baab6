//! The link's own certificate authority, and the certificate of this server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kestrel_runtime::{
    backoff::Backoff,
    tls::{authority::Authority, server::ServingCertificate},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::publish::{LINK, metadata};

/// The server's certificate lives in this process alone, and this long.
const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// The authority that the Secret keeps, made if there is none. Tries again
/// until it has one: without it nobody can attach, and the cloud is not
/// concerned.
pub(super) async fn obtain(client: &Client, namespace: &str) -> Authority {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let mut said = String::new();
    loop {
        match try_obtain(client, namespace).await {
            Ok(authority) => return authority,
            Err(problem) => {
                // Between these two the client's errors repeat themselves.
                let problem = format!("{problem}: {}", problem.root_cause());
                if problem != said {
                    error!("no agent can attach: {problem}");
                    said = problem;
                }
            }
        }
        sleep(backoff.next(Duration::ZERO)).await;
    }
}

async fn try_obtain(client: &Client, namespace: &str) -> anyhow::Result<Authority> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let unreadable = || format!("the Secret {namespace}/{LINK} can't be read");
    let read = |secret: &Secret| {
        stored(secret).with_context(|| {
            format!(
                "the Secret {namespace}/{LINK} is damaged; delete it, and restart the pods with a collector"
            )
        })
    };
    if let Some(secret) = secrets.get_opt(LINK).await.with_context(unreadable)? {
        return read(&secret);
    }
    let authority = Authority::generate(LINK).context("no certificate authority can be made")?;
    let pem = |text: &str| ByteString(text.as_bytes().to_vec());
    let secret = Secret {
        metadata: metadata(namespace),
        data: Some(BTreeMap::from([
            (CERTIFICATE.to_owned(), pem(authority.certificate_pem())),
            (KEY.to_owned(), pem(authority.key_pem())),
        ])),
        ..Default::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => {
            info!("made the agent link's certificate authority, kept in the Secret {namespace}/{LINK}");
            Ok(authority)
        }
        // Another leader was faster.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            read(&secrets.get(LINK).await.with_context(unreadable)?)
        }
        Err(error) => Err(error).with_context(|| format!("the Secret {namespace}/{LINK} can't be made")),
    }
}

fn stored(secret: &Secret) -> anyhow::Result<Authority> {
    let text = |key: &str| {
        let value =
            secret.data.as_ref().and_then(|data| data.get(key)).with_context(|| format!("no key {key}"))?;
        std::str::from_utf8(&value.0).with_context(|| format!("the key {key} is no text"))
    };
    Ok(Authority::from_pem(text(CERTIFICATE)?, text(KEY)?)?)
}

/// Shows a certificate for the link's Service in `namespace`, and replaces it
/// when two thirds of its life are over. The first is shown when this returns.
///
/// # Errors
/// The namespace's name can't be part of a certificate.
pub(super) fn certify(
    authority: &Authority,
    namespace: &str,
    certificate: &ServingCertificate,
) -> anyhow::Result<()> {
    let service = format!("{LINK}.{namespace}");
    let names =
        [LINK.to_owned(), service.clone(), format!("{service}.svc"), format!("{service}.svc.cluster.local")];
    certificate.replace(authority.server_certificate(&names, LEAF_LIFETIME)?);
    Ok(())
}

/// Replaces the certificate in time, for ever.
pub(super) async fn keep_certified(
    authority: &Authority,
    namespace: &str,
    certificate: Arc<ServingCertificate>,
) {
    loop {
        sleep(LEAF_LIFETIME * 2 / 3).await;
        if let Err(problem) = certify(authority, namespace, &certificate) {
            warn!("the agent link's certificate can't be renewed: {problem:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_keeps_is_checked() {
        kestrel_runtime::tls::install_provider();
        let authority = Authority::generate(LINK).unwrap();
        let secret = |certificate: &str, key: &str| Secret {
            data: Some(
                [(CERTIFICATE, certificate), (KEY, key)]
                    .map(|(name, pem)| (name.to_owned(), ByteString(pem.into())))
                    .into(),
            ),
            ..Default::default()
        };
        let whole = stored(&secret(authority.certificate_pem(), authority.key_pem())).unwrap();
        certify(&whole, "kestrel-ai", &ServingCertificate::default()).unwrap();
        let damaged = stored(&secret("", authority.key_pem())).err().unwrap();
        assert!(damaged.to_string().contains("no usable certificate"), "{damaged}");
        assert_eq!(stored(&Secret::default()).err().unwrap().to_string(), "no key ca.crt");
    }
}
