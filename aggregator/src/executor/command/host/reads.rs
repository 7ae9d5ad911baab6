//! The arguments of each tool, as the kind of read that they ask for.

use std::{borrow::Cow, net::IpAddr};

use kestrel_proto::node::v1::{
    BpfObjects, BpfRead, ConnectRead, ContainerFacts, ContainerRead, FirewallRead, NameRead, PacketRead,
    SettingRead, SocketRead, SocketStates, Table, TableRead, host_read::What,
};

use super::{
    super::{flags::Arguments, refused::ENTERS},
    tools::READS,
};
use crate::executor::reason::{Reason, Refused};

/// Settings in one command.
const SETTINGS: usize = 50;

pub(super) fn malformed<T>(why: impl Into<Cow<'static, str>>) -> Result<T, Refused> {
    Err(Refused::new(Reason::Malformed, why))
}

/// Of a node or another machine (RFC 1123), with the underscores that names of services have.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=253).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with(['-', '.'])
        && !text.contains("..")
}

fn no_words(arguments: &Arguments, instead: &'static str) -> Result<(), Refused> {
    if arguments.words().is_empty() { Ok(()) } else { malformed(instead) }
}

fn table(table: Table, interface: &str) -> Result<What, Refused> {
    Ok(What::Table(TableRead { table: table.into(), interface: interface.to_owned() }))
}

pub(super) fn sockets(arguments: &Arguments) -> Result<What, Refused> {
    no_words(arguments, "filters of ss are not understood: use grep behind a pipe")?;
    if arguments.has("summary") {
        return table(Table::SocketCounts, "");
    }
    let [tcp, udp, unix] = ["tcp", "udp", "unix"].map(|kind| arguments.has(kind));
    let all_kinds = !(tcp || udp || unix);
    let states = match (arguments.has("all"), arguments.has("listening")) {
        (true, _) => SocketStates::All,
        (false, true) => SocketStates::Listening,
        (false, false) => SocketStates::Connected,
    };
    let [v4, v6] = ["ipv4", "ipv6"].map(|version| arguments.has(version));
    Ok(What::Sockets(SocketRead {
        tcp: tcp || all_kinds,
        udp: udp || all_kinds,
        unix: unix || (all_kinds && !v4 && !v6),
        only_ipv4: v4 && !v6,
        only_ipv6: v6 && !v4,
        states: states.into(),
    }))
}

pub(super) fn addresses_and_routes(arguments: &Arguments) -> Result<What, Refused> {
    const FORM: &str = "it is ip addr, link, route or neigh, with show and dev NAME behind it";
    let words = arguments.words();
    let Some((object, rest)) = words.split_first() else { return malformed(FORM) };
    let rest = match rest {
        ["show" | "list" | "ls" | "s", rest @ ..] => rest,
        [
            "add" | "append" | "change" | "del" | "delete" | "flush" | "replace" | "restore" | "save" | "set",
            ..,
        ] => return Err(Refused::new(Reason::Write, READS)),
        rest => rest,
    };
    let interface: &str = match rest {
        [] => "",
        ["dev", name] => name,
        [name] if matches!(*object, "addr" | "address" | "a" | "link" | "l") => name,
        _ => return malformed(FORM),
    };
    if !interface.is_empty() {
        check_interface(interface)?;
    }
    match *object {
        "addr" | "address" | "a" => table(Table::Addresses, interface),
        "link" | "l" => table(Table::InterfaceCounters, interface),
        "route" | "r" if arguments.has("ipv6") => table(Table::RoutesIpv6, interface),
        "route" | "r" => table(Table::RoutesIpv4, interface),
        "neigh" | "neighbour" | "neighbor" | "n" => table(Table::Neighbours, interface),
        _ => Err(Refused::new(Reason::Unknown, FORM)),
    }
}

/// As the kernel names them.
fn check_interface(name: &str) -> Result<(), Refused> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_one = (1..=15).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['-', '.']);
    if is_one { Ok(()) } else { malformed(format!("{name:?} is not the name of an interface")) }
}

pub(super) fn connections(arguments: &Arguments) -> Result<What, Refused> {
    no_words(arguments, "filters of conntrack are not understood: use grep behind a pipe")?;
    match ["dump", "stats", "count"].map(|what| arguments.has(what)) {
        [true, false, false] => table(Table::Connections, ""),
        [false, true, false] => table(Table::ConnectionCounters, ""),
        [false, false, true] => table(Table::ConnectionCount, ""),
        _ => malformed("it is conntrack -L, -S or -C"),
    }
}

pub(super) fn interface_counters(arguments: &Arguments) -> Result<What, Refused> {
    match arguments.words()[..] {
        [name] if arguments.has("statistics") => {
            check_interface(name)?;
            table(Table::InterfaceCounters, name)
        }
        _ => malformed("it is ethtool -S NAME"),
    }
}

pub(super) fn protocol_counters(arguments: &Arguments) -> Result<What, Refused> {
    no_words(arguments, "all counters are shown: use grep behind a pipe")?;
    table(Table::ProtocolCounters, "")
}

pub(super) fn settings(arguments: &Arguments) -> Result<What, Refused> {
    let words = arguments.words();
    if words.is_empty() || words.len() > SETTINGS {
        return malformed("it is sysctl NAME..., at most 50 of them");
    }
    for word in &words {
        if word.contains('=') {
            return Err(Refused::new(Reason::Write, READS));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
        let is_one = word.len() <= 128
            && word.bytes().all(allowed)
            && word.split('.').all(|part| !part.is_empty() && !part.starts_with('/') && !part.ends_with('/'))
            && !word.contains("//");
        if !is_one {
            return malformed(format!("{word:?} is not the name of a setting, such as vm.swappiness"));
        }
        if !["kernel.", "net.", "vm.", "fs."].iter().any(|tree| word.starts_with(tree)) {
            return Err(Refused::new(Reason::Unknown, "settings are read below kernel, net, vm and fs"));
        }
    }
    Ok(What::Settings(SettingRead { names: words.iter().map(ToString::to_string).collect() }))
}

/// Types of records by their names, with their numbers (RFC 1035, 2782, 3596).
const RECORDS: [(&str, u32); 9] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
];

fn record(name: &str) -> Option<u32> {
    RECORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
}

const SERVER: &str = "the name servers that the agent's pod has are asked, and no other";

pub(super) fn records(arguments: &Arguments) -> Result<What, Refused> {
    const FORM: &str =
        "it is dig NAME [TYPE] or dig -x ADDRESS; types are A, AAAA, CNAME, MX, NS, PTR, SOA, SRV and TXT";
    let words = arguments.words();
    if words.iter().any(|word| word.starts_with('@')) {
        return Err(Refused::new(Reason::Elsewhere, SERVER));
    }
    let typed = arguments.value("type");
    let (name, kind) = match (&words[..], arguments.value("reverse")) {
        ([], Some(address)) => {
            let Ok(address) = address.parse() else { return malformed(FORM) };
            (reverse(address), "PTR")
        }
        ([name], None) => ((*name).to_owned(), typed.unwrap_or("A")),
        ([name, kind], None) if typed.is_none() => ((*name).to_owned(), *kind),
        _ => return malformed(FORM),
    };
    match record(kind) {
        Some(record) if is_name(&name) => Ok(What::Name(NameRead { name, record, search: false })),
        _ => malformed(FORM),
    }
}

/// Under which name an address says what its names are.
pub(super) fn reverse(address: IpAddr) -> String {
    let labels: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().rev().map(ToString::to_string).collect(),
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect()
        }
    };
    format!("{}.{}", labels.join("."), if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" })
}

pub(super) fn addresses_of(arguments: &Arguments) -> Result<What, Refused> {
    match arguments.words()[..] {
        [name] if is_name(name) && name.parse::<IpAddr>().is_err() => {
            Ok(What::Name(NameRead { name: name.to_owned(), record: 1, search: true }))
        }
        [_, _, ..] => Err(Refused::new(Reason::Elsewhere, SERVER)),
        _ => malformed("it is nslookup NAME; of an address: dig -x ADDRESS"),
    }
}

pub(super) fn connect(arguments: &Arguments) -> Result<What, Refused> {
    const FORM: &str = "it is nc -z [-w SECONDS] HOST PORT: a connection is opened and closed";
    let [host, port] = arguments.words()[..] else { return malformed(FORM) };
    let is_host = is_name(host) || host.parse::<IpAddr>().is_ok();
    match port.parse::<u16>() {
        Ok(port @ 1..) if is_host && arguments.has("zero") => {
            Ok(What::Connect(ConnectRead { host: host.to_owned(), port: port.into() }))
        }
        _ => malformed(FORM),
    }
}

pub(super) fn packets(arguments: &Arguments) -> Result<What, Refused> {
    const FORM: &str = "it is tcpdump -i any [-c PACKETS] [-G SECONDS] [-w -] [tcp|udp|icmp|icmp6] [host ADDRESS] [port PORT], \
                        with at most 1000 packets (100 without -c) in at most 30 s (10 without -G)";
    if arguments.value("interface").is_some_and(|name| name != "any") {
        return malformed("all interfaces are seen together: -i any");
    }
    if arguments.value("write").is_some_and(|file| file != "-") {
        return Err(Refused::new(
            Reason::File,
            "there are no files: -w - gives the file of packets in base64",
        ));
    }
    let number = |flag: &str, default: u32, most: u32| match arguments.value(flag).map(str::parse) {
        None => Ok(default),
        Some(Ok(number)) if (1..=most).contains(&number) => Ok(number),
        Some(_) => malformed(FORM),
    };
    let mut read = PacketRead {
        packets: number("count", 100, 1000)?,
        seconds: number("seconds", 10, 30)?,
        pcap: arguments.value("write").is_some(),
        ..PacketRead::default()
    };
    let words = arguments.words();
    let mut rest = &words[..];
    // Each may stand there once.
    loop {
        rest = match rest {
            [] => return Ok(What::Packets(read)),
            ["and", next, ..] if read.protocol + read.port > 0 || !read.host.is_empty() => match *next {
                "and" => return malformed(FORM),
                _ => &rest[1..],
            },
            ["tcp", rest @ ..] if read.protocol == 0 => {
                read.protocol = 6;
                rest
            }
            ["udp", rest @ ..] if read.protocol == 0 => {
                read.protocol = 17;
                rest
            }
            ["icmp", rest @ ..] if read.protocol == 0 => {
                read.protocol = 1;
                rest
            }
            ["icmp6", rest @ ..] if read.protocol == 0 => {
                read.protocol = 58;
                rest
            }
            ["host", address, rest @ ..] if read.host.is_empty() && address.parse::<IpAddr>().is_ok() => {
                read.host = (*address).to_owned();
                rest
            }
            ["port", port, rest @ ..] if read.port == 0 => match port.parse::<u16>() {
                Ok(port @ 1..) => {
                    read.port = port.into();
                    rest
                }
                _ => return malformed(FORM),
            },
            _ => return malformed(FORM),
        };
    }
}

pub(super) fn containers(arguments: &Arguments) -> Result<What, Refused> {
    const FORM: &str = "it is crictl ps [-a], crictl inspect CONTAINER or crictl stats";
    let read = |facts: ContainerFacts, id: &str| {
        Ok(What::Containers(ContainerRead { facts: facts.into(), id: id.to_owned() }))
    };
    let is_id = |id: &str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (&arguments.words()[..], arguments.has("all")) {
        (["ps"], false) => read(ContainerFacts::Running, ""),
        (["ps"], true) => read(ContainerFacts::All, ""),
        (["stats"], _) => read(ContainerFacts::Stats, ""),
        (["inspect", id], false) if is_id(id) => read(ContainerFacts::Status, id),
        (["exec" | "attach" | "port-forward" | "run" | "runp", ..], _) => {
            Err(Refused::new(Reason::Acts, ENTERS))
        }
        (
            [
                "rm" | "rmp" | "rmi" | "stop" | "stopp" | "start" | "create" | "update" | "pull"
                | "checkpoint" | "config",
                ..,
            ],
            _,
        ) => Err(Refused::new(Reason::Write, READS)),
        _ => malformed(FORM),
    }
}

/// Families of tables by nft's names, with their numbers in the kernel (`linux/netfilter.h`).
const FAMILIES: [(&str, u32); 6] =
    [("inet", 1), ("ip", 2), ("arp", 3), ("netdev", 5), ("bridge", 7), ("ip6", 10)];
const IPV4: u32 = 2;
const IPV6: u32 = 10;

fn firewall(family: u32, table: &str) -> Result<What, Refused> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/\\".contains(&byte);
    if table.len() > 255 || !table.bytes().all(allowed) {
        return malformed(format!("{table:?} is not the name of a table"));
    }
    Ok(What::Firewall(FirewallRead { family, table: table.to_owned() }))
}

pub(super) fn rules(arguments: &Arguments) -> Result<What, Refused> {
    const FORM: &str = "it is nft list ruleset [FAMILY] or nft list table [FAMILY] NAME; families are inet, ip, ip6, arp, bridge \
                        and netdev";
    let family = |name: &str| FAMILIES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    match arguments.words()[..] {
        ["list", "ruleset"] => firewall(0, ""),
        ["list", "ruleset", name] => {
            family(name).map_or_else(|| malformed(FORM), |family| firewall(family, ""))
        }
        // As nft has it, that of IPv4.
        ["list", "table", table] => firewall(IPV4, table),
        ["list", "table", name, table] => {
            family(name).map_or_else(|| malformed(FORM), |family| firewall(family, table))
        }
        ["monitor", ..] => Err(Refused::new(Reason::Endless, "changes never end: ask again instead")),
        [
            "add" | "create" | "delete" | "destroy" | "flush" | "insert" | "rename" | "replace" | "reset",
            ..,
        ] => Err(Refused::new(Reason::Write, READS)),
        _ => malformed(FORM),
    }
}

pub(super) fn rules_of_ipv4(arguments: &Arguments) -> Result<What, Refused> {
    rules_of(IPV4, arguments)
}

pub(super) fn rules_of_ipv6(arguments: &Arguments) -> Result<What, Refused> {
    rules_of(IPV6, arguments)
}

/// Of what iptables would list: without a table, all of the family's.
fn rules_of(family: u32, arguments: &Arguments) -> Result<What, Refused> {
    no_words(arguments, "whole tables are listed: use grep behind a pipe")?;
    firewall(family, arguments.value("table").unwrap_or_default())
}

pub(super) fn bpf_objects(arguments: &Arguments) -> Result<What, Refused> {
    const FORM: &str = "it is bpftool prog, map or net, with show behind it";
    let objects = match arguments.words()[..] {
        ["prog" | "program"] | ["prog" | "program", "show" | "list"] => BpfObjects::Programs,
        ["map"] | ["map", "show" | "list"] => BpfObjects::Maps,
        ["net"] | ["net", "show" | "list"] => BpfObjects::Attached,
        ["prog" | "program", "tracelog", ..] | ["map", "event_pipe", ..] => {
            return Err(Refused::new(Reason::Endless, "it never ends: ask for what is loaded"));
        }
        ["prog" | "program" | "map", "dump" | "lookup" | "getnext" | "peek" | "profile", ..] => {
            return Err(Refused::new(Reason::Unknown, "what is in a program or a map is not shown"));
        }
        [
            _,
            "load" | "loadall" | "attach" | "detach" | "pin" | "run" | "create" | "update" | "delete"
            | "push" | "pop" | "enqueue" | "dequeue" | "freeze",
            ..,
        ] => return Err(Refused::new(Reason::Write, READS)),
        _ => return malformed(FORM),
    };
    Ok(What::Bpf(BpfRead { objects: objects.into() }))
}
