//! The receiver of access logs alone, for measurements. `access_logs kestrel PORT` receives as the aggregator does, with lanes that nobody
//! empties behind it; `access_logs tonic PORT` decodes in full and counts. At SIGTERM either ends and prints how many entries came.

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

use anyhow::bail;
use kestrel_aggregator::{
    als,
    excluded::Excluded,
    inventory::Mirror,
    signals::{component::Components, edges::Edges},
    traffic::requests::{Requests, metrics::Metrics},
    uplink::{lanes::Lanes, metrics::Metrics as UplinkMetrics},
};
use kestrel_als::headers::Headers;
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
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [how, port] = &words[..] else { bail!("usage: access_logs (kestrel | tonic) PORT") };
    let (port, drain) = (port.parse()?, CancellationToken::new());
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
        other => bail!("{other} is neither kestrel nor tonic"),
    };
    writeln!(io::stdout(), "{entries}")?;
    Ok(())
}

async fn kestrel(port: u16, drain: CancellationToken) -> anyhow::Result<u64> {
    let namespace = "kestrel-ai".to_owned();
    let lanes = Lanes::new(UplinkMetrics::default());
    let requests = Requests::new(
        Mirror::default(),
        Excluded::default(),
        namespace.clone(),
        Edges::new(Components::new(lanes.signals()), lanes.signals()),
        Headers::default(),
        lanes.flows(),
        Metrics::default(),
    );
    let stream_age = Duration::from_secs(3600);
    let config = als::Config {
        port,
        stream_bytes_per_second: 0,
        stream_age,
        namespace,
        tls_dir: None,
        stats_port: None,
    };
    als::serve(config, None, requests.clone(), als::Metrics::default(), drain).await?;
    Ok(requests.tallies().values().map(|tally| tally.received()).sum())
}

#[derive(Clone, Default)]
struct Decoded(Arc<AtomicU64>);

async fn tonic(port: u16, drain: CancellationToken) -> anyhow::Result<u64> {
    let counts = Decoded::default();
    Server::builder()
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .add_service(AccessLogServiceServer::new(counts.clone()))
        .serve_with_shutdown(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), drain.cancelled())
        .await?;
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
