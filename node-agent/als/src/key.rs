//! What entries have in common that are counted together, in bytes: one comparison and one hash.

use memchr::memrchr;

use crate::{
    entry::{Entry, Protocol},
    flags::Flags,
    template,
    window::{Fold, Reporter},
};

/// At which end of the conversation the reporting proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// With the client, or between it and the server.
    Client,
    /// With the server.
    Server,
}

/// Bytes of a text that are kept.
const MOST_TEXT: usize = 255;
/// Bytes of a template that somebody else made; none of ours is longer.
const MOST_TEMPLATE: usize = 512;

/// What entries have in common. Texts are unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// Number of the [`Reporter`].
    pub reporter: u32,
    /// Its end.
    pub side: Side,
    /// What was spoken.
    pub protocol: Protocol,
    /// `RequestMethod` of Envoy.
    pub method: u8,
    /// Of gRPC, if it is known.
    pub grpc_status: Option<u8>,
    /// Status; 0: there was none.
    pub code: u16,
    /// Of the server.
    pub port: u16,
    /// Why they ended so.
    pub flags: Flags,
    /// Address of the other end: of the server at the client's, of the client at the server's. Without a cluster it is the one that the
    /// client called.
    pub peer: &'a [u8],
    /// The proxy's name for who answers; empty: nobody did.
    pub cluster: &'a [u8],
    /// The client's, where the cluster names nobody.
    pub authority: &'a [u8],
    /// The client, by its certificate.
    pub principal: &'a [u8],
    /// Of the path; empty: there is none.
    pub template: &'a [u8],
}

/// Length of what precedes the texts.
const HEAD: usize = 20;

impl<'a> Key<'a> {
    /// Reads a key as a window keeps it; `None`: it is none.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, texts) = bytes.split_first_chunk::<HEAD>()?;
        let [r0, r1, r2, r3, side, protocol, method, grpc, c0, c1, p0, p1, f0, f1, f2, f3, lengths @ ..] =
            *head;
        let mut rest = texts;
        let [peer, cluster, authority, principal] = lengths.map(|length| {
            let (text, after) = rest.split_at_checked(length.into()).unwrap_or((rest, &[]));
            rest = after;
            text
        });
        Some(Self {
            reporter: u32::from_le_bytes([r0, r1, r2, r3]),
            side: if side == 0 { Side::Client } else { Side::Server },
            protocol: match protocol {
                0 => Protocol::Tcp,
                1 => Protocol::Http,
                _ => Protocol::Grpc,
            },
            method,
            grpc_status: (grpc != u8::MAX).then_some(grpc),
            code: u16::from_le_bytes([c0, c1]),
            port: u16::from_le_bytes([p0, p1]),
            flags: Flags(u32::from_le_bytes([f0, f1, f2, f3])),
            peer,
            cluster,
            authority,
            principal,
            template: rest,
        })
    }
}

/// Appends the key of an entry to `out`, with as much of it left out as `fold` says.
pub(crate) fn write(out: &mut Vec<u8>, reporter: &Reporter, entry: &Entry<'_>, fold: Fold) {
    let side = side(reporter, entry);
    let [peer, server] = match side {
        // Nobody was reached, and Envoy names no cluster then: it is whose address the client called.
        Side::Client if entry.cluster.is_empty() && entry.upstream.ip.is_empty() => [entry.local.ip, &[]],
        Side::Client => [entry.upstream.ip, entry.upstream.ip],
        Side::Server if entry.client.ip.is_empty() => [entry.client_by_header.ip, &[]],
        Side::Server => [entry.client.ip, &[]],
    };
    let key = Key {
        reporter: reporter.number,
        side,
        protocol: entry.protocol,
        method: entry.method,
        grpc_status: entry.grpc_status,
        code: entry.code,
        port: if server.is_empty() { entry.local.port } else { entry.upstream.port },
        flags: entry.flags,
        peer,
        cluster: entry.cluster,
        authority: if side == Side::Client && !names_somebody(entry.cluster) { entry.authority } else { &[] },
        // What only one end knows would keep both apart, and of a client that spoke for itself nobody else has to.
        principal: if side == Side::Server { entry.principal } else { &[] },
        template: &[],
    };
    put(out, &key, fold);
    if fold == Fold::Nothing && entry.protocol != Protocol::Tcp {
        template::write(entry.path, out);
    }
}

/// Likewise of a key that somebody else wrote.
pub(crate) fn write_again(out: &mut Vec<u8>, key: &Key<'_>, fold: Fold) {
    put(out, key, fold);
    if fold == Fold::Nothing {
        out.extend_from_slice(key.template.get(..MOST_TEMPLATE).unwrap_or(key.template));
    }
}

/// All of a key but a template of its own.
fn put(out: &mut Vec<u8>, key: &Key<'_>, fold: Fold) {
    let grpc = key.grpc_status.unwrap_or(u8::MAX);
    let (head, texts) = match fold {
        Fold::Nothing | Fold::Path => (
            (key.method, grpc, key.code, key.port, key.flags),
            [key.peer, key.cluster, key.authority, key.principal],
        ),
        Fold::Detail => (
            (0, grpc, key.code / 100 * 100, 0, key.flags),
            [key.peer, key.cluster, key.authority, key.principal],
        ),
        Fold::Peer => ((0, grpc, key.code / 100 * 100, 0, key.flags), [&[], key.cluster, key.authority, &[]]),
        Fold::All => ((0, u8::MAX, 0, 0, Flags::default()), [&[][..]; 4]),
    };
    let (method, grpc, code, port, Flags(flags)) = head;
    let [peer, cluster, authority, principal] = texts;
    let texts = [peer, cluster, host(authority), principal].map(|text| text.get(..MOST_TEXT).unwrap_or(text));
    out.extend_from_slice(&key.reporter.to_le_bytes());
    out.extend_from_slice(&[key.side as u8, key.protocol as u8, method, grpc]);
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&port.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    // They fit: each was cut.
    out.extend(texts.map(|text| text.len() as u8));
    texts.iter().for_each(|text| out.extend_from_slice(text));
    if fold != Fold::Nothing && key.protocol != Protocol::Tcp {
        out.extend_from_slice(template::OTHER.as_bytes());
    }
}

/// By Istio's names of clusters; by another's, whether what answers is in the reporter's own pod; without one, by whose address
/// the client called.
fn side(reporter: &Reporter, entry: &Entry<'_>) -> Side {
    let is_own = |ip: &[u8]| !reporter.address.is_empty() && *ip == *reporter.address;
    let is_inbound = match entry.cluster {
        [] => is_own(entry.local.ip),
        b"InboundPassthroughCluster" => true,
        cluster if cluster.starts_with(b"outbound|") => false,
        cluster if cluster.starts_with(b"inbound|") => true,
        _ => {
            entry.upstream.ip.starts_with(b"127.") || entry.upstream.ip == b"::1" || is_own(entry.upstream.ip)
        }
    };
    if is_inbound { Side::Server } else { Side::Client }
}

/// An authority without a name and a password before it.
pub(crate) fn host(authority: &[u8]) -> &[u8] {
    memrchr(b'@', authority).and_then(|at| authority.get(at + 1..)).unwrap_or(authority)
}

/// Whether a cluster is one of somebody, and not of whoever the client called.
pub fn names_somebody(cluster: &[u8]) -> bool {
    !matches!(
        cluster,
        b"" | b"PassthroughCluster"
            | b"InboundPassthroughCluster"
            | b"BlackHoleCluster"
            | b"original-dst-cluster"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Address;

    fn write(out: &mut Vec<u8>, reporter: &Reporter, entry: &Entry<'_>, fold: Fold) {
        out.clear();
        super::write(out, reporter, entry, fold);
    }

    fn write_again(out: &mut Vec<u8>, key: &Key<'_>, fold: Fold) {
        out.clear();
        super::write_again(out, key, fold);
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let reporter = Reporter { number: 7, address: (*b"10.0.0.1").into() };
        let mut entry = Entry {
            protocol: Protocol::Grpc,
            upstream: Address { ip: b"10.0.0.2", port: 9080 },
            client: Address { ip: b"10.0.0.3", port: 40_000 },
            local: Address { ip: b"10.0.0.1", port: 8080 },
            cluster: b"outbound|80||web.shop.svc.cluster.local",
            authority: b"web",
            principal: b"spiffe://cluster.local/ns/shop/sa/web",
            flags: Flags::UPSTREAM_FAILURE,
            code: 503,
            method: 3,
            grpc_status: Some(14),
            path: b"/a/17",
            ..Entry::default()
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &reporter, &entry, Fold::Nothing);
        let key = Key::read(&bytes).unwrap();
        let expected = Key {
            reporter: 7,
            side: Side::Client,
            protocol: Protocol::Grpc,
            method: 3,
            grpc_status: Some(14),
            code: 503,
            port: 9080,
            flags: Flags::UPSTREAM_FAILURE,
            peer: b"10.0.0.2",
            cluster: entry.cluster,
            authority: b"",
            principal: b"",
            template: b"/a/:id",
        };
        assert_eq!(key, expected);

        entry.cluster = b"inbound|8080||";
        write(&mut bytes, &reporter, &entry, Fold::Nothing);
        let written = bytes.clone();
        let mut again = Vec::new();
        write_again(&mut again, &Key::read(&written).unwrap(), Fold::Nothing);
        assert_eq!(again, written);

        write(&mut bytes, &reporter, &entry, Fold::Path);
        write_again(&mut again, &Key::read(&bytes.clone()).unwrap(), Fold::Nothing);
        assert_eq!(again, bytes);
        let key = Key::read(&bytes).unwrap();
        assert_eq!((key.side, key.peer, key.port), (Side::Server, &b"10.0.0.3"[..], 8080));
        assert_eq!((key.principal, key.template), (entry.principal, &b":other"[..]));

        entry.cluster = b"";
        write(&mut bytes, &reporter, &entry, Fold::Detail);
        let key = Key::read(&bytes).unwrap();
        assert_eq!((key.side, key.method, key.code, key.port), (Side::Server, 0, 500, 0));
        assert_eq!((key.grpc_status, key.flags), (Some(14), Flags::UPSTREAM_FAILURE), "whether it failed");
        assert_eq!((key.peer, key.principal), (&b"10.0.0.3"[..], entry.principal), "and whose it was");
        write(&mut bytes, &reporter, &entry, Fold::Peer);
        let key = Key::read(&bytes).unwrap();
        assert_eq!((key.side, key.code, key.peer, key.principal), (Side::Server, 500, &[][..], &[][..]));
        assert_eq!(key.flags, Flags::UPSTREAM_FAILURE);

        (entry.local, entry.upstream) = (Address { ip: b"10.96.0.7", port: 80 }, Address::default());
        write(&mut bytes, &reporter, &entry, Fold::Nothing);
        let key = Key::read(&bytes).unwrap();
        assert_eq!(
            (key.side, key.peer, key.port),
            (Side::Client, &b"10.96.0.7"[..], 80),
            "it reached nobody"
        );

        entry.local = Address::default();
        write(&mut bytes, &reporter, &entry, Fold::Nothing);
        assert_eq!(
            (Key::read(&bytes).unwrap().side, Key::read(&bytes).unwrap().authority),
            (Side::Client, &b"web"[..])
        );
        write(&mut bytes, &reporter, &entry, Fold::All);
        let key = Key::read(&bytes).unwrap();
        assert_eq!((key.reporter, key.code, key.cluster, key.template), (7, 0, &[][..], &b":other"[..]));
        assert!(Key::read(&bytes[..HEAD - 1]).is_none());
    }

    #[test]
    fn a_sidecar_without_istio_is_at_the_server_of_what_its_own_pod_answers() {
        let reporter = Reporter { number: 7, address: (*b"10.0.0.1").into() };
        let mut bytes = Vec::new();
        let mut key = |cluster: &'static str, upstream: &'static str| {
            let entry = Entry {
                protocol: Protocol::Http,
                upstream: Address { ip: upstream.as_bytes(), port: 8080 },
                client: Address { ip: b"10.0.0.3", port: 40_000 },
                local: Address { ip: b"10.0.0.1", port: 80 },
                cluster: cluster.as_bytes(),
                ..Entry::default()
            };
            write(&mut bytes, &reporter, &entry, Fold::Nothing);
            let key = Key::read(&bytes).unwrap();
            (key.side, String::from_utf8(key.peer.to_vec()).unwrap(), key.port)
        };
        for upstream in ["127.0.0.1", "::1", "10.0.0.1"] {
            assert_eq!(key("local_app", upstream), (Side::Server, "10.0.0.3".to_owned(), 80));
        }
        assert_eq!(key("db", "10.0.0.2"), (Side::Client, "10.0.0.2".to_owned(), 8080));
        let own_port = "outbound|14080||kestrel-collector-als.kestrel.internal";
        assert_eq!(key(own_port, "127.0.0.1").0, Side::Client);
    }

    #[test]
    fn names_and_passwords_are_no_part_of_an_authority() {
        let reporter = Reporter { number: 7, address: [].into() };
        let authority = format!("{}:pw@api.example.com:443", "jane".repeat(100));
        let entry = Entry { authority: authority.as_bytes(), ..Entry::default() };
        let mut bytes = Vec::new();
        write(&mut bytes, &reporter, &entry, Fold::Nothing);
        let key = Key::read(&bytes).unwrap();
        assert_eq!(key.authority, b"api.example.com:443");
        let mut again = Vec::new();
        write_again(&mut again, &Key { authority: authority.as_bytes(), ..key }, Fold::Nothing);
        assert_eq!(again, bytes, "nor of what somebody else has counted");
    }
}
