//! The agent against a real stream: what a pod writes arrives, what the host
//! shows arrives, and nothing is lost over the agent's end.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

#[path = "../link/tests/support/aggregator.rs"]
mod aggregator;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aggregator::{Aggregator, DEADLINE, Stream, lines, messages};
use flate2::{Compression, write::GzEncoder};
use kestrel_link::connection::{self, Link};
use kestrel_node_agent::{
    agent::Agent,
    als,
    config::{self, Config},
    flows,
    host::{self, Watched, kubelet::Probes, sample::Seen},
    metrics::Metrics,
    status::{self, Question},
};
use kestrel_proto::{
    cloud::v1::NodeCondition,
    envoy::{
        config::core::v3 as core,
        data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties},
        service::accesslog::v3::{
            StreamAccessLogsMessage,
            access_log_service_client::AccessLogServiceClient,
            stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries},
        },
    },
    node::v1::{BatchContent, FlowReport, FlowVerdict, LogLevel, LogPolicy, PodInfo, Welcome},
};
use kestrel_runtime::admin::Readiness;
use kestrel_tail::{budget::Limits, redact::Expressions};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

const CREDIT: u64 = 4 << 20;

/// A node: its directories and the agent's tasks.
struct Node {
    directory: TempDir,
    config: Config,
    tasks: JoinSet<()>,
    drain: CancellationToken,
    readiness: Readiness,
    registry: Registry,
    kernel_log: Option<fn() -> Seen<String>>,
    ask: Option<mpsc::Sender<Question>>,
}

impl Node {
    fn new(aggregator: &Aggregator) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("pods")).unwrap();
        fs::create_dir(path("state")).unwrap();
        fs::write(path("token"), "secret").unwrap();
        fs::write(path("ca.crt"), &aggregator.authority_pem).unwrap();
        let config = Config {
            node: "n1".into(),
            own_pod: Some(("kestrel-ai".into(), "agent".into())),
            health_port: 0,
            endpoint: aggregator.endpoint.clone(),
            token_file: path("token"),
            ca_file: path("ca.crt"),
            pod_logs: path("pods"),
            state: path("state"),
            host: config::Host {
                proc: path("proc"),
                root: path("host"),
                runtime_socket: Some(path("runtime.sock")),
                file_systems: vec!["/data".to_owned()],
                conntrack: true,
                pod_pressure: true,
                pressure: [0, 10, 40],
                ..config::Host::default()
            },
            redact: Expressions::default(),
            look_back: Duration::MAX,
            excluded: ["bank".to_owned()].into(),
            limits: Limits::default(),
            aws_policy_log: Some(path("aws/network-policy-agent.log")),
            hubble_socket: None,
            ztunnel_namespace: None,
            als: None,
        };
        Self {
            directory,
            config,
            tasks: JoinSet::new(),
            drain: CancellationToken::new(),
            readiness: Readiness::default(),
            registry: Registry::default(),
            kernel_log: None,
            ask: None,
        }
    }

    fn start(&mut self) {
        self.drain = CancellationToken::new();
        self.readiness = Readiness::default();
        self.registry = Registry::default();
        let retry = (Duration::from_millis(5), Duration::from_millis(50));
        let (link, events) = Link::new(connection::Config { retry, ..self.config.link() });
        let (samples, sampled) = mpsc::channel(1);
        let metrics = Metrics::register(&mut self.registry);
        let (watch_flows, outbox) = flows::watch(&self.config, metrics.flows.clone());
        let drain = self.drain.clone();
        let requests = match self.config.als.clone() {
            Some(als) => {
                let (receive, requests) = als::receive(als, &mut self.registry, drain.clone());
                self.tasks.spawn(receive);
                requests
            }
            None => mpsc::channel(1).1,
        };
        let agent = Agent::new(&self.config, metrics, self.readiness.require("link"), requests);
        let watched = self.config.host.watched(self.config.pod_logs.clone(), Probes::default());
        let kernel_log = self.kernel_log;
        let watch = host::watch(Watched { kernel_log, ..watched }, samples);
        let (ask, questions) = mpsc::channel(1);
        self.ask = Some(ask);
        self.tasks.spawn(link.run(CancellationToken::new()));
        self.tasks.spawn(async { watch.await.unwrap() });
        self.tasks.spawn(async { watch_flows.await.unwrap() });
        self.tasks.spawn(async { agent.run(events, sampled, outbox, questions, drain).await.unwrap() });
    }

    /// Ends the agent; every task has to come home.
    async fn stop(&mut self) {
        self.drain.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.unwrap()
            }
        };
        timeout(DEADLINE, all).await.expect("a task did not end");
    }

    fn log(&self, pod: &str, uid: &str) -> PathBuf {
        let directory = self.directory.path().join("pods").join(format!("ns_{pod}_{uid}")).join("app");
        fs::create_dir_all(&directory).unwrap();
        directory.join("0.log")
    }

    fn write(&self, pod: &str, uid: &str, lines: &[&str]) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.log(pod, uid)).unwrap();
        for line in lines {
            writeln!(file, "2026-11-21T13:50:00.5Z stdout F {line}").unwrap();
        }
    }

    async fn status(&self) -> String {
        timeout(DEADLINE, status::ask(self.ask.clone().unwrap())).await.expect("no answer")
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

async fn accept(aggregator: &mut Aggregator) -> Stream {
    let stream = aggregator.accept(CREDIT).await;
    assert_eq!(stream.hello.node_name, "n1");
    stream
}

#[tokio::test]
async fn a_pods_lines_arrive_as_its_policy_says() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    node.write("web", "1-1", &["fine", "1", "2", "3", "4", "5", "ERROR bad"]);
    node.write("own", "2-2", &["never named"]);
    let vault = node.directory.path().join("pods/bank_vault_4-4/app");
    fs::create_dir_all(&vault).unwrap();
    fs::write(vault.join("0.log"), "2026-11-21T13:50:00Z stdout F ERROR a secret\n").unwrap();
    fs::create_dir_all(node.directory.path().join("pods/kestrel-ai_agent_3-3/agent")).unwrap();
    node.start();
    let mut stream = accept(&mut aggregator).await;
    stream.pod("bank", "vault", "4-4", LogPolicy::All).await;
    stream.pod("ns", "web", "1-1", LogPolicy::Errors).await;
    let (_, content) = stream.batch().await;
    let chunk = &content.logs[0];
    assert_eq!(
        (chunk.pod_namespace.as_str(), chunk.pod_name.as_str(), chunk.pod_uid.as_str()),
        ("ns", "web", "1-1")
    );
    assert_eq!(
        (chunk.container_name.as_str(), chunk.previous_container, chunk.lines_left_out),
        ("app", false, 1)
    );
    assert_eq!(messages(&content), ["1", "2", "3", "4", "5", "ERROR bad"]);
    assert_eq!(lines(chunk)[5].level, LogLevel::Error);
    assert_eq!(lines(chunk)[0].nanoseconds % 1_000_000_000, 500_000_000);
    assert!(node.readiness.missing().is_empty());

    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    node.write("web", "1-1", &["also fine"]);
    let (_, content) = stream.batch().await;
    assert_eq!(messages(&content), ["also fine"]);
    drop(stream);
    node.stop().await;
    let metrics = node.metrics();
    for line in
        ["kestrel_agent_lines_sent_total 7", "kestrel_agent_lines_left_out_total{reason=\"policy\"} 1"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn an_incident_brings_what_was_left_out_before_it() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    let times = ["13:49:00", "13:50:00", "13:50:01"];
    let line = |time: &&str| format!("2026-11-21T{time}Z stdout F INFO at {time}\n");
    fs::write(node.log("web", "1-1"), times.iter().map(line).collect::<String>()).unwrap();
    node.start();
    let mut stream = accept(&mut aggregator).await;
    let info = |policy: LogPolicy, look_back_from| PodInfo {
        uid: "1-1".into(),
        namespace: "ns".into(),
        name: "web".into(),
        log_policy: policy.into(),
        look_back_from,
    };
    stream.pods(vec![info(LogPolicy::Errors, None)]).await;
    let mut log = OpenOptions::new().append(true).open(node.log("web", "1-1")).unwrap();
    log.write_all(b"2026-11-21T13:50:02Z stdout F INFO 4\n2026-11-21T13:50:02Z stdout F INFO 5\n").unwrap();
    log.write_all(b"2026-11-21T13:50:02Z stdout F INFO 6\n2026-11-21T13:50:02Z stdout F INFO 7\n").unwrap();
    // Those of the first lines that are nobody's context any more are left out for sure.
    timeout(DEADLINE, async {
        while !node.metrics().contains("lines_left_out_total{reason=\"policy\"} 2") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("they are read");
    let from = prost_types::Timestamp { seconds: 1_795_269_000, nanos: 0 };
    stream.pods(vec![info(LogPolicy::All, Some(from))]).await;
    let (batch, content) = stream.batch().await;
    assert_eq!(
        messages(&content),
        ["INFO at 13:50:00", "INFO at 13:50:01", "INFO 4", "INFO 5", "INFO 6", "INFO 7"]
    );
    assert_eq!(content.logs[0].file_id, content.logs.last().unwrap().file_id);
    stream.ack(batch.id).await;
    // The same incident, told once more.
    stream.pods(vec![info(LogPolicy::All, Some(from))]).await;
    log.write_all(b"2026-11-21T13:50:03Z stdout F INFO 8\n").unwrap();
    let (_, content) = stream.batch().await;
    assert!(messages(&content).ends_with(&["INFO 8".to_owned()]), "{content:?}");
    assert!(!messages(&content).contains(&"INFO at 13:50:00".to_owned()));
    drop(stream);
    node.stop().await;
    assert!(node.metrics().contains("kestrel_agent_lines_looked_back_total 6"), "{}", node.metrics());
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_after_a_restart() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    node.write("web", "1-1", &["one"]);
    node.start();
    let mut stream = accept(&mut aggregator).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    assert_eq!(stream.lines(1).await, ["one"]);
    node.write("web", "1-1", &["two"]);
    let (batch, content) = stream.batch().await;
    assert_eq!(messages(&content), ["two"]);
    let before = content.logs[0].clone();
    // Taken off its hands, but not yet in the cloud: the agent need not wait for that.
    stream.credit(batch.payload.len() as u64).await;
    node.stop().await;
    drop(stream);

    node.write("web", "1-1", &["three"]);
    node.start();
    let mut stream = accept(&mut aggregator).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    let (_, content) = stream.batch().await;
    assert_eq!(messages(&content), ["two", "three"]);
    let chunk = &content.logs[0];
    assert_eq!((&chunk.file_id, chunk.start_offset), (&before.file_id, before.start_offset));
    // What the aggregator holds already is known by where it ends.
    assert_eq!(chunk.start_offset + u64::from(lines(chunk)[0].end.unwrap()), before.end_offset);
    drop(stream);
    node.stop().await;
}

#[tokio::test]
async fn what_it_held_open_of_a_removed_file_is_told_missing_when_it_ends() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    node.write("web", "1-1", &["nobody said what is wanted of it"]);
    node.write("other", "2-2", &["read"]);
    node.start();
    let mut stream = accept(&mut aggregator).await;
    stream.pod("ns", "other", "2-2", LogPolicy::All).await;
    let (batch, _) = stream.batch().await;
    stream.ack(batch.id).await;
    let log = node.log("web", "1-1");
    let bytes = fs::metadata(&log).unwrap().len();
    fs::remove_dir_all(log.parent().unwrap().parent().unwrap()).unwrap();
    let ((_, content), ()) = tokio::join!(stream.batch(), node.stop());
    assert_eq!((content.gaps[0].bytes, content.gaps[0].lines), (bytes, 1));
}

/// A host of its own, in files: full of connections, and one pod has little memory.
fn write_host(node: &Node) {
    let pod = "kubepods/burstable/pod00000000-1111-2222-3333-444455556666";
    let stat = "entries insert_failed drop\n0000005a 00000000 00000000\n";
    let stalls =
        "some avg10=0.00 avg60=1.50 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.50 avg300=0.00 total=1\n";
    for (path, text) in [
        ("proc/meminfo".to_owned(), "MemAvailable: 2097152 kB\n"),
        ("proc/loadavg".to_owned(), "0.20 0.18 0.12 2/811 12345\n"),
        ("proc/sys/kernel/threads-max".to_owned(), "1000\n"),
        ("proc/sys/kernel/pid_max".to_owned(), "4194304\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max".to_owned(), "100\n"),
        ("proc/uptime".to_owned(), "1000.00 4.00\n"),
        ("proc/pressure/memory".to_owned(), stalls),
        ("host/proc/1/net/stat/nf_conntrack".to_owned(), stat),
        ("host/sys/fs/cgroup/cgroup.controllers".to_owned(), "memory\n"),
        (
            format!("host/sys/fs/cgroup/{pod}/memory.pressure"),
            "full avg10=0.00 avg60=50.00 avg300=0.00 total=1\n",
        ),
        ("host/data/keep".to_owned(), ""),
        ("pods/shop_web_00000000-1111-2222-3333-444455556666/app/0.log".to_owned(), ""),
    ] {
        let path = node.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[tokio::test]
async fn the_hosts_conditions_are_reported_in_full_on_every_connection() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    write_host(&node);
    node.start();
    for _ in 0..2 {
        let mut stream = accept(&mut aggregator).await;
        let report = stream.report().await;
        let state = |condition: &NodeCondition| {
            format!("{}={} {}", condition.r#type, condition.status, condition.reason)
        };
        let mut states: Vec<_> = report.conditions.iter().map(state).collect();
        // The disk is this machine's own, and may be full.
        let disk = states.remove(1);
        assert!(disk.starts_with("kestrel.ai/DiskPressure="), "{disk}");
        assert_eq!(
            states,
            [
                "kestrel.ai/MemoryPressure=False HostMemorySufficient",
                "kestrel.ai/PIDPressure=False HostTasksSufficient",
                "kestrel.ai/MemoryStalled=True PodsStall",
                "kestrel.ai/IOStalled=Unknown NotReadable",
                "kestrel.ai/ConntrackPressure=True ConntrackNearlyFull",
                "kestrel.ai/RuntimeReady=Unknown RuntimeNotSeenYet",
            ]
        );
        let messages: Vec<_> = report.conditions.iter().map(|condition| &*condition.message).collect();
        assert!(messages[1].contains(" of /data"), "{messages:?}");
        assert!(messages[3].ends_with("worst shop/web (50.00 %)"), "{messages:?}");
        assert!(messages[4].contains("proc/pressure/io: No such file"), "{messages:?}");
        assert!(messages[5].starts_with("90 of 100 entries (90.0 %)"), "{messages:?}");
        assert!(messages[6].contains("runtime.sock"), "{messages:?}");
        let status = node.status().await;
        assert!(status.contains("link        connected to https://"), "{status}");
        assert!(status.contains("host        kestrel.ai/"), "{status}");
        assert!(status.contains("kestrel.ai/MemoryStalled is True since "), "{status}");
        assert!(!status.contains("kestrel.ai/PIDPressure"), "{status}");
        stream.fail(tonic::Status::unavailable("a new leader")).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_kill_of_the_kernels_is_told_to_every_aggregator_that_comes() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    write_host(&node);
    node.kernel_log = Some(|| {
        let kill = |pod: &str| {
            let group = format!("/kubepods/burstable/pod{pod}/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b");
            format!(
                "<6>[  990.500000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,\
                 oom_memcg={group},task_memcg={group},task=stress,pid=42,uid=0\n\
                 <3>[  990.500001] Memory cgroup out of memory: Killed process 42 (stress) total-vm:9kB, anon-rss:9kB\n"
            )
        };
        let hung = "<3>[  999.000000] INFO: task dd:77 blocked for more than 120 seconds.\n";
        let of = ["00000000-1111-2222-3333-444455556666", "99999999-1111-2222-3333-444455556666"];
        Ok(of.map(kill).concat() + hung)
    });
    node.start();
    for _ in 0..2 {
        let mut stream = accept(&mut aggregator).await;
        let report = stream.report().await;
        let [event] = &report.events[..] else { panic!("the other pod runs elsewhere: {report:?}") };
        assert_eq!((&*event.kind, &*event.id), ("OOMKilled", "990500000"));
        assert_eq!(event.pod_uid, "00000000-1111-2222-3333-444455556666");
        assert!(
            event.message.contains(
                "killed stress (pid 42, 0 MiB of its own memory) in container 9f86d081884c of pod shop/web"
            ),
            "{event:?}"
        );
        let hung =
            report.conditions.iter().find(|condition| condition.r#type == "kestrel.ai/TaskHung").unwrap();
        assert_eq!(hung.status, "True");
        stream.fail(tonic::Status::unavailable("a new leader")).await;
    }
    node.stop().await;
}

/// The next report of flows, and the batch that it came with.
async fn flows(stream: &mut Stream) -> (u64, FlowReport) {
    loop {
        let (batch, mut content) = stream.batch().await;
        stream.credit(batch.payload.len() as u64).await;
        if let Some(report) = content.flows.pop() {
            return (batch.id, report);
        }
    }
}

#[tokio::test]
async fn flows_arrive_once_and_only_where_they_are_taken() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    let log = node.config.aws_policy_log.clone().unwrap();
    fs::create_dir(log.parent().unwrap()).unwrap();
    let line = r#"{"ts":"2026-11-22T07:00:00.5Z","msg":"Flow Info: Src IP: 10.0.1.7 Src Port: 40000 Dest IP: 10.0.2.8 Dest Port: 80 Proto TCP Verdict DENY Direction ingress"}"#;
    fs::write(&log, format!("{line}\n{}\n", line.replace("40000", "40001"))).unwrap();
    node.start();
    // One that knows no flows gets none.
    let old = accept(&mut aggregator).await;
    node.write("web", "1-1", &["a line"]);
    old.pod("ns", "web", "1-1", LogPolicy::All).await;
    let mut old = old;
    let (_, content) = old.batch().await;
    assert_eq!((content.flows.len(), messages(&content)), (0, vec!["a line".to_owned()]));
    old.fail(tonic::Status::unavailable("a new leader")).await;

    let welcome = Welcome { credit_bytes: CREDIT, features: vec!["flows".into()], ..Welcome::default() };
    let mut stream = aggregator.accept_with(welcome.clone()).await;
    let (_, first) = flows(&mut stream).await;
    let status = node.status().await;
    let source = "flows       read from the log of the AWS network policy agent; since the start: 2 of aws\n";
    assert!(status.contains(source), "{status}");
    let flow = &first.flows[0];
    assert_eq!((first.flows.len(), flow.count, flow.port), (1, 2, 80));
    assert_eq!(flow.verdict(), FlowVerdict::Dropped);
    assert_eq!(flow.source.as_ref().unwrap().address, [10, 0, 1, 7].as_slice());
    stream.fail(tonic::Status::unavailable("a new leader")).await;

    let mut stream = aggregator.accept_with(welcome.clone()).await;
    let (batch, again) = flows(&mut stream).await;
    assert_eq!(again, first, "it had no answer");
    // What is acknowledged is remembered over a restart.
    let positions = || fs::read(node.config.state.join("flow-positions")).unwrap_or_default();
    let before = positions();
    stream.ack(batch).await;
    timeout(DEADLINE, async {
        while positions() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("positions do not move");
    drop(stream);
    node.stop().await;
    assert_eq!(node.status().await, "the agent is ending\n");
    assert!(
        node.metrics().contains(r#"kestrel_agent_flows_seen_total{source="aws"} 2"#),
        "{}",
        node.metrics()
    );

    let mut file = OpenOptions::new().append(true).open(&log).unwrap();
    writeln!(file, "{}", line.replace("Port: 80", "Port: 81")).unwrap();
    node.start();
    let mut stream = aggregator.accept_with(welcome).await;
    let (_, report) = flows(&mut stream).await;
    assert_eq!(report.flows.iter().map(|flow| flow.port).collect::<Vec<_>>(), [81]);
    assert_ne!(report.run, first.run);
    drop(stream);
    node.stop().await;
}

/// Scenario: a proxy of the node logs to the agent, which is then ended; an aggregator from before does not know of requests.
/// Guarantee: what was counted until the end is handed over to one that does, and none is sent to the other.
#[tokio::test]
async fn what_a_proxy_logged_is_handed_over_before_the_end() {
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    node.config.als = Some(als::Config { port, stream_bytes_per_second: 0, tls: None });
    node.start();
    let old = accept(&mut aggregator).await;
    let entry = HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: "outbound|80||db.shop.svc.cluster.local".to_owned(),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties { path: "/".to_owned(), ..HttpRequestProperties::default() }),
        ..HttpAccessLogEntry::default()
    };
    let id = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".to_owned();
    let message = StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(core::Node { id, ..core::Node::default() }),
            log_name: "als".to_owned(),
        }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![entry; 7] })),
    };
    let address = format!("http://127.0.0.1:{port}");
    let connected = async {
        loop {
            match AccessLogServiceClient::connect(address.clone()).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let mut client = timeout(DEADLINE, connected).await.expect("nobody listens");
    client.stream_access_logs(tokio_stream::once(message)).await.unwrap();
    old.fail(tonic::Status::unavailable("a new leader")).await;

    let welcome = Welcome { credit_bytes: CREDIT, features: vec!["requests".into()], ..Welcome::default() };
    let mut stream = aggregator.accept_with(welcome).await;
    // Only then it knows of the new one.
    node.write("web", "1-1", &["a line"]);
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    let mut reports = Vec::new();
    let mut take = async |until: fn(&BatchContent) -> bool| loop {
        let (batch, content) = stream.batch().await;
        stream.credit(batch.payload.len() as u64).await;
        reports.extend(content.requests.clone());
        if until(&content) || !reports.is_empty() {
            return;
        }
    };
    take(|content| !content.logs.is_empty()).await;
    tokio::join!(node.stop(), take(|_| false));
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(report.rows.iter().map(|row| row.count).collect::<Vec<_>>(), [7]);
    assert_eq!((&*report.proxies[0].pod, &*report.proxies[0].namespace), ("web-1", "shop"));
    let metrics = node.metrics();
    let line = r#"kestrel_agent_requests_received_total{outcome="Aggregated"} 7"#;
    assert!(metrics.contains(line), "{metrics}");
}

/// Writes numbered lines as the runtime does and rotates the file as the
/// kubelet does: rename, pack the older ones, a new file.
struct Container {
    log: PathBuf,
    file: File,
    written: u32,
    rotations: u32,
}

impl Container {
    const ROTATE_AT: u64 = 1 << 20;

    fn new(log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        Self { log, file, written: 0, rotations: 0 }
    }

    fn write(&mut self, lines: u32) {
        for _ in 0..lines {
            let number = self.written;
            let padding = "x".repeat(200 + number as usize % 100);
            writeln!(self.file, "2026-11-21T13:50:00.{number:09}Z stdout F {number} {padding}").unwrap();
            self.written += 1;
            if number.is_multiple_of(100) && self.file.metadata().unwrap().len() > Self::ROTATE_AT {
                self.rotate();
            }
        }
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.log.with_extension(format!("log.20261121-{number:06}"))
    }

    fn rotate(&mut self) {
        if let Some(older) = self.rotations.checked_sub(1) {
            pack(&self.rotated(older));
        }
        fs::rename(&self.log, self.rotated(self.rotations)).unwrap();
        self.file = File::create(&self.log).unwrap();
        self.rotations += 1;
    }
}

fn pack(path: &Path) {
    let temporary = PathBuf::from(format!("{}.tmp", path.display()));
    let mut encoder = GzEncoder::new(File::create(&temporary).unwrap(), Compression::fast());
    encoder.write_all(&fs::read(path).unwrap()).unwrap();
    encoder.finish().unwrap();
    fs::rename(&temporary, format!("{}.gz", path.display())).unwrap();
    fs::remove_file(path).unwrap();
}

/// What the far end holds: each line once, by where it ends in its file.
#[derive(Default)]
struct Received {
    places: BTreeSet<(String, u64)>,
    numbers: BTreeSet<u32>,
    repeats: usize,
}

impl Received {
    /// Takes batches until `lines` lines are there or `most` batches came; each
    /// is acknowledged late, as the resend window does.
    async fn take(&mut self, stream: &mut Stream, lines: usize, most: usize) {
        const WINDOW: u64 = 3;
        for _ in 0..most {
            if self.numbers.len() >= lines {
                break;
            }
            let (batch, content) = stream.batch().await;
            stream.credit(batch.payload.len() as u64).await;
            if batch.id > WINDOW {
                stream.ack(batch.id - WINDOW).await;
            }
            for chunk in &content.logs {
                for line in aggregator::lines(chunk) {
                    let place = (chunk.file_id.clone(), chunk.start_offset + u64::from(line.end.unwrap()));
                    if self.places.insert(place) {
                        let number = line.text.split(' ').next().unwrap().parse().unwrap();
                        assert!(self.numbers.insert(number), "line {number} came from two places");
                    } else {
                        self.repeats += 1;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_missing_over_rotations_and_the_loss_of_either_end() {
    const LINES: u32 = 20_000;
    let mut aggregator = Aggregator::start().await;
    let mut node = Node::new(&aggregator);
    let mut container = Container::new(node.log("web", "1-1"));
    let mut received = Received::default();

    container.write(LINES / 4);
    node.start();
    let mut stream = accept(&mut aggregator).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    let write = tokio::task::spawn_blocking(move || {
        container.write(LINES / 4);
        container
    });
    received.take(&mut stream, LINES as usize / 2, usize::MAX).await;
    let mut container = write.await.unwrap();
    assert!(container.rotations >= 2);
    assert_eq!(received.repeats, 0);

    // The aggregator goes away in the middle of a batch of rotations.
    container.write(LINES / 4);
    received.take(&mut stream, usize::MAX, 2).await;
    stream.fail(tonic::Status::unavailable("a new leader")).await;
    let mut stream = accept(&mut aggregator).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    received.take(&mut stream, usize::MAX, 2).await;

    // The agent goes away, and the file is rotated meanwhile.
    drop(stream);
    node.stop().await;
    container.write(LINES / 4);
    node.start();
    let mut stream = accept(&mut aggregator).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    received.take(&mut stream, LINES as usize, usize::MAX).await;
    assert!(received.numbers.iter().copied().eq(0..LINES));
    assert!(received.repeats > 0, "what was not acknowledged comes again");
    drop(stream);
    node.stop().await;
}
