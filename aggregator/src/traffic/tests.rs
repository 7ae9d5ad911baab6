//! Reports in, messages of the flows stream out.

use kestrel_proto::{
    cloud::v1::StreamFlowsRequest,
    node::v1::{FlowDirection, FlowPeer, FlowSource, FlowVerdict},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::{
    inventory::{Kind, Relation, convert},
    uplink::{
        lanes::{Lane, Lanes},
        metrics::Metrics as UplinkMetrics,
    },
};

struct World {
    mirror: Mirror,
    lanes: Lanes,
    registry: Registry,
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
        let traffic = Traffic::new(mirror.clone(), Excluded::parse("bank"), lanes.flows(), metrics);
        Self { mirror, lanes, registry, traffic }
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
        self.traffic.take(node, FlowReport { run: 1, number, flows: vec![flow] });
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
        self.traffic.take(node, FlowReport { run: 1, number: second, flows: vec![flow] });
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
    let told = world.traffic.state().table.all();
    assert_eq!(told.iter().map(|flow| (&*flow.direction, flow.count)).collect::<Vec<_>>(), [("EGRESS", 7)]);
}
