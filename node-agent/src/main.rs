//! Starts the agent of one node.

use std::{process::ExitCode, time::Duration};

use kestrel_link::connection::Link;
use kestrel_node_agent::{agent::Agent, config::Config, host, metrics::Metrics};
use kestrel_runtime::{
    admin::{AdminPort, Readiness},
    config::Environment,
    daemon::Daemon,
    limits,
    telemetry::{self, Format},
    tls,
};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tracing::error;

/// More than the agent's own wait for the aggregator, so that positions are written.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tls::install_provider();
    match start().await {
        Ok(daemon) => daemon.run(GRACE).await,
        Err(problem) => {
            error!("{problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> anyhow::Result<Daemon> {
    telemetry::init(Format::Text)?;
    let config = Config::read(&Environment)?;
    limits::raise_open_files();
    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    let readiness = Readiness::default();
    let linked = readiness.require("no connection to the aggregator yet");
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let admin = AdminPort::bind(config.health_port, readiness, registry, drain.clone()).await?;
    let (link, events) = Link::new(config.link());
    let (samples, sampled) = mpsc::channel(1);
    let agent = Agent::new(&config, metrics, linked);
    daemon.spawn("admin port", admin.serve());
    daemon.spawn("agent link", async {
        link.run().await;
        Ok(())
    });
    daemon.spawn("host", host::watch(config.pod_logs.clone(), config.runtime_socket.clone(), samples));
    daemon.spawn("logs", agent.run(events, sampled, drain));
    Ok(daemon)
}
