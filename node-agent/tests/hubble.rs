//! Hubble itself: Cilium's parser, ring and observer (`hack/hubble`). `KESTREL_HUBBLE` names its program.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use kestrel_node_agent::{
    config::Config,
    flows::{self, Outbox, counts::Counts},
};
use kestrel_proto::node::v1::{Flow, FlowSource, FlowVerdict};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Flows are told every ten seconds.
const DEADLINE: Duration = Duration::from_secs(100);

/// A server of its own process.
struct Hubble {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Hubble {
    /// Returns when it serves. Its ring keeps `capacity` events.
    fn start(socket: &Path, capacity: &str) -> Self {
        let program = env::var_os("KESTREL_HUBBLE").expect("KESTREL_HUBBLE names the program of hack/hubble");
        let mut command = Command::new(program);
        command.arg(socket).arg(capacity).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut hubble = Self { process, answers };
        assert_eq!(hubble.answers.next().unwrap().unwrap(), "serves");
        hubble
    }

    fn happen(&mut self, events: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{events}").unwrap();
        assert_eq!(self.answers.next().unwrap().unwrap(), events);
    }
}

impl Drop for Hubble {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// What reads it, as in the agent.
struct Reader {
    directory: TempDir,
    outbox: Outbox,
    registry: Registry,
    watch: JoinHandle<anyhow::Result<()>>,
}

impl Reader {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (state, socket) = (directory.path().join("state"), socket(&directory));
        let config = Config::read(&BTreeMap::from([
            ("NODE_NAME", "n1"),
            ("KESTREL_STATE_DIR", state.to_str().unwrap()),
            ("KESTREL_HUBBLE_SOCKET", socket.to_str().unwrap()),
        ]));
        let (counts, mut registry) = (Counts::default(), Registry::default());
        counts.register(&mut registry);
        let (watch, outbox) = flows::watch(&config.unwrap(), counts);
        Self { directory, outbox, registry, watch: tokio::spawn(watch) }
    }

    /// Waits until the counter with these labels is what is wanted.
    async fn counts(&self, counter: &str, is_enough: impl Fn(u64) -> bool) {
        let shown = async {
            loop {
                let mut text = String::new();
                encode(&mut text, &self.registry).unwrap();
                let value = text.lines().find_map(|line| line.strip_prefix(counter)?.trim().parse().ok());
                if value.is_some_and(&is_enough) {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, shown).await.unwrap_or_else(|_| panic!("{counter} is not what it should be"));
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

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("hubble.sock")
}

fn of(flows: &[Flow], verdict: FlowVerdict) -> u64 {
    flows.iter().filter(|flow| flow.verdict() == verdict).map(|flow| flow.count).sum()
}

#[tokio::test]
async fn what_passed_and_what_did_not_is_told_once_also_after_a_restart() {
    let mut reader = Reader::start();
    let mut hubble = Hubble::start(&socket(&reader.directory), "4095");
    hubble.happen("passed 5");
    hubble.happen("replies 3");
    hubble.happen("dropped 2");
    hubble.happen("lost 12");
    reader.counts(r#"hubble_events_lost_total{by="perf_ring"}"#, |events| events == 12).await;
    reader.counts(r#"flows_seen_total{source="hubble"}"#, |packets| packets == 7).await;
    let flows = reader.told(7).await;
    assert_eq!((of(&flows, FlowVerdict::Forwarded), of(&flows, FlowVerdict::Dropped)), (5, 2));
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
    let mut hubble = Hubble::start(&socket(&reader.directory), "4095");
    hubble.happen("passed 4");
    assert_eq!(of(&reader.told(4).await, FlowVerdict::Forwarded), 4);
    reader.counts(r#"flows_seen_total{source="hubble"}"#, |packets| packets == 11).await;
    reader.watch.abort();
}

#[tokio::test]
async fn what_its_ring_had_no_room_for_is_counted() {
    let reader = Reader::start();
    let mut hubble = Hubble::start(&socket(&reader.directory), "15");
    hubble.happen("passed 1");
    reader.counts(r#"flows_seen_total{source="hubble"}"#, |packets| packets == 1).await;
    hubble.happen("passed 200000");
    reader.counts(r#"hubble_events_lost_total{by="ring"}"#, |events| events > 0).await;
    reader.watch.abort();
}
