//! Starts the sidecar.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use kestrel_collector::{
    als,
    collector::{self, Collector},
    config::Config,
};
use kestrel_link::connection::Link;
use kestrel_runtime::{
    config::Environment,
    daemon::Daemon,
    limits,
    telemetry::{self, Format},
    tls,
};
use tokio::sync::mpsc;
use tracing::info;

/// More than the collector's own wait for the aggregator, and well below the 30 s
/// that a pod has by default.
const GRACE: Duration = Duration::from_secs(12);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tls::install_provider();
    if let Err(problem) = telemetry::init(Format::Text) {
        // A wrong filter is no reason to end, and there is no log to say it in.
        let _best_effort = writeln!(io::stderr(), "{problem:#}; this log stays empty");
    }
    limits::raise_open_files();
    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    match Config::read(&Environment) {
        Ok(config) if config.sources.is_empty() && config.als_port.is_none() => {
            daemon.spawn("nothing", async move {
                info!("nothing to collect: no container of this pod writes to an emptyDir volume");
                drain.cancelled().await;
                Ok(())
            })
        }
        Ok(config) => {
            let (link, events) = Link::new(config.link.clone());
            let hurry = drain.clone();
            daemon.spawn("agent link", async {
                link.run(hurry).await;
                Ok(())
            });
            let requests = match config.als_port {
                Some(port) => {
                    let (receive, requests) = als::receive(port, config.pod_address, drain.clone());
                    daemon.spawn("access logs", async {
                        receive.await;
                        Ok(())
                    });
                    requests
                }
                None => mpsc::channel(1).1,
            };
            let collector = Collector::new(config, requests);
            daemon.spawn("logs", async {
                collector.run(events, drain).await;
                Ok(())
            });
        }
        Err(mistakes) => daemon.spawn("configuration", async move {
            collector::idle(&mistakes, drain).await;
            Ok(())
        }),
    }
    daemon.run(GRACE).await;
    // Whatever could not be done was said: a pod must not fail because of it.
    ExitCode::SUCCESS
}
