//! The agent reads its node's socket.

use std::collections::BTreeMap;

use kestrel_flows::counts::Counts;
use kestrel_node_agent::{
    config::Config,
    flows::{self, Outbox},
};
use kestrel_proto::node::v1::{Flow, FlowSource, FlowVerdict};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::{
    task::{JoinHandle, yield_now},
    time::timeout,
};

use crate::{DEADLINE, Hubble, shows};

/// What reads it, as in the agent.
struct Reader {
    directory: TempDir,
    outbox: Outbox,
    registry: Registry,
    watch: JoinHandle<anyhow::Result<()>>,
}

impl Reader {
    /// Returns when it has begun: what happened before is not read.
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (state, socket) = (directory.path().join("state"), directory.path().join("hubble.sock"));
        let config = Config::read(&BTreeMap::from([
            ("NODE_NAME", "n1"),
            ("KESTREL_STATE_DIR", state.to_str().unwrap()),
            ("KESTREL_HUBBLE_SOCKET", socket.to_str().unwrap()),
        ]));
        let (counts, mut registry) = (Counts::default(), Registry::default());
        counts.register(&mut registry);
        let (watch, outbox) = flows::watch(&config.unwrap(), counts);
        let watch = tokio::spawn(watch);
        // It looks for the socket in its first turns, of which each is one of the test's single thread.
        for _ in 0..10 {
            yield_now().await;
        }
        Self { directory, outbox, registry, watch }
    }

    /// Waits until the counter with these labels is what is wanted.
    async fn counts(&self, counter: &str, is_enough: impl Fn(u64) -> bool) {
        shows(&self.registry, counter, is_enough).await;
    }

    /// What is told, until so many packets were.
    async fn told(&mut self, packets: u64) -> Vec<Flow> {
        let mut flows = Vec::new();
        while flows.iter().map(|flow: &Flow| flow.count).sum::<u64>() < packets {
            let report =
                timeout(DEADLINE, self.outbox.reports.recv()).await.expect("no more is told").unwrap();
            self.outbox.arrived.send_replace(report.number);
            flows.extend(report.flows);
        }
        flows
    }
}

fn of(flows: &[Flow], verdict: FlowVerdict) -> u64 {
    flows.iter().filter(|flow| flow.verdict() == verdict).map(|flow| flow.count).sum()
}

#[tokio::test]
async fn what_passed_and_what_did_not_is_told_once_also_after_a_restart() {
    let mut reader = Reader::start().await;
    let mut hubble = Hubble::start(&reader.directory.path().join("hubble.sock"), "4095");
    hubble.happen("passed 5");
    hubble.happen("replies 3");
    hubble.happen("dropped 2");
    hubble.happen("lost 12");
    reader.counts(r#"hubble_events_lost_total{by="perf_ring"}"#, |events| events == 12).await;
    reader.counts(r#"flows_seen_total{source="hubble"}"#, |packets| packets == 7).await;
    let flows = reader.told(7).await;
    assert_eq!((of(&flows, FlowVerdict::Forwarded), of(&flows, FlowVerdict::Dropped)), (5, 2));
    let dropped = flows.iter().find(|flow| flow.verdict() == FlowVerdict::Dropped).unwrap();
    assert_eq!(dropped.drop_reason, "POLICY_DENIED");
    for flow in &flows {
        assert_eq!((flow.seen_by(), flow.protocol, flow.port), (FlowSource::Hubble, 6, 5432));
        let (source, destination) = (flow.source.as_ref().unwrap(), flow.destination.as_ref().unwrap());
        assert_eq!(
            (&*source.namespace, &*source.pod, &source.address[..]),
            ("shop", "web-1", &[10, 0, 1, 7][..])
        );
        assert_eq!((&*destination.pod, &*destination.labels), ("db-0", &["k8s:app=db".to_owned()][..]));
    }

    drop(hubble);
    let mut hubble = Hubble::start(&reader.directory.path().join("hubble.sock"), "4095");
    hubble.happen("passed 4");
    assert_eq!(of(&reader.told(4).await, FlowVerdict::Forwarded), 4);
    reader.counts(r#"flows_seen_total{source="hubble"}"#, |packets| packets == 11).await;
    reader.watch.abort();
}

#[tokio::test]
async fn what_its_ring_had_no_room_for_is_counted() {
    let reader = Reader::start().await;
    let mut hubble = Hubble::start(&reader.directory.path().join("hubble.sock"), "15");
    hubble.happen("passed 1");
    reader.counts(r#"flows_seen_total{source="hubble"}"#, |packets| packets == 1).await;
    hubble.happen("passed 200000");
    reader.counts(r#"hubble_events_lost_total{by="ring"}"#, |events| events > 0).await;
    reader.watch.abort();
}
