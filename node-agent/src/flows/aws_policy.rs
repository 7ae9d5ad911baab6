//! The log of the network policy agent of the AWS VPC CNI
//! (aws-network-policy-agent), a JSON object a line.
//!
//! It writes a line for what a policy denied and, when asked to log more, for what it let pass. Until
//! version 1.2.1 a flow's parts were fields of the object and had no direction; since then they are in the
//! message, with colons after `Proto`, `Verdict` and `Direction` for IPv6 and without for IPv4.

use std::{borrow::Cow, net::IpAddr};

use kestrel_flows::flow::{Direction, Flow, Line, Peer, Source, Verdict, protocol};
use kestrel_tail::time::Clock;
use serde::Deserialize;

use super::files::nanoseconds;

#[derive(Deserialize)]
struct Entry<'a> {
    /// `timestamp` in the lines that Amazon's user guide shows.
    #[serde(borrow, default, alias = "timestamp")]
    ts: Cow<'a, str>,
    #[serde(borrow, default)]
    msg: Cow<'a, str>,
    #[serde(borrow, default, rename = "Src IP")]
    source: Cow<'a, str>,
    #[serde(borrow, default, rename = "Dest IP")]
    destination: Cow<'a, str>,
    #[serde(default, rename = "Dest Port")]
    port: u16,
    #[serde(borrow, default, rename = "Proto")]
    protocol: Cow<'a, str>,
    #[serde(borrow, default, rename = "Verdict")]
    verdict: Cow<'a, str>,
}

/// What begins the message of a flow.
const FLOW: &str = "Flow Info:";

/// The parts of a message, in their order; the first two words of `Src Port` and its number are passed over.
const PARTS: [&str; 6] = ["Src IP", "Src Port", "Dest IP", "Dest Port", "Proto", "Verdict"];

/// Reads a line of the log.
pub(super) fn read(line: &str, clock: &mut Clock) -> Line<'static> {
    if !line.contains(FLOW) {
        return Line::Other;
    }
    let Ok(entry) = serde_json::from_str::<Entry<'_>>(line) else { return Line::Unreadable };
    let Some(message) = entry.msg.strip_prefix(FLOW) else { return Line::Other };
    let Some((time, _)) = clock.read(entry.ts.as_bytes()) else { return Line::Unreadable };
    let read = match message.trim() {
        "" => parts(&entry.source, &entry.destination, Some(entry.port), &entry.protocol, &entry.verdict, ""),
        message => in_message(message),
    };
    match read {
        // A connection's entry that was removed: no packet.
        Some((_, Judged::Ended)) => Line::Told,
        Some((flow, Judged::Verdict(verdict))) => {
            Line::Flow(Flow { time: nanoseconds(time), verdict, ..flow })
        }
        None => Line::Unreadable,
    }
}

enum Judged {
    Verdict(Verdict),
    Ended,
}

/// Values stand between the names of the parts, after a colon or none, before a comma or none.
fn in_message(message: &str) -> Option<(Flow<'static>, Judged)> {
    let mut rest = message;
    let mut values = [""; PARTS.len()];
    for (value, name) in values.iter_mut().zip(PARTS) {
        rest = rest.trim_start().strip_prefix(name)?;
        (*value, rest) = word(rest);
    }
    let direction = rest.trim_start().strip_prefix("Direction").map_or("", |rest| word(rest).0);
    let [source, _, destination, port, protocol, verdict] = values;
    parts(source, destination, port.parse().ok(), protocol, verdict, direction)
}

/// The next word and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.strip_prefix(':').unwrap_or(text).trim_start();
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word.trim_end_matches(','), rest)
}

fn parts(
    source: &str,
    destination: &str,
    port: Option<u16>,
    name: &str,
    verdict: &str,
    direction: &str,
) -> Option<(Flow<'static>, Judged)> {
    let address = |text: &str| text.parse().ok().map(IpAddr::into);
    let judged = match verdict {
        "ACCEPT" => Judged::Verdict(Verdict::Forwarded),
        "DENY" => Judged::Verdict(Verdict::Dropped),
        "EXPIRED/DELETED" => Judged::Ended,
        _ => return None,
    };
    let (source, destination): (Peer<'_>, Peer<'_>) = (address(source)?, address(destination)?);
    let flow = Flow {
        source,
        destination,
        port: port?,
        protocol: protocol(name),
        verdict: Verdict::Unspecified,
        direction: match direction {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            _ => Direction::Unspecified,
        },
        seen_by: Source::AwsPolicyAgent,
        time: 0,
        bytes_sent: 0,
        bytes_received: 0,
        reason: "",
        policies: &[],
    };
    Some((flow, judged))
}

#[cfg(test)]
mod tests;
