//! The aggregator's process: configuration in, parts built, run, drained. Two
//! words make it a tool for people instead.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use kestrel_aggregator::{
    check,
    config::{self, Config},
    own_logs::OwnLogs,
    run,
};
use kestrel_runtime::{
    admin,
    config::Environment,
    limits,
    telemetry::{self, Format},
    tls,
};
use tracing::error;

/// Within the 30 s that Kubernetes gives, and within the Lease's duration.
const GRACE: Duration = Duration::from_secs(10);

const USAGE: &str = "\
usage: kestrel-aggregator [status | check]

  (nothing)  the daemon; its environment variables are in docs/interfaces.md
  status     what the daemon on this host is doing, in ten lines (HEALTH_PORT: its admin port)
  check      tries everything an installation needs, with the daemon's variables and KUBECONFIG;
             a line each, ok or FAILED with the remedy, and code 1 if anything failed
";

/// Two threads: one may encode a large cluster while the other answers.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    // The tools hold the token too.
    limits::forbid_core_dumps();
    tls::install_provider();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => daemon().await,
        ["status"] => {
            io::stdout()
                .write_all(admin::ask("aggregator", config::health_port(&Environment)?)?.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        ["check"] => Ok(check::run(&Environment, &mut io::stdout()).await?),
        ["help" | "--help" | "-h"] => {
            io::stdout().write_all(USAGE.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            io::stderr().write_all(USAGE.as_bytes())?;
            Ok(ExitCode::from(2))
        }
    }
}

async fn daemon() -> anyhow::Result<ExitCode> {
    let own_logs = OwnLogs::default();
    telemetry::init_heard(Format::Text, Some(own_logs.listener()))?;
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
