//! What is asked for, judged again at the node: nothing that comes over the link is taken for more than it is.

use std::{net::IpAddr, time::Duration};

use kestrel_proto::node::v1::{
    BpfObjects, BpfRead, ConnectRead, ContainerFacts, ContainerRead, FirewallRead, HostRead, NameRead,
    PacketRead, SettingRead, SocketRead, SocketStates, Table, TableRead, host_read::What,
};

use super::{firewall, packets::Wanted};

/// Settings in one read.
const SETTINGS: usize = 50;
/// Packets in one read …
const PACKETS: u32 = 1000;
/// … and how long it lasts, in seconds.
const SECONDS: u32 = 30;

/// A read that can be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    Sockets { tcp: bool, udp: bool, unix: bool, ipv4: bool, ipv6: bool, states: SocketStates },
    Table { table: Table, interface: Option<String> },
    Settings(Vec<Setting>),
    Name { name: String, record: u16, search: bool },
    Connect { host: String, port: u16 },
    Packets(Wanted),
    Containers { facts: ContainerFacts, id: String },
    Firewall(firewall::Wanted),
    Bpf(BpfObjects),
}

/// A setting of the kernel: its name, and its path below `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) path: String,
}

impl Request {
    /// # Errors
    /// It is none that this version knows, or no sound one.
    pub(super) fn of(read: Option<&HostRead>) -> Result<Self, String> {
        let unknown = || "this version of the agent does not know this kind of read".to_owned();
        match read.and_then(|read| read.what.as_ref()).ok_or_else(unknown)? {
            &What::Sockets(SocketRead { tcp, udp, unix, only_ipv4, only_ipv6, states }) => {
                let states = SocketStates::try_from(states).map_err(|_| unknown())?;
                Ok(Self::Sockets { tcp, udp, unix, ipv4: !only_ipv6, ipv6: !only_ipv4, states })
            }
            What::Table(TableRead { table, interface }) => {
                let table = Table::try_from(*table).map_err(|_| unknown())?;
                let is_name = |name: &str| {
                    name.len() <= 15 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
                };
                match (table, interface.as_str()) {
                    (Table::Unspecified, _) => Err(unknown()),
                    (_, "") => Ok(Self::Table { table, interface: None }),
                    (_, name) if is_name(name) => Ok(Self::Table { table, interface: Some(name.to_owned()) }),
                    _ => Err("this is not the name of an interface".to_owned()),
                }
            }
            What::Settings(SettingRead { names }) if (1..=SETTINGS).contains(&names.len()) => {
                names.iter().map(|name| Setting::parse(name)).collect::<Result<_, _>>().map(Self::Settings)
            }
            What::Settings(_) => Err(format!("at most {SETTINGS} settings are read at a time")),
            What::Name(NameRead { name, record, search }) if is_host(name) => {
                let record = u16::try_from(*record).map_err(|_| unknown())?;
                Ok(Self::Name { name: name.clone(), record, search: *search })
            }
            What::Connect(ConnectRead { host, port }) if is_host(host) || host.parse::<IpAddr>().is_ok() => {
                match u16::try_from(*port) {
                    Ok(port @ 1..) => Ok(Self::Connect { host: host.clone(), port }),
                    _ => Err("this is not the number of a port".to_owned()),
                }
            }
            What::Packets(PacketRead { packets, seconds, protocol, host, port, pcap }) => {
                let odd = |_| "these are not packets that are captured".to_owned();
                if !(1..=PACKETS).contains(packets) || !(1..=SECONDS).contains(seconds) {
                    return Err(format!("at most {PACKETS} packets are captured, in at most {SECONDS} s"));
                }
                let host = Some(host).filter(|host| !host.is_empty());
                Ok(Self::Packets(Wanted {
                    packets: *packets,
                    time: Duration::from_secs((*seconds).into()),
                    protocol: Some(u8::try_from(*protocol).map_err(odd)?).filter(|number| *number > 0),
                    host: host.map(|host| host.parse()).transpose().map_err(|_| "this is not an address")?,
                    port: Some(u16::try_from(*port).map_err(odd)?).filter(|number| *number > 0),
                    pcap: *pcap,
                }))
            }
            What::Containers(ContainerRead { facts, id }) => {
                let facts = ContainerFacts::try_from(*facts).map_err(|_| unknown())?;
                let is_id = id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                match facts {
                    ContainerFacts::Unspecified => Err(unknown()),
                    ContainerFacts::Status if id.is_empty() || !is_id => {
                        Err("this is not the identifier of a container".to_owned())
                    }
                    facts => Ok(Self::Containers { facts, id: id.clone() }),
                }
            }
            What::Firewall(FirewallRead { family, table }) => {
                firewall::Wanted::of(*family, table).map(Self::Firewall)
            }
            What::Bpf(BpfRead { objects }) => match BpfObjects::try_from(*objects) {
                Ok(BpfObjects::Unspecified) | Err(_) => Err(unknown()),
                Ok(objects) => Ok(Self::Bpf(objects)),
            },
            What::Name(_) | What::Connect(_) => Err("this is not the name of a host".to_owned()),
        }
    }
}

/// With the underscores that names of services have.
fn is_host(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(allowed)
}

impl Setting {
    /// `.` stands between folders, and `/` for the `.` in the name of an interface, as sysctl has it.
    fn parse(name: &str) -> Result<Self, String> {
        let swapped: String = name
            .chars()
            .map(|char| match char {
                '.' => '/',
                '/' => '.',
                char => char,
            })
            .collect();
        let is_part = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed) && !part.bytes().all(|byte| byte == b'.')
        };
        let is_below = ["kernel/", "net/", "vm/", "fs/"].iter().any(|tree| swapped.starts_with(tree));
        if name.len() > 128 || !is_below || !swapped.split('/').all(is_part) {
            return Err("this is not the name of a setting below kernel, net, vm or fs".to_owned());
        }
        Ok(Self { name: name.to_owned(), path: swapped })
    }

    /// Whether a pod has a value of its own, which says nothing of the node.
    pub(super) fn is_of_a_pod(&self) -> bool {
        let of_its_namespaces = [
            "kernel.hostname",
            "kernel.domainname",
            "kernel.sem",
            "kernel.shm",
            "kernel.msg",
            "kernel.ns_last_pid",
            "fs.mqueue.",
        ];
        of_its_namespaces.iter().any(|name| self.name.starts_with(name))
    }

    /// Whether a network has a value of its own.
    pub(super) fn is_of_a_network(&self) -> bool {
        self.name.starts_with("net.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(what: What) -> Result<Request, String> {
        Request::of(Some(&HostRead { what: Some(what), ..HostRead::default() }))
    }

    #[test]
    fn settings_do_not_lead_out_of_their_folder() {
        let judge =
            |name: &str| judge(What::Settings(SettingRead { names: vec![name.to_owned()] })).map(drop);
        for name in ["vm.swappiness", "net.ipv4.conf.eth0/100.rp_filter", "kernel.pid_max", "fs.file-nr"] {
            assert_eq!(judge(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "vm",
            "vm.",
            ".vm.x",
            "vm..x",
            "vm.//.//.etc.passwd",
            "vm./.x",
            "vm.//.x",
            "/etc/passwd",
            "dev.cdrom",
            "user.max_user_namespaces",
            "vm.x\0",
            "vm.é",
            "kernel.//..",
            "sunrpc.x",
        ] {
            assert!(judge(name).is_err(), "{name}");
        }
        let Ok(Request::Settings(settings)) =
            super::tests::judge(What::Settings(SettingRead { names: vec!["net.a.b/c".to_owned()] }))
        else {
            panic!()
        };
        assert_eq!(settings[0].path, "net/a/b.c");
    }

    #[test]
    fn what_is_unsound_or_of_a_newer_version_is_refused() {
        assert!(Request::of(None).is_err());
        assert!(Request::of(Some(&HostRead::default())).is_err());
        let table =
            |table, interface: &str| judge(What::Table(TableRead { table, interface: interface.to_owned() }));
        assert!(table(0, "").is_err() && table(99, "").is_err());
        assert!(
            table(2, "../../x").is_err() && table(2, "a b").is_err() && table(2, &"e".repeat(16)).is_err()
        );
        assert_eq!(
            table(2, "eth0.1@x"),
            Ok(Request::Table { table: Table::Addresses, interface: Some("eth0.1@x".to_owned()) })
        );
        let connect = |host: &str, port| judge(What::Connect(ConnectRead { host: host.to_owned(), port }));
        assert!(connect("10.0.0.1", 0).is_err() && connect("10.0.0.1", 70_000).is_err());
        assert!(connect("a b", 1).is_err() && connect("::1", 1).is_ok());
        let name =
            |name: &str, record| judge(What::Name(NameRead { name: name.to_owned(), record, search: true }));
        assert!(name("", 1).is_err() && name("x/y", 1).is_err() && name("x", 1 << 16).is_err());
        assert!(judge(What::Settings(SettingRead::default())).is_err());
        let container = |facts: ContainerFacts, id: &str| {
            judge(What::Containers(ContainerRead { facts: facts.into(), id: id.to_owned() }))
        };
        assert!(container(ContainerFacts::Unspecified, "").is_err());
        assert!(
            container(ContainerFacts::Running, "").is_ok() && container(ContainerFacts::Status, "").is_err()
        );
        assert!(container(ContainerFacts::Status, "../x").is_err());
        assert!(container(ContainerFacts::Status, "0a1b").is_ok());
        let firewall = |family, table: &str| {
            judge(What::Firewall(FirewallRead { family, table: table.to_owned() })).map(drop)
        };
        assert_eq!([firewall(0, ""), firewall(2, "nat")], [Ok(()), Ok(())]);
        assert!(firewall(4, "").is_err() && firewall(258, "").is_err() && firewall(0, "a\0b").is_err());
        let bpf = |objects| judge(What::Bpf(BpfRead { objects }));
        assert_eq!(bpf(1), Ok(Request::Bpf(BpfObjects::Programs)));
        assert!(bpf(0).is_err() && bpf(99).is_err());
        let few = PacketRead {
            packets: 5,
            seconds: 2,
            protocol: 6,
            host: "10.0.0.1".to_owned(),
            ..PacketRead::default()
        };
        let wanted = Wanted {
            packets: 5,
            time: Duration::from_secs(2),
            protocol: Some(6),
            host: Some([10, 0, 0, 1].into()),
            ..Wanted::default()
        };
        assert_eq!(judge(What::Packets(few.clone())), Ok(Request::Packets(wanted)));
        for odd in [
            PacketRead { packets: 0, ..few.clone() },
            PacketRead { packets: 1001, ..few.clone() },
            PacketRead { seconds: 31, ..few.clone() },
            PacketRead { seconds: 0, ..few.clone() },
            PacketRead { protocol: 256, ..few.clone() },
            PacketRead { host: "web".to_owned(), ..few.clone() },
            PacketRead { port: 1 << 16, ..few },
        ] {
            assert!(judge(What::Packets(odd.clone())).is_err(), "{odd:?}");
        }
    }
}
