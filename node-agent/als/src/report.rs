//! What was counted, in the form in which the agent link carries it, and back.

use std::{collections::HashMap, sync::Arc};

use kestrel_proto::node::v1::{RequestCause, RequestProtocol, RequestProxy, RequestRow};
use prost::Message as _;

use crate::{
    Counts, Key, Side, Window,
    counts::MOST_WHY,
    entry::{Cause, Protocol},
    flags::Flags,
    identity::Identity,
    sketch::Sketch,
    sources::Tally,
    window::IntoRows,
};

/// With as many bytes of rows a report is full. It is below the least that a batch may have.
const REPORT_BYTES: usize = 256 * 1024;

/// Who a proxy is the last of whose entries ended then (nanoseconds since 1970; `None`: it has none), to whoever knows what its
/// receiver may speak of; `None`: none of those.
pub type Identify<'a> = &'a dyn Fn(&RequestProxy, Option<u64>) -> Option<Identity>;

/// A window in parts that fit a message, made when they are asked for.
pub(crate) struct Parts {
    rows: IntoRows,
    /// Who reports, and what of their entries was not said yet.
    proxies: HashMap<u32, (Arc<Identity>, Tally)>,
}

impl Parts {
    pub(crate) fn new(window: Window, tallies: Vec<(u32, Arc<Identity>, Tally)>) -> Self {
        let proxies = tallies.into_iter().map(|(number, identity, tally)| (number, (identity, tally)));
        Self { rows: window.into_rows(), proxies: proxies.collect() }
    }
}

/// Who the proxy of this number is.
fn proxy(proxies: &HashMap<u32, (Arc<Identity>, Tally)>, number: u32) -> RequestProxy {
    proxies.get(&number).map(|(identity, _)| identity.to_wire()).unwrap_or_default()
}

impl Iterator for Parts {
    type Item = (Vec<RequestProxy>, Vec<RequestRow>);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut proxies, mut rows, mut bytes) = (Vec::new(), Vec::new(), 0);
        // Where each proxy is in the part, and how many of its entries are.
        let mut places: HashMap<u32, (u32, u64)> = HashMap::new();
        while bytes < REPORT_BYTES
            && let Some((key, counts)) = self.rows.next()
        {
            let place = places.entry(key.reporter).or_insert_with(|| {
                proxies.push(proxy(&self.proxies, key.reporter));
                (proxies.len() as u32 - 1, 0)
            });
            place.1 += counts.count;
            let row = write(&key, &counts, place.0);
            bytes += row.encoded_len();
            rows.push(row);
        }
        if self.rows.is_empty() {
            // Of some there may be no rows.
            let quiet = self
                .proxies
                .iter()
                .filter(|(number, (_, tally))| tally.refused() > 0 && !places.contains_key(number));
            let quiet: Vec<u32> = quiet.map(|(number, _)| *number).collect();
            for number in quiet {
                proxies.push(proxy(&self.proxies, number));
                places.insert(number, (proxies.len() as u32 - 1, 0));
            }
        }
        for (number, (place, entries)) in places {
            let told = proxies.get_mut(place as usize).zip(self.proxies.get_mut(&number));
            if let Some((proxy, (_, tally))) = told {
                proxy.folded = tally.folded.min(entries);
                (proxy.malformed, proxy.unfinished, proxy.twins, proxy.over_rate) =
                    (tally.malformed, tally.unfinished, tally.twins, tally.over_rate);
                *tally = Tally { folded: tally.folded - proxy.folded, ..Tally::default() };
            }
        }
        (!proxies.is_empty()).then_some((proxies, rows))
    }
}

fn write(key: &Key<'_>, counts: &Counts, proxy: u32) -> RequestRow {
    let protocol = match key.protocol {
        Protocol::Tcp => RequestProtocol::Unspecified,
        Protocol::Http => RequestProtocol::Http,
        Protocol::Grpc => RequestProtocol::Grpc,
    };
    let cause = match counts.cause {
        Cause::End => RequestCause::End,
        Cause::Upstream => RequestCause::Upstream,
        Cause::Downstream => RequestCause::Downstream,
    };
    RequestRow {
        proxy,
        at_server: key.side == Side::Server,
        protocol: protocol.into(),
        method: key.method.into(),
        code: key.code.into(),
        grpc_status: key.grpc_status.map(u32::from),
        port: key.port.into(),
        flags: key.flags.0,
        peer: key.peer.to_vec().into(),
        cluster: key.cluster.to_vec().into(),
        authority: key.authority.to_vec().into(),
        principal: key.principal.to_vec().into(),
        template: key.template.to_vec().into(),
        count: counts.count,
        sent: counts.sent,
        received: counts.received,
        request_bodies: counts.request_bodies,
        response_bodies: counts.response_bodies,
        took: counts.took,
        times: counts.times.encode().into(),
        first: counts.first,
        last: counts.last,
        attempts: counts.attempts,
        version: counts.version.into(),
        why: counts.why.as_deref().unwrap_or_default().to_vec().into(),
        cause: cause.into(),
    }
}

/// A row and what it counts, of the reporter that has this number here; `None`: it is none.
pub(crate) fn read(row: &RequestRow, reporter: u32) -> Option<(Key<'_>, Counts)> {
    let grpc_status = row.grpc_status.map(u8::try_from).transpose().ok()?;
    let key = Key {
        reporter,
        side: if row.at_server { Side::Server } else { Side::Client },
        protocol: match row.protocol() {
            RequestProtocol::Unspecified => Protocol::Tcp,
            RequestProtocol::Http => Protocol::Http,
            RequestProtocol::Grpc => Protocol::Grpc,
        },
        method: row.method.try_into().ok()?,
        grpc_status: grpc_status.filter(|status| *status != u8::MAX),
        code: u16::try_from(row.code).ok().filter(|code| *code < 1000)?,
        port: row.port.try_into().ok()?,
        flags: Flags(row.flags),
        peer: &row.peer,
        cluster: &row.cluster,
        authority: &row.authority,
        principal: &row.principal,
        template: &row.template,
    };
    let why = row.why.get(..MOST_WHY).unwrap_or(&row.why);
    let counts = Counts {
        count: row.count,
        sent: row.sent,
        received: row.received,
        request_bodies: row.request_bodies,
        response_bodies: row.response_bodies,
        took: row.took,
        times: Sketch::decode(&row.times)?,
        first: row.first,
        last: row.last,
        attempts: row.attempts,
        version: row.version.try_into().ok()?,
        why: (!why.is_empty()).then(|| why.into()),
        cause: match row.cause() {
            RequestCause::Unspecified if key.flags.any(Flags::TLS) => Cause::Upstream,
            RequestCause::Unspecified | RequestCause::End => Cause::End,
            RequestCause::Upstream => Cause::Upstream,
            RequestCause::Downstream => Cause::Downstream,
        },
        // They stay where they were read.
        sample: None,
    };
    (counts.count > 0).then_some((key, counts))
}
