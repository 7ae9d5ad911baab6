//! Who sends a stream.

use std::net::IpAddr;

use kestrel_proto::node::v1::RequestProxy;

use crate::wire::{Fields, Malformed, Value};

/// Bytes of a name that are kept.
const MOST_BYTES: usize = 256;

/// An Envoy, as it says itself at the beginning of its stream, and where it connected from. What it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Address of its connection, if that is known.
    pub peer: Option<IpAddr>,
    /// Its node id; of Istio `type~address~pod.namespace~domain`.
    pub id: String,
    /// Its pod's address.
    pub address: Option<IpAddr>,
    /// Its pod.
    pub pod: String,
    /// Its pod's namespace.
    pub namespace: String,
    /// Kind of its workload, such as `Deployment`.
    pub kind: String,
    /// Name of its workload.
    pub workload: String,
}

impl Identity {
    /// Reads an encoded `Identifier`; what is malformed says nothing.
    pub fn read(identifier: &[u8]) -> Self {
        let mut identity = Self::default();
        let (mut fields, mut own) = (Fields::new(identifier), Own::default());
        while let Ok(Some((field, value))) = fields.next() {
            if field == 1
                && let Err(Malformed) = own.node(value.bytes())
            {
                own = Own::default();
            }
        }
        identity.id = text(own.id);
        if let [_, address, pod, _] = identity.id.split('~').collect::<Vec<_>>()[..] {
            identity.address = address.parse().ok();
            if let Some((pod, namespace)) = pod.rsplit_once('.') {
                (identity.pod, identity.namespace) = (pod.to_owned(), namespace.to_owned());
            }
        }
        for (known, said) in [
            (&mut identity.pod, own.pod),
            (&mut identity.namespace, own.namespace),
            (&mut identity.workload, own.workload),
        ] {
            if !said.is_empty() {
                *known = text(said);
            }
        }
        // kubernetes://apis/apps/v1/namespaces/shop/deployments/web
        if let [name, kind, ..] = text(own.owner).rsplit('/').collect::<Vec<_>>()[..]
            && let Some(kind) = kind_of(kind)
        {
            (identity.kind, identity.workload) = (kind.to_owned(), name.to_owned());
        }
        identity
    }

    /// It says so over a connection from `peer`; where it does not say at which address it is, it is at that one.
    pub fn over(self, peer: IpAddr) -> Self {
        Self { peer: Some(peer), address: self.address.or(Some(peer)), ..self }
    }

    /// As a receiver elsewhere says; what is no address is none.
    pub fn of(proxy: &RequestProxy) -> Self {
        Self {
            peer: address(&proxy.peer),
            id: text(proxy.id.as_bytes()),
            address: address(&proxy.address),
            pod: text(proxy.pod.as_bytes()),
            namespace: text(proxy.namespace.as_bytes()),
            kind: text(proxy.kind.as_bytes()),
            workload: text(proxy.workload.as_bytes()),
        }
    }

    /// Says it to the aggregator.
    pub(crate) fn to_wire(&self) -> RequestProxy {
        let bytes = |address: Option<IpAddr>| match address {
            Some(IpAddr::V4(address)) => address.octets().to_vec(),
            Some(IpAddr::V6(address)) => address.octets().to_vec(),
            None => Vec::new(),
        };
        RequestProxy {
            peer: bytes(self.peer).into(),
            id: self.id.clone(),
            address: bytes(self.address).into(),
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            kind: self.kind.clone(),
            workload: self.workload.clone(),
            ..RequestProxy::default()
        }
    }
}

/// What is used of a `Node`.
#[derive(Default)]
struct Own<'a> {
    id: &'a [u8],
    pod: &'a [u8],
    namespace: &'a [u8],
    workload: &'a [u8],
    owner: &'a [u8],
}

impl<'a> Own<'a> {
    fn node(&mut self, node: &'a [u8]) -> Result<(), Malformed> {
        let mut fields = Fields::new(node);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => self.id = value.bytes(),
                3 => self.metadata(value.bytes())?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A `Struct`: entries of a name and a `Value`, of which texts are used.
    fn metadata(&mut self, metadata: &'a [u8]) -> Result<(), Malformed> {
        let mut entries = Fields::new(metadata);
        while let Some((_, entry)) = entries.next()? {
            let (mut fields, mut name, mut said) = (Fields::new(entry.bytes()), &[][..], &[][..]);
            while let Some((field, value)) = fields.next()? {
                match field {
                    1 => name = value.bytes(),
                    2 => {
                        let mut kinds = Fields::new(value.bytes());
                        while let Some((kind, value)) = kinds.next()? {
                            if let (3, Value::Bytes(text)) = (kind, value) {
                                said = text;
                            }
                        }
                    }
                    _ => {}
                }
            }
            match name {
                b"NAME" => self.pod = said,
                b"NAMESPACE" => self.namespace = said,
                b"WORKLOAD_NAME" => self.workload = said,
                b"OWNER" => self.owner = said,
                _ => {}
            }
        }
        Ok(())
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let address = match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    address.map(|address| address.to_canonical())
}

/// Of a resource, as paths of the API name it.
fn kind_of(resource: &str) -> Option<&'static str> {
    Some(match resource {
        "deployments" => "Deployment",
        "statefulsets" => "StatefulSet",
        "daemonsets" => "DaemonSet",
        "replicasets" => "ReplicaSet",
        "jobs" => "Job",
        "cronjobs" => "CronJob",
        "pods" => "Pod",
        _ => return None,
    })
}

/// Checked and cut.
fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes.get(..MOST_BYTES).unwrap_or(bytes)).into_owned();
    text.retain(|sign| !sign.is_control());
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kestrel_proto::envoy::{
        config::core::v3::Node, service::accesslog::v3::stream_access_logs_message::Identifier,
    };
    use prost::Message as _;
    use prost_types::{Struct, value::Kind};

    use super::*;

    fn identity(id: &str, metadata: &[(&str, &str)]) -> Identity {
        let value = |text: &&str| prost_types::Value { kind: Some(Kind::StringValue((*text).to_owned())) };
        let fields: BTreeMap<_, _> =
            metadata.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
        let node = Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() };
        Identity::read(&Identifier { node: Some(node), log_name: "kestrel".to_owned() }.encode_to_vec())
    }

    #[test]
    fn an_envoy_is_who_its_id_and_its_metadata_say() {
        let plain = identity("sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", &[]);
        assert_eq!(plain.address, Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!([&*plain.pod, &plain.namespace, &plain.kind, &plain.workload], ["web-1", "shop", "", ""]);
        let owned = identity(
            "router~10.0.0.2~gateway-x.istio-system~istio-system.svc.cluster.local",
            &[
                ("OWNER", "kubernetes://apis/apps/v1/namespaces/istio-system/deployments/gateway"),
                ("WORKLOAD_NAME", "gw"),
                ("ANYTHING", "else"),
            ],
        );
        assert_eq!([&*owned.pod, &owned.kind, &owned.workload], ["gateway-x", "Deployment", "gateway"]);
        let contour = identity("envoy-abc", &[("NAMESPACE", "projectcontour")]);
        assert_eq!([&*contour.id, &contour.pod, &contour.namespace], ["envoy-abc", "", "projectcontour"]);
        assert_eq!(Identity::read(&[0xff, 0xff]), Identity::default());
        for identity in [plain.over([10, 0, 0, 9].into()), owned, contour] {
            assert_eq!(Identity::of(&identity.to_wire()), identity);
        }
    }
}
