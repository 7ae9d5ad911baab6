//! The aggregator's process: configuration in, parts built, run, drained.

use std::{process::ExitCode, time::Duration};

use kestrel_aggregator::{config::Config, own_logs::OwnLogs, run};
use kestrel_runtime::{
    config::Environment,
    limits,
    telemetry::{self, Format},
    tls,
};
use tracing::error;

/// Within the 30 s that Kubernetes gives, and within the Lease's duration.
const GRACE: Duration = Duration::from_secs(10);

/// Two threads: one may encode a large cluster while the other answers.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    tls::install_provider();
    let own_logs = OwnLogs::default();
    telemetry::init_heard(Format::Text, Some(own_logs.listener()))?;
    limits::forbid_core_dumps();
    let started = match Config::read(&Environment) {
        Ok(config) => run::start(config, own_logs).await,
        Err(mistakes) => Err(mistakes.into()),
    };
    match started {
        Ok(daemon) => Ok(daemon.run(GRACE).await),
        Err(problem) => {
            error!("the aggregator cannot start: {problem:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}
