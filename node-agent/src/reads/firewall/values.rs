//! Values as nft writes them: what the kernel has are bytes, whose meaning is that of the field they are compared
//! with.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::netlink::{Attributes, big, text};

/// What bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Of IP: of either version where it is whole, and else of version 4 …
    Address,
    /// … or 6.
    Address6,
    /// A number as networks have it.
    Number,
    /// A number as the machine has it, whose bits mean something.
    Bits,
    /// Of an interface.
    Name,
    /// Of IP, by its number at IANA.
    Protocol,
    /// States of a connection, as bits.
    States,
    /// Whose an address is.
    AddressType,
    Bytes,
}

/// Types of sets' elements by nft's own numbers (`include/datatype.h` of nftables): name, form and length.
const TYPES: [(u32, &str, Form, usize); 9] = [
    (7, "ipv4_addr", Form::Address, 4),
    (8, "ipv6_addr", Form::Address, 16),
    (9, "ether_addr", Form::Bytes, 6),
    (12, "inet_proto", Form::Protocol, 1),
    (13, "inet_service", Form::Number, 2),
    (19, "mark", Form::Bits, 4),
    (26, "ct_state", Form::States, 4),
    (38, "fib_addrtype", Form::AddressType, 4),
    (41, "ifname", Form::Name, 16),
];

/// A type, or some behind each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Types(Vec<(&'static str, Form, usize)>);

impl Types {
    /// By its number, of which six bits are one of some; unknown ones are none.
    pub(super) fn of(number: u64, length: u64) -> Self {
        let number = u32::try_from(number).unwrap_or_default();
        let parts = (0..5).rev().map(|place| number >> (place * 6) & 63).skip_while(|part| *part == 0);
        let known = |part| {
            TYPES.iter().find(|known| known.0 == part).map(|(_, name, form, length)| (*name, *form, *length))
        };
        let types: Option<Vec<_>> = parts.map(known).collect();
        let types = types.unwrap_or_default();
        let is_alone = types.len() == 1;
        let all: usize =
            types.iter().map(|(.., bytes)| if is_alone { *bytes } else { bytes.next_multiple_of(4) }).sum();
        if u64::try_from(all) == Ok(length) { Self(types) } else { Self(Vec::new()) }
    }

    pub(super) fn name(&self) -> String {
        match &self.0[..] {
            [] => "bytes".to_owned(),
            types => types.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(" . "),
        }
    }

    /// Of a single one.
    pub(super) fn form(&self) -> Form {
        match self.0[..] {
            [(_, form, _)] => form,
            _ => Form::Bytes,
        }
    }

    /// From one value to another, part by part.
    pub(super) fn show(&self, from: &[u8], to: &[u8]) -> String {
        if self.0.is_empty() {
            return range(Form::Bytes, from, to);
        }
        let mut at = 0;
        let mut parts = Vec::new();
        for (_, form, length) in &self.0 {
            let part = |bytes: &[u8]| bytes.get(at..at + length).map(<[u8]>::to_vec).unwrap_or_default();
            parts.push(range(*form, &part(from), &part(to)));
            at += length.next_multiple_of(4);
        }
        parts.join(" . ")
    }
}

/// The value alone, or a network, or both ends.
pub(super) fn range(form: Form, from: &[u8], to: &[u8]) -> String {
    if from == to {
        return show(form, from);
    }
    if matches!(form, Form::Address | Form::Address6)
        && let Some(length) = prefix(&from.iter().zip(to).map(|(from, to)| !(from ^ to)).collect::<Vec<_>>())
        && from.iter().zip(to).all(|(from, to)| from & (from ^ to) == 0)
    {
        return format!("{}/{length}", show(form, from));
    }
    format!("{}-{}", show(form, from), show(form, to))
}

/// How many bits a mask has, where they are the first ones.
pub(super) fn prefix(mask: &[u8]) -> Option<u32> {
    let length: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let first: u32 = mask
        .iter()
        .enumerate()
        .find(|(_, byte)| **byte != 255)
        .map_or(u32::try_from(mask.len() * 8).ok()?, |(place, byte)| {
            u32::try_from(place * 8).unwrap_or(u32::MAX) + byte.leading_ones()
        });
    (first == length).then_some(length)
}

pub(super) fn show(form: Form, bytes: &[u8]) -> String {
    match (form, bytes.len()) {
        (Form::Address, 4) => {
            bytes.try_into().map_or_else(|_| hex(bytes), |it: [u8; 4]| Ipv4Addr::from(it).to_string())
        }
        (Form::Address | Form::Address6, 16) => {
            bytes.try_into().map_or_else(|_| hex(bytes), |it: [u8; 16]| Ipv6Addr::from(it).to_string())
        }
        // As many bytes of it as are compared.
        (Form::Address, 1..4) | (Form::Address6, 1..16) => {
            let mut whole = bytes.to_vec();
            whole.resize(if form == Form::Address { 4 } else { 16 }, 0);
            format!("{}/{}", show(form, &whole), bytes.len() * 8)
        }
        (Form::Number, 1..=8) => big(bytes).to_string(),
        (Form::Bits, 4) => format!("{:#010x}", native(bytes)),
        (Form::Name, 1..=16) => {
            let name = text(bytes);
            // Only as much as is there is compared.
            if bytes.contains(&0) { format!("\"{name}\"") } else { format!("\"{name}*\"") }
        }
        (Form::Protocol, 1) => match bytes[0] {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        },
        (Form::States, 4) => {
            let names = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
            bits(native(bytes), &names)
        }
        (Form::AddressType, 4) => match native(bytes) {
            1 => "unicast".to_owned(),
            2 => "local".to_owned(),
            3 => "broadcast".to_owned(),
            4 => "anycast".to_owned(),
            5 => "multicast".to_owned(),
            other => other.to_string(),
        },
        _ => hex(bytes),
    }
}

fn native(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

/// The names of bits, and what is left.
pub(super) fn bits(number: u32, names: &[(u32, &str)]) -> String {
    let mut left = number;
    let mut found = Vec::new();
    for (bit, name) in names {
        if number & bit != 0 {
            left &= !bit;
            found.push((*name).to_owned());
        }
    }
    if left != 0 || found.is_empty() {
        found.push(format!("{left:#x}"));
    }
    found.join(",")
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// What becomes of a packet.
pub(super) fn verdict(verdict: Attributes<'_>) -> String {
    let code = verdict.get(1).and_then(|bytes| Some(i32::from_be_bytes(bytes.try_into().ok()?)));
    let chain = verdict.text(2).unwrap_or_default();
    match code {
        Some(0) => "drop".to_owned(),
        Some(1) => "accept".to_owned(),
        Some(-1) => "continue".to_owned(),
        Some(-2) => "break".to_owned(),
        Some(-3) => format!("jump {chain}"),
        Some(-4) => format!("goto {chain}"),
        Some(-5) => "return".to_owned(),
        Some(code) if code & 0xff == 3 => format!("queue to {}", code >> 16 & 0xffff),
        _ => "verdict ?".to_owned(),
    }
}
