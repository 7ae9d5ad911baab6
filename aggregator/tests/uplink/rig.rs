//! A cloud and an uplink that is on its way to it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use kestrel_aggregator::{
    inventory::Mirror,
    uplink::{
        Config, Keepalive, Request, Retry, Uplink, View,
        credentials::{Bootstrap, Credentials, TokenSource},
        lanes::{Lanes, Over},
        metrics::Metrics,
        receipt::{Outcome, Source},
        report::Report,
        state::StreamState,
    },
};
use kestrel_dev_cloud::{Authority, Claims, Cloud, Stream, serve};
use kestrel_proto::cloud::v1::{
    KubernetesEvent, LogEntry, PodLogs, stream_events_request::Request as Signal,
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// Nothing here takes that long unless it is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const KEEPALIVE: Keepalive =
    Keepalive { interval: Duration::from_millis(300), timeout: Duration::from_millis(2700) };

pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) lanes: Lanes,
    pub(crate) metrics: Metrics,
    pub(crate) report: Report,
    pub(crate) view: View,
    pub(crate) requests: UnboundedReceiver<(Over, Request)>,
    settled: Source,
    outcomes: UnboundedReceiver<(u64, Outcome)>,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

/// A cloud on any port, with an authority that a later one may have too.
pub(crate) async fn cloud(authority: Authority, listen: Option<SocketAddr>) -> Cloud {
    kestrel_runtime::tls::install_provider();
    let mut config = kestrel_dev_cloud::Config::new(authority);
    config.listen = listen.unwrap_or(config.listen);
    config.heartbeat = Duration::from_millis(500);
    serve(config).await.unwrap()
}

/// What lies in the folder that [`write_credentials`] filled.
pub(crate) fn config(folder: &Path, port: u16) -> Config {
    Config {
        host: "127.0.0.1".to_owned(),
        port,
        server_name: "localhost".to_owned(),
        proxy: None,
        credentials: Credentials::new(Bootstrap {
            client_certificate: folder.join("client.crt"),
            client_key: folder.join("client.key"),
            authority: folder.join("ca.crt"),
            token: TokenSource::File(folder.join("token")),
            insecure: false,
            look: Duration::from_millis(50),
        }),
        keepalive: KEEPALIVE,
        retry: Retry {
            first: Duration::from_millis(10),
            most: Duration::from_millis(100),
            absent: Duration::from_millis(200),
        },
    }
}

/// Good credentials of this cloud.
pub(crate) fn write_credentials(authority: &Authority, folder: &Path) {
    authority.write_client(folder, &authority.client("cluster").unwrap()).unwrap();
    write_token(authority, folder, "acme", 3600);
}

pub(crate) fn write_token(authority: &Authority, folder: &Path, tenant: &str, seconds: i64) {
    let claims = Claims::new(tenant, "cluster", Timestamp::now(), seconds);
    std::fs::write(folder.join("token"), authority.tokens().mint(&claims).unwrap()).unwrap();
}

impl Rig {
    /// An uplink with good credentials.
    pub(crate) fn start(cloud: &Cloud) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_credentials(cloud.authority(), folder.path());
        let config = config(folder.path(), cloud.address().port());
        Self::with(folder, config)
    }

    pub(crate) fn with(folder: TempDir, config: Config) -> Self {
        let metrics = Metrics::default();
        let lanes = Lanes::new(metrics.clone());
        let (ask, requests) = unbounded_channel();
        let ask = Arc::new(move |over, request| ask.send((over, request)).unwrap());
        let uplink = Uplink::new(config, lanes.clone(), Mirror::default(), ask, metrics.clone());
        let (report, view) = (uplink.report(), uplink.view());
        let drain = CancellationToken::new();
        let task = tokio::spawn({
            let drain = drain.clone();
            async move { uplink.run(&drain).await }
        });
        let (settled, outcomes) = Source::new();
        Self { folder, lanes, metrics, report, view, requests, settled, outcomes, drain, task }
    }

    pub(crate) async fn stop(self) {
        self.drain.cancel();
        self.task.await.unwrap();
    }

    /// Sends a signal that is known by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.lanes.signals().send(Signal::KubernetesEvent(KubernetesEvent {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            ..Default::default()
        }));
    }

    /// Sends one line as batch `id`.
    pub(crate) async fn log(&self, id: u64, message: &str) {
        let log_entries = vec![LogEntry { message: message.to_owned(), ..Default::default() }];
        let logs = PodLogs {
            namespace: "default".to_owned(),
            pod_name: "app".to_owned(),
            pod_uid: "uid".to_owned(),
            container_name: "app".to_owned(),
            total_lines: 1,
            log_entries,
            ..Default::default()
        };
        let logs = prost::Message::encode_to_vec(&logs);
        self.lanes.logs().send(logs, self.settled.receipt(id, self.settled.generation())).await;
    }

    /// The next outcome of a batch.
    pub(crate) async fn outcome(&mut self) -> (u64, Outcome) {
        tokio::time::timeout(LIMIT, self.outcomes.recv()).await.unwrap().unwrap()
    }

    /// No batch has an outcome yet.
    pub(crate) fn no_outcome(&mut self) -> bool {
        self.outcomes.try_recv().is_err()
    }

    /// Waits until the problem of the moment contains `part`; returns it.
    pub(crate) async fn problem(&self, part: &str) -> String {
        let contains = || self.report.last_problem().filter(|problem| problem.contains(part));
        eventually(&format!("the problem {part:?}"), contains, || format!("{:?}", self.report.last_problem()))
            .await
    }

    /// Waits until all five streams are open.
    pub(crate) async fn all_streams_are_up(&self) {
        let up = || self.view.state().streams.iter().all(StreamState::is_open).then_some(());
        eventually("five open streams", up, || format!("{:?}", self.report.last_problem())).await;
    }
}

/// A way to the cloud that can be frozen: connections stay open, and bytes go
/// nowhere. Returns its port.
pub(crate) async fn freezable(cloud: &Cloud, frozen: CancellationToken) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, address) = (listener.local_addr().unwrap().port(), cloud.address());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let frozen = frozen.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(address).await.unwrap();
                let copied = copy_bidirectional(&mut client, &mut server);
                if frozen.run_until_cancelled(copied).await.is_none() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    port
}

/// Looks until something is there.
pub(crate) async fn eventually<T>(
    what: &str,
    look: impl Fn() -> Option<T>,
    instead: impl Fn() -> String,
) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}; instead: {}", instead());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the cloud has the signal `times` times on `stream`.
pub(crate) async fn arrives(cloud: &Cloud, name: &str, stream: Stream, times: usize) {
    let arrived = cloud.wait_for(LIMIT, |record| {
        let count = record.signals.iter().filter(|a| a.facts.name == name && a.stream == stream).count();
        (count >= times).then_some(())
    });
    assert!(arrived.await.is_some(), "signal {name} did not arrive {times} times on {stream:?}");
}

/// Waits until the cloud has the line.
pub(crate) async fn line_arrives(cloud: &Cloud, message: &str) {
    let arrived = cloud.wait_for(LIMIT, |record| {
        (!record.logs.lines(&Default::default(), message, 1).is_empty()).then_some(())
    });
    assert!(arrived.await.is_some(), "the line {message} did not arrive");
}
