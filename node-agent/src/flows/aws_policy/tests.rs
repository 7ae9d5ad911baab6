//! Lines in the forms that aws-network-policy-agent has had: `pkg/ebpf/events/events.go` of its versions
//! 1.0 (fields of the object), 1.2.2 (in the message) and later (with direction and tier); and with the time's name of
//! the sample in Amazon's user guide for EKS.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

fn flow(line: &str) -> Option<Flow<'static>> {
    match read(line, &mut Clock::default()) {
        Line::Flow(flow) => Some(flow),
        _ => None,
    }
}

fn parts(flow: &Flow<'_>) -> (String, String, u16, u8, Verdict, Direction) {
    let address = |peer: &Peer<'_>| peer.address.unwrap().to_string();
    let Flow { source, destination, port, protocol, verdict, direction, .. } = flow;
    (address(source), address(destination), *port, *protocol, *verdict, *direction)
}

#[test]
fn every_form_is_read() {
    let message = |text: &str| format!(r#"{{"level":"info","ts":"2026-11-22T07:00:00.5Z","msg":"{text}"}}"#);
    let of_fields = r#"{"level":"info","ts":"2026-11-22T07:00:00.5Z","logger":"ebpf-client","msg":"Flow Info:  ","Src IP":"10.0.1.7","Src Port":39197,"Dest IP":"10.0.0.10","Dest Port":53,"Proto":"UDP","Verdict":"DENY"}"#;
    let v4 = "Flow Info: Src IP: 10.0.1.7 Src Port: 40000 Dest IP: 10.0.2.8 Dest Port: 80 Proto TCP Verdict ACCEPT";
    let v6 =
        "Flow Info: Src IP: fd00::7 Src Port: 40000 Dest IP: fd00::8 Dest Port: 443 Proto: TCP Verdict: DENY";
    let expected = |from: &str, to: &str, port, protocol, verdict, direction| {
        (from.to_owned(), to.to_owned(), port, protocol, verdict, direction)
    };
    for (line, of_line) in [
        (
            of_fields.to_owned(),
            expected("10.0.1.7", "10.0.0.10", 53, 17, Verdict::Dropped, Direction::Unspecified),
        ),
        (
            of_fields.replace("UDP", "UNKNOWN").replace("DENY", "ACCEPT"),
            expected("10.0.1.7", "10.0.0.10", 53, 0, Verdict::Forwarded, Direction::Unspecified),
        ),
        (
            message(v4).replace("\"ts\"", "\"timestamp\""),
            expected("10.0.1.7", "10.0.2.8", 80, 6, Verdict::Forwarded, Direction::Unspecified),
        ),
        (message(v4), expected("10.0.1.7", "10.0.2.8", 80, 6, Verdict::Forwarded, Direction::Unspecified)),
        (
            message(&format!("{v4} Direction egress")),
            expected("10.0.1.7", "10.0.2.8", 80, 6, Verdict::Forwarded, Direction::Egress),
        ),
        (
            message(&format!("{v4} Direction ingress, Tier NETWORK_POLICY")),
            expected("10.0.1.7", "10.0.2.8", 80, 6, Verdict::Forwarded, Direction::Ingress),
        ),
        (message(v6), expected("fd00::7", "fd00::8", 443, 6, Verdict::Dropped, Direction::Unspecified)),
        (
            message(&format!("{v6} Direction: ingress Tier: ADMIN")),
            expected("fd00::7", "fd00::8", 443, 6, Verdict::Dropped, Direction::Ingress),
        ),
    ] {
        let flow = flow(&line).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(parts(&flow), of_line, "{line}");
        assert_eq!((flow.time, flow.seen_by), (1_795_330_800_500_000_000, Source::AwsPolicyAgent));
    }
    let ended = of_fields.replace("DENY", "EXPIRED/DELETED");
    assert_eq!(read(&ended, &mut Clock::default()), Line::Told);
}

#[test]
fn what_is_no_flow_is_left_and_what_should_be_one_is_counted() {
    for (line, expected) in [
        ("", Line::Other),
        (
            r#"{"level":"info","ts":"2026-11-22T07:00:00Z","msg":"Pod has an Ingress hook attached"}"#,
            Line::Other,
        ),
        (r#"{"msg":"Flow Info: Src IP: x","ts":"2026-11-22T07:00:00Z"}"#, Line::Unreadable),
        (r#"{"msg":"Flow Info:  ","ts":"2026-11-22T07:00:00Z"}"#, Line::Unreadable),
        (r#"{"msg":"Flow Info:  ","Src IP":"10.0.0.1"}"#, Line::Unreadable),
        ("Flow Info: cut off", Line::Unreadable),
    ] {
        assert_eq!(read(line, &mut Clock::default()), expected, "{line}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_answer(text in ".{0,80}", rest in "[A-Za-z0-9:. ]{0,80}") {
        let _any = read(&text, &mut Clock::default());
        let line = format!(r#"{{"ts":"2026-11-22T07:00:00Z","msg":"Flow Info: {rest}"}}"#);
        let _any = read(&line, &mut Clock::default());
    }

    #[test]
    fn what_is_written_is_read(
        from in any::<u128>(), to in any::<u128>(), port in any::<u16>(), is_v6: bool, is_denied: bool, is_ingress: bool,
    ) {
        let address = |bits: u128| match is_v6 {
            true => IpAddr::from(Ipv6Addr::from_bits(bits)),
            false => IpAddr::from((bits as u32).to_be_bytes()),
        };
        let (from, to) = (address(from), address(to));
        let colon = if is_v6 { ":" } else { "" };
        let verdict = if is_denied { "DENY" } else { "ACCEPT" };
        let direction = if is_ingress { "ingress" } else { "egress" };
        let line = format!(
            r#"{{"ts":"2026-11-22T07:00:00Z","msg":"Flow Info: Src IP: {from} Src Port: 1 Dest IP: {to} Dest Port: {port} Proto{colon} SCTP Verdict{colon} {verdict} Direction{colon} {direction}{} Tier{colon} BASELINE"}}"#,
            if is_v6 { "" } else { "," }
        );
        let verdict = if is_denied { Verdict::Dropped } else { Verdict::Forwarded };
        let direction = if is_ingress { Direction::Ingress } else { Direction::Egress };
        let found = flow(&line).unwrap();
        prop_assert_eq!(parts(&found), (from.to_string(), to.to_string(), port, 132, verdict, direction));
    }
}
