//! Rows of ten seconds in, messages of the wire out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kestrel_als::{
    Counts, Key, Side, Span,
    entry::{Cause, Protocol},
    flags::Flags,
    template,
};
use kestrel_proto::cloud::v1::{
    HttpAccessLogData, L7AccessLog, L7Endpoint, L7ProtocolType, TcpAccessLogData,
};

use super::{
    super::conversation::time,
    answers::Seen,
    ends::{End, Ends, text},
    views::{self, Part},
};
use crate::signals::{edges::requests::Answers, uid};

/// Rows of one edge that are told with their paths.
const MOST_PATHS: usize = 1000;

/// Why entries that were counted are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// One of their ends is in a namespace that tells nothing.
    Excluded,
    /// They are the operator's own.
    Own,
}

/// What comes of a window.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) messages: u64,
    /// Entries in them.
    pub(super) entries: u64,
    /// Those of them that are told without their path, which they had.
    pub(super) folded: u64,
    /// Entries that the other end's proxy has told.
    pub(super) twice: u64,
    /// Entries that stay in the cluster.
    pub(super) excluded: u64,
    /// The operator's own.
    pub(super) own: u64,
    /// What came of the requests of each edge.
    pub(super) answers: Vec<(Arc<Ends>, Answers)>,
}

/// Who asked whom, over all replicas.
#[derive(PartialEq, Eq, Hash)]
struct Edge([String; 2]);

impl Edge {
    fn number(&self) -> u64 {
        let Self([source, destination]) = self;
        // Its lower half is as good.
        uid::hash(&format!("{source}\n{destination}")) as u64
    }
}

/// An edge's entries, as either end saw them.
struct Views<'w> {
    ends: Arc<Ends>,
    /// Requests, as the server sees them.
    client: u64,
    server: u64,
    seen: Seen<'w>,
}

/// What is told apart of an edge.
#[derive(PartialEq, Eq, Hash)]
struct Row {
    service: String,
    protocol: Protocol,
    method: u8,
    code: u16,
    grpc_status: Option<u8>,
    flags: Flags,
    port: u16,
    path: String,
}

/// A row that will be told: its counts, and of the first of its entries who was who.
struct Telling {
    ends: Arc<Ends>,
    node: Arc<str>,
    cluster: String,
    counts: Counts,
}

/// Rows with this in common are of the same ends.
type Who<'a> = (u32, Side, [&'a [u8]; 4]);

/// Who that was, which edge that is, and the reporter's node id.
struct Found {
    ends: Arc<Ends>,
    edge: usize,
    node: Arc<str>,
}

/// Tells what was counted of ten seconds, message by message, edge after edge: all at once would take several times the memory of
/// what was counted. `ends` says who was who and which node reported, or why that stays here.
///
/// Where both ends' proxies report, every request is in the window twice. Of each edge that is told which is more than `open` says to have
/// been told, of one end's view, as the other one's proxies did not see, or did not get through to us with, all of them. That a
/// policy refused a request only the server's proxy knows: it is told of the client's view too.
pub(super) fn tell(
    (number, span): (u64, &Span),
    open: &mut views::Open,
    ends: impl Fn(&Key<'_>, &Counts) -> Result<(Ends, Arc<str>), Kept>,
    mut send: impl FnMut(L7AccessLog),
) -> Told {
    let mut told = Told::default();
    let (mut edges, mut views): (HashMap<Edge, usize>, Vec<Views<'_>>) = Default::default();
    let mut known: HashMap<Who<'_>, Result<Found, Kept>> = HashMap::new();
    let mut denials: HashMap<Refused<'_>, &Counts> = HashMap::new();
    for (key, counts) in span.rows() {
        let found = known.entry(who(&key)).or_insert_with(|| {
            let (ends, node) = ends(&key, counts)?;
            let (edge, ends) = (Edge([&ends.source, &ends.destination].map(place)), Arc::new(ends));
            let edge = *edges.entry(edge).or_insert_with(|| {
                let (ends, seen) = (Arc::clone(&ends), Seen::default());
                views.push(Views { ends, client: 0, server: 0, seen });
                views.len() - 1
            });
            Ok(Found { ends, edge, node })
        });
        let found = match found {
            Ok(found) => found,
            Err(Kept::Excluded) => {
                told.excluded = told.excluded.saturating_add(counts.count);
                continue;
            }
            Err(Kept::Own) => {
                told.own = told.own.saturating_add(counts.count);
                continue;
            }
        };
        let views = &mut views[found.edge];
        views.seen.add(&key, counts);
        match key.side {
            Side::Client => views.client = views.client.saturating_add(counts.at_server()),
            Side::Server => views.server = views.server.saturating_add(counts.count),
        }
        if let (Side::Server, true, Some(refused)) =
            (key.side, key.flags.any(Flags::DENIED), refused(found.edge, &key))
        {
            denials.insert(refused, counts);
        }
    }
    let mut of_edges: Vec<_> = span
        .rows()
        .filter_map(|(key, counts)| match known.get(&who(&key)) {
            Some(Ok(found)) => Some((found, key, counts)),
            _ => None,
        })
        .collect();
    of_edges.sort_by_key(|(found, ..)| found.edge);
    let mut surplus = surplus(&views);
    let mut parts: Vec<Option<Part>> = vec![None; views.len()];
    for (edge, at) in edges {
        let Views { client, server, .. } = views[at];
        parts[at] = Some(open.add(number, || edge.number(), [client, server]));
    }
    for of_edge in of_edges.chunk_by(|(one, ..), (other, ..)| one.edge == other.edge) {
        let mut rows: HashMap<Row, Telling> = HashMap::new();
        for (found, key, counts) in of_edge {
            views[found.edge].seen.add_to_route(key, counts);
            let part = parts[found.edge].as_mut().filter(|part| part.side == key.side);
            let mut here = part.map_or(0, |part| part.next(counts.count));
            if has_lost_the_other_end(key)
                && let Some(known) = surplus.get_mut(&(key.side, own_place(&found.ends, key.side)))
            {
                let of_other_end = here.min(*known);
                *known -= of_other_end;
                here -= of_other_end;
            }
            told.twice = told.twice.saturating_add(counts.count.saturating_sub(here));
            if here == 0 {
                continue;
            }
            told.entries = told.entries.saturating_add(here);
            let mut row = Row {
                service: found.ends.service.name.clone(),
                protocol: key.protocol,
                method: key.method,
                code: key.code,
                grpc_status: key.grpc_status,
                flags: key.flags,
                port: key.port,
                path: text(key.template),
            };
            let denial = refused(found.edge, key).filter(|_| key.side == Side::Client);
            let denial = denial.and_then(|refused| denials.get(&refused));
            if denial.is_some() {
                row.flags.add(Flags::DENIED);
            }
            if rows.len() >= MOST_PATHS && !row.path.is_empty() && !rows.contains_key(&row) {
                if row.path != template::OTHER {
                    told.folded = told.folded.saturating_add(here);
                }
                template::OTHER.clone_into(&mut row.path);
            }
            let telling = rows.entry(row).or_insert_with(|| {
                let (ends, node) = (Arc::clone(&found.ends), Arc::clone(&found.node));
                Telling { ends, node, cluster: text(key.cluster), counts: Counts::default() }
            });
            if here < counts.count {
                telling.counts.merge(&(*counts).clone().part(here));
            } else {
                telling.counts.merge(counts);
            }
            if let Some(denial) = denial {
                telling.counts.explain(denial);
            }
        }
        told.messages += rows.len() as u64;
        rows.into_iter().for_each(|(row, telling)| send(message(row, telling)));
    }
    told.answers = views.iter().map(|views| (Arc::clone(&views.ends), views.seen.answers())).collect();
    told
}

/// By the end whose proxies did not see them with who was at it: how many more requests the proxies of the other ends saw. So many that
/// are counted there without their other end are told already.
fn surplus(views: &[Views<'_>]) -> HashMap<(Side, String), u64> {
    let mut surplus = HashMap::new();
    for Views { ends, client, server, .. } in views {
        let is_nobody = |end: &End| end.address.is_none() && end.named.kind == "Unknown";
        if is_nobody(&ends.source) || is_nobody(&ends.destination) {
            continue;
        }
        let side = if client > server { Side::Server } else { Side::Client };
        let known: &mut u64 = surplus.entry((side, own_place(ends, side))).or_default();
        *known = known.saturating_add(client.abs_diff(*server));
    }
    surplus
}

/// Who is at the end of the proxies of this side.
fn own_place(ends: &Ends, side: Side) -> String {
    match side {
        Side::Client => place(&ends.source),
        Side::Server => place(&ends.destination),
    }
}

/// Whether there was no room to keep the other end.
fn has_lost_the_other_end(key: &Key<'_>) -> bool {
    let is_folded = key.protocol == Protocol::Tcp || key.template == template::OTHER.as_bytes();
    is_folded
        && key.peer.is_empty()
        && match key.side {
            Side::Server => key.principal.is_empty(),
            // What reached nobody says why.
            Side::Client => key.cluster.is_empty() && key.flags == Flags::default(),
        }
}

/// What both ends know of requests that were refused: their edge, method, status and path.
type Refused<'a> = (usize, u8, [u16; 2], &'a [u8]);

/// `None`: by its status it was not refused.
fn refused<'a>(edge: usize, key: &Key<'a>) -> Option<Refused<'a>> {
    const FORBIDDEN: u16 = 403;
    const PERMISSION_DENIED: u8 = 7;
    let is_refused = key.code == FORBIDDEN || key.grpc_status == Some(PERMISSION_DENIED);
    let status = [key.code, key.grpc_status.unwrap_or_default().into()];
    is_refused.then_some((edge, key.method, status, key.template))
}

fn who<'a>(key: &Key<'a>) -> Who<'a> {
    (key.reporter, key.side, [key.peer, key.cluster, key.authority, key.principal])
}

/// By name; what has none, by its address.
fn place(end: &End) -> String {
    match (&end.named, end.address) {
        (named, Some(address)) if named.kind == "Unknown" => address.to_string(),
        (named, _) => format!("{}/{}/{}", named.ns, named.kind, named.name),
    }
}

/// Where the quantiles of a row's times are, as the messages have no field for them.
const QUANTILES: [(&str, f64); 3] = [
    ("x-kestrel-latency-p50-ms", 0.5),
    ("x-kestrel-latency-p90-ms", 0.9),
    ("x-kestrel-latency-p99-ms", 0.99),
];

fn message(row: Row, telling: Telling) -> L7AccessLog {
    let Row { service, protocol, method, code, grpc_status, flags, port, path, .. } = row;
    let Telling { ends, node, cluster, counts } = telling;
    let is_tcp = protocol == Protocol::Tcp;
    let refused = Flags::DENIED.or(Flags::UNAUTHORIZED).or(Flags::NO_ROUTE).or(Flags::NO_CLUSTER);
    let allowed = !(flags.any(refused) || is_tcp && flags.any(Flags::UPSTREAM_FAILURE));
    let why = counts.why.as_deref().map(text).unwrap_or_default();
    let [mut termination, mut upstream, mut downstream] = <[String; 3]>::default();
    *match counts.cause {
        Cause::End => &mut termination,
        Cause::Upstream => &mut upstream,
        Cause::Downstream => &mut downstream,
    } = why;
    let endpoint = |end: &End, port, service_name: &str| L7Endpoint {
        ip: end.address.map(|address| address.to_string()).unwrap_or_default(),
        port,
        namespace: end.named.ns.clone(),
        kind: end.named.kind.clone(),
        name: end.named.name.clone(),
        service_name: service_name.to_owned(),
    };
    // Of one.
    let attempts = u64::from(counts.attempts).div_ceil(counts.count.max(1)) as u32;
    let mut log = L7AccessLog {
        timestamp: Some(time(counts.first)),
        source: Some(endpoint(&ends.source, 0, "")),
        destination: Some(endpoint(&ends.destination, port.into(), &service)),
        protocol: "TCP".to_owned(),
        duration_ms: i64::try_from(counts.took / 1000).unwrap_or(i64::MAX),
        bytes_sent: counts.sent,
        bytes_received: counts.received,
        allowed,
        node_id: node.to_string(),
        cluster_name: cluster,
        count: i64::try_from(counts.count).unwrap_or(i64::MAX),
        first_seen: Some(time(counts.first)),
        last_seen: Some(time(counts.last)),
        ..L7AccessLog::default()
    };
    if is_tcp {
        log.set_l7_protocol(L7ProtocolType::L7ProtocolTcp);
        log.tcp_data = Some(TcpAccessLogData {
            connection_state: "CLOSED".to_owned(),
            received_bytes: counts.sent,
            sent_bytes: counts.received,
            connection_termination_details: termination,
            upstream_transport_failure_reason: upstream,
            downstream_transport_failure_reason: downstream,
            upstream_request_attempt_count: attempts,
            ..TcpAccessLogData::default()
        });
        return log;
    }
    log.set_l7_protocol(match protocol {
        Protocol::Grpc => L7ProtocolType::L7ProtocolGrpc,
        Protocol::Http | Protocol::Tcp => L7ProtocolType::L7ProtocolHttp,
    });
    let quantiles = QUANTILES.iter().map(|(name, share)| {
        let milliseconds = counts.times.quantile(*share) as f64 / 1000.0;
        ((*name).to_owned(), format!("{milliseconds:.3}"))
    });
    let sample = counts.sample.map(|sample| *sample).unwrap_or_default();
    let [mut request_headers, response_headers] = [sample.request, sample.response].map(|headers| {
        let pair = |(name, text): (Arc<str>, Box<str>)| (name.to_string(), text.into_string());
        headers.into_iter().map(pair).collect::<BTreeMap<_, _>>()
    });
    // Those that have a field.
    let [host, user_agent, referer] =
        ["host", "user-agent", "referer"].map(|name| request_headers.remove(name).unwrap_or_default());
    let status = grpc_status.map(|status| ("grpc-status".to_owned(), status.to_string()));
    log.http_data = Some(HttpAccessLogData {
        method: self::method(method).to_owned(),
        path,
        version: VERSIONS.get(usize::from(counts.version)).copied().unwrap_or(VERSIONS[0]).to_owned(),
        host,
        user_agent,
        referer,
        request_headers,
        response_headers: response_headers.into_iter().chain(quantiles).chain(status).collect(),
        response_code: code.into(),
        request_size: counts.request_bodies,
        response_size: counts.response_bodies,
        response_flags: flags.codes().map(str::to_owned).collect(),
        connection_termination_details: termination,
        upstream_transport_failure_reason: upstream,
        downstream_transport_failure_reason: downstream,
        upstream_request_attempt_count: attempts,
        ..HttpAccessLogData::default()
    });
    log
}

/// Its name, by its number in Envoy's enum.
pub(super) fn method(number: u8) -> &'static str {
    METHODS.get(usize::from(number)).copied().unwrap_or(METHODS[0])
}

/// By number in Envoy's enum.
const METHODS: [&str; 10] =
    ["METHOD_UNSPECIFIED", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Likewise.
const VERSIONS: [&str; 5] = ["unknown", "1.0", "1.1", "2.0", "3.0"];
