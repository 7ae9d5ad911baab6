//! Lines in the forms that ztunnel has had: `src/proxy/metrics.rs` and `src/telemetry.rs` of istio/ztunnel, the
//! text of 1.21 and of later versions, and JSON (`LOG_FORMAT=json`).

use proptest::prelude::*;

use super::*;

const WEB: &str = r#"src.addr=10.0.1.7:40000 src.workload="web-7d9-abc" src.namespace="shop" src.identity="spiffe://cluster.local/ns/shop/sa/web""#;
const DB: &str = r#"dst.addr=10.0.2.8:15008 dst.hbone_addr=10.0.2.8:5432 dst.service="db.shop.svc.cluster.local" dst.workload="db-0" dst.namespace="shop" dst.identity="spiffe://cluster.local/ns/shop/sa/db""#;

/// The flow that a line tells, in words.
fn told(line: &str) -> String {
    read(line, 7, |line| match line {
        Line::Flow(flow) => {
            let peer = |peer: &Peer<'_>| {
                let address = peer.address.map_or("-".to_owned(), |address| address.to_string());
                format!("{address} {}/{} {}", peer.namespace, peer.pod, peer.service)
            };
            let Flow { port, verdict, direction, bytes_sent, bytes_received, time, protocol, .. } = flow;
            assert_eq!((time, protocol), (7, 6));
            format!(
                "{}> {}:{port} {verdict:?} {direction:?} {bytes_sent} {bytes_received}",
                peer(&flow.source),
                peer(&flow.destination)
            )
        }
        other => format!("{other:?}"),
    })
}

#[test]
fn every_form_is_read_and_bytes_have_the_direction_of_the_connection() {
    let flow = |rest: &str| {
        format!("10.0.1.7 shop/web-7d9-abc > 10.0.2.8 shop/db-0 db.shop.svc.cluster.local:5432 {rest}")
    };
    let line = |head: &str, rest: &str| format!("2026-11-22T07:00:00.000000Z{head}{WEB} {DB} {rest}");
    for (line, expected) in [
        (
            line("\tinfo\taccess\tconnection complete\t", r#"direction="outbound" bytes_sent=84 bytes_recv=175 duration="3ms""#),
            flow("Forwarded Egress 84 175"),
        ),
        (
            line("  INFO access: connection complete ", r#"direction="inbound" bytes_sent=175 bytes_recv=84 duration="3ms""#),
            flow("Forwarded Ingress 84 175"),
        ),
        (
            line("\terror\taccess\tconnection complete\t", r#"direction="outbound" bytes_sent=0 bytes_recv=0 duration="0ms" error="io error: Connection refused (os error 111)""#),
            flow("Error Egress 0 0"),
        ),
        (
            line("\terror\taccess\tconnection complete\t", r#"direction="outbound" bytes_sent=9 bytes_recv=1 duration="9ms" error="connection closed due to connection drain""#),
            flow("Forwarded Egress 9 1"),
        ),
        (
            line("\terror\taccess\tconnection complete\t", r#"direction="outbound" bytes_sent=0 bytes_recv=0 duration="1ms" error="http status: 401 Unauthorized""#),
            flow("Dropped Egress 0 0"),
        ),
        (
            line("\terror\taccess\tconnection complete\t", r#"direction="inbound" bytes_sent=0 bytes_recv=0 duration="1ms" error="connection closed due to policy rejection: explicitly denied by: shop/\"db only\"""#),
            flow("Dropped Ingress 0 0"),
        ),
        (
            r#"2026-11-22T07:00:00.000000Z	warn	access	connection failed	src.addr=10.0.1.7:40000 dst.addr=10.0.2.8:15008 direction="inbound" error="unknown destination""#.to_owned(),
            "10.0.1.7 / > 10.0.2.8 / :0 Error Ingress 0 0".to_owned(),
        ),
        (line("\tdebug\taccess\tconnection opened\t", r#"direction="outbound""#), "Told".to_owned()),
        (
            r#"2026-11-22T07:00:00Z	info	access	connection complete	src.addr=10.0.1.7:1 dst.addr=192.0.2.1:15008 dst.hbone_addr="db.other.mesh.internal:5432" direction="outbound" bytes_sent=1 bytes_recv=2"#.to_owned(),
            "10.0.1.7 / > - / db.other.mesh.internal:5432 Forwarded Egress 1 2".to_owned(),
        ),
        (
            r#"{"level":"info","time":"2026-11-22T07:00:00Z","scope":"access","message":"connection complete","src.addr":"[fd00::7]:1","src.workload":"web","src.namespace":"shop","dst.addr":"[fd00::8]:80","direction":"inbound","bytes_sent":5,"bytes_recv":4}"#.to_owned(),
            "fd00::7 shop/web > fd00::8 / :80 Forwarded Ingress 4 5".to_owned(),
        ),
    ] {
        assert_eq!(told(&line), expected, "{line}");
    }
}

#[test]
fn what_is_no_flow_is_left_and_what_should_be_one_is_counted() {
    for (line, expected) in [
        ("", "Other"),
        ("2026-11-22T07:00:00Z\tinfo\tstate\tconnection complete", "Other"),
        ("2026-11-22T07:00:00Z\tinfo\tapp\tlog=access level", "Other"),
        (r#"{"scope":"app","message":"connection complete access"}"#, "Other"),
        ("2026-11-22T07:00:00Z\tinfo\taccess\tconnection complete\tsrc.addr=10.0.1.7:1", "Unreadable"),
        ("{access", "Unreadable"),
    ] {
        assert_eq!(told(line), expected, "{line}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_answer(text in ".{0,80}", fields in r#"[a-z."=\\ 0-9:]{0,120}"#) {
        read(&text, 1, |_| ());
        read(&format!("info access connection complete {fields}"), 1, |_| ());
        read(&format!("{{\"scope\":\"access\",{text}"), 1, |_| ());
    }

    /// A field is found whatever the values before it hold.
    #[test]
    fn a_value_hides_no_field(value in r#"[a-z= ."\\]{0,40}"#, sent in any::<u64>()) {
        let line = format!("info access connection complete a={value:?} {WEB} {DB} direction=\"outbound\" bytes_sent={sent} bytes_recv=1");
        prop_assert!(told(&line).ends_with(&format!("Forwarded Egress {sent} 1")), "{line}");
    }
}
