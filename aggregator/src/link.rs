//! The aggregator's end of the agent link: who attaches, what they may say,
//! and how it reaches the cloud.

mod admission;
mod authority;
mod batch;
mod certificate;
mod columns;
mod gap;
mod identity;
mod ledger;
mod lines;
pub mod metrics;
mod nodes;
pub(crate) mod publish;
mod refusals;
mod repeats;
mod review;
mod server;
mod session;
mod silence;
mod unheard;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use kestrel_proto::body::Room;
use kestrel_runtime::tls::server::ServingCertificate;
use kube::Client;
use tokio::{
    net::TcpListener,
    sync::{self, Semaphore, watch},
    time::timeout,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::{Status, metadata::MetadataValue};

use crate::{
    inventory::Pods,
    signals::Signals,
    traffic::{Traffic, requests::Requests},
    uplink::lanes::LogLane,
};
use admission::Admission;
use certificate::Keeper;
use identity::Rules;
use metrics::{Metrics, Refused, RefusedLabel};
pub use nodes::Nodes;
use refusals::Refusals;
use repeats::Repeats;
use review::Identities;
use silence::Silence;

/// Bytes of large messages that may be on their way into memory.
const RECEIVED_BYTES: u32 = 16 * 1024 * 1024;
/// Bytes that decoded batches may take while they wait for the lane.
const DECODED_BYTES: u32 = 16 * 1024 * 1024;
/// Batches of all streams that may wait for their answer; each costs about 200
/// bytes here and in the resend window.
const MOST_UNANSWERED: usize = 256 * 1024;
/// Sessions get this long to say farewell: an agent that is dead does not hold up
/// a planned hand-over for longer.
const DRAIN: Duration = Duration::from_secs(2);

/// Where and for whom the link is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port to listen on; 0: any.
    pub port: u16,
    /// Streams that may be attached at once.
    pub max_connections: usize,
    /// Bytes of lines that a collector may send a second; 0: no limit.
    pub pod_bytes_per_second: u64,
    /// The operator's namespace.
    pub namespace: String,
    /// ServiceAccount of the node agents in that namespace.
    pub agent_service_account: String,
    /// Address of this pod, which the Service leads to; `None` outside a cluster.
    pub pod_ip: Option<IpAddr>,
    /// Name of this pod.
    pub pod_name: Option<String>,
    /// Its UID, without which an Istio of ambient mode does not take it for what an EndpointSlice leads to.
    pub pod_uid: Option<String>,
    /// Name of the node this pod runs on.
    pub node_name: Option<String>,
    /// Folder with `tls.crt`, `tls.key` and `ca.crt`; `None`: an authority of our own signs.
    pub tls_dir: Option<PathBuf>,
}

/// Who knows the pods, and who takes what agents and collectors send.
#[derive(Clone)]
pub struct Parts {
    /// Whose line is whose.
    pub pods: Pods,
    /// What is wrong.
    pub signals: Signals,
    /// Lines.
    pub logs: LogLane,
    /// Flows.
    pub traffic: Traffic,
    /// What is asked of nodes.
    pub nodes: Nodes,
    /// What proxies logged.
    pub requests: Requests,
}

/// What all sessions share.
struct Shared {
    pods: Pods,
    signals: Signals,
    logs: LogLane,
    traffic: Traffic,
    nodes: Nodes,
    requests: Requests,
    metrics: Metrics,
    refusals: Refusals,
    repeats: Mutex<Repeats>,
    admission: Admission,
    /// PEM of the authorities that collectors are to trust from now on.
    anchors: watch::Receiver<String>,
    pod_bytes_per_second: u64,
    silence: Mutex<Silence>,
    received: Room,
    decoded: Room,
    turn: sync::Mutex<()>,
    unanswered: Arc<Semaphore>,
    sessions: TaskTracker,
    drain: CancellationToken,
}

/// Serves the link until the drain; for the leader alone. It begins when the
/// pods are known, because before that nobody could tell whose line is whose.
///
/// # Errors
/// The port can't be bound.
pub async fn serve(
    config: Config,
    client: Client,
    parts: Parts,
    metrics: Metrics,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let certificate = Arc::new(ServingCertificate::default());
    let (anchors, mut known) = watch::channel(String::new());
    let keeper = Keeper::new(
        client.clone(),
        config.tls_dir.clone(),
        config.namespace.clone(),
        Arc::clone(&certificate),
        anchors,
    );
    let _keeping = AbortOnDropHandle::new(tokio::spawn(keeper.keep()));
    let prepared = async {
        parts.pods.listed().await;
        // Its sender lives as long as the task above.
        known.wait_for(|anchors| !anchors.is_empty()).await.map(drop)
    };
    let Some(Ok(())) = drain.run_until_cancelled(prepared).await else { return Ok(()) };

    let all = if config.pod_ip.is_some_and(|address| address.is_ipv6()) {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    };
    let listener = TcpListener::bind((all, config.port)).await.with_context(|| {
        format!("the agent link's port {} (KESTREL_LINK_PORT) can't be bound", config.port)
    })?;
    let port = listener.local_addr()?.port();

    let rules =
        Rules { namespace: config.namespace.clone(), agent_account: config.agent_service_account.clone() };
    let identities = Identities::new(client.clone(), rules, parts.pods.clone());
    let traffic = parts.traffic.clone();
    let shared = Shared::new(&config, known.clone(), parts, metrics, drain.clone());

    let serving = async {
        tokio::select! {
            () = server::run(listener, certificate, Arc::clone(&shared), identities) => {}
            () = unheard::keep_looking(client.clone(), &config, port, Arc::clone(&shared)) => {}
            () = publish::keep_published(&client, &config, port, known) => {}
        }
    };
    tokio::join!(serving, traffic.run(drain));
    Ok(())
}

impl Shared {
    fn new(
        config: &Config,
        anchors: watch::Receiver<String>,
        Parts { pods, signals, logs, traffic, nodes, requests }: Parts,
        metrics: Metrics,
        drain: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            pods,
            signals,
            logs,
            traffic,
            nodes,
            requests,
            metrics,
            refusals: Refusals::default(),
            repeats: Mutex::default(),
            admission: Admission::new(config.max_connections),
            anchors,
            pod_bytes_per_second: config.pod_bytes_per_second,
            silence: Mutex::default(),
            received: Room::new(RECEIVED_BYTES),
            decoded: Room::new(DECODED_BYTES),
            turn: sync::Mutex::new(()),
            unanswered: Arc::new(Semaphore::new(MOST_UNANSWERED)),
            sessions: TaskTracker::new(),
            drain,
        })
    }

    /// Counts a refusal and says it in the log; `why` follows the address.
    fn refuse(&self, address: IpAddr, reason: Refused, why: &str) {
        self.metrics.refused.get_or_create(&RefusedLabel { reason }).inc();
        self.refusals.tell(address, why);
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Likewise.
    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end_sessions(&self) {
        self.sessions.close();
        let _late = timeout(DRAIN, self.sessions.wait()).await;
    }
}

/// The status that ends every stream when this process stops leading.
fn leader_changes() -> Status {
    retry_after(Status::unavailable("the leader is changing: attach again"), Duration::ZERO)
}

/// `status` with the time after which it makes sense to come back.
fn retry_after(mut status: Status, time: Duration) -> Status {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert("retry-after-ms", MetadataValue::from(milliseconds));
    status
}

#[cfg(test)]
mod tests;
