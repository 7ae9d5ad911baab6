//! Time that only the test lets pass.

use kestrel_als::{
    Reporter, Window,
    entry::{self, Found},
};
use kestrel_proto::cloud::v1::{
    Action, KubernetesEvent, StreamEventsRequest, stream_events_request::Request as EventsRequest,
};

use super::*;

const START: i64 = 1_800_000_000;
/// Bytes that rows may take.
const ROOM: usize = 2 * 1024 * 1024;

/// What the proxies of some ten seconds log: of the pod with this address, these entries so often.
type Logged<'a> = &'a [(u8, &'a [(Entry, usize)])];

#[derive(Clone)]
enum Entry {
    Http(Box<HttpAccessLogEntry>),
    Tcp(Box<TcpAccessLogEntry>),
}

impl World {
    /// The proxies log all of it in this second; fifteen seconds later it is told.
    fn logged(&self, second: i64, proxies: Logged<'_>) -> Vec<L7AccessLog> {
        let (mut window, mut identities) = (Window::default(), HashMap::new());
        for (last, entries) in proxies {
            let (reporter, identity) = reporter(*last);
            identities.insert(reporter.number, Arc::new(identity));
            for (entry, count) in *entries {
                let message = timed(entry.clone(), START + second);
                for _ in 0..*count {
                    entry::read(&message, |found| match found {
                        Found::Entry(entry) => {
                            window.add(&reporter, entry, ROOM);
                        }
                        other => panic!("{other:?}"),
                    });
                }
            }
        }
        assert!(window.bytes() < ROOM, "{}", window.bytes());
        let now = Timestamp::from_second(START + second + 15).unwrap();
        self.requests.send((0, &Span { own: window, ..Span::default() }), &identities, now);
        self.requests.0.edges.tick(now);
        self.flows()
    }

    /// What was told of edges.
    fn incidents(&self) -> Vec<(Action, String, String)> {
        let next = || {
            let (number, message) = self.lanes.take(Lane::Signals)?;
            self.lanes.left(Lane::Signals, number);
            let (head, body) = message.on_own_stream();
            match StreamEventsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap().request {
                Some(EventsRequest::KubernetesEvent(event)) => Some(event),
                other => panic!("{other:?}"),
            }
        };
        let told = |event: KubernetesEvent| (event.action(), event.reason, event.message);
        std::iter::from_fn(next).map(told).collect()
    }
}

/// The proxy of the pod with this address.
fn reporter(last: u8) -> (Reporter, Identity) {
    let (_, namespace, _) = PODS.into_iter().find(|(of, ..)| *of == last).unwrap();
    let (address, namespace) = (IpAddr::from([10, 0, 0, last]), namespace.to_owned());
    let reporter = Reporter { number: last.into(), address: address.to_string().into_bytes().into() };
    (reporter, Identity { address: Some(address), namespace, ..Identity::default() })
}

/// A message with the entry, of something that began then.
fn timed(mut entry: Entry, seconds: i64) -> Vec<u8> {
    let common = match &mut entry {
        Entry::Http(entry) => &mut entry.common_properties,
        Entry::Tcp(entry) => &mut entry.common_properties,
    };
    common.as_mut().unwrap().start_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    let log_entries = Some(match entry {
        Entry::Http(entry) => LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![*entry] }),
        Entry::Tcp(entry) => LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: vec![*entry] }),
    });
    StreamAccessLogsMessage { identifier: None, log_entries }.encode_to_vec()
}

/// A request from the first to the second pod, as the proxy of either logs it.
fn request(from: u8, to: u8, side: Side, path: &str, code: u32) -> Entry {
    Entry::Http(entry(from, to, side, path, code).into())
}

/// A request of the first pod to one of the second's, whose policies refuse it, as the proxy of the second logs it.
fn denied(from: u8, to: u8) -> Entry {
    let mut entry = entry(from, to, Side::Server, "/orders/7", 403);
    let details = "rbac_access_denied_matched_policy[ns[shop]-policy[deny-web]-rule[0]]";
    entry.response.as_mut().unwrap().response_code_details = details.to_owned();
    Entry::Http(entry.into())
}

/// Scenario: both ends' proxies log more different requests than are told apart, by their paths, statuses and methods.
/// Guarantee: every one is told once, with both ends.
#[test]
fn requests_with_less_than_all_are_told_once() {
    let world = World::new();
    let requests = |side| {
        let one = |number: u32| {
            let word: String =
                (0..6).map(|at| char::from(b'g' + (number / 20_u32.pow(at) % 20) as u8)).collect();
            (request(1, 3, side, &format!("/{word}"), 200 + number % 400), 1)
        };
        (0..3000).map(one).collect::<Vec<_>>()
    };
    let told = world.logged(0, &[(1, &requests(Side::Client)), (3, &requests(Side::Server))]);
    assert_eq!(told.iter().map(|log| log.count).sum::<i64>(), 3000);
    let ends = |log: &L7AccessLog| (end(&log.source), end(&log.destination));
    let web_to_db = ("shop/StatefulSet/web ".to_owned(), "shop/StatefulSet/db db".to_owned());
    assert!(told.iter().all(|log| ends(log) == web_to_db));
}

/// Scenario: at the proxy of one end there is no room for anything, at those of the others there is; also the other way round.
/// Guarantee: what the others have told is not told again as nobody's, and what they have not seen is.
#[test]
fn what_has_lost_its_other_end_is_set_off_against_what_that_end_has_told() {
    for (side, last, counts) in [(Side::Server, 3, [3, 2]), (Side::Client, 1, [3, 2])] {
        let world = World::new();
        let (mut window, mut identities) = (Window::default(), HashMap::new());
        let mut add = |last: u8, side, times: usize, bytes| {
            let (reporter, identity) = reporter(last);
            identities.insert(reporter.number, Arc::new(identity));
            let message = timed(request(1, 3, side, "/a", 200), START);
            for _ in 0..times {
                entry::read(&message, |found| {
                    if let Found::Entry(entry) = found {
                        window.add(&reporter, entry, bytes);
                    }
                });
            }
        };
        let other = if side == Side::Server { (1, Side::Client) } else { (3, Side::Server) };
        add(other.0, other.1, 3, ROOM);
        add(last, side, 5, 0);
        let now = Timestamp::from_second(START + 15).unwrap();
        world.requests.send((0, &Span { own: window, ..Span::default() }), &identities, now);
        let mut told: Vec<_> = world.flows().iter().map(|log| (log.count, log.bytes_sent)).collect();
        told.sort();
        let one = told[0].1 / 2;
        assert_eq!(told, [(counts[1], 2 * one), (counts[0], 3 * one)], "{side:?}");
        assert!(world.metrics().contains(r#"left_out_total{reason="OtherEnd"} 3"#), "{}", world.metrics());
    }
}

/// Scenario: a policy refuses some of the requests of one workload to another, and both ends' proxies log them.
/// Guarantee: it is an incident with the policy, and over when the requests pass; the cloud sees that they were refused.
#[test]
fn refusals_are_an_incident_with_the_policy_that_only_the_servers_proxy_knows() {
    let world = World::new();
    let both = |second: i64, good: usize, bad: usize| {
        let client = [
            (request(1, 3, Side::Client, "/", 200), good),
            (request(1, 3, Side::Client, "/orders/7", 403), bad),
        ];
        let server = [(request(1, 3, Side::Server, "/", 200), good), (denied(1, 3), bad)];
        world.logged(second, &[(1, &client), (3, &server)])
    };
    let mut told = Vec::new();
    for second in [0, 10, 20] {
        assert_eq!(world.incidents(), []);
        told = both(second, 8, 2);
    }
    told.sort_by_key(|log| log.allowed);
    let termination = &told[0].http_data.as_ref().unwrap().connection_termination_details;
    assert_eq!((told.len(), told[0].allowed, told[0].count, told[1].allowed), (2, false, 2, true));
    assert!(termination.contains("deny-web"), "{termination}");
    let text = "StatefulSet shop/db refuses what StatefulSet shop/web asks for: 6 of 30 requests failed so in 20 s (403), \
                because of rbac_access_denied_matched_policy[ns[shop]-policy[deny-web]-rule[0]], such as GET /orders/:id.";
    assert_eq!(world.incidents(), [(Action::Create, "RequestsDenied".to_owned(), text.to_owned())]);

    // One in sixty still fails: too many for an end of it.
    (40..300).step_by(10).for_each(|second| drop(both(second, 59, 1)));
    assert_eq!(world.incidents(), []);
    // One in 200 is what always happens.
    (300..480).step_by(10).for_each(|second| drop(both(second, 199, 1)));
    let over = world.incidents().remove(0);
    assert_eq!((over.0, &*over.1), (Action::Update, "RequestsRecovered"));
    let text = "The refusals of requests of StatefulSet shop/web to StatefulSet shop/db are over after ";
    assert!(over.2.starts_with(text) && !over.2.contains("no request was seen"), "{over:?}");
}

/// Scenario: all pods of a workload go away, so that requests reach nobody; later one of its many routes fails.
/// Guarantee: it is the workload's incident by its name; a route that fails is one although it is a small share.
#[test]
fn requests_that_reach_nobody_and_a_broken_route_are_incidents_of_the_workload() {
    let world = World::new();
    let good = |count| (request(1, 3, Side::Client, "/", 200), count);
    world.logged(0, &[(1, &[good(9)])]);
    let nobody = {
        let mut entry = entry(1, 3, Side::Client, "/", 503);
        entry.request.as_mut().unwrap().authority = "db:5000".to_owned();
        let common = entry.common_properties.as_mut().unwrap();
        // Without a host Envoy names no cluster either.
        (common.upstream_remote_address, common.upstream_cluster) = (None, String::new());
        common.downstream_local_address = service_address(3);
        common.response_flags = Some(ResponseFlags { no_healthy_upstream: true, ..Default::default() });
        Entry::Http(entry.into())
    };
    for second in (10..50).step_by(10) {
        world.logged(second, &[(1, &[(nobody.clone(), 3)])]);
    }
    let text = "Connections of StatefulSet shop/web to StatefulSet shop/db fail: 9 of 9 requests failed so in 20 s (503 UH), \
                such as GET /.";
    assert_eq!(world.incidents(), [(Action::Create, "ConnectionsFailed".to_owned(), text.to_owned())]);
    for second in (50..330).step_by(10) {
        world.logged(second, &[(1, &[good(994), (request(1, 3, Side::Client, "/pay", 500), 6)])]);
    }
    let told = world.incidents();
    let reasons: Vec<_> = told.iter().map(|(action, reason, _)| (*action, &**reason)).collect();
    assert_eq!(reasons, [(Action::Create, "RequestsFailed"), (Action::Update, "RequestsRecovered")]);
    assert!(told[0].2.ends_with("(500), such as GET /pay."), "{told:?}");
}

/// Scenario: what the operator itself sends (the agent link of a collector in an application's pod, the connection to the cloud) passes
/// proxies that log it, well and badly, with and without an address of who answers.
/// Guarantee: nothing of it is told, nothing of it is an incident.
#[test]
fn the_operators_own_connections_are_told_in_no_form() {
    let world = World::new();
    let link = "outbound|8443||kestrel-agent-link.kestrel-ai.svc.cluster.local";
    let als = "outbound|8080||kestrel-operator-als.kestrel-ai.svc.cluster.local";
    let cloud = "outbound|443||cloud.example.com";
    let of_app = [
        (1, "", None, true),
        (1, link, Some(5), false),
        (1, link, None, true),
        (1, als, None, true),
        (1, "PassthroughCluster", Some(5), true),
    ];
    let of_own = [
        (5, "PassthroughCluster", Some(200), true),
        (5, cloud, None, true),
        (1, "inbound|8443||", None, false),
    ];
    let connection = |&(from, cluster, to, has_failed): &(u8, &str, Option<u8>, bool)| {
        let common = AccessLogCommon {
            downstream_direct_remote_address: address(from, 40_000),
            downstream_local_address: service_address(5),
            upstream_remote_address: to.and_then(|to| address(to, 8443)),
            upstream_cluster: cluster.to_owned(),
            response_flags: Some(ResponseFlags {
                upstream_connection_failure: has_failed,
                ..Default::default()
            }),
            ..AccessLogCommon::default()
        };
        let entry = TcpAccessLogEntry { common_properties: Some(common), connection_properties: None };
        (Entry::Tcp(entry.into()), 1)
    };
    let (app, own) = (of_app.each_ref().map(connection), of_own.each_ref().map(connection));
    for second in (0..60).step_by(10) {
        assert_eq!(world.logged(second, &[(1, &app), (5, &own)]), []);
    }
    assert_eq!(world.incidents(), []);
    assert!(world.metrics().contains(r#"left_out_total{reason="Own"} 48"#), "{}", world.metrics());
}

/// Scenario: for an hour no path comes twice, and no template folds them.
/// Guarantee: rows and memory have their bounds in every ten seconds, every request is told once, and the cloud sees for how many there was
/// no room to be told apart.
#[test]
fn an_hour_of_paths_that_are_all_different_has_its_bounds() {
    const REQUESTS: u32 = 1300;
    let world = World::new();
    let mut path = 0_u32;
    let (mut told, mut others) = (0, 0);
    for second in (0..3600).step_by(10) {
        let entries = (0..REQUESTS).map(|_| {
            path += 1;
            let letter = |at| char::from(b'g' + (path / 20_u32.pow(at) % 20) as u8);
            let word = (0..6).map(letter).collect::<String>();
            (request(1, 3, Side::Client, &format!("/{word}?token=secret"), 200), 1)
        });
        let messages = world.logged(second, &[(1, &entries.collect::<Vec<_>>())]);
        assert!(messages.len() <= 1001, "{}", messages.len());
        for log in messages {
            let path = log.http_data.unwrap().path;
            assert!(!path.contains(['?', '=']), "{path}");
            told += log.count;
            others += i64::from(path == kestrel_als::template::OTHER) * log.count;
        }
    }
    let sent = 360 * i64::from(REQUESTS);
    assert!(told == sent && others >= sent - 360_000, "{told} {others}");
}
