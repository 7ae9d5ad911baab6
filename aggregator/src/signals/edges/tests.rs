use kestrel_proto::{cloud::v1::OwnerReference, node::v1::PodInfo};
use proptest::prelude::*;

use super::*;
use crate::signals::{component::Home, note::Note, told::Told};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn ends(names: [&str; 2]) -> [End; 2] {
    names.map(|name| End::new("shop", "Deployment", name).unwrap())
}

fn stopped(edges: &Edges, names: [&str; 2], at: i64, port: &str) {
    let evidence = Evidence::new(port, Some("NetworkPolicy shop/deny"), None);
    edges.stopped(ends(names), 2, second(at), evidence, second(at));
}

fn passed(edges: &Edges, names: [&str; 2], at: i64, port: &str) {
    edges.passed(|| Some((ends(names), port.to_owned())), 5, second(at));
}

/// What was told: action, reason, message.
fn told(far: &Told) -> Vec<(Action, String, String)> {
    let signals = far.next().into_iter().map(|request| match request {
        Request::KubernetesEvent(event) => (event.action(), event.reason, event.message),
        other => panic!("{other:?}"),
    });
    signals.collect()
}

fn reasons(far: &Told) -> Vec<(Action, String)> {
    told(far).into_iter().map(|(action, reason, _)| (action, reason)).collect()
}

fn edges() -> (Told, Edges) {
    let far = Told::new();
    let edges = Edges::new(Components::new(far.lane()), far.lane());
    (far, edges)
}

const WEB_DB: [&str; 2] = ["web", "db"];

#[test]
fn drops_that_go_on_are_one_incident_with_the_policy_and_its_end_when_it_works() {
    let (far, edges) = edges();
    // A SYN and its repetitions.
    for at in [0, 1, 3, 7, 15] {
        stopped(&edges, WEB_DB, at, "TCP 5432");
        assert_eq!(told(&far), [], "{at}");
    }
    stopped(&edges, WEB_DB, 31, "TCP 5432");
    let text = "Deployment shop/web does not get through to Deployment shop/db: stopped 12 times in 31 s (TCP 5432) by NetworkPolicy shop/deny; nothing passed there meanwhile.";
    assert_eq!(told(&far), [(Action::Create, "TrafficStopped".to_owned(), text.to_owned())]);
    stopped(&edges, WEB_DB, 63, "TCP 5432");
    edges.tick(second(64));
    assert_eq!(told(&far), [], "more of the same is no news");
    stopped(&edges, WEB_DB, 70, "TCP 8080");
    let changed = told(&far).remove(0);
    assert_eq!((changed.0, &*changed.1), (Action::Update, "TrafficStopped"));
    assert!(changed.2.contains("(TCP 5432, TCP 8080)"), "{changed:?}");
    passed(&edges, WEB_DB, 90, "TCP 9090");
    edges.tick(second(260));
    assert_eq!(told(&far), [], "that port was never stopped");
    passed(&edges, WEB_DB, 261, "TCP 5432");
    edges.tick(second(261));
    let text = "Deployment shop/web gets through to Deployment shop/db again after 4 min.";
    assert_eq!(told(&far), [(Action::Update, "TrafficRecovered".to_owned(), text.to_owned())]);
    assert!(edges.state().troubles.is_empty());
}

#[test]
fn a_moments_drops_are_none_and_who_gives_up_is_no_recovery_for_ten_minutes() {
    let (far, edges) = edges();
    for at in [0, 9, 19, 200, 215] {
        stopped(&edges, WEB_DB, at, "TCP 80");
        edges.tick(second(at));
    }
    assert_eq!(told(&far), [], "never three spans in two minutes");
    stopped(&edges, WEB_DB, 225, "TCP 80");
    assert_eq!(reasons(&far), [(Action::Create, "TrafficStopped".to_owned())]);
    edges.tick(second(224 + 600));
    assert_eq!(told(&far), []);
    edges.tick(second(225 + 600));
    let over = told(&far).remove(0);
    assert_eq!(over.1, "TrafficRecovered");
    assert!(
        over.2
            .starts_with("Nothing that Deployment shop/web sends to Deployment shop/db is stopped any more"),
        "{over:?}"
    );
}

#[test]
fn what_comes_late_says_something_and_what_comes_too_late_does_not() {
    let (far, edges) = edges();
    let late = |at| {
        let evidence = Evidence::new("TCP 80", None, None);
        edges.stopped(ends(WEB_DB), 1, second(at), evidence, second(300));
    };
    [0, 10, 20].into_iter().for_each(late);
    assert!(told(&far).is_empty() && edges.state().troubles.is_empty());
    [290, 270, 280].into_iter().for_each(late);
    let text = told(&far).remove(0).2;
    assert!(text.contains("stopped 3 times in 20 s (TCP 80); what saw it does not say by what"), "{text}");
}

#[test]
fn what_is_watched_and_what_is_open_are_bounded_and_the_rest_is_counted() {
    let (far, edges) = edges();
    for number in 0..MOST + 10 {
        stopped(&edges, ["web", &number.to_string()], 0, "TCP 80");
    }
    assert_eq!((edges.state().troubles.len(), edges.left_out().get()), (MOST, 10));
    for at in [10, 20] {
        for number in 0..MOST_OPEN + 5 {
            stopped(&edges, ["web", &number.to_string()], at, "TCP 80");
        }
    }
    assert_eq!((told(&far).len(), edges.left_out().get()), (MOST_OPEN, 15));
    edges.tick(second(141));
    assert_eq!(edges.state().troubles.len(), MOST_OPEN, "what never was one is forgotten");
    edges.tick(second(20 + 600));
    assert_eq!((told(&far).len(), edges.state().open), (MOST_OPEN, 0));
}

#[test]
fn what_an_earlier_leader_left_open_is_over_unless_it_fails_again() {
    let far = Told::new();
    let voice = Voice { lane: far.lane(), note: Note::default() };
    let first = Edges::new(Components::new(far.lane()), voice.clone());
    for at in [0, 10, 20] {
        stopped(&first, WEB_DB, at, "TCP 80");
        stopped(&first, ["web", "cache"], at, "TCP 80");
    }
    let opened = told(&far);
    let left = voice.note.names(Timestamp::MAX);
    assert_eq!(
        left,
        "traffic/shop.Deployment.web/shop.Deployment.cache traffic/shop.Deployment.web/shop.Deployment.db"
    );
    let next = Voice { lane: far.lane(), note: Note::default() };
    next.note.left(&left, second(100));
    let second_leader = Edges::new(Components::new(far.lane()), next.clone());
    for at in [110, 120, 130] {
        stopped(&second_leader, WEB_DB, at, "TCP 80");
    }
    assert_eq!((opened.len(), reasons(&far).len()), (2, 1));
    second_leader.tick(second(399));
    assert_eq!(told(&far), []);
    second_leader.tick(second(400));
    let over = told(&far).remove(0);
    assert!(over.1 == "TrafficRecovered" && over.2.contains("Deployment shop/cache"), "{over:?}");
    second_leader.tick(second(401));
    assert_eq!(told(&far), [], "once");
}

#[test]
fn an_edge_is_known_again_by_its_name_whatever_goes_on_there() {
    let [from, to] = ends(WEB_DB);
    let requests = Failing::ALL.map(Matter::Requests);
    for matter in [Matter::Traffic, Matter::Names].into_iter().chain(requests) {
        let edge = Edge { matter, from: from.clone(), to: Some(to.clone()) };
        assert_eq!(Edge::of_name(&edge.name()), Some(edge));
    }
    assert_eq!(Edge::of_name("pods/shop.Deployment.web/shop.Deployment.db"), None);
}

#[test]
fn only_what_is_in_the_cluster_is_an_end() {
    for (namespace, kind, name) in [
        ("", "Unmanaged", "reserved:world"),
        ("", "Unknown", "unknown"),
        ("shop", "", "x"),
        ("shop", "Deployment", ""),
        ("shop", "Deployment", "a b"),
        ("a.b", "Deployment", "x"),
        ("shop", "De/ployment", "x"),
    ] {
        assert_eq!(End::new(namespace, kind, name), None, "{namespace} {kind} {name}");
    }
    for (namespace, kind, name) in [("shop", "StatefulSet", "db.v2"), ("", "Node", "n1.example.com")] {
        let end = End::new(namespace, kind, name).unwrap();
        assert_eq!(End::of_key(&end.key()), Some(end));
    }
}

#[test]
fn errors_of_core_dns_are_those_of_its_deployment_and_no_other_pods_lines_are() {
    let (far, edges) = edges();
    let meta = serde_json::json!({
        "namespace": "kube-system", "name": "coredns", "uid": "d", "labels": {"k8s-app": "kube-dns"},
    });
    let home = Home::of_workload("Deployment", &serde_json::from_value(meta).unwrap()).unwrap();
    edges.0.components.workload(&home, "d", 2);
    let pod = |namespace: &str, owner: &str| Known {
        info: PodInfo { namespace: namespace.to_owned(), ..PodInfo::default() },
        owners: [OwnerReference { kind: "ReplicaSet".into(), name: owner.into(), ..Default::default() }]
            .into(),
        api_uid: "u".into(),
        node: "n1".into(),
    };
    let line = "[ERROR] plugin/errors: 2 api.example.com. A: read udp 10.0.0.3:4->192.0.2.1:53: i/o timeout";
    let write = |pod: &Known, at: i64| {
        edges.wrote(pod, [(Some(second(at)), "[INFO] x"), (Some(second(at)), line)].into_iter(), second(at));
    };
    for at in [0, 10, 20] {
        write(&pod("kube-system", "metrics-1"), at);
        write(&pod("shop", "coredns-1"), at);
        write(&pod("kube-system", "coredns-5d78c9869d"), at);
    }
    let text = "Deployment kube-system/coredns cannot resolve names: it failed 3 times in 20 s, such as api.example.com (192.0.2.1:53: i/o timeout).";
    assert_eq!(told(&far), [(Action::Create, "NamesUnresolved".to_owned(), text.to_owned())]);
    edges.tick(second(199));
    assert_eq!(told(&far), []);
    edges.tick(second(200));
    assert_eq!(reasons(&far), [(Action::Update, "NamesRecovered".to_owned())]);
}

proptest! {
    /// Whatever is seen, an incident begins with CREATE and ends once, it is one of three spans at least, and nothing
    /// is left open when it has been quiet.
    #[test]
    fn every_incident_begins_and_ends(steps in prop::collection::vec((0..90_i64, 0..3_u8, 0..2_usize), 0..120)) {
        let (far, edges) = edges();
        let (mut now, mut all) = (0, Vec::new());
        let mut drops = vec![Vec::new(); 2];
        for (wait, what, which) in steps {
            now += wait;
            let names = [WEB_DB, ["web", "cache"]][which];
            match what {
                0 => {
                    drops[which].push(now);
                    stopped(&edges, names, now, "TCP 80");
                }
                1 => passed(&edges, names, now, "TCP 80"),
                _ => edges.tick(second(now)),
            }
            for request in far.next() {
                let Request::KubernetesEvent(event) = request else { panic!("{request:?}") };
                if event.action() == Action::Create {
                    let spans = drops.iter().map(|drops| {
                        let mut spans: Vec<_> =
                            drops.iter().filter(|at| now - **at <= 120 + 10).map(|at| at / 10).collect();
                        spans.dedup();
                        spans.len()
                    });
                    prop_assert!(spans.max() >= Some(3), "{drops:?} at {now}");
                }
                all.push(event);
            }
        }
        edges.tick(second(now + 601));
        all.extend(far.next().into_iter().map(|request| match request {
            Request::KubernetesEvent(event) => event,
            other => panic!("{other:?}"),
        }));
        let mut open = std::collections::BTreeSet::new();
        for event in all {
            match (event.action(), &*event.reason) {
                (Action::Create, "TrafficStopped") => prop_assert!(open.insert(event.uid)),
                (Action::Update, "TrafficStopped") => prop_assert!(open.contains(&event.uid)),
                (Action::Update, "TrafficRecovered") => prop_assert!(open.remove(&event.uid)),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert!(open.is_empty());
        prop_assert!(edges.state().troubles.is_empty());
    }
}
