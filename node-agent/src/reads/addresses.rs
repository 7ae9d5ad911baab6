//! The node's addresses, a line for each interface. The kernel's text files say which addresses there are, and
//! of IPv6 at which interface; of IPv4 that follows from the route to the network around the address.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Write},
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    counters::interfaces,
    opened::odd,
    routes::{self, Route},
};

/// Where an address is whose interface does not follow from the routes.
const NOWHERE: &str = "?";

/// Prints the addresses of one interface, or of all.
pub(super) fn print(
    devices: impl BufRead,
    routes: impl BufRead,
    tree: impl BufRead,
    ipv6: impl BufRead,
    only: Option<&str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut by_interface: BTreeMap<String, Vec<String>> =
        interfaces(devices)?.into_iter().map(|(name, _)| (name, Vec::new())).collect();
    let routes = routes::ipv4(routes)?;
    for address in local(tree)? {
        let (interface, bits) = place(address, &routes);
        by_interface.entry(interface.to_owned()).or_default().push(format!("{address}/{bits}"));
    }
    for line in ipv6.lines() {
        let line = line?;
        let (interface, address) = of_ipv6(&line).ok_or_else(|| odd(&line))?;
        by_interface.entry(interface).or_default().push(address);
    }
    if let Some(only) = only.filter(|only| !by_interface.contains_key(*only)) {
        return Err(io::Error::other(format!("there is no interface {only}")));
    }
    for (interface, addresses) in by_interface {
        if only.is_none_or(|only| only == interface) {
            writeln!(out, "{interface:<16} {}", addresses.join(" "))?;
        }
    }
    Ok(())
}

/// The addresses of `/proc/net/fib_trie` that are the node's own.
fn local(tree: impl BufRead) -> io::Result<BTreeSet<Ipv4Addr>> {
    let (mut addresses, mut last) = (BTreeSet::new(), None::<Ipv4Addr>);
    for line in tree.lines() {
        let line = line?;
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = Some(address.parse().map_err(|_| odd(line))?);
        } else if line.starts_with("/32 host LOCAL") {
            addresses.extend(last);
        }
    }
    Ok(addresses)
}

/// The interface of the narrowest network that an address is in.
fn place(address: Ipv4Addr, routes: &[Route]) -> (&str, u32) {
    if address.is_loopback() {
        return ("lo", 8);
    }
    let around = routes
        .iter()
        .filter(|route| route.bits > 0 && route.gateway.is_unspecified() && route.covers(address))
        .max_by_key(|route| route.bits);
    around.map_or((NOWHERE, 32), |route| (&route.interface, route.bits))
}

/// `address index bits scope flags name`, in hexadecimal.
fn of_ipv6(line: &str) -> Option<(String, String)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [address, _, bits, .., name] = fields[..] else { return None };
    let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
    let bits = u8::from_str_radix(bits, 16).ok()?;
    Some((name.to_owned(), format!("{address}/{bits}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.5
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     |-- 192.168.7.1
        /32 host LOCAL
Local:
     |-- 127.0.0.0
        /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 10.0.0.5
           /32 host LOCAL
";

    #[cfg(target_endian = "little")]
    #[test]
    fn an_address_is_shown_at_the_interface_whose_network_it_is_in() {
        let ipv6 = "fe800000000000000000000000000001 02 40 20 80     eth0\n";
        let devices = "Inter-| x\n face |y\n eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let shown = |only| {
            let mut out = Vec::new();
            let (devices, tree) = (devices.as_bytes(), TREE.as_bytes());
            print(devices, routes::IPV4.as_bytes(), tree, ipv6.as_bytes(), only, &mut out)
                .map(|()| String::from_utf8(out).unwrap().split_whitespace().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(shown(None).unwrap(), "? 192.168.7.1/32 eth0 10.0.0.5/24 fe80::1/64 lo 127.0.0.1/8");
        assert_eq!(shown(Some("lo")).unwrap(), "lo 127.0.0.1/8");
        assert_eq!(shown(Some("eth7")).unwrap_err().to_string(), "there is no interface eth7");
    }
}
