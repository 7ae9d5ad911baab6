use super::{
    super::netlink::{
        attribute,
        tests::{Datagrams, told},
    },
    *,
};

fn named(kind: u16, name: &str) -> Vec<u8> {
    attribute(kind, format!("{name}\0").as_bytes())
}

fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind, &attributes.concat())
}

/// What the kernel says of something in a table of a family.
fn of(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    [vec![family, 0, 0, 0], attributes.concat()].concat()
}

fn step(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[named(1, name), nested(2, attributes)])
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nested(kind, &[attribute(1, bytes)])
}

fn to(code: i32, chain: &str) -> Vec<u8> {
    nested(2, &[nested(2, &[attribute(1, &code.to_be_bytes()), named(2, chain)])])
}

fn load(base: u32, offset: u32, length: u32) -> Vec<u8> {
    load_into(1, base, offset, length)
}

fn load_into(register: u32, base: u32, offset: u32, length: u32) -> Vec<u8> {
    step("payload", &[number(1, register), number(2, base), number(3, offset), number(4, length)])
}

fn compare(operator: u32, bytes: &[u8]) -> Vec<u8> {
    step("cmp", &[number(1, 1), number(2, operator), value(3, bytes)])
}

fn mask(bytes: &[u8]) -> Vec<u8> {
    let none = vec![0; bytes.len()];
    step("bitwise", &[number(1, 1), number(2, 1), number(3, 4), value(4, bytes), value(5, &none)])
}

fn rule(family: u8, steps: &[Vec<u8>]) -> String {
    let bytes = nested(4, steps);
    expressions::line(family, Attributes(&bytes), &sets())
}

/// `10.96.0.10 . tcp . 53 : goto svc`, and two networks.
fn sets() -> Vec<Set> {
    let services = [
        named(1, "kube-proxy"),
        named(2, "service-ips"),
        number(3, 8 | 0x80),
        number(4, 7 << 12 | 12 << 6 | 13),
        number(5, 12),
        number(6, 0xffff_ff00),
        number(7, 16),
    ]
    .concat();
    let key = [10, 96, 0, 10, 6, 0, 0, 0, 0, 53, 0, 0];
    let element = nested(1, &[value(1, &key), to(-4, "svc")]);
    let mut services = Set::of(Attributes(&services)).unwrap();
    services.add(Attributes(&nested(3, &[element])));
    let networks = [named(2, "networks"), number(3, 4), number(4, 7), number(5, 4)].concat();
    let mut networks = Set::of(Attributes(&networks)).unwrap();
    let edge = |key: [u8; 4], flags: u32| nested(1, &[value(1, &key), number(3, flags)]);
    // The kernel tells the last one first.
    let edges =
        [edge([10, 2, 0, 0], 1), edge([10, 1, 0, 0], 0), edge([10, 0, 0, 9], 1), edge([10, 0, 0, 1], 0)];
    networks.add(Attributes(&nested(3, &edges)));
    vec![services, networks]
}

#[test]
fn steps_become_the_words_of_nft() {
    const IP: u8 = 2;
    const INET: u8 = 1;
    let drop = step("immediate", &[number(1, 0), to(0, "")]);
    for (family, steps, expected) in [
        (IP, vec![load(1, 12, 4), compare(0, &[10, 0, 0, 1]), drop.clone()], "ip saddr 10.0.0.1 drop"),
        (IP, vec![load(1, 16, 1), compare(1, &[10])], "ip daddr != 10.0.0.0/8"),
        (
            IP,
            vec![load(1, 12, 4), mask(&[255, 255, 240, 0]), compare(0, &[10, 1, 16, 0])],
            "ip saddr 10.1.16.0/20",
        ),
        (10, vec![load(1, 24, 2), compare(0, &[0xfd, 0])], "ip6 daddr fd00::/16"),
        (
            INET,
            vec![
                step("meta", &[number(1, 1), number(2, 16)]),
                compare(0, &[6]),
                load(2, 2, 2),
                compare(0, &[1, 187]),
                step("counter", &[attribute(1, &9_u64.to_be_bytes()), attribute(2, &2_u64.to_be_bytes())]),
                step("immediate", &[number(1, 0), to(-3, "KUBE-SVC")]),
            ],
            "meta l4proto tcp th dport 443 counter packets 2 bytes 9 jump KUBE-SVC",
        ),
        (
            INET,
            vec![step("ct", &[number(1, 1), number(2, 0)]), mask(&10_u32.to_ne_bytes()), compare(1, &[0; 4])],
            "ct state established,new",
        ),
        (
            INET,
            vec![
                step("meta", &[number(1, 1), number(2, 3)]),
                mask(&0x4000_u32.to_ne_bytes()),
                compare(0, &0x4000_u32.to_ne_bytes()),
                step("masq", &[number(1, 16)]),
            ],
            "meta mark & 0x00004000 == 0x00004000 masquerade fully-random",
        ),
        (
            IP,
            vec![
                step("meta", &[number(1, 1), number(2, 7)]),
                compare(1, b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
                step("meta", &[number(1, 1), number(2, 6)]),
                compare(0, b"veth"),
            ],
            "oifname != \"lo\" iifname \"veth*\"",
        ),
        (
            INET,
            vec![
                load(1, 16, 4),
                step("meta", &[number(1, 9), number(2, 16)]),
                load_into(10, 2, 2, 2),
                step("lookup", &[named(1, "service-ips"), number(2, 1), number(3, 0)]),
            ],
            "ip daddr . meta l4proto . th dport vmap @service-ips",
        ),
        (
            IP,
            vec![load(1, 12, 4), step("lookup", &[named(1, "networks"), number(2, 1), number(5, 1)])],
            "ip saddr != @networks",
        ),
        (
            IP,
            vec![
                step("immediate", &[number(1, 1), value(2, &[10, 0, 0, 7])]),
                step("immediate", &[number(1, 2), value(2, &[0, 53])]),
                step("nat", &[number(1, 1), number(2, 2), number(3, 1), number(5, 2)]),
            ],
            "dnat to 10.0.0.7:53",
        ),
        (
            IP,
            vec![
                step("match", &[named(1, "comment"), number(2, 0), attribute(3, b"of \"a\"\0\0\0")]),
                step("target", &[named(1, "NFLOG"), number(2, 0), attribute(3, &[0; 8])]),
            ],
            "xt match \"comment\" \"of \\\"a\\\"\" xt target \"NFLOG\"",
        ),
        (IP, vec![step("synproxy", &[]), step("cmp", &[])], "[synproxy] [cmp]"),
    ] {
        assert_eq!(rule(family, &steps), expected);
    }
}

#[test]
fn tables_are_shown_with_sets_chains_and_rules_in_their_order() {
    let table = |family, name: &str| of(family, &[named(1, name)]);
    let chain = |family, table: &str, name: &str, more: &[Vec<u8>]| {
        of(family, &[&[named(1, table), named(3, name)], more].concat())
    };
    let hook = nested(4, &[number(1, 1), attribute(2, &(-100_i32).to_be_bytes())]);
    let told_of = [
        vec![table(2, "nat"), table(1, "kube-proxy")],
        vec![
            chain(2, "nat", "INPUT", &[hook, number(5, 1), named(7, "filter")]),
            chain(2, "nat", "A", &[]),
            chain(2, "nat", "B", &[]),
            chain(1, "kube-proxy", "C", &[]),
        ],
        vec![],
    ];
    let accept = step("immediate", &[number(1, 0), to(1, "")]);
    let rule = |family, table: &str, chain: &str| {
        told(
            0xa06,
            2,
            &of(family, &[named(1, table), named(2, chain), nested(4, std::slice::from_ref(&accept))]),
        )
    };
    let shown = |wanted: Wanted, set: bool| {
        let mut tables = tables(&told_of, &wanted);
        if set {
            tables[1].sets = sets();
        }
        let rules = Datagrams(
            [
                rule(2, "nat", "INPUT"),
                rule(2, "nat", "B"),
                rule(2, "nat", "B"),
                rule(2, "nat", "MADE-MEANWHILE"),
                rule(1, "kube-proxy", "C"),
                told(3, 2, &[0; 4]),
            ]
            .into(),
        );
        let mut out = Vec::new();
        print(Asked { wanted, tables, is_cut: false, rules, legacy: String::new() }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        shown(Wanted::default(), true),
        "table ip nat {
\tchain INPUT {
\t\ttype filter hook input priority -100; policy accept;
\t\taccept
\t}
\tchain A {
\t}
\tchain B {
\t\taccept
\t\taccept
\t}
}
table inet kube-proxy {
\tmap service-ips {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t\telements = {
\t\t\t10.96.0.10 . tcp . 53 : goto svc
\t\t}
\t}
\tset networks {
\t\ttype ipv4_addr
\t\telements = {
\t\t\t10.0.0.1-10.0.0.8
\t\t\t10.1.0.0/16
\t\t}
\t}
\tchain C {
\t\taccept
\t}
}
# 2 tables, 4 chains, 4 rules
"
    );
    let one = shown(Wanted { family: Some(1), table: None }, false);
    assert!(
        one.starts_with("table inet kube-proxy {\n\tchain C {\n\t\taccept\n")
            && one.ends_with("# 1 tables, 1 chains, 1 rules\n"),
        "{one}"
    );
    let none = shown(Wanted { family: None, table: Some("x".to_owned()) }, false);
    assert_eq!(none, "# 0 tables, 0 chains, 0 rules\n");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_rule_and_a_set(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), name in "payload|meta|ct|cmp|bitwise|lookup|nat|match|target|range|log|fib|immediate") {
        let _unread = expressions::line(2, Attributes(&bytes), &sets());
        let step = step(&name, std::slice::from_ref(&bytes));
        let _unread = rule(2, &[load(1, 12, 4), step]);
        let mut out = Vec::new();
        if let Some(mut set) = Set::of(Attributes(&bytes)) {
            set.add(Attributes(&bytes));
            set.print(&mut out).unwrap();
        }
        let _unread = tables(&[vec![bytes.clone()], vec![bytes.clone()], vec![bytes]], &Wanted::default());
    }
}
