//! Routes of the main table, from `/proc/net/route` and `ipv6_route`, in the words of ip-route(8).

use std::{
    io::{self, BufRead, Write},
    net::{Ipv4Addr, Ipv6Addr},
};

use super::opened::odd;

const UP: u32 = 1;
const REJECTS: u32 = 0x200;
const LOCAL: u32 = 0x8000_0000;

/// A route of IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: String,
    pub(super) network: Ipv4Addr,
    pub(super) bits: u32,
    pub(super) gateway: Ipv4Addr,
    flags: u32,
    metric: u32,
}

impl Route {
    /// Whether this address is behind it.
    pub(super) fn covers(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.network)
    }
}

/// All of them.
pub(super) fn ipv4(file: impl BufRead) -> io::Result<Vec<Route>> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [interface, network, gateway, flags, _, _, metric, mask, ..] = fields[..] else { return None };
        let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
        Some(Route {
            interface: interface.to_owned(),
            network: address(network)?,
            bits: u32::from(address(mask)?).leading_ones(),
            gateway: address(gateway)?,
            flags: u32::from_str_radix(flags, 16).ok()?,
            metric: metric.parse().ok()?,
        })
    };
    let lines = file.lines().skip(1);
    lines.map(|line| line.and_then(|line| parse(&line).ok_or_else(|| odd(&line)))).collect()
}

/// Those of one interface, or all.
pub(super) fn print_ipv4(file: impl BufRead, only: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    for route in ipv4(file)? {
        let Route { interface, network, bits, gateway, flags, metric } = route;
        if only.is_some_and(|only| only != interface) || flags & UP == 0 {
            continue;
        }
        let kind = if flags & REJECTS == 0 { "" } else { "unreachable " };
        match bits {
            0 => write!(out, "{kind}default")?,
            32 => write!(out, "{kind}{network}")?,
            bits => write!(out, "{kind}{network}/{bits}")?,
        }
        if !gateway.is_unspecified() {
            write!(out, " via {gateway}")?;
        }
        write_end(&interface, metric, out)?;
    }
    Ok(())
}

/// Likewise, without the node's own addresses and without groups.
pub(super) fn print_ipv6(file: impl BufRead, only: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    for line in file.lines() {
        let line = line?;
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let parsed = || {
            let [network, bits, _, _, gateway, metric, _, _, flags, interface] = fields[..] else {
                return None;
            };
            let address = |text: &str| Some(Ipv6Addr::from(u128::from_str_radix(text, 16).ok()?));
            let number = |text: &str| u32::from_str_radix(text, 16).ok();
            Some((
                address(network)?,
                number(bits)?,
                address(gateway)?,
                number(metric)?,
                number(flags)?,
                interface,
            ))
        };
        let (network, bits, gateway, metric, flags, interface) = parsed().ok_or_else(|| odd(&line))?;
        let is_own = flags & LOCAL != 0 || network.is_multicast() || flags & UP == 0;
        if is_own || only.is_some_and(|only| only != interface) {
            continue;
        }
        let kind = if flags & REJECTS == 0 { "" } else { "unreachable " };
        match bits {
            0 => write!(out, "{kind}default")?,
            128 => write!(out, "{kind}{network}")?,
            bits => write!(out, "{kind}{network}/{bits}")?,
        }
        if !gateway.is_unspecified() {
            write!(out, " via {gateway}")?;
        }
        write_end(interface, metric, out)?;
    }
    Ok(())
}

fn write_end(interface: &str, metric: u32, out: &mut dyn Write) -> io::Result<()> {
    match metric {
        0 => writeln!(out, " dev {interface}"),
        metric => writeln!(out, " dev {interface} metric {metric}"),
    }
}

#[cfg(test)]
pub(super) const IPV4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
cni0\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000FEA9\t00000000\t0201\t0\t0\t5\t0000FFFF\t0\t0\t0
";

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn routes_are_shown_as_ip_shows_them() {
        let shown = |only| {
            let mut out = Vec::new();
            print_ipv4(IPV4.as_bytes(), only, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            shown(None),
            "default via 10.0.0.1 dev eth0 metric 100\n10.0.0.0/24 dev eth0\n10.244.1.0/24 dev cni0\n\
             unreachable 169.254.0.0/16 dev * metric 5\n"
        );
        assert_eq!(shown(Some("cni0")), "10.244.1.0/24 dev cni0\n");
        let routes = ipv4(IPV4.as_bytes()).unwrap();
        let covers: Vec<_> = routes.iter().map(|route| route.covers([10, 0, 0, 9].into())).collect();
        assert_eq!(covers, [true, true, false, false]);
        assert!(ipv4("head\nx y\n".as_bytes()).is_err());
    }

    #[test]
    fn routes_of_ipv6_are_shown_without_what_every_node_has() {
        let zero = "0".repeat(32);
        let lines = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n\
             fd000000000000000000000000000005 80 {zero} 00 {zero} 00000000 00000001 00000000 80200001 eth0\n\
             ff000000000000000000000000000000 08 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
        );
        let mut out = Vec::new();
        print_ipv6(lines.as_bytes(), None, &mut out).unwrap();
        let expected = "default via fe80::1 dev eth0 metric 1024\nfd00::/64 dev eth0 metric 256\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
