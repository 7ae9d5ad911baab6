//! The kernel's table of connections, in the words of conntrack(8).

use std::{
    fs::File,
    io::{self, BufRead, Read, Write},
    net::IpAddr,
};

use super::{
    netlink::{self, Attributes},
    opened::odd,
};

/// All entries, of the table of connections in netfilter.
const GET_ENTRIES: u16 = 1 << 8 | 1;
/// Family, version, resource.
const HEAD: usize = 4;

/// Its entries, from `/proc/net/nf_conntrack`, which puts the family before each and a zone into it.
pub(super) fn print(file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    for line in file.lines() {
        let line = line?;
        let mut fields = line.split_ascii_whitespace();
        let (Some(_), Some(_), Some(protocol)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(odd(&line));
        };
        write!(out, "{protocol:<8}")?;
        for field in fields.filter(|field| *field != "zone=0") {
            write!(out, " {field}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Asks for them where there is no such file. The kernel answers who has the capability NET_ADMIN.
///
/// # Errors
/// It does not.
pub(super) fn ask() -> io::Result<File> {
    let mut socket = netlink::open(netlink::NETFILTER)?;
    netlink::ask(&mut socket, GET_ENTRIES, &[0; HEAD])?;
    Ok(socket)
}

/// Its entries, from what the kernel answers.
pub(super) fn print_told(mut socket: impl Read, out: &mut dyn Write) -> io::Result<()> {
    netlink::answer(&mut socket, |message| {
        let entry = entry(Attributes(message.get(HEAD..).unwrap_or_default()));
        writeln!(out, "{}", entry.ok_or_else(|| odd("an entry without ends"))?)
    })
    .map(drop)
}

fn entry(entry: Attributes<'_>) -> Option<String> {
    const REPLIED: u64 = 2;
    const ASSURED: u64 = 4;
    const STATES: [&str; 10] = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
    ];
    let number = entry.inside(1).inside(2).number(1)?;
    let protocol = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        132 => "sctp",
        _ => "unknown",
    };
    let status = entry.number(3).unwrap_or_default();
    let state =
        entry.inside(4).inside(1).number(1).and_then(|state| STATES.get(usize::try_from(state).ok()?));
    let words = [
        format!("{protocol:<8} {number}"),
        entry.number(7).map(|seconds| seconds.to_string()).unwrap_or_default(),
        state.map(ToString::to_string).unwrap_or_default(),
        ends(entry.inside(1))?,
        if status & REPLIED == 0 { "[UNREPLIED]".to_owned() } else { String::new() },
        ends(entry.inside(2))?,
        if status & ASSURED == 0 { String::new() } else { "[ASSURED]".to_owned() },
        format!("mark={}", entry.number(8).unwrap_or_default()),
        entry.number(18).map(|zone| format!("zone={zone}")).unwrap_or_default(),
        format!("use={}", entry.number(11).unwrap_or_default()),
    ];
    Some(words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

/// Of one direction.
fn ends(tuple: Attributes<'_>) -> Option<String> {
    let (addresses, protocol) = (tuple.inside(1), tuple.inside(2));
    let address = |kinds: [u16; 2]| {
        let bytes = kinds.iter().find_map(|kind| addresses.get(*kind))?;
        let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    let mut words = format!("src={} dst={}", address([1, 3])?, address([2, 4])?);
    let fields = [
        ("sport", 2),
        ("dport", 3),
        ("id", 4),
        ("type", 5),
        ("code", 6),
        ("id", 7),
        ("type", 8),
        ("code", 9),
    ];
    for (name, kind) in fields {
        if let Some(number) = protocol.number(kind) {
            words.push_str(&format!(" {name}={number}"));
        }
    }
    Some(words)
}

/// Its counters, a line for each processor, from `/proc/net/stat/nf_conntrack`.
pub(super) fn print_counters(file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = file.lines();
    let names = lines.next().transpose()?.unwrap_or_default();
    let names: Vec<&str> = names.split_ascii_whitespace().collect();
    for (processor, line) in lines.enumerate() {
        write!(out, "cpu={processor}")?;
        for (name, number) in names.iter().zip(numbers(&line?)?) {
            write!(out, " {name}={number}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// How many entries it has, which every line says.
pub(super) fn print_count(file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = file.lines();
    let names = lines.next().transpose()?.unwrap_or_default();
    let place = names.split_ascii_whitespace().position(|name| name == "entries");
    let line = lines.next().transpose()?.unwrap_or_default();
    let entries = place.and_then(|place| numbers(&line).ok()?.get(place).copied());
    writeln!(out, "{}", entries.ok_or_else(|| odd(&names))?)
}

fn numbers(line: &str) -> io::Result<Vec<u64>> {
    let numbers = line.split_ascii_whitespace().map(|number| u64::from_str_radix(number, 16));
    numbers.collect::<Result<_, _>>().map_err(|_| odd(line))
}

#[cfg(test)]
mod tests {
    use super::{
        super::netlink::{
            attribute,
            tests::{Datagrams, told},
        },
        *,
    };

    fn shown(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_the_kernel_answers_is_shown_in_the_same_form() {
        let nested = |kind: u16, attributes: &[Vec<u8>]| attribute(kind, &attributes.concat());
        let tuple = |kind: u16, from: [u8; 4], to: [u8; 4], ports: [u16; 2]| {
            let protocol = [
                attribute(1, &[6]),
                attribute(2, &ports[0].to_be_bytes()),
                attribute(3, &ports[1].to_be_bytes()),
            ];
            nested(kind, &[nested(1, &[attribute(1, &from), attribute(2, &to)]), nested(2, &protocol)])
        };
        let (one, other) = ([10, 0, 0, 5], [10, 0, 0, 1]);
        let entry = [
            vec![2, 0, 0, 0],
            tuple(1, one, other, [5, 443]),
            tuple(2, other, one, [443, 5]),
            attribute(3, &14_u32.to_be_bytes()),
            nested(4, &[nested(1, &[attribute(1, &[3])])]),
            attribute(7, &431_999_u32.to_be_bytes()),
            attribute(11, &2_u32.to_be_bytes()),
        ];
        let datagrams = [told(256, 2, &entry.concat()), told(3, 2, &[0; 4])];
        assert_eq!(
            shown(|out| print_told(Datagrams(datagrams.clone().into()), out)),
            "tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=10.0.0.1 sport=5 dport=443 src=10.0.0.1 dst=10.0.0.5 sport=443 dport=5 [ASSURED] mark=0 use=2\n"
        );
        let odd = Datagrams([told(256, 2, &[2, 0, 0, 0])].into());
        assert!(print_told(odd, &mut Vec::new()).is_err());
    }

    #[test]
    fn the_table_is_shown_as_conntrack_shows_it() {
        let entry = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=10.0.0.1 sport=5 dport=443 src=10.0.0.1 dst=10.0.0.5 sport=443 dport=5 [ASSURED] mark=0 zone=0 use=2\n";
        let expected = "tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=10.0.0.1 sport=5 dport=443 src=10.0.0.1 dst=10.0.0.5 sport=443 dport=5 [ASSURED] mark=0 use=2\n";
        assert_eq!(shown(|out| print(entry.as_bytes(), out)), expected);
        let stat = "entries  found insert_failed drop\n0000001f  00000000 00000003 00000010\n0000001f  00000001 00000000 00000000\n";
        assert_eq!(
            shown(|out| print_counters(stat.as_bytes(), out)),
            "cpu=0 entries=31 found=0 insert_failed=3 drop=16\ncpu=1 entries=31 found=1 insert_failed=0 drop=0\n"
        );
        assert_eq!(shown(|out| print_count(stat.as_bytes(), out)), "31\n");
        assert!(print_count(&b"x\n"[..], &mut Vec::new()).is_err());
        assert!(print_counters(&b"x\ny\n"[..], &mut Vec::new()).is_err());
    }
}
