use proptest::prelude::*;

use kestrel_proto::node::v1::{
    BpfObjects, BpfRead, ConnectRead, ContainerFacts, ContainerRead, FirewallRead, NameRead, PacketRead,
    SettingRead, SocketRead, SocketStates, Table, TableRead,
};

use super::{
    super::{
        Command,
        flags::{Flag, Never},
    },
    reads::reverse,
    *,
};

fn read(line: &str) -> Result<What, Reason> {
    let line = format!("kubectl debug node/n1 -- {line}");
    let command = Command::parse(&line).map_err(|refused| refused.reason)?;
    let host = command.kubectl.host.expect("it is of a node");
    assert_eq!(host.node, "n1");
    Ok(host.what)
}

fn of_table(table: Table, interface: &str) -> Result<What, Reason> {
    Ok(What::Table(TableRead { table: table.into(), interface: interface.to_owned() }))
}

#[test]
fn the_words_of_tools_become_kinds_of_reads() {
    let all = SocketRead { tcp: true, udp: true, unix: true, ..SocketRead::default() };
    let listening = SocketRead { states: SocketStates::Listening.into(), ..SocketRead::default() };
    for (line, expected) in [
        ("ss", all),
        ("ss -4", SocketRead { unix: false, only_ipv4: true, ..all }),
        ("ss -tln", SocketRead { tcp: true, ..listening }),
        ("ss -x --listening", SocketRead { unix: true, ..listening }),
        ("ss -tan", SocketRead { tcp: true, states: SocketStates::All.into(), ..SocketRead::default() }),
    ] {
        assert_eq!(read(line), Ok(What::Sockets(expected)), "{line}");
    }
    for (line, table, interface) in [
        ("ss -s", Table::SocketCounts, ""),
        ("ip a", Table::Addresses, ""),
        ("ip addr show dev eth0", Table::Addresses, "eth0"),
        ("ip -s link show eth0.1", Table::InterfaceCounters, "eth0.1"),
        ("ip route", Table::RoutesIpv4, ""),
        ("ip -6 route list", Table::RoutesIpv6, ""),
        ("ip neigh", Table::Neighbours, ""),
        ("conntrack -L", Table::Connections, ""),
        ("conntrack --stats", Table::ConnectionCounters, ""),
        ("conntrack -C", Table::ConnectionCount, ""),
        ("ethtool -S eth0", Table::InterfaceCounters, "eth0"),
        ("nstat -az", Table::ProtocolCounters, ""),
    ] {
        assert_eq!(read(line), of_table(table, interface), "{line}");
    }
    let names = vec!["vm.swappiness".to_owned(), "net.ipv4.conf.eth0/1.rp_filter".to_owned()];
    let settings = read("sysctl vm.swappiness net.ipv4.conf.eth0/1.rp_filter");
    assert_eq!(settings, Ok(What::Settings(SettingRead { names })));
    for (line, name, record, search) in [
        ("dig web.shop.svc.cluster.local", "web.shop.svc.cluster.local", 1, false),
        ("dig _grpc._tcp.web SRV", "_grpc._tcp.web", 33, false),
        ("dig -t aaaa web", "web", 28, false),
        ("dig -x 10.1.2.3", "3.2.1.10.in-addr.arpa", 12, false),
        ("nslookup web.shop", "web.shop", 1, true),
    ] {
        let name = name.to_owned();
        assert_eq!(read(line), Ok(What::Name(NameRead { name, record, search })), "{line}");
    }
    assert_eq!(reverse("fd00::1".parse().unwrap()), format!("1{}.d.f.ip6.arpa", ".0".repeat(29)));
    let connect = What::Connect(ConnectRead { host: "10.0.0.1".to_owned(), port: 443 });
    for (line, facts, id) in [
        ("crictl ps", ContainerFacts::Running, ""),
        ("crictl ps -a", ContainerFacts::All, ""),
        ("crictl stats", ContainerFacts::Stats, ""),
        ("crictl inspect 0a1b2c", ContainerFacts::Status, "0a1b2c"),
    ] {
        let id = id.to_owned();
        assert_eq!(read(line), Ok(What::Containers(ContainerRead { facts: facts.into(), id })), "{line}");
    }
    let few = PacketRead { packets: 100, seconds: 10, ..PacketRead::default() };
    for (line, expected) in [
        ("tcpdump", few.clone()),
        ("tcpdump -nni any", few.clone()),
        (
            "tcpdump -i any -nn -c 20 -G 5 tcp and host 10.0.0.1 and port 443",
            PacketRead {
                packets: 20,
                seconds: 5,
                protocol: 6,
                host: "10.0.0.1".to_owned(),
                port: 443,
                pcap: false,
            },
        ),
        ("tcpdump -w - udp port 53", PacketRead { protocol: 17, port: 53, pcap: true, ..few }),
    ] {
        assert_eq!(read(line), Ok(What::Packets(expected)), "{line}");
    }
    for (line, family, table) in [
        ("nft list ruleset", 0, ""),
        ("nft -a list ruleset inet", 1, ""),
        ("nft list table kube-proxy", 2, "kube-proxy"),
        ("nft list table ip6 nat", 10, "nat"),
        ("iptables-save", 2, ""),
        ("iptables-save -c -t nat", 2, "nat"),
        ("ip6tables-save", 10, ""),
        ("iptables -t nat -nvL", 2, "nat"),
        ("ip6tables -S", 10, ""),
    ] {
        let table = table.to_owned();
        assert_eq!(read(line), Ok(What::Firewall(FirewallRead { family, table })), "{line}");
    }
    for (line, objects) in [
        ("bpftool prog show", BpfObjects::Programs),
        ("bpftool map list", BpfObjects::Maps),
        ("bpftool net", BpfObjects::Attached),
    ] {
        assert_eq!(read(line), Ok(What::Bpf(BpfRead { objects: objects.into() })), "{line}");
    }
    assert_eq!(read("nc -zv -w 3 10.0.0.1 443"), Ok(connect));
}

#[test]
fn nothing_else_is_asked_of_a_node() {
    for (line, reason) in [
        ("ss -tlnp", Reason::Unknown),
        ("ss -K dst 10.0.0.1", Reason::Write),
        ("ss -D /tmp/x", Reason::File),
        ("ss state established", Reason::Malformed),
        ("ip link set eth0 down", Reason::Write),
        ("ip route add default via 10.0.0.1", Reason::Write),
        ("ip addr add 10.0.0.9/24 dev eth0", Reason::Write),
        ("ip route flush", Reason::Write),
        ("ip netns exec x sh", Reason::Malformed),
        ("ip -n x addr", Reason::Elsewhere),
        ("ip -b /etc/shadow", Reason::File),
        ("ip addr show dev ../../x", Reason::Malformed),
        ("conntrack -D", Reason::Write),
        ("conntrack -F", Reason::Write),
        ("conntrack -E", Reason::Endless),
        ("conntrack -L -S", Reason::Malformed),
        ("ethtool -s eth0 speed 10", Reason::Write),
        ("ethtool eth0", Reason::Malformed),
        ("sysctl -w vm.swappiness=1", Reason::Write),
        ("sysctl vm.swappiness=1", Reason::Write),
        ("sysctl -a", Reason::TooLarge),
        ("sysctl -p /etc/sysctl.conf", Reason::File),
        ("sysctl kernel./../../etc/passwd", Reason::Malformed),
        ("sysctl /etc/passwd", Reason::Malformed),
        ("sysctl user.max_user_namespaces", Reason::Unknown),
        ("dig @8.8.8.8 web", Reason::Elsewhere),
        ("dig web AXFR", Reason::Malformed),
        ("dig +trace web", Reason::Malformed),
        ("dig -f /etc/passwd", Reason::File),
        ("nslookup web 8.8.8.8", Reason::Elsewhere),
        ("nc 10.0.0.1 443", Reason::Malformed),
        ("nc -z 10.0.0.1 1-1000", Reason::Malformed),
        ("nc -e /bin/sh 10.0.0.1 4444", Reason::Acts),
        ("nc -lz 10.0.0.1 4444", Reason::Acts),
        ("nc -z -w 900 10.0.0.1 443", Reason::Malformed),
        ("iptables-save -f /tmp/x", Reason::File),
        ("iptables-save -M /bin/sh", Reason::Shell),
        ("iptables-save -t 'nat;x'", Reason::Malformed),
        ("iptables -F", Reason::Write),
        ("iptables -t nat -A POSTROUTING -j MASQUERADE", Reason::Write),
        ("iptables -L INPUT", Reason::Malformed),
        ("ip6tables -P INPUT DROP", Reason::Write),
        ("ipset list", Reason::Unsupported),
        ("nft flush ruleset", Reason::Write),
        ("nft add rule ip nat x drop", Reason::Write),
        ("nft -f /etc/nftables.conf", Reason::File),
        ("nft monitor", Reason::Endless),
        ("nft list ruleset all", Reason::Malformed),
        ("nft", Reason::Malformed),
        ("tcpdump -i any -w /tmp/x", Reason::File),
        ("tcpdump -i eth0", Reason::Malformed),
        ("tcpdump -A", Reason::Unknown),
        ("tcpdump -s 0", Reason::Unknown),
        ("tcpdump -z sh -w -", Reason::Shell),
        ("tcpdump -r /etc/passwd", Reason::File),
        ("tcpdump -c 100000", Reason::Malformed),
        ("tcpdump -G 3600", Reason::Malformed),
        ("tcpdump port 80 or port 443", Reason::Malformed),
        ("tcpdump and port 80", Reason::Malformed),
        ("tcpdump port 80 and", Reason::Malformed),
        ("tcpdump tcp and and port 80", Reason::Malformed),
        ("tcpdump host web", Reason::Malformed),
        ("tcpdump tcp udp", Reason::Malformed),
        ("tcpdump 'tcp[13] & 2 != 0'", Reason::Malformed),
        ("bpftool prog load x /sys/fs/bpf/x", Reason::Write),
        ("bpftool map dump id 3", Reason::Unknown),
        ("bpftool map update id 3 key 0 value 0", Reason::Write),
        ("bpftool prog tracelog", Reason::Endless),
        ("bpftool net attach xdp id 3 dev eth0", Reason::Write),
        ("bpftool btf dump", Reason::Malformed),
        ("bpftrace -e x", Reason::Unsupported),
        ("crictl exec x sh", Reason::Acts),
        ("crictl rm x", Reason::Write),
        ("crictl -r unix:///run/x.sock ps", Reason::Unknown),
        ("crictl inspect ../x", Reason::Malformed),
        ("crictl inspect -o go-template x", Reason::Unknown),
        ("crictl logs x", Reason::Malformed),
        ("chroot /host ss", Reason::Shell),
        ("nsenter -t 1 -n ss", Reason::Shell),
        ("cat /host/etc/shadow", Reason::File),
        ("sh", Reason::Shell),
        ("nonsense", Reason::Unknown),
        ("kubectl get pods", Reason::Unknown),
    ] {
        assert_eq!(read(line).unwrap_err(), reason, "{line}");
    }
    for (line, reason) in [
        ("kubectl debug node/n1", Reason::Malformed),
        ("kubectl debug node/n1 --", Reason::Malformed),
        ("kubectl debug -- ss", Reason::Malformed),
        ("kubectl debug node/n1 n2 -- ss", Reason::Malformed),
        ("kubectl debug node/../x -- ss", Reason::Malformed),
        ("kubectl debug web-1 -- ss", Reason::Acts),
        ("kubectl debug pod/web-1 -- ss", Reason::Acts),
        ("kubectl debug node/n1 --image=busybox -- ss", Reason::Acts),
        ("kubectl debug node/n1 -n kube-system -- ss", Reason::Unknown),
        ("ss -tan", Reason::Malformed),
        ("node/n1 ss", Reason::File),
    ] {
        assert_eq!(Command::parse(line).unwrap_err().reason, reason, "{line}");
    }
    for line in ["kubectl debug nodes/n1 -it -- ss -s | head -1", "kubectl debug -it node/n-1.x -- ip a"] {
        Command::parse(line).unwrap_or_else(|refused| panic!("{line}: {refused}"));
    }
}

/// Words of tools, flags of any of them and none, and values.
fn argument() -> impl Strategy<Value = String> {
    let known: Vec<String> = TOOLS
        .iter()
        .flat_map(|tool| tool.flags)
        .flat_map(|flag| {
            [Some(format!("--{}", flag.long)), flag.short.map(|short| format!("-{short}"))]
                .into_iter()
                .flatten()
        })
        .chain(
            [
                "--",
                "-",
                "-tan",
                "addr",
                "route",
                "show",
                "dev",
                "eth0",
                "vm.swappiness",
                "web",
                "SRV",
                "443",
                "-w3",
                "--wait=3",
                "10.0.0.1",
                "-tlnp",
                "add",
            ]
            .map(str::to_owned),
        )
        .collect();
    prop_oneof![6 => proptest::sample::select(known), 1 => "-{0,2}[a-zA-Z4/.=@]{1,8}"]
}

proptest! {
    /// Whatever is accepted is rendered to the same argv, and has no flag that is not in the tool's table.
    #[test]
    fn accepted_arguments_are_those_of_the_table(arguments in proptest::collection::vec(argument(), 0..6), place in 0..TOOLS.len()) {
        let tool = &TOOLS[place];
        let words: Vec<String> = ["node/n1", "--", tool.word].map(str::to_owned).into_iter().chain(arguments.clone()).collect();
        let debug = Arguments::parse(&words, &[], &[]).unwrap();
        if HostCommand::parse(&debug).is_ok() {
            let (node, found, parsed) = understood(&debug).unwrap();
            prop_assert_eq!((node, found.word), ("n1", tool.word));
            prop_assert_eq!(parsed.render(), arguments);
            for flag in parsed.flags() {
                prop_assert!(tool.flags.contains(flag));
                prop_assert!(!tool.never.iter().any(|never| never.long == flag.long));
            }
        }
    }
}

#[test]
fn tables_have_no_flag_twice_and_none_that_is_refused() {
    for tool in &TOOLS {
        for (place, flag) in tool.flags.iter().enumerate() {
            let is_twice =
                |other: &Flag| other.long == flag.long || (flag.short.is_some() && other.short == flag.short);
            assert!(!tool.flags[..place].iter().any(is_twice), "{} --{}", tool.word, flag.long);
            let is_never = |never: &Never| {
                never.long == flag.long || (flag.short.is_some() && never.short == flag.short)
            };
            assert!(!tool.never.iter().any(is_never), "{} --{}", tool.word, flag.long);
        }
    }
}
