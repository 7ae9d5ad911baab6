//! A message of Hubble's stream, read where it lies.
//!
//! A flow has some hundred bytes of names and labels, which are equal for most flows of a pod. To decode all of them
//! would be most of the work. What is needed of each flow is read from its bytes; who its ends are is kept as bytes, which the
//! window compares, and decoded once for all flows that are counted together.

use std::{net::IpAddr, ops::Range};

use kestrel_proto::hubble::{
    flow::{DropReason, LostEvent, TrafficDirection, Verdict as Seen},
    observer::NodeStatusEvent,
};
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::flow::{Direction, Flow, Line, NameFailure, Peer, Source, Verdict};

/// Field numbers of `hubble/observer.proto` and `hubble/flow.proto`.
mod field {
    pub(super) const FLOW: u32 = 1;
    pub(super) const NODE_STATUS: u32 = 2;
    pub(super) const LOST_EVENTS: u32 = 3;

    pub(super) const TIME: u32 = 1;
    pub(super) const VERDICT: u32 = 2;
    pub(super) const IP: u32 = 5;
    pub(super) const L4: u32 = 6;
    pub(super) const SOURCE: u32 = 8;
    pub(super) const DESTINATION: u32 = 9;
    pub(super) const DESTINATION_NAMES: u32 = 14;
    pub(super) const L7: u32 = 15;
    pub(super) const DESTINATION_SERVICE: u32 = 21;
    pub(super) const DIRECTION: u32 = 22;
    pub(super) const DROP_REASON: u32 = 25;
    pub(super) const IS_REPLY: u32 = 26;
    pub(super) const EGRESS_ALLOWED_BY: u32 = 21001;
    pub(super) const INGRESS_ALLOWED_BY: u32 = 21002;
    pub(super) const EGRESS_DENIED_BY: u32 = 21004;
    pub(super) const INGRESS_DENIED_BY: u32 = 21005;
}

/// What a message is.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made, once for each flow")]
pub(super) enum Message<'a> {
    /// As a line of a log.
    Line(Line<'a>),
    /// Events were lost.
    Lost(LostEvent),
    /// Relay has reached nodes, or has not.
    Nodes(NodeStatusEvent),
}

/// A value on the wire.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    fn text(self) -> &'a str {
        str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

/// Reads a `GetFlowsResponse` of `source`.
pub(super) fn read(message: &[u8], source: Source) -> Message<'_> {
    let mut found = Message::Line(Line::Other);
    let read = fields(message, |field, value, _| match field {
        field::FLOW => {
            found = Message::Line(flow(value.bytes(), source).unwrap_or(Line::Unreadable));
        }
        field::LOST_EVENTS => {
            let lost = LostEvent::decode(value.bytes());
            found = lost.map_or(Message::Line(Line::Unreadable), Message::Lost);
        }
        field::NODE_STATUS => {
            let nodes = NodeStatusEvent::decode(value.bytes());
            found = nodes.map_or(Message::Line(Line::Unreadable), Message::Nodes);
        }
        _ => {}
    });
    read.map_or(Message::Line(Line::Unreadable), |()| found)
}

/// Calls `found` with every field that is a number or bytes and where it lies; `None` if the message is damaged.
fn fields<'a>(whole: &'a [u8], mut found: impl FnMut(u32, Value<'a>, Range<usize>)) -> Option<()> {
    let mut message = whole;
    while !message.is_empty() {
        let begin = whole.len() - message.len();
        let (field, wire_type) = decode_key(&mut message).ok()?;
        let value = match wire_type {
            WireType::Varint => Value::Number(decode_varint(&mut message).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                message = rest;
                Value::Bytes(value)
            }
            _ => {
                skip_field(wire_type, field, &mut message, DecodeContext::default()).ok()?;
                continue;
            }
        };
        found(field, value, begin..whole.len() - message.len());
    }
    Some(())
}

fn flow(message: &[u8], seen_by: Source) -> Option<Line<'_>> {
    let (mut time, mut verdict, mut direction, mut is_reply, mut reason) = (0, 0, 0, false, 0);
    let (mut addresses, mut l4) = ([None; 2], (0, 0));
    let (mut source, mut destination, mut service, mut name) = (&[][..], &[][..], &[][..], "");
    let (mut policies, mut l7): (Option<Range<usize>>, _) = (None, None);
    fields(message, |field, value, place| match field {
        field::TIME => time = nanoseconds(value.bytes()),
        field::VERDICT => verdict = value.number(),
        field::IP => addresses = ip(value.bytes()),
        field::L4 => l4 = layer4(value.bytes()),
        field::SOURCE => source = value.bytes(),
        field::DESTINATION => destination = value.bytes(),
        field::DESTINATION_NAMES if name.is_empty() => name = value.text(),
        field::L7 => l7 = Some(value.bytes()),
        field::DESTINATION_SERVICE => service = value.bytes(),
        field::DIRECTION => direction = value.number(),
        field::DROP_REASON => reason = value.number(),
        field::IS_REPLY => is_reply = wrapped(value.bytes()),
        // One beside the other: the fields of a message are in the order of their numbers.
        field::EGRESS_ALLOWED_BY
        | field::INGRESS_ALLOWED_BY
        | field::EGRESS_DENIED_BY
        | field::INGRESS_DENIED_BY => {
            policies = Some(policies.take().map_or(place.start, |before| before.start)..place.end);
        }
        _ => {}
    })?;
    let verdict = match i32::try_from(verdict).ok().and_then(|number| Seen::try_from(number).ok()) {
        // A policy in audit mode lets it pass, and so does a proxy's: what that stops is told as another flow.
        Some(Seen::Forwarded | Seen::Redirected | Seen::Audit) => Verdict::Forwarded,
        Some(Seen::Dropped) => Verdict::Dropped,
        Some(Seen::Error) => Verdict::Error,
        // Seen on its way, where nothing decides.
        Some(Seen::Traced | Seen::Translated | Seen::Unknown) | None => return Some(Line::Told),
    };
    let [from, to] = addresses;
    if let Some((code, name)) = l7.and_then(name_failure) {
        // Of an answer, the server is the source.
        let client = Peer { address: to, endpoint: destination, ..Peer::default() };
        let server = Peer { address: from, endpoint: source, ..Peer::default() };
        return Some(Line::NameFailure(NameFailure { client, server, code, name, time }));
    }
    // What a proxy let pass, packets have told.
    if is_reply || l7.is_some() && verdict == Verdict::Forwarded {
        return Some(Line::Told);
    }
    let (protocol, port) = l4;
    Some(Line::Flow(Flow {
        source: Peer { address: from, endpoint: source, ..Peer::default() },
        destination: Peer {
            address: to,
            endpoint: destination,
            service: name,
            encoded_service: service,
            ..Peer::default()
        },
        port,
        protocol,
        verdict,
        direction: match i32::try_from(direction)
            .ok()
            .and_then(|number| TrafficDirection::try_from(number).ok())
        {
            Some(TrafficDirection::Ingress) => Direction::Ingress,
            Some(TrafficDirection::Egress) => Direction::Egress,
            Some(TrafficDirection::Unknown) | None => Direction::Unspecified,
        },
        seen_by,
        time,
        bytes_sent: 0,
        bytes_received: 0,
        reason: match i32::try_from(reason).ok().and_then(|number| DropReason::try_from(number).ok()) {
            None | Some(DropReason::Unknown) => "",
            Some(reason) => reason.as_str_name(),
        },
        policies: policies.map_or(&[], |place| &message[place]),
    }))
}

/// Code and name, if a record of L7 is an answer of a name server that failed. That there is no such name is an answer.
fn name_failure(l7: &[u8]) -> Option<(u32, &str)> {
    /// `L7FlowType` of an answer, and codes of RFC 6895.
    const RESPONSE: u64 = 2;
    const ANSWERS: [u32; 2] = [0, 3];
    let (mut kind, mut dns) = (0, None);
    fields(l7, |field, value, _| match field {
        1 => kind = value.number(),
        100 => dns = Some(value.bytes()),
        _ => {}
    })?;
    let (mut code, mut name) = (0, "");
    fields(dns.filter(|_| kind == RESPONSE)?, |field, value, _| match field {
        1 => name = value.text(),
        6 => code = u32::try_from(value.number()).unwrap_or_default(),
        _ => {}
    })?;
    (!ANSWERS.contains(&code)).then_some((code, name))
}

fn nanoseconds(timestamp: &[u8]) -> u64 {
    let (mut seconds, mut nanos) = (0_u64, 0);
    let _damaged_is_no_time = fields(timestamp, |field, value, _| match field {
        1 => seconds = value.number(),
        2 => nanos = value.number(),
        _ => {}
    });
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn ip(message: &[u8]) -> [Option<IpAddr>; 2] {
    let mut addresses = [None; 2];
    let _damaged_is_no_address = fields(message, |field, value, _| match field {
        1 => addresses[0] = value.text().parse().ok(),
        2 => addresses[1] = value.text().parse().ok(),
        _ => {}
    });
    addresses
}

/// Number of the protocol, and the destination's port.
fn layer4(message: &[u8]) -> (u8, u16) {
    let mut found = (0, 0);
    let _damaged_is_none = fields(message, |field, value, _| {
        let protocol = match field {
            1 => 6,
            2 => 17,
            3 => 1,
            4 => 58,
            5 => 132,
            _ => return,
        };
        found = (protocol, 0);
        // In those without ports, this is a code.
        if !matches!(protocol, 1 | 58) {
            let _damaged_is_none = fields(value.bytes(), |field, value, _| {
                if field == 2 {
                    found.1 = u16::try_from(value.number()).unwrap_or_default();
                }
            });
        }
    });
    found
}

/// Of a `BoolValue`.
fn wrapped(message: &[u8]) -> bool {
    let mut is = false;
    let _damaged_is_false = fields(message, |field, value, _| is |= field == 1 && value.number() != 0);
    is
}

#[cfg(test)]
mod tests;
