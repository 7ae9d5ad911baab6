//! A read whose files are open: what is left to do needs no other.

use std::{
    fs::{self, File},
    io::{self, BufReader, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use kestrel_proto::node::v1::{BpfObjects, ContainerFacts, SocketStates, Table};

use super::{
    Places, addresses, bpf, connections,
    containers::{self, Asking},
    counters, firewall,
    names::{self, Servers},
    neighbours,
    packets::{self, Wanted},
    request::{Request, Setting},
    routes, settings, sockets,
};
use crate::sandbox::Reach;

type Lines = BufReader<File>;

/// A read that only has to be done.
pub(super) enum Opened {
    Sockets { files: Vec<(sockets::Kind, Lines)>, states: SocketStates },
    Table { table: Table, interface: Option<String>, files: Vec<Lines> },
    Settings(Vec<(String, Result<File, String>)>),
    Name { name: String, record: u16, search: bool, resolver: Lines, until: Instant },
    Packets { socket: File, wanted: Wanted },
    Containers { asking: Asking, facts: ContainerFacts, id: String },
    Connections(File),
    Firewall(firewall::Asked<File>),
    Bpf(Vec<String>),
    Connect { host: String, port: u16, from: &'static str, resolver: Lines, until: Instant },
}

impl Request {
    /// Opens what the read needs, and nothing else.
    ///
    /// # Errors
    /// It is not there, or this agent may not read it.
    pub(super) fn open(self, places: &Places, time: Duration) -> Result<Opened, String> {
        match self {
            Self::Sockets { tcp, udp, unix, ipv4, ipv6, states } => {
                let network = network(places)?;
                let kinds = [
                    (tcp && ipv4, sockets::Kind::Tcp, "tcp"),
                    (tcp && ipv6, sockets::Kind::Tcp, "tcp6"),
                    (udp && ipv4, sockets::Kind::Udp, "udp"),
                    (udp && ipv6, sockets::Kind::Udp, "udp6"),
                    (unix, sockets::Kind::Unix, "unix"),
                ];
                let mut files = Vec::new();
                for (_, kind, name) in kinds.into_iter().filter(|(is_asked, ..)| *is_asked) {
                    files.extend(open_if_there(network, name)?.map(|file| (kind, file)));
                }
                Ok(Opened::Sockets { files, states })
            }
            Self::Table { table: Table::Connections, .. }
                if places.may_see_firewall
                    && places.is_host_network
                    && !network(places)?.join("nf_conntrack").exists() =>
            {
                connections::ask().map(Opened::Connections).map_err(|error| not_told("connections", &error))
            }
            Self::Table { table, interface } => {
                let network = network(places)?;
                let mut files = Vec::new();
                for name in names_of(table) {
                    match open_if_there(network, name)? {
                        Some(file) => files.push(file),
                        // A kernel without IPv6.
                        None if name.contains('6') => {
                            files.push(BufReader::new(open(Path::new("/dev/null"))?))
                        }
                        None => return Err(missing(name)),
                    }
                }
                Ok(Opened::Table { table, interface, files })
            }
            Self::Settings(settings) => {
                let open = |setting: Setting| {
                    let file = open_setting(places, &setting);
                    (setting.name, file)
                };
                Ok(Opened::Settings(settings.into_iter().map(open).collect()))
            }
            Self::Name { name, record, search } => {
                let resolver = resolver()?;
                Ok(Opened::Name { name, record, search, resolver, until: Instant::now() + time })
            }
            Self::Containers { facts, id } => {
                let socket = places.runtime_socket.as_deref().ok_or_else(|| {
                    "the runtime's socket is not in the agent's reach (Helm: nodeAgent.runtimeSocket)"
                        .to_owned()
                })?;
                Ok(Opened::Containers { asking: containers::connect(socket)?, facts, id })
            }
            Self::Firewall(wanted) => ask_firewall(wanted, places).map(Opened::Firewall),
            Self::Bpf(objects) => ask_bpf(objects, places).map(Opened::Bpf),
            Self::Packets(wanted) => Ok(Opened::Packets { socket: capture(places)?, wanted }),
            Self::Connect { host, port } => {
                let resolver = resolver()?;
                let from = if places.is_host_network { "the node" } else { "the agent's pod" };
                Ok(Opened::Connect { host, port, from, resolver, until: Instant::now() + time })
            }
        }
    }
}

fn network(places: &Places) -> Result<&Path, String> {
    places.network.as_deref().ok_or_else(|| {
        "the tables of the node's network are not in the agent's reach (Helm: nodeAgent.networkTables)"
            .to_owned()
    })
}

/// In the order in which they are read.
fn names_of(table: Table) -> &'static [&'static str] {
    match table {
        Table::Unspecified => &[],
        Table::SocketCounts => &["sockstat", "sockstat6"],
        Table::Addresses => &["dev", "route", "fib_trie", "if_inet6"],
        Table::InterfaceCounters => &["dev"],
        Table::RoutesIpv4 => &["route"],
        Table::RoutesIpv6 => &["ipv6_route"],
        Table::Neighbours => &["arp"],
        Table::Connections => &["nf_conntrack"],
        Table::ConnectionCounters | Table::ConnectionCount => &["stat/nf_conntrack"],
        Table::ProtocolCounters => &["snmp", "netstat", "snmp6"],
    }
}

fn missing(name: &str) -> String {
    match name {
        "nf_conntrack" => "this kernel shows the entries of its table of connections by netlink alone (CONFIG_NF_CONNTRACK_PROCFS \
                           is not set; Helm: nodeAgent.firewallRules, with nodeAgent.hostNetwork): conntrack -S and -C tell of it"
            .to_owned(),
        "stat/nf_conntrack" => "this kernel tracks no connections".to_owned(),
        name => format!("this kernel has no {name}"),
    }
}

/// What the kernel shows to some alone, tried: whether it was given, and whether it is in reach.
pub(crate) fn trials(places: &Places) -> [(&'static str, bool, Result<(), String>); 4] {
    let sockets = network(places).and_then(|folder| open(&folder.join("tcp")));
    let rules = ask_firewall(firewall::Wanted::default(), places);
    [
        ("tables of the network", places.network.is_some(), sockets.map(drop)),
        ("capture of packets", places.may_capture, capture(places).map(drop)),
        ("rules of the firewall", places.may_see_firewall, rules.map(drop)),
        ("BPF objects", places.may_see_bpf, ask_bpf(BpfObjects::Programs, places).map(drop)),
    ]
}

/// A socket that shows packets, where that is the owner's will.
fn capture(places: &Places) -> Result<File, String> {
    if !places.may_capture || !places.is_host_network {
        return Err(
            "packets are not captured (Helm: nodeAgent.packetCapture, with nodeAgent.hostNetwork)".to_owned()
        );
    }
    packets::open()
        .map_err(|error| format!("no packet can be seen: {error} (it needs the capability NET_RAW)"))
}

fn ask_firewall(wanted: firewall::Wanted, places: &Places) -> Result<firewall::Asked<File>, String> {
    if !places.may_see_firewall || !places.is_host_network {
        return Err(
            "the rules of the firewall are not in the agent's reach (Helm: nodeAgent.firewallRules, with \
                    nodeAgent.hostNetwork)"
                .to_owned(),
        );
    }
    // Where iptables has tables that nf_tables knows nothing of, their names are all that is told.
    let names = ["ip_tables_names", "ip6_tables_names"];
    let legacy = names.iter().filter_map(|name| {
        let tables = fs::read_to_string(places.proc.join("net").join(name)).ok()?;
        let tables = tables.split_whitespace().collect::<Vec<_>>().join(", ");
        (!tables.is_empty()).then(|| format!("{} {tables}", name.trim_end_matches("_tables_names")))
    });
    let legacy = legacy.collect::<Vec<_>>().join("; ");
    firewall::ask(wanted, legacy).map_err(|error| not_told("rules of a firewall", &error))
}

fn not_told(what: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("the {what} can't be seen: {error} (it needs the capability NET_ADMIN)")
        }
        _ => format!("this kernel does not tell its {what}: {error}"),
    }
}

fn ask_bpf(objects: BpfObjects, places: &Places) -> Result<Vec<String>, String> {
    if !places.may_see_bpf {
        return Err("BPF objects are not in the agent's reach (Helm: nodeAgent.bpfObjects)".to_owned());
    }
    if objects == BpfObjects::Attached && !places.is_host_network {
        let why = "the interfaces are those of the node's network, and the agent is not in it (Helm: nodeAgent.hostNetwork)";
        return Err(why.to_owned());
    }
    bpf::lines(objects).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("BPF objects can't be seen: {error} (it needs the capability SYS_ADMIN)")
        }
        _ => format!("this kernel does not tell of BPF objects: {error}"),
    })
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn open_if_there(folder: &Path, name: &str) -> Result<Option<Lines>, String> {
    let path = folder.join(name);
    match File::open(&path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn resolver() -> Result<Lines, String> {
    open(Path::new("/etc/resolv.conf")).map(BufReader::new)
}

/// A setting that any user of the node may read: some hold keys.
fn open_setting(places: &Places, setting: &Setting) -> Result<File, String> {
    if setting.is_of_a_pod() {
        return Err("every pod has its own, and the agent's says nothing of the node".to_owned());
    }
    if setting.is_of_a_network() && !places.is_host_network {
        let why =
            "every network has its own, and the agent is not in the node's (Helm: nodeAgent.hostNetwork)";
        return Err(why.to_owned());
    }
    let file =
        File::open(places.proc.join("sys").join(&setting.path)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "there is no such setting".to_owned(),
            _ => error.to_string(),
        })?;
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("this is a folder: name the settings in it".to_owned());
    }
    if about.permissions().mode() & 0o004 == 0 {
        return Err("the kernel shows it to root alone".to_owned());
    }
    Ok(file)
}

impl Opened {
    /// What it still has to reach.
    pub(super) fn reach(&self) -> Reach {
        match self {
            Self::Name { .. } | Self::Connect { .. } => Reach::Network,
            Self::Containers { .. } => Reach::Connected,
            Self::Sockets { .. }
            | Self::Table { .. }
            | Self::Settings(_)
            | Self::Packets { .. }
            | Self::Connections(_)
            | Self::Firewall(_)
            | Self::Bpf(_) => Reach::Open,
        }
    }

    /// Reads, and prints what was found.
    ///
    /// # Errors
    /// Why it is not all.
    pub(super) fn print(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Sockets { files, states } => sockets::print(files, states, out),
            Self::Table { table, interface, files } => print_table(table, interface.as_deref(), files, out),
            Self::Settings(found) => settings::print(found, out),
            Self::Containers { asking, facts, id } => containers::print(asking, facts, &id, out),
            Self::Connections(socket) => connections::print_told(socket, out),
            Self::Firewall(asked) => firewall::print(asked, out),
            Self::Bpf(lines) => bpf::print(lines, out),
            Self::Packets { socket, wanted } => packets::print(socket, &wanted, out),
            Self::Name { name, record, search, resolver, until } => {
                names::print(&name, record, search, &Servers::parse(resolver)?, until, out)
            }
            Self::Connect { host, port, from, resolver, until } => {
                names::connect((&host, port), from, &Servers::parse(resolver)?, until, out)
            }
        }
    }
}

fn print_table(
    table: Table,
    interface: Option<&str>,
    files: Vec<Lines>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut files = files.into_iter();
    let mut next = || files.next().ok_or_else(|| odd("a file is missing"));
    match table {
        Table::Unspecified => Ok(()),
        Table::SocketCounts => counters::copy(next()?, out).and_then(|()| counters::copy(next()?, out)),
        Table::Addresses => addresses::print(next()?, next()?, next()?, next()?, interface, out),
        Table::InterfaceCounters => counters::print_interfaces(next()?, interface, out),
        Table::RoutesIpv4 => routes::print_ipv4(next()?, interface, out),
        Table::RoutesIpv6 => routes::print_ipv6(next()?, interface, out),
        Table::Neighbours => neighbours::print(next()?, interface, out),
        Table::Connections => connections::print(next()?, out),
        Table::ConnectionCounters => connections::print_counters(next()?, out),
        Table::ConnectionCount => connections::print_count(next()?, out),
        Table::ProtocolCounters => {
            counters::print_pairs(next()?, out)?;
            counters::print_pairs(next()?, out)?;
            counters::copy(next()?, out)
        }
    }
}

/// What the kernel wrote is not as it was when this was written.
pub(super) fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not in the kernel's form: {what}"))
}
