//! The collector as a process, as the kubelet runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

mod access_logs;
#[path = "../../../link/tests/support/aggregator.rs"]
mod aggregator;
mod anchors;
mod ending;
mod files;
mod wanted;

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use aggregator::{Aggregator, DEADLINE, lines, messages};
use kestrel_proto::node::v1::{LogPolicy, Role};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

const CREDIT: u64 = 4 << 20;

/// A pod with one container that writes into a volume.
struct Pod {
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
}

/// A running collector, which does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _joined = self.0.wait();
    }
}

impl Pod {
    fn new(endpoint: &http::Uri, authority_pem: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir(path("data")).unwrap();
        fs::create_dir(path("state")).unwrap();
        fs::write(path("token"), "secret").unwrap();
        let sources =
            format!(r#"[{{"container":"app","directory":"{}","patterns":["**/*.log"]}}]"#, path("data"));
        let environment = vec![
            ("POD_NAMESPACE", "ns".to_owned()),
            ("POD_NAME", "web".to_owned()),
            ("POD_UID", "1-1".to_owned()),
            ("NODE_NAME", "n1".to_owned()),
            ("KESTREL_LINK_ENDPOINT", endpoint.to_string()),
            ("KESTREL_LINK_CA", authority_pem.to_owned()),
            ("KESTREL_LINK_TOKEN_FILE", path("token")),
            ("KESTREL_STATE_DIR", path("state")),
            ("KESTREL_LOG_SOURCES", sources),
        ];
        Self { directory, environment }
    }

    fn write(&self, text: &str) {
        let path = self.directory.path().join("data/app.log");
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the collector to have written that a file was delivered up to `offset`.
    async fn has_kept(&self, offset: u64) {
        let path = self.directory.path().join("state/positions");
        let offset = offset.to_string();
        let is_kept = |text: &str| text.lines().any(|line| line.split(' ').nth(1) == Some(&offset));
        let written = async {
            while !fs::read_to_string(&path).is_ok_and(|text| is_kept(&text)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, written).await.expect("the position is not written");
    }

    fn start(&self) -> Process {
        self.run(Command::new(env!("CARGO_BIN_EXE_kestrel-collector")))
    }

    fn run(&self, mut command: Command) -> Process {
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process(command.stderr(Stdio::piped()).spawn().unwrap())
    }
}

impl Process {
    fn ask_to_end(&self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
    }

    /// Waits for a line of its log that contains `text`.
    async fn says(&mut self, text: &'static str) {
        let mut log = BufReader::new(self.0.stderr.take().unwrap());
        let read = spawn_blocking(move || {
            let mut line = String::new();
            while !line.contains(text) {
                line.clear();
                assert!(log.read_line(&mut line).unwrap() > 0, "it ended without a word of {text:?}");
            }
            log.into_inner()
        });
        let log: ChildStderr = timeout(DEADLINE, read).await.expect("it does not say so").unwrap();
        self.0.stderr = Some(log);
    }

    /// Its exit code.
    async fn ends(mut self) -> Option<i32> {
        let wait = spawn_blocking(move || self.0.wait().unwrap().code());
        timeout(DEADLINE, wait).await.expect("it does not end").unwrap()
    }
}

#[tokio::test]
async fn lines_of_files_arrive_up_to_the_last_one() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    pod.write("one\n");
    let process = pod.start();
    let mut stream = aggregator.accept(CREDIT).await;
    assert_eq!((stream.hello.role(), stream.hello.pod_uid.as_str()), (Role::Sidecar, "1-1"));
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    let (batch, content) = stream.batch().await;
    let chunk = &content.logs[0];
    assert_eq!(
        (chunk.pod_name.as_str(), chunk.pod_uid.as_str(), chunk.container_name.as_str()),
        ("web", "1-1", "app")
    );
    assert!(lines(chunk)[0].nanoseconds > 0);
    assert_eq!(messages(&content), ["one"]);
    stream.credit(batch.payload.len() as u64).await;

    // Written at the very end, without a line feed; taken off its hands but
    // acknowledged only later, which the pod's end does not wait for.
    pod.write("two\nthree");
    process.ask_to_end();
    let mut last = Vec::new();
    while last.len() < 2 {
        let (batch, content) = stream.batch().await;
        stream.credit(batch.payload.len() as u64).await;
        last.extend(messages(&content));
    }
    assert_eq!(last, ["two", "three"]);
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn a_restarted_collector_goes_on_where_the_acks_ended() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    pod.write("one\n");
    let process = pod.start();
    let mut stream = aggregator.accept(CREDIT).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    assert_eq!(stream.lines(1).await, ["one"]);
    pod.has_kept(4).await;
    process.ask_to_end();
    assert_eq!(stream.farewell().await, []);
    assert_eq!(process.ends().await, Some(0));
    pod.write("two\n");
    let _process = pod.start();
    let mut stream = aggregator.accept(CREDIT).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    assert_eq!(messages(&stream.batch().await.1), ["two"]);
}

#[tokio::test]
async fn few_open_files_are_made_the_most_of() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    for number in 0..30 {
        fs::write(pod.directory.path().join(format!("data/{number}.log")), "one\n").unwrap();
    }
    let mut command = Command::new("/bin/sh");
    let limited = "ulimit -S -n 70 && ulimit -H -n 80 && exec \"$0\"";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_kestrel-collector")]);
    let mut process = pod.run(command);
    process.says("not followed: 16 files are open already").await;
    let mut stream = aggregator.accept(CREDIT).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    assert_eq!(stream.lines(16).await, ["one"; 16]);
}

#[tokio::test]
async fn nothing_that_is_wrong_ends_it() {
    let nowhere = "https://127.0.0.1:1".parse().unwrap();
    let mut pod = Pod::new(&nowhere, "no PEM");
    let mut process = pod.start();
    process.says("KESTREL_LINK_CA").await;
    assert!(process.0.try_wait().unwrap().is_none());
    process.ask_to_end();
    assert_eq!(process.ends().await, Some(0));

    let mut nothing = Pod::new(&nowhere, "no PEM");
    nothing.environment.push(("KESTREL_LOG_SOURCES", "[]".to_owned()));
    let mut process = nothing.start();
    process.says("nothing to collect").await;
    process.ask_to_end();
    assert_eq!(process.ends().await, Some(0));

    pod.environment.retain(|(name, _)| *name != "KESTREL_LOG_SOURCES" && *name != "POD_UID");
    let mut process = pod.start();
    process.says("POD_UID is not set: it says whose logs these are; KESTREL_LOG_SOURCES").await;
    assert!(process.0.try_wait().unwrap().is_none());
    process.ask_to_end();
    assert_eq!(process.ends().await, Some(0));
}
