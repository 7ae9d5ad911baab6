//! Flows in, reports out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{names::MOST_NAME_BYTES, *};
use crate::flow::{Direction, Source, Verdict};
use kestrel_proto::hubble::flow as hubble;

fn flow<'a>(pods: [&'a str; 2], port: u16, time: u64) -> Flow<'a> {
    let peer = |pod| Peer { address: Some([10, 0, 0, 1].into()), namespace: "shop", pod, ..Peer::default() };
    Flow {
        source: peer(pods[0]),
        destination: peer(pods[1]),
        port,
        protocol: 6,
        verdict: Verdict::Forwarded,
        direction: Direction::Egress,
        seen_by: Source::Ztunnel,
        time,
        bytes_sent: 10,
        bytes_received: 1,
        reason: "",
        policies: &[],
    }
}

#[test]
fn what_is_alike_is_counted_together_and_a_full_window_says_so() {
    let mut window = Window::new(2);
    for time in [5, 3, 9] {
        assert!(window.add(&flow(["web", "db"], 80, time)));
    }
    assert!(window.add(&flow(["web", "db"], 81, 7)));
    assert!(!window.add(&flow(["web", "db"], 82, 1)), "a third kind");
    assert!(window.add(&flow(["web", "db"], 81, 8)), "of a kind that is counted");
    assert!(window.is_filling());
    let mut flows: Vec<_> = window.close().flatten().collect();
    flows.sort_by_key(|flow| flow.port);
    let of = |flow: &v1::Flow| {
        (flow.port, flow.count, flow.first_seen, flow.last_seen, flow.bytes_sent, flow.bytes_received)
    };
    assert_eq!(flows.iter().map(of).collect::<Vec<_>>(), [(80, 3, 3, 9, 30, 3), (81, 2, 7, 8, 20, 2)]);
    let source = flows[0].source.clone().unwrap();
    assert_eq!((source.pod.as_str(), source.namespace.as_str()), ("web", "shop"));
    assert_eq!(source.address, [10, 0, 0, 1].as_slice());
    assert!(!window.is_filling() && window.close().is_empty());
}

#[test]
fn one_record_never_spans_ten_seconds_however_long_a_window_is_open() {
    let mut window = Window::new(usize::MAX);
    for second in [9, 10, 3600, 19, 7205] {
        assert!(window.add(&flow(["web", "db"], 80, second * 1_000_000_000)));
    }
    let mut flows: Vec<_> = window.close().flatten().collect();
    flows.sort_by_key(|flow| flow.first_seen);
    let seconds = |flow: &v1::Flow| (flow.first_seen / 1_000_000_000, flow.last_seen / 1_000_000_000);
    let expected = [(9, 9), (10, 19), (3600, 3600), (7205, 7205)];
    assert_eq!(flows.iter().map(seconds).collect::<Vec<_>>(), expected);
}

#[test]
fn a_report_has_a_bound() {
    let mut window = Window::new(usize::MAX);
    let long = "x".repeat(1000);
    for port in 0..600 {
        window.add(&flow([&long, "db"], port, 1));
    }
    let parts: Vec<_> = window.close().collect();
    let bytes = |part: &Vec<v1::Flow>| part.iter().map(v1::Flow::encoded_len).sum::<usize>();
    assert!(parts.iter().all(|part| bytes(part) < REPORT_BYTES + 2000));
    assert_eq!((parts.len(), parts.concat().len()), (3, 600));
}

#[test]
fn names_have_a_bound_and_those_of_flows_that_are_left_out_are_not_kept() {
    let mut window = Window::new(1);
    assert!(window.add(&flow(["web", "db"], 1, 1)));
    let bytes = window.names.bytes;
    assert!(!window.add(&flow(["other", "db"], 1, 1)));
    assert_eq!(window.names.bytes, bytes);
    assert!(window.add(&flow(["web", "db"], 1, 1)), "of a kind that is counted");
    let mut window = Window::new(usize::MAX);
    let half = [0, 1].map(|number: u8| vec![number; MOST_NAME_BYTES / 2 - 20]);
    let add = |window: &mut Window, endpoint: &[u8], port| {
        let source = Peer { endpoint, ..Peer::default() };
        window.add(&Flow { source, ..flow(["", ""], port, 1) })
    };
    assert!(add(&mut window, &half[0], 1) && !window.is_filling());
    assert!(add(&mut window, &half[1], 1) && window.is_filling());
    assert!(!add(&mut window, &[2; 100], 1));
    assert!(add(&mut window, &half[1], 2), "its name is known");
}

#[test]
fn what_stopped_a_flow_is_told_and_flows_that_others_stopped_are_counted_apart() {
    let policy = |name: &str| hubble::Policy { name: name.to_owned(), ..hubble::Policy::default() };
    let policies = hubble::Flow {
        egress_allowed_by: vec![policy("let-out")],
        ingress_denied_by: vec![policy("deny"), policy("deny-all")],
        ..hubble::Flow::default()
    };
    let policies = policies.encode_to_vec();
    let mut window = Window::new(usize::MAX);
    for (reason, policies) in
        [("POLICY_DENY", &policies[..]), ("POLICY_DENY", &policies), ("TTL_EXCEEDED", &[])]
    {
        assert!(window.add(&Flow { reason, policies, ..flow(["web", "db"], 80, 1) }));
    }
    let mut flows: Vec<_> = window.close().flatten().collect();
    flows.sort_by_key(|flow| flow.count);
    let names = |policies: &[kestrel_proto::cloud::v1::Policy]| {
        policies.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let told = flows.iter().map(|flow| {
        let by =
            [&flow.egress_allowed_by, &flow.egress_denied_by, &flow.ingress_denied_by].map(|by| names(by));
        (flow.count, &*flow.drop_reason, by.join(","))
    });
    let expected =
        [(1, "TTL_EXCEEDED", ",,".to_owned()), (2, "POLICY_DENY", "let-out,,deny deny-all".to_owned())];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn an_end_of_hubble_has_the_name_that_says_most() {
    let labels = vec!["reserved:world".to_owned()];
    let world = hubble::Endpoint { identity: 2, labels, ..hubble::Endpoint::default() };
    let pod =
        hubble::Endpoint { namespace: "shop".to_owned(), pod_name: "web-1".to_owned(), ..world.clone() };
    let workload = hubble::Workload { name: "web".to_owned(), kind: "Deployment".to_owned() };
    let of_workload = hubble::Endpoint { workloads: vec![workload], ..pod.clone() };
    let service = hubble::Service { name: "db".to_owned(), namespace: "data".to_owned() }.encode_to_vec();
    let bare = hubble::Endpoint { identity: 7, ..hubble::Endpoint::default() };
    for (endpoint, name, encoded_service, expected) in [
        (&of_workload, "x.example.com", &service[..], "shop Deployment web db.data.svc"),
        (&pod, "", &[], "shop Pod web-1 "),
        (&world, "x.example.com", &service, "data Service db db.data.svc"),
        (&world, "x.example.com", &[], " Unmanaged x.example.com x.example.com"),
        (&world, "", &[], " Unmanaged reserved:world "),
        (&bare, "", &[], " Unknown identity-7 "),
    ] {
        let endpoint = endpoint.encode_to_vec();
        let destination = Peer { endpoint: &endpoint, service: name, encoded_service, ..Peer::default() };
        let mut window = Window::new(1);
        assert!(window.add(&Flow { destination, ..flow(["web", ""], 80, 1) }));
        let told = window.close().flatten().next().unwrap().destination.unwrap();
        assert_eq!([told.namespace, told.kind, told.name, told.service].join(" "), expected);
    }
}

proptest! {
    /// Nothing is counted twice or lost, and both kinds of address come out as they went in.
    #[test]
    fn what_goes_in_comes_out(
        flows in prop::collection::vec((0..3_usize, any::<bool>(), 0..3_u16, 1..9_u64), 0..200),
        v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(),
    ) {
        let pods = ["a", "b", ""];
        let mut window = Window::new(usize::MAX);
        let mut expected = BTreeMap::<_, u64>::new();
        for (pod, is_v6, port, time) in flows {
            let address = if is_v6 { IpAddr::from(v6) } else { IpAddr::from(v4) };
            let peer = Peer { address: Some(address), pod: pods[pod], ..Peer::default() };
            let is_counted = window.add(&Flow { source: peer, ..flow(["x", "y"], port, time) });
            prop_assert!(is_counted);
            let address = match address.to_canonical() {
                _ if is_v6 && v6 == [0; 16] => vec![],
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            *expected.entry((address, pods[pod].to_owned(), u32::from(port))).or_default() += 1;
        }
        let mut found = BTreeMap::new();
        for flow in window.close().flatten() {
            let source = flow.source.unwrap();
            let before = found.insert((source.address.to_vec(), source.pod, flow.port), flow.count);
            prop_assert_eq!(before, None);
        }
        prop_assert_eq!(found, expected);
    }
}
