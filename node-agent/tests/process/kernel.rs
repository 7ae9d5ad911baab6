//! What the kernel tells only to those who may change it: rules of the firewall, of a network of the test's own, and
//! BPF objects, which the test loads. Where this process may not, the answer says which capability is missing.

use std::{
    process::{Command, Output},
    time::Duration,
};

use aya::{Ebpf, maps::Array, programs::SocketFilter};
use kestrel_node_agent::reads::{Places, child::Task};
use kestrel_proto::node::v1::{
    BpfObjects, BpfRead, FirewallRead, HostRead, Table, TableRead, host_read::What,
};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

use crate::reads;

/// Reads, behind these commands in a network of its own.
fn read(what: What, commands: &str) -> Output {
    let read = HostRead { what: Some(what), ..HostRead::default() };
    let places = Places {
        proc: "/proc".into(),
        // A kernel that shows no connections as a file.
        network: Some("/proc/sys/net".into()),
        is_host_network: true,
        may_see_firewall: true,
        may_see_bpf: true,
        ..Places::default()
    };
    let task = Task::new(read, &places, Duration::from_secs(20));
    let mut shell = Command::new("unshare");
    shell.args(["--net", "sh", "-ec", &format!("{commands}\nexec \"$0\" read")]);
    reads::done(shell.arg(env!("CARGO_BIN_EXE_kestrel-node-agent")), &task)
}

fn shown(output: &Output) -> String {
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && problem.is_empty(), "{problem}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Networks are made, and kernels asked, by root alone.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn rules_of_iptables_are_shown_with_those_of_nft() {
    if !is_root() {
        return;
    }
    const RULES: &str = "
        iptables -t nat -A POSTROUTING -s 10.0.0.0/8 ! -o lo -m comment --comment 'leaves the cluster' -j MASQUERADE
        iptables -N KUBE-TEST
        iptables -A FORWARD -p tcp -d 10.96.0.10/32 --dport 53 -m conntrack --ctstate NEW -j KUBE-TEST
        iptables -A KUBE-TEST -m mark --mark 0x4000/0x4000 -m statistic --mode random --probability 0.5 -j DROP
        iptables -t nat -A OUTPUT -p tcp -m addrtype --dst-type LOCAL -j DNAT --to-destination 10.0.0.7:8080
        ip6tables -A INPUT -s fd00::/20 -j ACCEPT";
    let all = shown(&read(What::Firewall(FirewallRead::default()), RULES));
    for line in [
        "table ip nat {",
        "type nat hook postrouting priority 100; policy accept;",
        "ip saddr 10.0.0.0/8 ",
        "oifname != \"lo\" ",
        "xt match \"comment\" \"leaves the cluster\" counter packets 0 bytes 0",
        "ip daddr 10.96.0.10",
        "state new counter packets 0 bytes 0 jump KUBE-TEST",
        "probability 0.50000 counter packets 0 bytes 0 drop",
        "destination local",
        "10.0.0.7:8080",
        "table ip6 filter {",
        "ip6 saddr fd00::/20 counter packets 0 bytes 0 accept",
    ] {
        assert!(all.contains(line), "{line}\n{all}");
    }
    let one = FirewallRead { family: 2, table: "nat".to_owned() };
    let one = shown(&read(What::Firewall(one), RULES));
    assert!(one.starts_with("table ip nat {") && !one.contains("KUBE-TEST"), "{one}");
    let none = shown(&read(What::Firewall(FirewallRead::default()), ":"));
    assert_eq!(none, "# 0 tables, 0 chains, 0 rules\n");
}

#[test]
fn connections_are_told_where_no_file_shows_them() {
    if !is_root() {
        return;
    }
    const CONNECTION: &str = "
        ip link set lo up
        iptables -A INPUT -m conntrack --ctstate NEW -j ACCEPT
        bash -c 'echo > /dev/udp/127.0.0.1/9999'";
    let all = shown(&read(
        What::Table(TableRead { table: Table::Connections.into(), ..TableRead::default() }),
        CONNECTION,
    ));
    assert!(
        all.starts_with("udp      17 ") && all.contains(" dport=9999 [UNREPLIED] src=127.0.0.1 "),
        "{all}"
    );
}

/// A program that drops everything, in the form in which compilers leave it.
fn program() -> Vec<u8> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    let code = file.add_section(Vec::new(), b"socket".to_vec(), SectionKind::Text);
    // r0 = 0; exit
    file.append_section_data(code, &[0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0], 8);
    file.add_symbol(Symbol {
        name: b"kestrel_drops".to_vec(),
        value: 0,
        size: 16,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(code),
        flags: SymbolFlags::None,
    });
    file.write().unwrap()
}

#[test]
fn what_is_loaded_into_the_kernel_is_told() {
    if !is_root() {
        return;
    }
    let map = Array::<_, u32>::create(7, 0).unwrap();
    let mut loaded = Ebpf::load(&program()).unwrap();
    let filter: &mut SocketFilter = loaded.program_mut("kestrel_drops").unwrap().try_into().unwrap();
    filter.load().unwrap();
    let bpf = |objects: BpfObjects, commands: &str| {
        shown(&read(What::Bpf(BpfRead { objects: objects.into() }), commands))
    };
    let programs = bpf(BpfObjects::Programs, ":");
    let line =
        programs.lines().find(|line| line.contains("kestrel_drops")).unwrap_or_else(|| panic!("{programs}"));
    let id = filter.info().unwrap().id();
    assert!(line.starts_with(&format!("{id}: socket_filter  name kestrel_drops  tag ")), "{line}");
    assert!(line.contains("xlated 16B"), "{line}");
    let maps = bpf(BpfObjects::Maps, ":");
    assert!(
        maps.lines()
            .any(|line| line.contains(": array  name ") && line.ends_with("key 4B  value 4B  max_entries 7")),
        "{maps}"
    );
    drop(map);
    const FILTER: &str = "
        ip link set lo up
        tc qdisc add dev lo clsact
        tc filter add dev lo egress bpf da bytecode '1,6 0 0 0'";
    assert_eq!(bpf(BpfObjects::Attached, FILTER), "tc: lo egress classic\n");
}
