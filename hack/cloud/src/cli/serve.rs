//! `serve`: the cloud itself.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use jiff::SignedDuration;
use kestrel_runtime::{daemon::Daemon, telemetry};

use super::{client::ApiAddress, fail};
use crate::{Authority, CONNECTION_WINDOW, Cloud, Config};

/// How long connections may take to end after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// Serves operators over TLS and the query API over plain HTTP until SIGTERM or SIGINT.
#[derive(clap::Args)]
pub struct Args {
    /// Folder with ca.crt, ca.key and token.key; they are made if it has none of them.
    #[arg(long, env = "KESTREL_CLOUD_STATE", hide_env_values = true)]
    state: PathBuf,
    /// Where operators connect.
    #[arg(long, default_value = "0.0.0.0:50051")]
    listen: SocketAddr,
    /// DNS name or IP address for the server certificate, beside localhost and kestrel-cloud; repeatable.
    #[arg(long = "name")]
    names: Vec<String>,
    /// Tenant of clusters that are onboarded here.
    #[arg(long, default_value = "development")]
    tenant: String,
    /// Lifetime of the tokens that are handed out on renewal.
    #[arg(long, default_value = "24h")]
    token_lifetime: SignedDuration,
    /// Time between two heartbeats on a stream.
    #[arg(long, default_value = "30s")]
    heartbeat: SignedDuration,
    /// Flow control window of a connection in bytes; 1048576 is what a tonic server has by default,
    /// with which one stalled stream stops all.
    #[arg(long, default_value_t = CONNECTION_WINDOW)]
    connection_window: u32,
}

/// Runs the command.
pub async fn run(args: Args, api: &ApiAddress) -> ExitCode {
    let started = match telemetry::init(telemetry::Format::Text) {
        Ok(()) => start(args, api).await,
        Err(error) => Err(error),
    };
    let cloud = match started {
        Ok(cloud) => cloud,
        Err(error) => return fail(&error),
    };
    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    daemon.spawn("cloud", cloud.run(drain));
    daemon.run(GRACE).await
}

async fn start(args: Args, api: &ApiAddress) -> anyhow::Result<Cloud> {
    let Args { state, listen, names, tenant, token_lifetime, heartbeat, connection_window } = args;
    let authority = Authority::open(&state).context("--state")?;
    let token_lifetime = token_lifetime.try_into().context("--token-lifetime is not a time ahead")?;
    let heartbeat: Duration = heartbeat.try_into().context("--heartbeat is not a time ahead")?;
    anyhow::ensure!(!heartbeat.is_zero(), "--heartbeat is zero");
    let api = api.socket()?;
    let config = Config {
        listen,
        api,
        names,
        tenant,
        token_lifetime,
        heartbeat,
        connection_window,
        ..Config::new(authority)
    };
    crate::serve(config).await
}
