//! The receiver of access logs alone, for measurements. `receiver kestrel PORT` receives and counts as the aggregator does;
//! `receiver tonic PORT` decodes in full and counts entries. At SIGTERM either ends and prints how many came.

use std::{
    env,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use kestrel_als::{
    counter::{self, Counter},
    metrics,
    receive::{self, Config, Limits, STREAM_AGE},
};
use kestrel_proto::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
    access_log_service_server::{AccessLogService, AccessLogServiceServer},
    stream_access_logs_message::LogEntries,
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
    let entries = match how.as_str() {
        "kestrel" => kestrel(port, drain).await?,
        "tonic" => tonic(port, drain).await?,
        other => return Err(io::Error::other(format!("{other} is neither kestrel nor tonic"))),
    };
    writeln!(io::stdout(), "{entries}")
}

async fn kestrel(port: u16, drain: CancellationToken) -> io::Result<u64> {
    let config = Config {
        port,
        is_loopback: true,
        stream_bytes_per_second: 0,
        stream_age: STREAM_AGE,
        tls: None,
        limits: Limits::CLUSTER,
    };
    let counter = Counter::of_proxies(counter::Limits::CLUSTER, metrics::Metrics::default());
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
    Ok(counter.tallies().values().map(|tally| tally.received()).sum())
}

#[derive(Clone, Default)]
struct Decoded(Arc<AtomicU64>);

async fn tonic(port: u16, drain: CancellationToken) -> io::Result<u64> {
    let counts = Decoded::default();
    Server::builder()
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .add_service(AccessLogServiceServer::new(counts.clone()))
        .serve_with_shutdown(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), drain.cancelled())
        .await
        .map_err(io::Error::other)?;
    Ok(counts.0.load(Relaxed))
}

#[tonic::async_trait]
impl AccessLogService for Decoded {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            let entries = match message.log_entries {
                Some(LogEntries::HttpLogs(entries)) => entries.log_entry.len(),
                Some(LogEntries::TcpLogs(entries)) => entries.log_entry.len(),
                None => 0,
            };
            self.0.fetch_add(entries as u64, Relaxed);
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}
