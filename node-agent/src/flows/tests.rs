//! Log files in, reports out.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

use kestrel_proto::node::v1::FlowVerdict;
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use super::*;

/// Of a clock that waits for nobody.
const DEADLINE: Duration = Duration::from_secs(600);

fn config(directory: &TempDir) -> Config {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let [pods, state, aws] = ["pods", "", "aws/network-policy-agent.log"].map(path);
    let variables = BTreeMap::from([
        ("NODE_NAME", "n1"),
        ("KESTREL_POD_LOGS_DIR", &*pods),
        ("KESTREL_STATE_DIR", &*state),
        ("KESTREL_AWS_POLICY_LOG", &*aws),
        ("KESTREL_ZTUNNEL_NAMESPACE", "istio-system"),
        ("KESTREL_LOG_LOOK_BACK", "10m"),
    ]);
    Config::read(&variables).unwrap()
}

/// The sources of a node, and who takes what they show.
struct Node {
    outbox: Outbox,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Node {
    fn start(directory: &TempDir) -> Self {
        let (flows, outbox) = watch(&config(directory), Counts::default());
        Self { outbox, task: tokio::spawn(flows) }
    }

    /// The next report's flows: ports, verdicts and how often.
    async fn next(&mut self) -> (u64, Vec<(u32, FlowVerdict, u64)>) {
        let report = timeout(DEADLINE, self.outbox.reports.recv()).await.unwrap().unwrap();
        let mut flows: Vec<_> =
            report.flows.iter().map(|flow| (flow.port, flow.verdict(), flow.count)).collect();
        flows.sort_unstable();
        (report.number, flows)
    }

    async fn stop(self) {
        drop(self.outbox);
        timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn append(path: PathBuf, line: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

fn aws(directory: &TempDir, port: u16, verdict: &str, age: i64) {
    let time = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(age);
    let line = format!(
        r#"{{"level":"info","ts":"{time:.3}","msg":"Flow Info: Src IP: 10.0.1.7 Src Port: 40000 Dest IP: 10.0.2.8 Dest Port: {port} Proto TCP Verdict {verdict} Direction egress"}}"#
    );
    append(directory.path().join("aws/network-policy-agent.log"), &line);
}

/// Two connections of the same moment.
fn ztunnel(directory: &TempDir, namespace: &str, port: u16) {
    let time = jiff::Timestamp::now();
    let line = format!(
        "{time:.9} stdout F {time}\tinfo\taccess\tconnection complete\tsrc.addr=10.0.1.7:40000 dst.addr=10.0.2.8:{port} direction=\"outbound\" bytes_sent=1 bytes_recv=2"
    );
    let pod = format!("pods/{namespace}_ztunnel-abcde_1-1/istio-proxy/0.log");
    append(directory.path().join(pod), &format!("{line}\n{line}"));
}

#[tokio::test(start_paused = true)]
async fn sources_are_used_when_they_come_and_flows_are_counted_over_seconds() {
    use FlowVerdict::{Dropped, Forwarded};
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(&directory);
    // Nothing is there: nothing is told.
    assert!(timeout(Duration::from_secs(60), node.outbox.reports.recv()).await.is_err());

    aws(&directory, 80, "DENY", 0);
    assert_eq!(node.next().await, (1, vec![(80, Dropped, 1)]));
    ztunnel(&directory, "istio-system", 5432);
    ztunnel(&directory, "somewhere", 666);
    aws(&directory, 81, "ACCEPT", 0);
    aws(&directory, 82, "ACCEPT", 3600);
    assert_eq!(node.next().await, (2, vec![(81, Forwarded, 1), (5432, Forwarded, 2)]));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_not_arrived_is_read_again_after_a_restart_and_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("aws/network-policy-agent.log");
    aws(&directory, 80, "DENY", 0);
    let mut node = Node::start(&directory);
    assert_eq!(node.next().await.1.len(), 1);
    node.outbox.arrived.send_replace(1);
    aws(&directory, 81, "DENY", 0);
    assert_eq!(node.next().await.1.len(), 1);
    // As the agent's log is rotated while it is followed.
    fs::rename(&log, log.with_file_name("network-policy-agent-2026-11-22T07-00-00.000.log")).unwrap();
    aws(&directory, 82, "DENY", 0);
    let flows = |flows: Vec<(u32, FlowVerdict, u64)>| flows.iter().map(|flow| flow.0).collect::<Vec<_>>();
    assert_eq!(flows(node.next().await.1), [82]);
    node.stop().await;

    let mut node = Node::start(&directory);
    assert_eq!(flows(node.next().await.1), [81, 82], "what has not arrived, of both files");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_reports_has_the_files_wait() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(&directory);
    let mut expected = 0;
    for port in 1..20 {
        aws(&directory, port, "DENY", 0);
        tokio::time::sleep(Duration::from_secs(20)).await;
        expected += 1;
    }
    let mut found = 0;
    while found < expected {
        found += node.next().await.1.iter().map(|flow| flow.2).sum::<u64>();
    }
    assert_eq!(found, expected);
    node.stop().await;
}

#[test]
fn windows_end_when_those_of_other_nodes_do() {
    for (nanoseconds, expected) in [(0, 10_000), (4_000_000_000, 6_000), (19_999_000_000, 1)] {
        let now = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        assert_eq!(until_told(now), Duration::from_millis(expected));
    }
}
