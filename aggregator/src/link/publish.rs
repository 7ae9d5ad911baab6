//! What the cluster has to know to reach the link: the authority's certificate
//! and the leader's address.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, ObjectReference},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::Config;
use crate::owner::owner;

/// Name of the Service, its EndpointSlice and the Secret of its own authority.
pub(super) const LINK: &str = "kestrel-agent-link";
/// Name of the ConfigMap with the authorities.
const AUTHORITIES: &str = "kestrel-agent-link-ca";
/// Who writes these objects.
const FIELD_MANAGER: &str = "kestrel-aggregator";
/// They are written again after this time, in case somebody removed them.
/// Writing what is there already changes nothing.
const AGAIN: Duration = Duration::from_secs(15);

/// Metadata of an object of the link, owned by this process's ServiceAccount,
/// so that it goes when the operator is uninstalled.
pub(super) fn metadata(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        owner_references: owner().map(|owner| vec![owner]),
        ..Default::default()
    }
}

/// Writes the objects, again and again, for ever, and at once when the
/// authorities change (a PEM text).
pub(super) async fn keep_published(
    client: &Client,
    config: &Config,
    port: u16,
    mut authorities: watch::Receiver<String>,
) {
    if config.pod_ip.is_none() {
        info!("POD_IP is not set: agents attach to port {port} of this machine only if they are told to");
    }
    let mut said = None;
    loop {
        let pem = authorities.borrow_and_update().clone();
        let published = publish(client, config, port, pem)
            .await
            .map_err(|error| anyhow::Error::from(error).root_cause().to_string());
        if said.as_ref() != Some(&published) {
            match &published {
                Ok(()) => info!("{LINK} is published in the namespace {}", config.namespace),
                Err(why) => warn!("agents may not find the link, as {LINK} can't be published: {why}"),
            }
            said = Some(published);
        }
        let _again = timeout(AGAIN, authorities.changed()).await;
    }
}

async fn publish(
    client: &Client,
    config: &Config,
    port: u16,
    authorities: String,
) -> Result<(), kube::Error> {
    let metadata = metadata(AUTHORITIES, &config.namespace);
    let data = BTreeMap::from([("ca.crt".to_owned(), authorities)]);
    let authorities = ConfigMap { metadata, data: Some(data), ..Default::default() };
    apply(client, &config.namespace, &authorities).await?;
    if let Some(address) = config.pod_ip {
        apply(client, &config.namespace, &endpoint_slice(config, address, (LINK, "https"), port)).await?;
    }
    Ok(())
}

/// Writes that `port` of this pod is behind the Service `service`, whose port is called `name`, again and again, for ever.
pub(crate) async fn keep_endpoint(client: &Client, config: &Config, service: &str, name: &str, port: u16) {
    let mut said = None;
    loop {
        if let Some(address) = config.pod_ip {
            let slice = endpoint_slice(config, address, (service, name), port);
            let published = apply(client, &config.namespace, &slice).await;
            let published = published.map_err(|error| anyhow::Error::from(error).root_cause().to_string());
            if said.as_ref() != Some(&published) {
                match &published {
                    Ok(()) => info!("{service} is published in the namespace {}", config.namespace),
                    Err(why) => {
                        warn!("nobody may find {service}, as its EndpointSlice can't be written: {why}")
                    }
                }
                said = Some(published);
            }
        }
        sleep(AGAIN).await;
    }
}

fn endpoint_slice(
    config: &Config,
    address: IpAddr,
    (service, name): (&str, &str),
    port: u16,
) -> EndpointSlice {
    let mut metadata = metadata(service, &config.namespace);
    metadata.labels = Some(BTreeMap::from([
        ("kubernetes.io/service-name".to_owned(), service.to_owned()),
        // Not the controllers' own, which they would tidy up.
        ("endpointslice.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned()),
    ]));
    let pod = |name: &String| ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(config.namespace.clone()),
        name: Some(name.clone()),
        uid: config.pod_uid.clone(),
        ..Default::default()
    };
    EndpointSlice {
        metadata,
        address_type: if address.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..Default::default() }),
            node_name: config.node_name.clone(),
            target_ref: config.pod_name.as_ref().map(pod),
            ..Default::default()
        }],
        ports: Some(vec![EndpointPort {
            // The Service's name for it.
            name: Some(name.to_owned()),
            port: Some(port.into()),
            protocol: Some("TCP".to_owned()),
            ..Default::default()
        }]),
    }
}

async fn apply<K>(client: &Client, namespace: &str, object: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: k8s_openapi::Resource + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let name = object.meta().name.as_deref().unwrap_or_default();
    Api::<K>::namespaced(client.clone(), namespace).patch(name, &parameters, &Patch::Apply(object)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::tests;

    #[test]
    fn an_endpoint_is_the_pod_of_this_name_and_uid() {
        let [pod_name, pod_uid] = ["aggregator-1", "1-1"].map(|text| Some(text.to_owned()));
        let config = Config { pod_name: pod_name.clone(), pod_uid: pod_uid.clone(), ..tests::config() };
        let slice = endpoint_slice(&config, [10, 0, 0, 7].into(), (LINK, "https"), 8443);
        let pod = slice.endpoints[0].target_ref.clone().unwrap();
        assert_eq!((pod.kind.as_deref(), pod.name, pod.uid), (Some("Pod"), pod_name, pod_uid));
    }
}
