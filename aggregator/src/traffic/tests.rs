//! Reports in, messages of the flows stream out.

use kestrel_proto::{
    cloud::v1::{self, KubernetesEvent, StreamEventsRequest, StreamFlowsRequest, stream_events_request},
    node::v1::{FlowDirection, FlowPeer, FlowSource, FlowVerdict, NameFailure},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::{
    inventory::{Kind, Relation, convert},
    signals::component::Components,
    uplink::{
        lanes::{Lane, Lanes},
        metrics::Metrics as UplinkMetrics,
    },
};

struct World {
    mirror: Mirror,
    lanes: Lanes,
    registry: Registry,
    edges: Edges,
    traffic: Traffic,
}

impl World {
    /// Pods of `namespace`s at 10.0.0.1, on n1, and 10.0.0.2, on n2.
    fn new(namespaces: [&str; 2]) -> Self {
        let (mirror, lanes) = (Mirror::default(), Lanes::new(UplinkMetrics::default()));
        for (at, namespace) in namespaces.into_iter().enumerate() {
            let number = at + 1;
            let pod = json!({
                "metadata": {"name": format!("p{number}"), "namespace": namespace, "uid": format!("u{number}")},
                "spec": {"nodeName": format!("n{number}"), "containers": []},
                "status": {"podIPs": [{"ip": format!("10.0.0.{number}")}]},
            });
            let pod = serde_json::from_value(pod).unwrap();
            mirror.apply_related(Kind::Pod, &format!("u{number}"), &convert::pod(&pod), Relation::Pod(&pod));
        }
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        lanes.lead();
        let edges = Edges::new(Components::new(lanes.signals()), lanes.signals());
        let traffic =
            Traffic::new(mirror.clone(), Excluded::parse("bank"), edges.clone(), lanes.flows(), metrics);
        Self { mirror, lanes, registry, edges, traffic }
    }

    fn take(&self, node: &str, number: u64, count: u64) {
        let peer = |last| Some(FlowPeer { address: vec![10, 0, 0, last].into(), ..Default::default() });
        let flow = Flow {
            source: peer(1),
            destination: peer(2),
            verdict: FlowVerdict::Dropped.into(),
            direction: FlowDirection::Egress.into(),
            bytes_sent: 7,
            last_seen: 1_700_000_000_000_000_000,
            count,
            ..Default::default()
        };
        self.traffic.take(node, FlowReport { run: 1, number, flows: vec![flow], ..Default::default() });
    }

    /// What `node` saw of the TCP connections from 10.0.0.1 to 10.0.0.2 that `names` name, in the ten seconds
    /// from `second` on.
    fn sees(&self, node: &str, second: u64, direction: FlowDirection, names: [[&str; 2]; 2], count: u64) {
        let peer = |last, [kind, name]: [&str; 2]| {
            let address = vec![10, 0, 0, last].into();
            let [kind, name, namespace] = [kind, name, "shop"].map(str::to_owned);
            Some(FlowPeer { address, namespace, kind, name, ..Default::default() })
        };
        let flow = Flow {
            source: peer(1, names[0]),
            destination: peer(2, names[1]),
            port: 5432,
            protocol: 6,
            verdict: FlowVerdict::Forwarded.into(),
            direction: direction.into(),
            seen_by: FlowSource::Hubble.into(),
            first_seen: (second * 1_000_000_000) + 1,
            last_seen: (second + 9) * 1_000_000_000,
            count,
            ..Default::default()
        };
        self.traffic
            .take(node, FlowReport { run: 1, number: second, flows: vec![flow], ..Default::default() });
    }

    fn told(&self) -> Vec<v1::Flow> {
        let next = || {
            let (head, body) = self.lanes.take(Lane::Flows)?.1.on_own_stream();
            match StreamFlowsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap().request {
                Some(Request::Flow(flow)) => Some(flow),
                other => panic!("{other:?}"),
            }
        };
        std::iter::from_fn(next).collect()
    }

    /// What n2 stopped, or let pass, of what 10.0.0.1 sent to 10.0.0.2, and what was told of it by then.
    fn stops(&self, number: u64, second: i64, verdict: FlowVerdict) -> Vec<KubernetesEvent> {
        let peer = |last| Some(FlowPeer { address: vec![10, 0, 0, last].into(), ..Default::default() });
        let time = second.unsigned_abs() * 1_000_000_000;
        let policy = v1::Policy {
            kind: "NetworkPolicy".into(),
            namespace: "shop".into(),
            name: "deny-all".into(),
            ..Default::default()
        };
        let flow = Flow {
            source: peer(1),
            destination: peer(2),
            port: 5432,
            protocol: 6,
            verdict: verdict.into(),
            direction: FlowDirection::Ingress.into(),
            seen_by: FlowSource::Hubble.into(),
            first_seen: time,
            last_seen: time,
            count: 4,
            drop_reason: "POLICY_DENIED".into(),
            ingress_denied_by: vec![policy],
            ..Default::default()
        };
        self.traffic.take("n2", FlowReport { run: 1, number, flows: vec![flow], ..Default::default() });
        let all = self.traffic.state().table.all();
        self.traffic.send(all);
        self.events()
    }

    fn events(&self) -> Vec<KubernetesEvent> {
        let next = || {
            let (number, message) = self.lanes.take(Lane::Signals)?;
            self.lanes.left(Lane::Signals, number);
            let (head, body) = message.on_own_stream();
            match StreamEventsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap().request {
                Some(stream_events_request::Request::KubernetesEvent(event)) => Some(event),
                other => panic!("{other:?}"),
            }
        };
        std::iter::from_fn(next).collect()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_is_told_when_it_has_settled_with_who_its_ends_are() {
    let world = World::new(["shop", "shop"]);
    let drain = CancellationToken::new();
    let running = tokio::spawn(world.traffic.clone().run(drain.clone()));
    world.take("n1", 1, 2);
    world.take("n1", 1, 2);
    world.take("n1", 2, 3);
    let begun = Instant::now();
    let told = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match world.told() {
            none if none.is_empty() => assert!(begun.elapsed() < Duration::from_secs(60)),
            told => break told,
        }
    };
    let name = |end: &Option<v1::Endpoint>| {
        let v1::Endpoint { ns, kind, name, .. } = end.clone().unwrap();
        [ns, kind, name].join("/")
    };
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].count, told[0].allowed, told[0].direction.as_str()), (5, false, "EGRESS"));
    assert_eq!((name(&told[0].src), name(&told[0].dst)), ("shop/Pod/p1".into(), "shop/Pod/p2".into()));
    world.take("n1", 3, 1);
    drain.cancel();
    running.await.unwrap();
    assert_eq!(world.told().len(), 1, "what has not settled is told at the end");
    let metrics = world.metrics();
    assert!(metrics.contains(r#"left_out_total{reason="Repeated"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"bytes_total{source="unknown",direction="sent"} 21"#), "{metrics}");
}

#[tokio::test]
async fn what_stays_in_the_cluster_and_what_another_node_makes_up_is_not_told() {
    for (namespaces, node, reason) in [
        (["shop", "bank"], "n1", "Kept"),
        (["bank", "shop"], "n2", "Kept"),
        (["shop", "shop"], "n3", "Foreign"),
    ] {
        let world = World::new(namespaces);
        world.take(node, 1, 1);
        assert!(world.traffic.state().table.all().is_empty());
        let expected = format!(r#"left_out_total{{reason="{reason}"}} 1"#);
        assert!(world.metrics().contains(&expected), "{}", world.metrics());
    }
    let world = World::new(["shop", "shop"]);
    world.mirror.remove(Kind::Pod, "u2");
    world.take("n3", 1, 1);
    assert_eq!(world.traffic.state().table.all().len(), 0, "it was there until a moment ago");
    world.take("n2", 1, 1);
    assert_eq!(world.traffic.state().table.all().len(), 1);
}

/// Both agents tell ten seconds at a time, and their reports come when they come.
#[tokio::test(start_paused = true)]
async fn steady_traffic_that_both_nodes_see_is_counted_once() {
    let world = World::new(["shop", "shop"]);
    let drain = CancellationToken::new();
    let running = tokio::spawn(world.traffic.clone().run(drain.clone()));
    // Of a pod on another node Hubble knows the name and not the workload.
    let (web, db) = (["Deployment", "web"], ["StatefulSet", "db"]);
    let begin = 1_700_000_000;
    for window in 0..12 {
        let second = begin + 10 * window;
        world.sees("n1", second, FlowDirection::Egress, [web, ["Pod", "p2"]], 100);
        tokio::time::sleep(Duration::from_secs(4)).await;
        world.sees("n2", second, FlowDirection::Ingress, [["Pod", "p1"], db], 100);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    drain.cancel();
    running.await.unwrap();
    let told = world.told();
    assert_eq!(told.iter().map(|flow| flow.count).sum::<i64>(), 1200, "{told:#?}");
    assert_eq!(told.len(), 12);
    for flow in &told {
        let [from, to] = [&flow.src, &flow.dst].map(|end| end.clone().unwrap().name);
        assert_eq!((&*from, &*to), ("web", "db"), "each end knew its own");
    }
}

#[tokio::test]
async fn what_has_no_direction_has_that_of_the_node_that_saw_it() {
    let world = World::new(["shop", "shop"]);
    for node in ["n1", "n2"] {
        world.sees(node, 1_700_000_000, FlowDirection::Unspecified, [["", ""]; 2], 7);
    }
    let settled = world.traffic.state().table.all();
    let told: Vec<_> = settled.iter().flat_map(Seen::told).collect();
    assert_eq!(told.iter().map(|flow| (&*flow.direction, flow.count)).collect::<Vec<_>>(), [("EGRESS", 7)]);
}

/// From what an agent reports to the message that waits for the cloud.
#[tokio::test]
async fn what_is_stopped_again_and_again_is_told_and_so_is_its_end() {
    let world = World::new(["shop", "shop"]);
    let begin = Timestamp::now().as_second() / 10 * 10 - 50;
    for (number, second) in [(1, 0), (2, 1), (3, 10)] {
        assert_eq!(world.stops(number, begin + second, FlowVerdict::Dropped), [], "a moment");
    }
    let [stopped] = &world.stops(4, begin + 25, FlowVerdict::Dropped)[..] else { panic!("one signal") };
    let about = stopped.involved_object.clone().unwrap();
    assert_eq!((&*stopped.reason, &*about.kind, &*about.name), ("TrafficStopped", "Pod", "p1"));
    assert!(
        stopped
            .message
            .starts_with("Pod shop/p1 does not get through to Pod shop/p2: stopped 16 times in 25 s ")
    );
    assert!(
        stopped
            .message
            .ends_with("(TCP 5432) by NetworkPolicy shop/deny-all; nothing passed there meanwhile."),
        "{stopped:?}"
    );
    world.stops(5, begin + 40, FlowVerdict::Forwarded);
    world.edges.tick(Timestamp::now() + Duration::from_secs(200));
    let [recovered] = &world.events()[..] else { panic!("its end") };
    assert_eq!((&*recovered.reason, &recovered.uid), ("TrafficRecovered", &stopped.uid));
    assert!(recovered.message.starts_with("Pod shop/p1 gets through to Pod shop/p2 again"), "{recovered:?}");
}

#[tokio::test]
async fn names_that_a_server_does_not_resolve_are_told_of_who_asked_unless_that_stays_in_the_cluster() {
    for (namespace, expected) in [("shop", 1), ("bank", 0)] {
        let world = World::new([namespace, "kube-system"]);
        let peer = |last| Some(FlowPeer { address: vec![10, 0, 0, last].into(), ..Default::default() });
        for (number, age) in [(1, 30), (2, 20), (3, 10)] {
            let time = (Timestamp::now().as_second() - age).unsigned_abs() * 1_000_000_000;
            let failure = NameFailure {
                client: peer(1),
                server: peer(2),
                code: 2,
                name: "api.example.com.".into(),
                count: 7,
                first_seen: time,
                last_seen: time,
            };
            let report = FlowReport { run: 1, number, name_failures: vec![failure], ..Default::default() };
            world.traffic.take("n1", report);
        }
        let told = world.events();
        assert_eq!(told.len(), expected, "{told:?}");
        for told in told {
            assert_eq!(told.reason, "NamesUnresolved");
            let text = "Pod shop/p1 gets no answers for names: Pod kube-system/p2 failed 21 times in 20 s (SERVFAIL), such as api.example.com.";
            assert_eq!(told.message, text);
        }
    }
}
