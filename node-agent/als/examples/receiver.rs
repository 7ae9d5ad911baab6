//! The receiver of access logs alone, for measurements. `receiver kestrel PORT` receives and counts as the aggregator does;
//! `receiver tonic PORT` decodes all that Envoy's types have and counts by what requests have in common, as the server in Go does
//! that both are compared with. At SIGTERM either ends and prints how many entries came; the first also how many of them were aggregated, folded and
//! refused.

use std::{
    collections::HashMap,
    env,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kestrel_als::{
    Tally,
    counter::{self, Counter},
    metrics,
    receive::{self, Config, Limits, STREAM_AGE},
};
use kestrel_proto::envoy::{
    config::core::v3::address::Address,
    data::accesslog::v3::HttpAccessLogEntry,
    service::accesslog::v3::{
        StreamAccessLogsMessage, StreamAccessLogsResponse,
        access_log_service_server::{AccessLogService, AccessLogServiceServer},
        stream_access_logs_message::LogEntries,
    },
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// Likewise as the aggregator.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [how, port] = &words[..] else {
        return Err(io::Error::other("usage: receiver (kestrel | tonic) PORT"));
    };
    let (port, drain) = (port.parse::<u16>().map_err(io::Error::other)?, CancellationToken::new());
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn({
        let drain = drain.clone();
        async move {
            terminated.recv().await;
            drain.cancel();
        }
    });
    let counted = match how.as_str() {
        "kestrel" => {
            let all = kestrel(port, drain).await?;
            format!("{} {} {} {}", all.received(), all.aggregated, all.folded, all.refused())
        }
        "tonic" => tonic(port, drain).await?.to_string(),
        other => return Err(io::Error::other(format!("{other} is neither kestrel nor tonic"))),
    };
    writeln!(io::stdout(), "{counted}")
}

async fn kestrel(port: u16, drain: CancellationToken) -> io::Result<Tally> {
    let config = Config {
        port,
        is_loopback: true,
        pod_address: None,
        stream_bytes_per_second: 0,
        stream_age: STREAM_AGE,
        tls: None,
        limits: Limits::CLUSTER,
    };
    // The one client stands for all proxies of a cluster.
    let all = counter::Limits::CLUSTER;
    let limits = counter::Limits { each: all.bytes, ..all };
    let counter = Counter::of_proxies(limits, metrics::Metrics::default());
    let listener = receive::bind(&config).await?;
    let settling = {
        let counter = counter.clone();
        async move {
            let mut look = tokio::time::interval(Duration::from_secs(1));
            loop {
                look.tick().await;
                while counter.settled().is_some() {}
            }
        }
    };
    let settling = tokio::spawn(settling);
    receive::serve(listener, config, counter.clone(), receive::Metrics::default(), drain).await?;
    settling.abort();
    let mut all = Tally::default();
    counter.tallies().values().for_each(|tally| all.add(*tally));
    Ok(all)
}

/// What requests have in common that are counted together.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    cluster: String,
    server: String,
    method: i32,
    code: u32,
    /// Without its query.
    path: String,
}

/// What is counted of them.
#[derive(Default)]
struct Counts {
    count: u64,
    sent: u64,
    received: u64,
    nanoseconds: u64,
}

#[derive(Clone, Default)]
struct Decoded(Arc<Mutex<HashMap<Key, Counts>>>);

async fn tonic(port: u16, drain: CancellationToken) -> io::Result<u64> {
    let decoded = Decoded::default();
    Server::builder()
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .add_service(AccessLogServiceServer::new(decoded.clone()))
        .serve_with_shutdown(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), drain.cancelled())
        .await
        .map_err(io::Error::other)?;
    let rows = decoded.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(rows.values().map(|counts| counts.count).sum())
}

#[tonic::async_trait]
impl AccessLogService for Decoded {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(LogEntries::HttpLogs(entries)) = message.log_entries {
                entries.log_entry.into_iter().for_each(|entry| count(&mut rows, entry));
            }
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

fn count(rows: &mut HashMap<Key, Counts>, entry: HttpAccessLogEntry) {
    let common = entry.common_properties.unwrap_or_default();
    let mut request = entry.request.unwrap_or_default();
    let end = request.path.find('?').unwrap_or(request.path.len());
    request.path.truncate(end);
    let key = Key {
        cluster: common.upstream_cluster,
        server: match common.upstream_remote_address.and_then(|address| address.address) {
            Some(Address::SocketAddress(socket)) => socket.address,
            _ => String::new(),
        },
        method: request.request_method,
        code: entry.response.and_then(|response| response.response_code).unwrap_or_default(),
        path: request.path,
    };
    let took = common.duration.unwrap_or_default();
    let counts = rows.entry(key).or_default();
    counts.count += 1;
    counts.sent += common.upstream_wire_bytes_sent;
    counts.received += common.upstream_wire_bytes_received;
    counts.nanoseconds += (took.seconds * 1_000_000_000 + i64::from(took.nanos)).max(0) as u64;
}
