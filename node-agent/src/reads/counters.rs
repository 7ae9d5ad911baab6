//! What the kernel counts: packets of interfaces, and events of protocols.

use std::io::{self, BufRead, Write};

use super::opened::odd;

/// The columns of `/proc/net/dev`.
const COUNTERS: [&str; 16] = [
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_fifo_errors",
    "rx_frame_errors",
    "rx_compressed",
    "rx_multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_fifo_errors",
    "tx_collisions",
    "tx_carrier_errors",
    "tx_compressed",
];

/// Interfaces and their counters.
pub(super) fn interfaces(file: impl BufRead) -> io::Result<Vec<(String, [u64; 16])>> {
    let parse = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some((name.trim().to_owned(), counters.try_into().ok()?))
    };
    let lines = file.lines().skip(2);
    lines.map(|line| line.and_then(|line| parse(&line).ok_or_else(|| odd(&line)))).collect()
}

/// The counters of one interface, or of all.
pub(super) fn print_interfaces(
    file: impl BufRead,
    only: Option<&str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut interfaces = interfaces(file)?;
    if let Some(only) = only {
        interfaces.retain(|(name, _)| name == only);
        if interfaces.is_empty() {
            return Err(io::Error::other(format!("there is no interface {only}")));
        }
    }
    for (name, counters) in interfaces {
        writeln!(out, "{name}:")?;
        for (counter, number) in COUNTERS.iter().zip(counters) {
            writeln!(out, "     {counter}: {number}")?;
        }
    }
    Ok(())
}

/// Names in one line and their numbers in the next, as in `/proc/net/snmp` and `netstat`.
pub(super) fn print_pairs(file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = file.lines();
    while let Some(names) = lines.next().transpose()? {
        let numbers = lines.next().transpose()?.unwrap_or_default();
        let (Some((protocol, names)), Some((other, numbers))) =
            (names.split_once(':'), numbers.split_once(':'))
        else {
            return Err(odd(&names));
        };
        if protocol != other {
            return Err(odd(other));
        }
        for (name, number) in names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace()) {
            let name = format!("{protocol}{name}");
            writeln!(out, "{name:<31} {number}")?;
        }
    }
    Ok(())
}

/// Lines that are as they should be.
pub(super) fn copy(mut file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    io::copy(&mut file, out).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_shown_with_their_names() {
        let file = "Inter-|   Receive  | Transmit\n face |bytes |bytes\n    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n  eth0: 9 8 7 6 5 4 3 2 1 0 1 2 3 4 5 6\n";
        let mut out = Vec::new();
        print_interfaces(file.as_bytes(), Some("eth0"), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("eth0:\n     rx_bytes: 9\n     rx_packets: 8\n"), "{text}");
        assert_eq!(text.lines().count(), 17);
        assert!(print_interfaces(file.as_bytes(), Some("eth9"), &mut Vec::new()).is_err());
        assert!(interfaces("a\nb\neth0 1 2\n".as_bytes()).is_err());
        let mut out = Vec::new();
        print_pairs("Tcp: RetransSegs InErrs\nTcp: 7 0\n".as_bytes(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["TcpRetransSegs", "7", "TcpInErrs", "0"]);
        assert!(print_pairs("Tcp: A\nUdp: 1\n".as_bytes(), &mut Vec::new()).is_err());
    }
}
