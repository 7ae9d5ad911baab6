//! What the cloud asks for, much at a time: the program itself, over real sockets, before an API server that answers as the
//! path says. With `KESTREL_BENCH` more is asked for, and times are held against what `docs/performance.md` promises.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{join_all, ready},
    poll, stream,
};
use kestrel_dev_cloud::{Authority, Cloud, SendError, Stream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    process::{Running, installed},
    rig::{LIMIT, cloud, write_credentials},
};

/// What a pod's log has, of which 8 MiB are an answer.
const LARGE: usize = 9 << 20;
/// More than run at a time.
const AT_ONCE: usize = 10;
/// Resident memory of the program without an inventory, in KiB: beside that of a large cluster it is within the chart's limit.
const BUDGET: u64 = 256 << 10;

fn is_bench() -> bool {
    std::env::var_os("KESTREL_BENCH").is_some()
}

/// An API server on a socket.
#[derive(Clone)]
struct ApiServer {
    address: SocketAddr,
    /// Paths without their query, in the order in which they came.
    asked: Arc<Mutex<Vec<String>>>,
    /// Nodes are not told before.
    slow: CancellationToken,
    log: Arc<String>,
}

impl ApiServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = format!("{}\n", "x".repeat(99));
        let server = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            slow: CancellationToken::new(),
            log: Arc::new(line.repeat(LARGE / line.len())),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move {
                    // Its client may go at any time.
                    let _end = server.serve(stream).await;
                });
            }
        });
        server
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
            }
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            stream.read_exact(&mut vec![0; length.unwrap_or_default()]).await?;
            let target = head.split(' ').nth(1).unwrap();
            let path = target.split('?').next().unwrap();
            // What is watched is of no kind that this one has, and the operator's own Secrets are not there.
            let is_known = (path.starts_with("/api/v1/namespaces/") || path.starts_with("/api/v1/nodes/"))
                && !path.contains("/secrets");
            if is_known {
                self.asked.lock().unwrap().push(path.to_owned());
            }
            if path.starts_with("/api/v1/nodes/") {
                self.slow.cancelled().await;
            }
            let small = format!("{{\"kind\": \"Thing\", \"metadata\": {{\"name\": {path:?}}}}}");
            let (status, body) = match path {
                path if path.ends_with("/log") => ("200 OK", self.log.as_str()),
                _ if is_known => ("200 OK", small.as_str()),
                _ => ("404 Not Found", "{\"message\": \"there is none\", \"reason\": \"NotFound\"}"),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let stream = stream.get_mut();
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

struct Rig {
    api_server: ApiServer,
    cloud: Cloud,
    program: Running,
    _folder: TempDir,
}

impl Rig {
    async fn start() -> Self {
        let (api_server, cloud) =
            (ApiServer::start().await, cloud(Authority::generate().unwrap(), None).await);
        let folder = tempfile::tempdir().unwrap();
        write_credentials(cloud.authority(), folder.path());
        let mut program = installed(folder.path(), &cloud, api_server.address);
        // The audit has a line for each request, whatever the level: more than a pipe holds that nobody reads.
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        program.env("HEALTH_PORT", "0").env("KESTREL_LINK_PORT", "0").env("KESTREL_LOG", "error").stderr(log);
        let program = Running(Some(program.spawn().unwrap()));
        let connected =
            cloud.wait_for(LIMIT, |record| (record.connections.counts().streams == 5).then_some(()));
        assert!(connected.await.is_some());
        Self { api_server, cloud, program, _folder: folder }
    }

    /// Asks for one path: from sending to the answer, and the answer's only result.
    async fn ask(&self, stream: Stream, path: &str) -> (Duration, Value) {
        let request = json!({"kubernetes_api_request": {"api_paths": [path], "timeout_seconds": 60}});
        let sent = self
            .cloud
            .send(&request, Some(stream), LIMIT)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let answer = sent.answer.unwrap().message.json();
        let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(results.len(), 1, "{path}");
        (sent.elapsed, results[0].clone())
    }

    async fn small(&self, number: usize) -> Duration {
        let path = format!("api/v1/namespaces/n{number}");
        let (elapsed, result) = self.ask(Stream::Control, &path).await;
        assert!(result["response_data"].as_str().unwrap().contains(&path), "{result}");
        elapsed
    }

    /// So many small ones, so many of them at a time; how long they took, from the shortest on.
    async fn smalls(&self, count: usize, at_once: usize) -> Vec<Duration> {
        let mut times: Vec<Duration> =
            stream::iter(0..count).map(|number| self.small(number)).buffer_unordered(at_once).collect().await;
        times.sort_unstable();
        times
    }

    /// `count` small ones, fifty at a time; a benchmark asks for so many again and again for these seconds.
    async fn smalls_for(&self, seconds: u64, count: usize) -> Vec<Duration> {
        let begun = Instant::now();
        let mut times = self.smalls(count, 50).await;
        while is_bench() && begun.elapsed() < Duration::from_secs(seconds) {
            times.extend(self.smalls(count, 50).await);
        }
        times.sort_unstable();
        times
    }

    /// What the program has in memory, in KiB: now, and at most so far.
    fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.id())).unwrap();
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    async fn end(self) {
        let program = self.program;
        tokio::task::spawn_blocking(|| program.terminate()).await.unwrap();
        self.cloud.stop().await.unwrap();
    }
}

fn p99(times: &[Duration]) -> Duration {
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// Scenario: fifty requests are in flight all the time, beside one that takes 20 seconds.
/// Guarantee: they are answered meanwhile, as they are without it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_takes_long_is_waited_for_by_nobody_else() {
    let rig = Rig::start().await;
    let count = if is_bench() { 2000 } else { 200 };
    rig.smalls(count, 50).await;
    let alone = rig.smalls(count, 1).await;
    // As long as the other, half of it before and half after: a machine does not stay as it is.
    let mut unloaded = rig.smalls_for(10, count).await;
    let slow = async {
        let (elapsed, result) = rig.ask(Stream::Control, "api/v1/nodes/slow").await;
        assert_eq!(result["success"], true, "{result}");
        elapsed
    };
    let beside = async {
        let times = rig.smalls_for(20, count).await;
        assert!(rig.api_server.asked().contains(&"/api/v1/nodes/slow".to_owned()), "it was asked for before");
        rig.api_server.slow.cancel();
        times
    };
    let (slow, loaded) = tokio::join!(slow, beside);
    unloaded.extend(rig.smalls_for(10, count).await);
    unloaded.sort_unstable();
    println!(
        "small answers, p99: {:?} one at a time, {:?} with 50 in flight, {:?} with 50 in flight beside one of {slow:?} ({} asked)",
        p99(&alone),
        p99(&unloaded),
        p99(&loaded),
        loaded.len()
    );
    if is_bench() {
        assert!(p99(&loaded) <= p99(&unloaded) + Duration::from_millis(50));
    }
    rig.end().await;
}

/// Scenario: answers of the largest size are asked for on the data stream, one after another and ten at a time.
/// Guarantee: each comes whole up to its limit and says that it was cut; memory stays within its budget; answers on the control stream
/// wait for the bytes that are on their way, and for nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn large_answers_stay_within_their_memory_and_delay_others_by_their_bytes_alone() {
    let rig = Rig::start().await;
    let count = if is_bench() { 100 } else { 10 };
    let unloaded = rig.smalls(200, 1).await;
    let (before, _) = rig.memory();
    for at_once in [1, AT_ONCE] {
        let end = CancellationToken::new();
        let large = async {
            let begun = Instant::now();
            let ask = |_| async {
                let (elapsed, result) = rig.ask(Stream::Data, "api/v1/namespaces/a/pods/p/log").await;
                let bytes = result["response_data"].as_str().unwrap().len();
                assert!(bytes > 7 << 20 && bytes <= 8 << 20, "{bytes}");
                assert!(
                    result["error_message"].as_str().unwrap().starts_with("cut to "),
                    "{}",
                    result["error_message"]
                );
                elapsed
            };
            let times: Vec<Duration> =
                stream::iter(0..count).map(ask).buffer_unordered(at_once).collect().await;
            end.cancel();
            (times.into_iter().max().unwrap(), begun.elapsed() / count)
        };
        let small = async {
            let mut times = Vec::new();
            while !end.is_cancelled() {
                times.push(rig.small(times.len()).await);
            }
            times.sort_unstable();
            times
        };
        let ((longest, each), times) = tokio::join!(large, small);
        let (now, most) = rig.memory();
        println!(
            "{count} answers of 8 MiB, {at_once} at a time: {each:?} each, the longest {longest:?}; meanwhile {} small ones on the other stream, p99 {:?}, the longest {:?} \
             (p99 alone {:?}); resident {} MiB before, {} MiB after, {} MiB at most",
            times.len(),
            p99(&times),
            times[times.len() - 1],
            p99(&unloaded),
            before >> 10,
            now >> 10,
            most >> 10
        );
        assert!(most <= BUDGET, "{most} KiB are more than {BUDGET}");
        if is_bench() {
            // An answer that is being written and one that waits behind it on the same connection.
            assert!(p99(&times) <= p99(&unloaded) + each * 2, "delayed by more than bytes");
        }
    }
    rig.end().await;
}

/// Scenario: a hundred requests come at once.
/// Guarantee: each is done and answered once, and the first do not wait for the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_have_their_turns() {
    let rig = Rig::start().await;
    let paths: Vec<String> = (0..100).map(|number| format!("api/v1/namespaces/t{number}")).collect();
    let mut asked = Vec::new();
    for path in &paths {
        let request = json!({"kubernetes_api_request": {"api_paths": [path]}});
        // One after the other, as fast as the operator reads its stream: it is sent when it is first polled.
        loop {
            let (request, rig) = (request.clone(), &rig);
            let mut ask = async move { rig.cloud.send(&request, Some(Stream::Control), LIMIT).await }.boxed();
            match poll!(&mut ask) {
                Poll::Pending => break asked.push(ask),
                Poll::Ready(Err(SendError::Stuck(_))) => tokio::task::yield_now().await,
                // Where this thread had to wait.
                Poll::Ready(end) => break asked.push(ready(end).boxed()),
            }
        }
    }
    let answers: Vec<Value> =
        join_all(asked).await.into_iter().map(|sent| sent.unwrap().answer.unwrap().message.json()).collect();
    for (path, answer) in paths.iter().zip(&answers) {
        assert!(
            answer["results"][0]["success"] == true && answer["results"][0]["api_path"] == *path,
            "{answer}"
        );
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let asked = rig.api_server.asked();
    for path in &asked {
        *counts.entry(path.clone()).or_default() += 1;
    }
    assert!(counts.len() == 100 && counts.values().all(|count| *count == 1), "{counts:?}");
    // Tasks begin as the scheduler has it, so the order is not to the letter.
    let turns = paths[..8].iter().map(|path| asked.iter().position(|asked| asked.ends_with(path.as_str())));
    assert!(turns.clone().all(|turn| turn.is_some_and(|turn| turn < 64)), "{:?}", turns.collect::<Vec<_>>());
    rig.end().await;
}

/// Scenario: a request comes twice, after its answer and before it.
/// Guarantee: it is answered from the record, or once more with the one answer; nothing is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_twice_is_done_once() {
    let rig = Rig::start().await;
    let ask = async |id: &str, path: &str| {
        let request = json!({"kubernetes_api_request": {"request_id": id, "api_paths": [path]}});
        let sent = rig.cloud.send(&request, Some(Stream::Control), LIMIT).await.unwrap();
        sent.answer.unwrap().message.json()
    };
    let first = ask("twice", "api/v1/namespaces/once").await;
    assert_eq!(ask("twice", "api/v1/namespaces/once").await, first);
    let asked = rig.api_server.asked();
    assert_eq!(asked.iter().filter(|path| path.ends_with("/once")).count(), 1, "{asked:?}");
    rig.end().await;
}
