//! Who the ends of a request were.

use std::net::IpAddr;

use jiff::Timestamp;
use kestrel_als::{Key, Side, identity::Identity, names_somebody};

use super::super::resolve::{Named, of_resident, service};
use crate::inventory::Resident;

/// Who asked whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: End,
    pub(super) destination: End,
    /// The Service that was called, if it is known; else it has no name.
    pub(super) service: Named,
}

/// One end. Its address is not part of who it is: replicas have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) address: Option<IpAddr>,
    pub(super) named: Named,
}

impl End {
    fn unknown(address: Option<IpAddr>) -> Self {
        Self { address, named: Named::unknown() }
    }
}

/// Of `key`, whose reporter is `identity`; `resident` knows who had an address then.
pub(super) fn resolve(
    key: &Key<'_>,
    identity: &Identity,
    time: Timestamp,
    resident: impl Fn(IpAddr, Timestamp) -> Option<Resident>,
) -> Ends {
    let own = reporter(identity, time, &resident);
    let address = text(key.peer).parse::<IpAddr>().ok().filter(|address| !address.is_loopback());
    let found = address.and_then(|address| resident(address, time)).map(|found| of_resident(&found));
    match key.side {
        Side::Client => {
            // Who is called at its own address is not the client.
            let found = found.filter(|found| !key.cluster.is_empty() || *found != own.named);
            let service = match &found {
                Some(found) if found.kind == "Service" && !names_somebody(key.cluster) => Some(found.clone()),
                _ => service_of(key),
            };
            let named = found.or_else(|| service.clone()).unwrap_or_else(Named::unknown);
            let service = service.unwrap_or_default();
            Ends { source: own, destination: End { address, named }, service }
        }
        Side::Server => {
            let principal = principal(&text(key.principal));
            // A certificate was checked by whoever reports; an address may have been somebody else's in between.
            let named = match (found, principal) {
                (Some(found), Some(by)) if found.ns != by.ns => by,
                (Some(found), _) => found,
                (None, Some(by)) => by,
                (None, None) => {
                    let source = End::unknown(address);
                    return Ends { source, destination: own, service: Named::default() };
                }
            };
            Ends { source: End { address, named }, destination: own, service: Named::default() }
        }
    }
}

/// Who reports: the pod that has the address of its connection, whatever it says. Behind a node's or nobody's there may be any: whoever
/// has the address that it says, if that agrees with its names.
pub(super) fn reporter(
    identity: &Identity,
    time: Timestamp,
    resident: impl Fn(IpAddr, Timestamp) -> Option<Resident>,
) -> End {
    let Identity { peer, address, pod, namespace, kind, workload, id } = identity;
    let at = |address: Option<IpAddr>| Some(of_resident(&resident(address?, time)?));
    if let Some(named) = at(*peer).filter(|named| !matches!(&*named.kind, "Node" | "Service")) {
        return End { address: *peer, named };
    }
    let found = at(*address);
    let said = |kind: &str, name: &str| Named {
        ns: namespace.clone(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        ..Named::default()
    };
    let named = match found {
        Some(found) if namespace.is_empty() || found.ns == *namespace => found,
        _ if !kind.is_empty() => said(kind, workload),
        _ if !pod.is_empty() => said("Pod", pod),
        _ if !workload.is_empty() => said("Unmanaged", workload),
        _ if !id.is_empty() => said("Unmanaged", id),
        _ => Named::unknown(),
    };
    End { address: *address, named }
}

/// `spiffe://domain/ns/NAMESPACE/sa/ACCOUNT`.
fn principal(uri: &str) -> Option<Named> {
    let path = uri.strip_prefix("spiffe://")?.split_once('/')?.1;
    match path.split('/').collect::<Vec<_>>()[..] {
        ["ns", ns, "sa", name] if !ns.is_empty() && !name.is_empty() => Some(Named {
            ns: ns.to_owned(),
            kind: "ServiceAccount".to_owned(),
            name: name.to_owned(),
            ..Named::default()
        }),
        _ => None,
    }
}

/// What the client called: by Istio's name of the cluster, `outbound|port|subset|host` and of a waypoint `inbound-vip|…`, by the host
/// that it asked for where the cluster is for everybody, or by the cluster's own name.
fn service_of(key: &Key<'_>) -> Option<Named> {
    let (cluster, authority) = (text(key.cluster), text(key.authority));
    let name = match cluster.split('|').collect::<Vec<_>>()[..] {
        ["outbound" | "inbound-vip", _, _, host] => host,
        ["inbound", ..] => "",
        _ if authority.is_empty() && names_somebody(key.cluster) => &cluster,
        _ => without_port(&authority),
    };
    (!name.is_empty() && name.parse::<IpAddr>().is_err()).then(|| service(name))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host.trim_matches(['[', ']']),
        _ => authority,
    }
}

/// Checked: it may go out.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.retain(|sign| !sign.is_control());
    text
}

#[cfg(test)]
mod tests {
    use kestrel_als::{entry::Protocol, flags::Flags};

    use super::*;

    fn resident(address: IpAddr, _: Timestamp) -> Option<Resident> {
        let workload = match address.to_string().as_str() {
            "10.0.0.1" => "shop.Deployment.web",
            "10.0.0.2" => "shop.StatefulSet.db",
            "10.96.0.7" => "shop.Service.db",
            "10.1.0.1" => ".Node.n1",
            _ => return None,
        };
        Some(Resident { workload: workload.into(), labels: [].into(), node: "n1".into() })
    }

    fn name(end: &End) -> String {
        format!("{}/{}/{}", end.named.ns, end.named.kind, end.named.name)
    }

    fn ends(
        side: Side,
        [peer, cluster, authority, principal]: [&str; 4],
        identity: &Identity,
    ) -> [String; 3] {
        let key = Key {
            reporter: 0,
            side,
            protocol: Protocol::Http,
            method: 1,
            grpc_status: None,
            code: 200,
            port: 80,
            flags: Flags::default(),
            peer: peer.as_bytes(),
            cluster: cluster.as_bytes(),
            authority: authority.as_bytes(),
            principal: principal.as_bytes(),
            template: b"/",
        };
        let ends = resolve(&key, identity, Timestamp::UNIX_EPOCH, resident);
        [name(&ends.source), name(&ends.destination), ends.service.name]
    }

    #[test]
    fn ends_are_who_had_the_address_or_who_the_certificate_or_the_proxy_names() {
        let web = Identity {
            address: "10.0.0.1".parse().ok(),
            namespace: "shop".to_owned(),
            ..Identity::default()
        };
        let db = "outbound|5432||db.shop.svc.cluster.local";
        for (side, about, expected) in [
            (Side::Client, ["10.0.0.2", db, "", ""], ["shop/Deployment/web", "shop/StatefulSet/db", "db"]),
            (Side::Client, ["", db, "", ""], ["shop/Deployment/web", "shop/Service/db", "db"]),
            // Nobody was reached, whatever the client calls it.
            (
                Side::Client,
                ["10.96.0.7", "", "db:5000", ""],
                ["shop/Deployment/web", "shop/Service/db", "db"],
            ),
            (Side::Client, ["10.0.0.2", "", "", ""], ["shop/Deployment/web", "shop/StatefulSet/db", ""]),
            (Side::Client, ["10.0.0.1", "", "", ""], ["shop/Deployment/web", "/Unknown/unknown", ""]),
            (
                Side::Client,
                ["", "inbound-vip|80|http|db.shop.svc.cluster.local", "", ""],
                ["shop/Deployment/web", "shop/Service/db", "db"],
            ),
            (
                Side::Client,
                ["192.0.2.1", "PassthroughCluster", "api.example.com:443", ""],
                ["shop/Deployment/web", "/Unmanaged/api.example.com", "api.example.com"],
            ),
            (
                Side::Client,
                ["192.0.2.1", "PassthroughCluster", "192.0.2.1:443", ""],
                ["shop/Deployment/web", "/Unknown/unknown", ""],
            ),
            (
                Side::Client,
                ["10.0.0.2", "default/db/80", "", ""],
                ["shop/Deployment/web", "shop/StatefulSet/db", "default/db/80"],
            ),
            (
                Side::Server,
                ["10.0.0.2", "inbound|80||", "", ""],
                ["shop/StatefulSet/db", "shop/Deployment/web", ""],
            ),
            (
                Side::Server,
                ["10.0.0.2", "inbound|80||", "", "spiffe://cluster.local/ns/bank/sa/teller"],
                ["bank/ServiceAccount/teller", "shop/Deployment/web", ""],
            ),
            (
                Side::Server,
                ["10.9.9.9", "inbound|80||", "", "spiffe://cluster.local/ns/shop/sa/job"],
                ["shop/ServiceAccount/job", "shop/Deployment/web", ""],
            ),
            (
                Side::Server,
                ["127.0.0.6", "inbound|80||", "", "x"],
                ["/Unknown/unknown", "shop/Deployment/web", ""],
            ),
        ] {
            assert_eq!(ends(side, about, &web), expected, "{about:?}");
        }
    }

    #[test]
    fn a_reporter_is_who_has_its_address_or_what_it_says() {
        let over = |peer: &str, address: &str, parts: [&str; 5]| {
            let [namespace, pod, kind, workload, id] = parts.map(str::to_owned);
            let [peer, address] = [peer, address].map(|address| address.parse().ok());
            let identity = Identity { peer, address, namespace, pod, kind, workload, id };
            let end = reporter(&identity, Timestamp::UNIX_EPOCH, resident);
            (name(&end), end.address.map(|address| address.to_string()).unwrap_or_default())
        };
        let say = |address: &str, parts: [&str; 5]| over("", address, parts).0;
        assert_eq!(say("10.0.0.1", ["", "", "", "", ""]), "shop/Deployment/web");
        assert_eq!(say("10.0.0.1", ["bank", "teller-0", "", "", "x"]), "bank/Pod/teller-0");
        assert_eq!(
            say("10.9.9.9", ["bank", "teller-0", "StatefulSet", "teller", "x"]),
            "bank/StatefulSet/teller"
        );
        assert_eq!(say("", ["", "", "", "", "envoy-1"]), "/Unmanaged/envoy-1");
        assert_eq!(say("", ["", "", "", "", ""]), "/Unknown/unknown");
        // By which address a pod is known, whatever it says.
        let teller = ["bank", "teller-0", "StatefulSet", "teller", "x"];
        for address in ["10.0.0.1", "10.0.0.2", "10.9.9.9", ""] {
            let (web, at) = ("shop/Deployment/web".to_owned(), "10.0.0.1".to_owned());
            assert_eq!(over("10.0.0.1", address, teller), (web, at), "{address}");
        }
        // Behind a node's address, or one outside, there may be any.
        for peer in ["10.1.0.1", "192.0.2.1"] {
            assert_eq!(over(peer, "10.0.0.2", ["shop", "db-0", "", "", "x"]).0, "shop/StatefulSet/db");
            assert_eq!(over(peer, peer, teller), ("bank/StatefulSet/teller".to_owned(), peer.to_owned()));
        }
    }
}
