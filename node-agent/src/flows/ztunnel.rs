//! The access lines of Istio's ztunnel.
//!
//! A line names a connection that ended (`connection complete`, INFO or, if it failed, ERROR), one that
//! failed before more was known of it (`connection failed`, WARN) or, when asked to log more, one that began
//! (`connection opened`, DEBUG). Its fields follow as `name=value` or, if ztunnel was told so, the whole is a
//! JSON object. Bytes are those of the end that ztunnel speaks for: what a client's ztunnel calls sent, a
//! server's calls received.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use kestrel_flows::flow::{Direction, Flow, Line, Peer, Source, Verdict};

/// What the message is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Complete,
    Failed,
    Opened,
}

const KINDS: [(&str, Kind); 3] = [
    ("connection complete", Kind::Complete),
    ("connection failed", Kind::Failed),
    ("connection opened", Kind::Opened),
];

/// Port of tunnels between ztunnels.
const TUNNEL: u16 = 15008;

/// Words of errors by which a policy refuses a connection: of the ztunnel that asks its policies, and of the
/// one that is told by it.
const REFUSED: [&str; 3] = ["policy rejection", "explicitly denied", "401 Unauthorized"];

/// Reads a line that ztunnel wrote, and gives what it says to `taken`. `time`: when, in nanoseconds since 1970.
pub(super) fn read<T>(line: &str, time: u64, taken: impl FnOnce(Line<'_>) -> T) -> T {
    if !line.contains("access") {
        return taken(Line::Other);
    }
    if line.starts_with('{') {
        let Ok(fields) = serde_json::from_str::<BTreeMap<Cow<'_, str>, serde_json::Value>>(line) else {
            return taken(Line::Unreadable);
        };
        let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str);
        let kind = KINDS.iter().find(|(words, _)| text("message") == Some(*words));
        return match kind {
            Some((_, kind)) if text("scope") == Some("access") => {
                let number = |name: &str| fields.get(name).and_then(serde_json::Value::as_u64);
                taken(flow(*kind, time, text, number))
            }
            _ => taken(Line::Other),
        };
    }
    let found = KINDS.iter().find_map(|(words, kind)| Some((line.split_once(words)?.1, *kind)));
    let Some((fields, kind)) = found else { return taken(Line::Other) };
    let fields = Fields(fields);
    taken(flow(kind, time, |name| fields.get(name), |name| fields.get(name)?.parse().ok()))
}

/// `name=value`, separated by blanks; a value with blanks is in quotes.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn get(&self, wanted: &str) -> Option<&'a str> {
        let mut rest = self.0;
        loop {
            rest = rest.trim_start();
            let (name, after) = rest.split_once('=')?;
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => split_at_quote(quoted),
                None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            if name == wanted {
                return Some(value);
            }
        }
    }
}

/// Up to the next quote that no backslash takes the meaning of, and what follows it.
fn split_at_quote(text: &str) -> (&str, &str) {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return (&text[..at], &text[at + 1..]),
            _ => is_escaped = byte == b'\\' && !is_escaped,
        }
    }
    (text, "")
}

fn flow<'a>(
    kind: Kind,
    time: u64,
    text: impl Fn(&str) -> Option<&'a str>,
    number: impl Fn(&str) -> Option<u64>,
) -> Line<'a> {
    if kind == Kind::Opened {
        // Its end is told too, with its bytes.
        return Line::Told;
    }
    let direction = match text("direction") {
        Some("outbound") => Direction::Egress,
        Some("inbound") => Direction::Ingress,
        _ => return Line::Unreadable,
    };
    let socket = |name: &str| text(name).and_then(|address| address.parse::<SocketAddr>().ok());
    let (Some(from), Some(to)) = (socket("src.addr"), socket("dst.addr")) else { return Line::Unreadable };
    // What the tunnel is for. Between clusters that is a name, and the address that of a gateway.
    let inner = text("dst.hbone_addr");
    let (address, port) = match inner.map(str::parse::<SocketAddr>) {
        Some(Ok(inner)) => (Some(inner.ip()), inner.port()),
        Some(Err(_)) => (None, inner.and_then(port).unwrap_or_default()),
        // It failed before it was known what for.
        None if direction == Direction::Ingress && to.port() == TUNNEL => (Some(to.ip()), 0),
        None => (Some(to.ip()), to.port()),
    };
    let error = text("error");
    let (ours, theirs) = (number("bytes_sent").unwrap_or_default(), number("bytes_recv").unwrap_or_default());
    let refused = error.is_some_and(|error| REFUSED.iter().any(|words| error.contains(words)));
    let verdict = match error {
        _ if refused => Verdict::Dropped,
        _ if kind == Kind::Failed => Verdict::Error,
        // What broke after it was up has passed all policies.
        Some(_) if ours == 0 && theirs == 0 => Verdict::Error,
        _ => Verdict::Forwarded,
    };
    let (bytes_sent, bytes_received) = match direction {
        Direction::Ingress => (theirs, ours),
        _ => (ours, theirs),
    };
    let peer = |address: Option<IpAddr>, pod: &str, namespace: &str, service| Peer {
        address,
        namespace: text(namespace).unwrap_or_default(),
        pod: text(pod).unwrap_or_default(),
        service,
        ..Peer::default()
    };
    let named = inner.filter(|_| address.is_none()).and_then(|inner| inner.rsplit_once(':'));
    let service = text("dst.service").or(named.map(|(name, _)| name)).unwrap_or_default();
    Line::Flow(Flow {
        source: peer(Some(from.ip()), "src.workload", "src.namespace", ""),
        destination: peer(address, "dst.workload", "dst.namespace", service),
        port,
        protocol: 6,
        verdict,
        direction,
        seen_by: Source::Ztunnel,
        time,
        bytes_sent,
        bytes_received,
        // Which policy, where it says so.
        reason: error.filter(|_| refused).unwrap_or_default(),
        policies: &[],
    })
}

/// The port at the end of `name:port`.
fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests;
