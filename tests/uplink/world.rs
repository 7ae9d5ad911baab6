//! A cloud, an uplink, a cluster and traffic, and what must be true of them
//! after every fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_aggregator::{
    inventory::Mirror,
    uplink::{
        Answer, Config, Keepalive, Request, Retry, Uplink, View,
        credentials::{Bootstrap, Credentials, TokenSource},
        lanes::{Lane, Lanes},
        metrics::Metrics,
        report::Report as Words,
        spool::Spool,
    },
};
use kestrel_dev_cloud::{
    Authority, Claims, Cloud, Faults, Record, Stream,
    credentials::Identity,
    record::{
        Arrival,
        sequence::{Report, Sequences},
    },
    serve,
};
use kestrel_proto::cloud::v1::{
    Flow, KubernetesApiResponse, KubernetesApiResult, KubernetesEvent,
    stream_control_request::Request as Tool,
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{cluster::Cluster, is_full, secrets, traffic::Traffic};

/// Nothing here takes that long unless it is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// The real times where all is tried; else short, so that an outage is.
pub(crate) fn keepalive() -> Keepalive {
    let [interval, timeout] = if is_full() { [20_000, 10_000] } else { [300, 2700] };
    Keepalive { interval: Duration::from_millis(interval), timeout: Duration::from_millis(timeout) }
}

/// How much later than the resend window says a small machine may be.
const SLACK: Duration = Duration::from_secs(10);

/// From one look at all that came to the next.
const LOOK: Duration = Duration::from_millis(20);

/// The size of a large message.
pub(crate) const LARGE: usize = 9 << 20;

pub(crate) struct World {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) folder: TempDir,
    pub(crate) lanes: Lanes,
    pub(crate) metrics: Metrics,
    pub(crate) report: Words,
    pub(crate) view: View,
    pub(crate) traffic: Traffic,
    cluster: Cluster,
    flows: Flows,
    drain: CancellationToken,
    uplink: JoinHandle<()>,
    answers: JoinHandle<()>,
}

/// A cloud that sends its heartbeats often, at any port of the loopback unless
/// `change` says something else.
pub(crate) async fn cloud(change: impl FnOnce(&mut kestrel_dev_cloud::Config)) -> Arc<Cloud> {
    kestrel_runtime::tls::install_provider();
    let mut config = kestrel_dev_cloud::Config::new(Authority::generate().unwrap());
    config.heartbeat = Duration::from_millis(500);
    // So that a DELETE that was lost is missed.
    config.prunes = false;
    change(&mut config);
    Arc::new(serve(config).await.unwrap())
}

/// The same on a thread of its own, from after `enter` until `end`.
pub(crate) fn cloud_apart(
    enter: impl FnOnce() + Send + 'static,
    change: impl FnOnce(&mut kestrel_dev_cloud::Config) + Send + 'static,
    end: CancellationToken,
) -> Arc<Cloud> {
    let (started, cloud_there) = mpsc::channel();
    apart(move || {
        enter();
        async move {
            started.send(cloud(change).await).unwrap();
            end.cancelled().await;
        }
    });
    cloud_there.recv().unwrap()
}

/// Does something on a thread of its own.
pub(crate) fn apart<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let work = work();
        runtime.block_on(work);
    });
}

/// Writes a client certificate into the folder.
pub(crate) fn write_certificate(cloud: &Cloud, folder: &Path) {
    let identity: Identity = cloud.authority().client("cluster").unwrap();
    secrets::add_key(&identity.key);
    cloud.authority().write_client(folder, &identity).unwrap();
}

/// Writes a token into the folder.
pub(crate) fn write_token(cloud: &Cloud, folder: &Path, seconds: i64) {
    let claims = Claims::new("acme", "cluster", Timestamp::now(), seconds);
    let token = cloud.authority().tokens().mint(&claims).unwrap();
    secrets::add_token(&token);
    std::fs::write(folder.join("token"), token).unwrap();
}

fn config(folder: &Path, server: SocketAddr) -> Config {
    Config {
        host: server.ip().to_string(),
        port: server.port(),
        server_name: "localhost".to_owned(),
        credentials: Credentials::new(Bootstrap {
            client_certificate: folder.join("client.crt"),
            client_key: folder.join("client.key"),
            authority: folder.join("ca.crt"),
            token: TokenSource::File(folder.join("token")),
            insecure: false,
            look: Duration::from_millis(50),
        }),
        proxy: None,
        keepalive: keepalive(),
        retry: Retry {
            first: Duration::from_millis(10),
            most: Duration::from_millis(200),
            absent: Duration::from_millis(200),
        },
    }
}

impl World {
    /// A world in which everything works and traffic passes.
    pub(crate) async fn new() -> Self {
        Self::at(cloud(|_| {}).await).await
    }

    /// The same with this cloud.
    pub(crate) async fn at(cloud: Arc<Cloud>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool");
        Self::with(cloud, folder, spool).await
    }

    /// The same with its credentials and its spool in these folders.
    pub(crate) async fn with(cloud: Arc<Cloud>, folder: TempDir, spool: PathBuf) -> Self {
        secrets::listen();
        write_certificate(&cloud, folder.path());
        write_token(&cloud, folder.path(), 3600);
        let (metrics, mirror) = (Metrics::default(), Mirror::default());
        let spool = Spool { folder: spool, bytes: 256 << 20, age: 60 * LIMIT };
        let lanes = Lanes::with_spool(metrics.clone(), &spool);
        lanes.lead();
        let (ask, mut requests) = tokio::sync::mpsc::unbounded_channel();
        let ask = Arc::new(move |over, request| drop(ask.send((over, request))));
        let config = config(folder.path(), cloud.address());
        let uplink = Uplink::new(config, lanes.clone(), mirror.clone(), ask, metrics.clone());
        let (report, view) = (uplink.report(), uplink.view());
        let drain = CancellationToken::new();
        let ending = drain.clone();
        let uplink = tokio::spawn(async move { uplink.run(&ending).await });
        let answering = lanes.clone();
        let answers = tokio::spawn(async move {
            while let Some((over, request)) = requests.recv().await {
                let Request::KubernetesApi(request) = request else { continue };
                let response_data = "x".repeat(if request.api_paths == ["large"] { LARGE } else { 10 });
                let results = vec![KubernetesApiResult { response_data, ..Default::default() }];
                let request_id = request.request_id;
                let answer = KubernetesApiResponse { request_id, results, ..Default::default() };
                answering.answers(over).room().await;
                answering.answers(over).send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
            }
        });
        let cluster = Cluster::new(mirror);
        let mut traffic = Traffic::new(lanes.clone(), cluster.clone());
        traffic.resume();
        let flows = Flows::default();
        let world = Self {
            cloud,
            folder,
            lanes,
            metrics,
            report,
            view,
            traffic,
            cluster,
            flows,
            drain,
            uplink,
            answers,
        };
        world.connected().await;
        world
    }

    /// Looks until `found` finds something in the record.
    pub(crate) async fn wait_for<T>(&self, what: &str, found: impl FnMut(&Record) -> Option<T>) -> T {
        self.wait_longer(LIMIT, what, found).await
    }

    /// The same with a limit of its own.
    pub(crate) async fn wait_longer<T>(
        &self,
        limit: Duration,
        what: &str,
        found: impl FnMut(&Record) -> Option<T>,
    ) -> T {
        match self.cloud.wait_for(limit, found).await {
            Some(found) => found,
            None => panic!("not in time: {what}; the uplink says: {:?}", self.report.last_problem()),
        }
    }

    /// Waits until all five streams are open.
    pub(crate) async fn connected(&self) {
        self.wait_for("five open streams", |record| {
            let open = |stream: Stream| record.connections.stream(stream).open > 0;
            Stream::ALL.into_iter().all(open).then_some(())
        })
        .await;
    }

    /// How often a stream was opened.
    pub(crate) fn opened(&self, stream: Stream) -> u64 {
        self.cloud.read(|record| record.connections.stream(stream).opened)
    }

    /// Waits until a stream is open that was opened more than `before` times.
    pub(crate) async fn reopened(&self, stream: Stream, before: u64) {
        self.wait_for(&format!("stream {stream:?} opened again"), |record| {
            let count = record.connections.stream(stream);
            (count.open > 0 && count.opened > before).then_some(())
        })
        .await;
    }

    /// Waits until the faults that happen a number of times have happened.
    pub(crate) async fn used_up(&self) {
        let deadline = Instant::now() + LIMIT;
        while !self.cloud.faults().resets.is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", self.cloud.faults());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the problem of the moment contains `part`.
    pub(crate) async fn problem(&self, part: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.report.last_problem().is_some_and(|problem| problem.contains(part)) {
            let problem = self.report.last_problem();
            assert!(Instant::now() < deadline, "{part:?} is not in: {problem:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for an answer of [`LARGE`] bytes or a small one; returns how long it took.
    pub(crate) async fn ask(&self, stream: Stream, path: &str) -> Duration {
        let request = json!({ "kubernetes_api_request": { "api_paths": [path] } });
        let sent = self.cloud.send(&request, Some(stream), LIMIT).await;
        let sent = sent.unwrap_or_else(|error| {
            panic!(
                "{stream:?} {path}: {error}; the uplink says: {:?} {:#?}",
                self.report.last_problem(),
                self.view.state()
            )
        });
        assert_eq!(sent.answer.unwrap().message.kind(), "kubernetes_api_response");
        sent.elapsed
    }

    /// Nothing is broken any more: what went in must come out.
    pub(crate) async fn whole(&mut self) {
        self.whole_within(LIMIT).await;
    }

    /// The same with a limit of its own.
    pub(crate) async fn whole_within(&mut self, limit: Duration) {
        self.traffic.pause().await;
        let deadline = Instant::now() + limit;
        let (signal, line) = loop {
            match self.look() {
                Ok(whole) => break whole,
                Err(missing) => assert!(
                    Instant::now() < deadline,
                    "not whole: {missing}\nthe uplink says: {:?}",
                    self.report.last_problem()
                ),
            }
            sleep(LOOK).await;
        };
        assert_eq!((signal.late, signal.unkept), (0, 0), "signals are in order: {signal:?}");
        assert_eq!((line.late, line.unkept), (0, 0), "lines are in order: {line:?}");
        self.traffic.resume();
    }

    /// The series of signals and lines, if everything has come or is counted
    /// as dropped; else what is missing.
    fn look(&mut self) -> Result<(Report, Report), String> {
        let (in_signals, in_lines, in_flows) = {
            let counts = self.traffic.counts();
            (counts.signals(), counts.lines(), counts.flows())
        };
        let [signals, lines, flows] = [Lane::Signals, Lane::Logs, Lane::Flows].map(|lane| self.dropped(lane));
        // What was sent and could not be kept for sending it again is counted, and may have come.
        let adds_up = |went_in, came, dropped| came <= went_in && went_in <= came + dropped;
        let Self { cloud, flows: seen, cluster, .. } = self;
        cloud.read(|record| {
            seen.look(record);
            let report = |sequences: &Sequences, prefix| sequences.report(prefix, &Default::default(), 5);
            let signal = report(&record.signal_sequences, "signal ").unwrap();
            let line = report(&record.logs.sequences, "line ").unwrap();
            let is_whole = adds_up(in_signals, signal.distinct, signals)
                && adds_up(in_lines, line.distinct, lines)
                && adds_up(in_flows, seen.different(), flows);
            let difference = if is_whole { cluster.difference(record) } else { Some("not compared".to_owned()) };
            let Some(difference) = difference else { return Ok((signal, line)) };
            Err(format!(
                "of {in_signals} signals (dropped {signals}): {signal:?}\nof {in_lines} lines (dropped {lines}): \
                 {line:?}\nof {in_flows} flows (dropped {flows}): {}\ninventory: {difference}",
                seen.different()
            ))
        })
    }

    /// Notes the flows of the series that came: the record keeps the newest alone.
    pub(crate) fn see_flows(&mut self) {
        let Self { cloud, flows, .. } = self;
        cloud.read(|record| flows.look(record));
    }

    /// Messages of a lane that the uplink says it dropped.
    fn dropped(&self, lane: Lane) -> u64 {
        self.metric("messages_dropped_total", lane)
    }

    /// A metric of a lane, over all its other labels.
    pub(crate) fn metric(&self, name: &str, lane: Lane) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry()).unwrap();
        let name = format!("{name}{{lane=\"{lane:?}\"");
        let of_lane = text.lines().filter(|line| line.starts_with(&name));
        of_lane.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        registry
    }

    /// The last look: every batch is acked, repeats are only what the window
    /// allows, and nothing that was said has a secret in it.
    pub(crate) async fn end(mut self) {
        self.whole().await;
        self.traffic.pause().await;
        let counts = self.traffic.counts().clone();
        let deadline = Instant::now() + LIMIT;
        while counts.acked() < counts.lines() {
            assert!(Instant::now() < deadline, "{} of {}", counts.acked(), counts.lines());
            sleep(Duration::from_millis(20)).await;
        }
        self.whole().await;
        self.repeats_are_due_to_the_window();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry()).unwrap();
        secrets::absent_from(&text);
        secrets::absent_from(&format!("{:?}", self.report.last_problem()));
        self.drain.cancel();
        (&mut self.uplink).await.unwrap();
        self.answers.abort();
        self.cloud.set_faults(Faults::default());
        secrets::absent_from_what_was_said();
    }

    /// A signal comes twice only if the stream that carried it ended, or its
    /// own stream was opened, before the signal had left the resend window.
    fn repeats_are_due_to_the_window(&self) {
        let Keepalive { interval, .. } = keepalive();
        let most = keepalive().hold() * 9 / 8 + interval + SLACK;
        self.cloud.read(|record| {
            let openings = record.connections.openings();
            let mut first: BTreeMap<String, &Arrival> = BTreeMap::new();
            for arrival in record.signals.iter().filter(|one| one.message.kind() == "kubernetes_event") {
                let name = arrival.message.decode::<KubernetesEvent>().unwrap().name;
                let Some(before) = first.get(&name) else {
                    first.insert(name, arrival);
                    continue;
                };
                let ended = openings.iter().find(|opening| opening.id == before.stream_id);
                let ended = ended.and_then(|opening| opening.closed).unwrap_or(arrival.at).min(arrival.at);
                let opened = openings.iter().filter(|opening| opening.stream == Stream::Events);
                let opened = opened.map(|opening| opening.opened).filter(|at| *at <= arrival.at);
                let another = before.stream_id != arrival.stream_id;
                let ages = opened
                    .chain(another.then_some(ended))
                    .map(|lost| lost.duration_since(before.at))
                    .filter(|age| !age.is_negative())
                    .map(|age| age.unsigned_abs());
                let age = ages.min();
                assert!(age.is_some_and(|age| age <= most), "{name} came again, lost after {age:?}");
            }
        });
    }
}

/// The flows of the series that came.
#[derive(Default)]
struct Flows {
    numbers: BTreeSet<u64>,
    looked_at: u64,
}

impl Flows {
    /// Looks at what came since the last look.
    fn look(&mut self, record: &Record) {
        let new = usize::try_from(record.flows.total() - self.looked_at).unwrap();
        self.looked_at = record.flows.total();
        let flows = record.flows.iter().rev().take(new).filter(|flow| flow.message.kind() == "flow");
        self.numbers
            .extend(flows.map(|flow| flow.message.decode::<Flow>().unwrap().src_ip.parse::<u64>().unwrap()));
    }

    fn different(&self) -> u64 {
        self.numbers.len() as u64
    }
}
