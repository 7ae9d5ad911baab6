//! Containers as the node's runtime knows them, by its own interface (CRI), of which nothing is asked but lists
//! and statuses. What would show a container's environment, and what it said when it ended, is left out.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    time::SystemTime,
};

use http::uri::PathAndQuery;
use kestrel_proto::node::v1::ContainerFacts;
use prost::Message;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
};
use tonic::{Request, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::unix_grpc;

/// Of an identifier, enough to tell containers apart.
const SHORT: usize = 13;
/// `CONTAINER_RUNNING`.
const RUNNING: i32 = 1;

/// A connection to the runtime.
pub(super) struct Asking {
    runtime: Runtime,
    client: Grpc<Channel>,
}

/// Opens one.
///
/// # Errors
/// Nobody serves the socket.
pub(super) fn connect(socket: &Path) -> Result<Asking, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let client = runtime.block_on(async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| format!("the runtime's socket {}: {error}", socket.display()))?;
        unix_grpc::client(stream).await
    })?;
    Ok(Asking { runtime, client })
}

impl Asking {
    fn ask<Q, A>(&mut self, method: &'static str, question: Q) -> io::Result<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(method);
        let answer = self.client.unary(Request::new(question), path, ProstCodec::<Q, A>::default());
        let answer = self.runtime.block_on(answer);
        answer.map(tonic::Response::into_inner).map_err(|status| {
            io::Error::other(format!("the runtime says: {} ({:?})", status.message(), status.code()))
        })
    }
}

/// Prints what is wanted of containers, or of one.
pub(super) fn print(
    mut asking: Asking,
    facts: ContainerFacts,
    id: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    match facts {
        ContainerFacts::Unspecified => Ok(()),
        ContainerFacts::Running | ContainerFacts::All => {
            let state = (facts == ContainerFacts::Running).then_some(StateValue { state: RUNNING });
            let question = ListRequest { filter: Some(Filter { state }) };
            let list: ListResponse = asking.ask("/runtime.v1.RuntimeService/ListContainers", question)?;
            list_of(list, SystemTime::now(), out)
        }
        ContainerFacts::Status => {
            let question = StatusRequest { container_id: id.to_owned() };
            let status: StatusResponse =
                asking.ask("/runtime.v1.RuntimeService/ContainerStatus", question)?;
            status_of(status.status.unwrap_or_default(), out)
        }
        ContainerFacts::Stats => {
            let question = StatsRequest::default();
            let stats: StatsResponse =
                asking.ask("/runtime.v1.RuntimeService/ListContainerStats", question)?;
            stats_of(stats, out)
        }
    }
}

fn list_of(list: ListResponse, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "CONTAINER     STATE    AGE        ATTEMPT NAME                 POD                            IMAGE"
    )?;
    for container in list.containers {
        let (name, attempt) = container.metadata.map(|it| (it.name, it.attempt)).unwrap_or_default();
        writeln!(
            out,
            "{:<13} {:<8} {:<10} {attempt:<7} {name:<20} {:<30} {}",
            short(&container.id),
            state(container.state),
            age(container.created_at, now),
            pod(&container.labels),
            container.image.unwrap_or_default().image
        )?;
    }
    Ok(())
}

fn status_of(status: Status, out: &mut dyn Write) -> io::Result<()> {
    let (name, attempt) = status.metadata.map(|it| (it.name, it.attempt)).unwrap_or_default();
    for (field, value) in [
        ("id", status.id),
        ("name", name),
        ("pod", pod(&status.labels)),
        ("attempt", attempt.to_string()),
        ("state", state(status.state).to_owned()),
        ("createdAt", moment(status.created_at)),
        ("startedAt", moment(status.started_at)),
        ("finishedAt", moment(status.finished_at)),
        ("exitCode", status.exit_code.to_string()),
        ("reason", status.reason),
        ("image", status.image.unwrap_or_default().image),
        ("imageRef", status.image_ref),
        ("logPath", status.log_path),
    ] {
        writeln!(out, "{field}: {value}")?;
    }
    if let Some(linux) = status.resources.and_then(|resources| resources.linux) {
        let Linux { cpu_period, cpu_quota, cpu_shares, memory_limit, oom_score_adj } = linux;
        writeln!(
            out,
            "resources: cpuPeriod {cpu_period}, cpuQuota {cpu_quota}, cpuShares {cpu_shares}, memoryLimitInBytes {memory_limit}, oomScoreAdj {oom_score_adj}"
        )?;
    }
    for Mount { container_path, host_path, readonly } in status.mounts {
        let how = if readonly { " (read-only)" } else { "" };
        writeln!(out, "mount: {container_path} from {host_path}{how}")?;
    }
    Ok(())
}

fn stats_of(stats: StatsResponse, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "CONTAINER     CPU-MILLICORES WORKING-SET-BYTES DISK-BYTES    INODES   NAME                 POD"
    )?;
    for of_one in stats.stats {
        let Attributes { id, metadata, labels } = of_one.attributes.unwrap_or_default();
        let number = |value: Option<Number>| value.map_or_else(|| "-".to_owned(), |it| it.value.to_string());
        let cores =
            of_one.cpu.and_then(|cpu| cpu.usage_nano_cores).map(|it| Number { value: it.value / 1_000_000 });
        let disk = of_one.writable_layer.unwrap_or_default();
        writeln!(
            out,
            "{:<13} {:<14} {:<17} {:<13} {:<8} {:<20} {}",
            short(&id),
            number(cores),
            number(of_one.memory.and_then(|memory| memory.working_set_bytes)),
            number(disk.used_bytes),
            number(disk.inodes_used),
            metadata.unwrap_or_default().name,
            pod(&labels)
        )?;
    }
    Ok(())
}

fn short(id: &str) -> &str {
    &id[..id.floor_char_boundary(SHORT)]
}

fn state(number: i32) -> &'static str {
    ["Created", "Running", "Exited"].get(usize::try_from(number).unwrap_or(usize::MAX)).unwrap_or(&"Unknown")
}

/// Namespace and name of its pod.
fn pod(labels: &BTreeMap<String, String>) -> String {
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    format!("{}/{}", label("io.kubernetes.pod.namespace"), label("io.kubernetes.pod.name"))
}

pub(super) fn age(nanoseconds: i64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = now.saturating_sub(u64::try_from(nanoseconds).unwrap_or_default() / 1_000_000_000);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Seconds since 1970, or that it has not come.
fn moment(nanoseconds: i64) -> String {
    if nanoseconds <= 0 { "-".to_owned() } else { format!("{} s since 1970", nanoseconds / 1_000_000_000) }
}

// Of `runtime.v1`, what is read: the other fields are passed over.

#[derive(Clone, PartialEq, Message)]
struct ListRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<Filter>,
}

#[derive(Clone, PartialEq, Message)]
struct Filter {
    #[prost(message, optional, tag = "2")]
    state: Option<StateValue>,
}

#[derive(Clone, PartialEq, Message)]
struct StateValue {
    #[prost(int32, tag = "1")]
    state: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
    #[prost(int32, tag = "6")]
    state: i32,
    #[prost(int64, tag = "7")]
    created_at: i64,
    #[prost(btree_map = "string, string", tag = "8")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(string, tag = "1")]
    image: String,
}

/// Without `verbose`, which would show the environment.
#[derive(Clone, PartialEq, Message)]
struct StatusRequest {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(int64, tag = "4")]
    created_at: i64,
    #[prost(int64, tag = "5")]
    started_at: i64,
    #[prost(int64, tag = "6")]
    finished_at: i64,
    #[prost(int32, tag = "7")]
    exit_code: i32,
    #[prost(message, optional, tag = "8")]
    image: Option<Image>,
    #[prost(string, tag = "9")]
    image_ref: String,
    #[prost(string, tag = "10")]
    reason: String,
    #[prost(btree_map = "string, string", tag = "12")]
    labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "14")]
    mounts: Vec<Mount>,
    #[prost(string, tag = "15")]
    log_path: String,
    #[prost(message, optional, tag = "16")]
    resources: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(string, tag = "1")]
    container_path: String,
    #[prost(string, tag = "2")]
    host_path: String,
    #[prost(bool, tag = "3")]
    readonly: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Resources {
    #[prost(message, optional, tag = "1")]
    linux: Option<Linux>,
}

#[derive(Clone, PartialEq, Message)]
struct Linux {
    #[prost(int64, tag = "1")]
    cpu_period: i64,
    #[prost(int64, tag = "2")]
    cpu_quota: i64,
    #[prost(int64, tag = "3")]
    cpu_shares: i64,
    #[prost(int64, tag = "4")]
    memory_limit: i64,
    #[prost(int64, tag = "5")]
    oom_score_adj: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StatsRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatsResponse {
    #[prost(message, repeated, tag = "1")]
    stats: Vec<Stats>,
}

#[derive(Clone, PartialEq, Message)]
struct Stats {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
    #[prost(message, optional, tag = "2")]
    cpu: Option<Cpu>,
    #[prost(message, optional, tag = "3")]
    memory: Option<Memory>,
    #[prost(message, optional, tag = "4")]
    writable_layer: Option<Disk>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Cpu {
    #[prost(message, optional, tag = "3")]
    usage_nano_cores: Option<Number>,
}

#[derive(Clone, PartialEq, Message)]
struct Memory {
    #[prost(message, optional, tag = "2")]
    working_set_bytes: Option<Number>,
}

#[derive(Clone, PartialEq, Message)]
struct Disk {
    #[prost(message, optional, tag = "3")]
    used_bytes: Option<Number>,
    #[prost(message, optional, tag = "4")]
    inodes_used: Option<Number>,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn words(text: Vec<u8>) -> Vec<String> {
        let text = String::from_utf8(text).unwrap();
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    fn labels() -> BTreeMap<String, String> {
        [("io.kubernetes.pod.namespace", "shop"), ("io.kubernetes.pod.name", "web-1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn containers_are_shown_with_their_pods() {
        let metadata = Some(Metadata { name: "app".to_owned(), attempt: 3 });
        let image = Some(Image { image: "registry.example/web:1".to_owned() });
        let id = "0123456789abcdef".to_owned();
        let created_at = 1_000_000_000_000;
        let list = ListResponse {
            containers: vec![Container {
                id: id.clone(),
                metadata: metadata.clone(),
                image: image.clone(),
                state: 1,
                created_at,
                labels: labels(),
            }],
        };
        let mut out = Vec::new();
        list_of(list, SystemTime::UNIX_EPOCH + Duration::from_secs(1300), &mut out).unwrap();
        assert_eq!(words(out)[1], "0123456789abc Running 5m 3 app shop/web-1 registry.example/web:1");

        let stats = StatsResponse {
            stats: vec![Stats {
                attributes: Some(Attributes { id: id.clone(), metadata: metadata.clone(), labels: labels() }),
                cpu: Some(Cpu { usage_nano_cores: Some(Number { value: 250_000_000 }) }),
                memory: Some(Memory { working_set_bytes: Some(Number { value: 4096 }) }),
                writable_layer: None,
            }],
        };
        let mut out = Vec::new();
        stats_of(stats, &mut out).unwrap();
        assert_eq!(words(out)[1], "0123456789abc 250 4096 - - app shop/web-1");

        let status = Status {
            id,
            metadata,
            state: 2,
            created_at,
            started_at: created_at,
            exit_code: 137,
            image,
            reason: "OOMKilled".to_owned(),
            labels: labels(),
            mounts: vec![Mount {
                container_path: "/data".to_owned(),
                host_path: "/x".to_owned(),
                readonly: true,
            }],
            resources: Some(Resources { linux: Some(Linux { memory_limit: 5, ..Linux::default() }) }),
            ..Status::default()
        };
        let mut out = Vec::new();
        status_of(status, &mut out).unwrap();
        let lines = words(out);
        for line in [
            "state: Exited",
            "exitCode: 137",
            "reason: OOMKilled",
            "startedAt: 1000 s since 1970",
            "finishedAt: -",
            "mount: /data from /x (read-only)",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
        }
    }
}
