//! Messages as the generated code writes them, which is as Cilium's does.

use kestrel_proto::hubble::{
    flow::{self, Endpoint, Ip, Layer4, Policy, Ports, layer4::Protocol},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use proptest::prelude::*;

use super::*;

fn flow() -> flow::Flow {
    let endpoint = |pod: &str| Endpoint {
        identity: 7,
        namespace: "shop".to_owned(),
        pod_name: pod.to_owned(),
        labels: vec!["k8s:app=web".to_owned(); 5],
        ..Endpoint::default()
    };
    flow::Flow {
        time: Some(prost_types::Timestamp { seconds: 5, nanos: 6 }),
        verdict: flow::Verdict::Forwarded.into(),
        ip: Some(Ip { source: "10.0.0.1".to_owned(), destination: "fd00::2".to_owned() }),
        l4: Some(Layer4 {
            protocol: Some(Protocol::Tcp(Ports { source_port: 40000, destination_port: 80 })),
        }),
        source: Some(endpoint("web-1")),
        destination: Some(endpoint("db-0")),
        destination_names: vec!["db.example.com".to_owned(), "other".to_owned()],
        traffic_direction: flow::TrafficDirection::Egress.into(),
        egress_allowed_by: vec![Policy { name: "let-out".to_owned(), ..Policy::default() }; 2],
        ingress_allowed_by: vec![Policy { name: "let-in".to_owned(), ..Policy::default() }],
        egress_denied_by: vec![Policy { name: "not-out".to_owned(), ..Policy::default() }],
        ingress_denied_by: vec![Policy { name: "not-in".to_owned(), ..Policy::default() }],
        destination_service: Some(flow::Service { name: "db".to_owned(), namespace: "shop".to_owned() }),
        ..flow::Flow::default()
    }
}

fn encode(flow: flow::Flow) -> Vec<u8> {
    GetFlowsResponse { response_types: Some(ResponseTypes::Flow(flow)), time: None }.encode_to_vec()
}

#[test]
fn a_flow_is_read_where_it_lies() {
    let expected = flow();
    let message = encode(expected.clone());
    let Message::Line(Line::Flow(read)) = read(&message, Source::Hubble) else { panic!() };
    assert_eq!((read.protocol, read.port, read.time), (6, 80, 5_000_000_006));
    assert_eq!((read.verdict, read.direction), (Verdict::Forwarded, Direction::Egress));
    assert_eq!(read.source.address, Some([10, 0, 0, 1].into()));
    assert_eq!(read.destination.address.unwrap().to_string(), "fd00::2");
    assert_eq!(read.destination.service, "db.example.com");
    assert_eq!(Endpoint::decode(read.source.endpoint).unwrap(), expected.source.unwrap());
    assert_eq!(Endpoint::decode(read.destination.endpoint).unwrap(), expected.destination.unwrap());
    let policies = flow::Flow::decode(read.policies).unwrap();
    assert_eq!(policies.egress_allowed_by, expected.egress_allowed_by);
    assert_eq!(policies.ingress_allowed_by, expected.ingress_allowed_by);
    assert_eq!(policies.egress_denied_by, expected.egress_denied_by);
    assert_eq!(policies.ingress_denied_by, expected.ingress_denied_by);
    let service = flow::Service::decode(read.destination.encoded_service).unwrap();
    assert_eq!(Some(service), expected.destination_service);
}

#[test]
fn what_is_told_by_other_flows_is_left_and_what_was_lost_is_counted() {
    let of = |change: fn(&mut flow::Flow)| {
        let mut flow = flow();
        change(&mut flow);
        let message = encode(flow);
        match read(&message, Source::Hubble) {
            Message::Line(Line::Flow(flow)) => format!("{:?} {}:{}", flow.verdict, flow.protocol, flow.port),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(of(|flow| flow.is_reply = Some(true)), "Line(Told)");
    assert_eq!(of(|flow| flow.is_reply = Some(false)), "Forwarded 6:80");
    for (verdict, expected) in [
        (flow::Verdict::Redirected, "Forwarded 6:80"),
        (flow::Verdict::Audit, "Forwarded 6:80"),
        (flow::Verdict::Dropped, "Dropped 6:80"),
        (flow::Verdict::Error, "Error 6:80"),
        (flow::Verdict::Traced, "Line(Told)"),
        (flow::Verdict::Translated, "Line(Told)"),
        (flow::Verdict::Unknown, "Line(Told)"),
    ] {
        let message = encode(flow::Flow { verdict: verdict.into(), ..flow() });
        let told = match read(&message, Source::Hubble) {
            Message::Line(Line::Flow(flow)) => format!("{:?} {}:{}", flow.verdict, flow.protocol, flow.port),
            other => format!("{other:?}"),
        };
        assert_eq!(told, expected, "{verdict:?}");
    }
    let reason = |number: i32| {
        let dropped =
            flow::Flow { drop_reason_desc: number, verdict: flow::Verdict::Dropped.into(), ..flow() };
        match read(&encode(dropped), Source::Hubble) {
            Message::Line(Line::Flow(flow)) => flow.reason.to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([reason(133), reason(0), reason(999)], ["POLICY_DENIED", "", ""]);
    let icmp = |flow: &mut flow::Flow| {
        let icmp = flow::Icmp { r#type: 8, code: 3 };
        flow.l4 = Some(Layer4 { protocol: Some(Protocol::IcmPv4(icmp)) });
    };
    assert_eq!(of(icmp), "Forwarded 1:0");
    let lost = LostEvent { source: 3, num_events_lost: 9 };
    let message = GetFlowsResponse { response_types: Some(ResponseTypes::LostEvents(lost)), time: None };
    assert_eq!(read(&message.encode_to_vec(), Source::Hubble), Message::Lost(lost));
    let nodes = NodeStatusEvent { state_change: 2, node_names: vec!["n1".to_owned()], ..Default::default() };
    let of_relay =
        GetFlowsResponse { response_types: Some(ResponseTypes::NodeStatus(nodes.clone())), time: None };
    assert_eq!(read(&of_relay.encode_to_vec(), Source::Hubble), Message::Nodes(nodes));
    // What a later version may tell.
    assert_eq!(read(&[0x22, 2, 8, 1], Source::Hubble), Message::Line(Line::Other));
    assert_eq!(read(&[0x0a, 9, 8, 1], Source::Hubble), Message::Line(Line::Unreadable));
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _any = read(&bytes, Source::Hubble);
        let mut of_a_flow = vec![0x0a, bytes.len() as u8];
        of_a_flow.extend(&bytes);
        let _any = read(&of_a_flow, Source::Hubble);
    }

    /// What the generated code would decode is what is read.
    #[test]
    fn it_reads_what_the_generated_code_reads(
        verdict in 1..4_i32, port in any::<u16>(), names in prop::collection::vec("[a-z.]{1,9}", 0..3), seconds in 0..1_i64 << 34,
    ) {
        let mut expected = flow();
        expected.verdict = verdict;
        expected.destination_names.clone_from(&names);
        expected.time = Some(prost_types::Timestamp { seconds, nanos: 1 });
        let ports = Ports { source_port: 1, destination_port: port.into() };
        expected.l4 = Some(Layer4 { protocol: Some(Protocol::Udp(ports)) });
        let message = encode(expected);
        let Message::Line(Line::Flow(read)) = read(&message, Source::Hubble) else { panic!() };
        prop_assert_eq!((read.protocol, read.port), (17, port));
        prop_assert_eq!(read.verdict as i32, verdict);
        prop_assert_eq!(read.destination.service, names.first().map_or("", String::as_str));
        prop_assert_eq!(read.time, seconds as u64 * 1_000_000_000 + 1);
    }
}

#[test]
fn an_answer_of_a_name_server_that_failed_is_told_of_who_asked_and_others_are_not() {
    let of = |kind: flow::L7FlowType, code, verdict: flow::Verdict| {
        let dns = flow::Dns { query: "api.example.com.".to_owned(), rcode: code };
        let l7 = flow::Layer7 { r#type: kind.into(), dns: Some(dns) };
        let is_reply = Some(kind == flow::L7FlowType::Response);
        encode(flow::Flow { l7: Some(l7), is_reply, verdict: verdict.into(), ..flow() })
    };
    let (answer, forwarded) = (flow::L7FlowType::Response, flow::Verdict::Forwarded);
    let message = of(answer, 2, forwarded);
    let Message::Line(Line::NameFailure(failure)) = read(&message, Source::Hubble) else { panic!() };
    assert_eq!((failure.code, failure.name, failure.time), (2, "api.example.com.", 5_000_000_006));
    assert_eq!(failure.server.address, Some([10, 0, 0, 1].into()), "the source of an answer");
    assert_eq!(Endpoint::decode(failure.client.endpoint).unwrap(), flow().destination.unwrap());
    for message in
        [of(answer, 0, forwarded), of(answer, 3, forwarded), of(flow::L7FlowType::Request, 0, forwarded)]
    {
        assert_eq!(read(&message, Source::Hubble), Message::Line(Line::Told));
    }
    let refused = of(flow::L7FlowType::Request, 0, flow::Verdict::Dropped);
    assert!(matches!(read(&refused, Source::Hubble), Message::Line(Line::Flow(_))), "by a policy of names");
}
