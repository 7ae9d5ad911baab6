//! What iptables-nft leaves to extensions of its own: their names, and of those that rules of Kubernetes use what
//! they are told, which are structures of the kernel (`linux/netfilter/xt_*.h`).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    super::netlink::{Attributes, text},
    values::bits,
};

/// `xt match "comment" "…"`, `xt target "DNAT" to 10.0.0.1:53`.
pub(super) fn words(step: &str, of: Attributes<'_>) -> Option<String> {
    let (name, revision) = (of.text(1)?, of.number(2).unwrap_or_default());
    let told = of.get(3).and_then(|info| told(step, &name, revision, info));
    let told = told.filter(|told| !told.is_empty()).map(|told| format!(" {told}")).unwrap_or_default();
    Some(format!("xt {step} {name:?}{told}"))
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?))
}

fn whole(info: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?))
}

fn told(step: &str, name: &str, revision: u64, info: &[u8]) -> Option<String> {
    let not = |is_turned: bool| if is_turned { "! " } else { "" };
    Some(match (step, name, revision) {
        ("match", "comment", _) => format!("{:?}", text(info)),
        ("match", "tcp" | "udp", 0) => {
            let turned = *info.get(if name == "tcp" { 11 } else { 8 })?;
            let ports = |word: &str, at: usize, bit: u8| {
                let not = not(turned & bit != 0);
                match (half(info, at)?, half(info, at + 2)?) {
                    (0, u16::MAX) => Some(String::new()),
                    (from, to) if from == to => Some(format!("{word} {not}{from}")),
                    (from, to) => Some(format!("{word} {not}{from}-{to}")),
                }
            };
            [ports("sport", 0, 1)?, ports("dport", 4, 2)?].join(" ").trim().to_owned()
        }
        ("match", "conntrack", 2 | 3) => {
            const STATE: u16 = 1;
            let states = [
                (1, "invalid"),
                (2, "established"),
                (4, "related"),
                (8, "new"),
                (64, "snat"),
                (128, "dnat"),
                (256, "untracked"),
            ];
            match (half(info, 146)? & STATE != 0, half(info, 148)? & STATE != 0) {
                (false, _) => String::new(),
                (true, turned) => format!("state {}{}", not(turned), bits(half(info, 150)?.into(), &states)),
            }
        }
        ("match", "mark", 1) => {
            format!("{}{:#x}/{:#x}", not(*info.get(8)? != 0), whole(info, 0)?, whole(info, 4)?)
        }
        ("match", "statistic", 0) => match half(info, 0)? {
            0 => format!("probability {:.5}", f64::from(whole(info, 4)?) / f64::from(1_u32 << 31)),
            _ => format!("every {}", whole(info, 4)?.saturating_add(1)),
        },
        ("match", "addrtype", 1) => {
            let kinds = |at: usize| {
                Some(bits(half(info, at)?.into(), &[(2, "unicast"), (4, "local"), (8, "broadcast")]))
            };
            let flags = whole(info, 4)?;
            let source = if half(info, 0)? == 0 {
                String::new()
            } else {
                format!("source {}{}", not(flags & 1 != 0), kinds(0)?)
            };
            let destination = if half(info, 2)? == 0 {
                String::new()
            } else {
                format!("destination {}{}", not(flags & 2 != 0), kinds(2)?)
            };
            [source, destination].join(" ").trim().to_owned()
        }
        ("target", "MARK", 2) => format!("set {:#x}/{:#x}", whole(info, 0)?, whole(info, 4)?),
        ("target", "MASQUERADE" | "SNAT" | "DNAT", 0) => {
            // How many ranges, which is one; flags; both ends of addresses, and of ports.
            let flags = whole(info, 4)?;
            let octets: [u8; 4] = info.get(8..12)?.try_into().ok()?;
            translated(flags, Ipv4Addr::from(octets).to_string(), info.get(16..18)?)
        }
        ("target", "SNAT" | "DNAT", _) => {
            let octets: [u8; 16] = info.get(4..20)?.try_into().ok()?;
            // An address of IPv4 is in the first four.
            let address = match octets {
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Ipv4Addr::new(a, b, c, d).to_string(),
                octets => format!("[{}]", Ipv6Addr::from(octets)),
            };
            translated(whole(info, 0)?, address, info.get(36..38)?)
        }
        _ => return None,
    })
}

/// Where a connection is led to, by the flags of `nf_nat.h`.
fn translated(flags: u32, address: String, port: &[u8]) -> String {
    const ADDRESSES: u32 = 1;
    const PORTS: u32 = 2;
    let address = if flags & ADDRESSES == 0 { String::new() } else { address };
    let port = match (flags & PORTS, port) {
        (PORTS, [high, low]) => format!(":{}", u16::from_be_bytes([*high, *low])),
        _ => String::new(),
    };
    let how = match flags & 28 {
        0 => String::new(),
        how => format!(" {}", bits(how, &[(4, "random"), (8, "persistent"), (16, "fully-random")])),
    };
    match address.len() + port.len() {
        0 => how.trim().to_owned(),
        _ => format!("to {address}{port}{how}"),
    }
}
