//! The webhook's process: configuration in, parts built, run, drained. Two
//! words make it a tool for people instead.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use kestrel_runtime::{
    admin::{AdminPort, Readiness},
    config::Environment,
    daemon::Daemon,
    telemetry::{self, Format},
    tls::{self, server::ServingCertificate},
};
use kestrel_webhook::{
    admission::{
        Metrics, router,
        server::{LINGER, Server},
    },
    api_server::ApiServer,
    certificate::Keeper,
    cluster::{Cluster, Kind, Shared},
    config::Config,
    coverage::writer::Writer,
    link_ca::LinkCa,
    offline,
    watch::Watch,
    words::{Command, USAGE},
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Within the 30 s that Kubernetes gives: 5 s for requests that still come,
/// the rest for those under way.
const GRACE: Duration = Duration::from_secs(25);

/// One thread: a request is less than 0.1 ms of work (docs/performance.md).
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let command = match Command::parse(&words) {
        Ok(command) => command,
        Err(mistake) => return say(&mut io::stderr(), &format!("{mistake}\n\n{USAGE}"), ExitCode::from(2)),
    };
    tls::install_provider();
    if matches!(command, Command::Serve(_) | Command::Daemon)
        && let Err(problem) = telemetry::init(Format::Text)
    {
        return say(&mut io::stderr(), &format!("{problem:#}\n"), ExitCode::FAILURE);
    }
    let started = match command {
        Command::Help => return say(&mut io::stdout(), USAGE, ExitCode::SUCCESS),
        Command::Version => {
            let version = concat!("kestrel-webhook ", env!("CARGO_PKG_VERSION"), "\n");
            return say(&mut io::stdout(), version, ExitCode::SUCCESS);
        }
        Command::Explain(options) => {
            return match offline::explain(&options, &Environment) {
                Ok(text) => say(&mut io::stdout(), &text, ExitCode::SUCCESS),
                Err(problem) => say(&mut io::stderr(), &format!("{problem:#}\n"), ExitCode::FAILURE),
            };
        }
        Command::Serve(options) => offline::serve(&options, &Environment).await,
        Command::Daemon => start().await,
    };
    match started {
        Ok(daemon) => daemon.run(GRACE).await,
        Err(problem) => {
            error!("the webhook cannot start: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    let _nobody_reads = to.write_all(text.as_bytes());
    code
}

async fn start() -> anyhow::Result<Daemon> {
    let config = Config::read(&Environment)?;
    let api_server = ApiServer::of_cluster(&Environment)
        .context("the webhook runs in a cluster (elsewhere: kestrel-webhook serve)")?;
    let client = api_server.client(&config.injection.namespace);

    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();
    let certificate = Arc::new(ServingCertificate::default());
    let mut cluster = Cluster::new(config.injection);
    cluster.coverage.namespaces = config.namespaces;
    cluster.coverage.pods = config.pods;
    let shared = Arc::new(Shared::new(cluster));

    let ready = readiness.require("a certificate that the API server trusts");
    let keeper = Keeper::new(
        client.clone(),
        config.configuration,
        config.origin,
        config.trust_delay,
        Arc::clone(&certificate),
        ready,
    );
    let ready = readiness.require("the agent link's CA (published by the aggregator)");
    let link_ca = LinkCa::new(config.link_ca_file, Arc::clone(&shared), ready);
    for (name, kind, condition) in [
        ("namespaces", Kind::Namespace, "a list of the namespaces"),
        ("profiles", Kind::InjectionProfile, "a list of the injection profiles"),
        ("limit ranges", Kind::LimitRange, "a list of the limit ranges"),
        ("quotas", Kind::ResourceQuota, "a list of the resource quotas"),
        ("injected pods", Kind::InjectedPod, "a list of the injected pods"),
    ] {
        let ready = Some(readiness.require(condition));
        let watch = Watch::new(client.clone(), kind, Arc::clone(&shared), ready);
        daemon.spawn(name, until(drain.clone(), watch.follow()));
    }
    // Admission goes on without them.
    for (name, kind) in [("other pods", Kind::OtherPod), ("failed creations", Kind::FailedCreation)] {
        let watch = Watch::new(client.clone(), kind, Arc::clone(&shared), None);
        daemon.spawn(name, until(drain.clone(), watch.follow()));
    }
    let writer = Writer::new(client, Arc::clone(&shared), &mut registry);
    daemon.spawn("coverage", until(drain.clone(), writer.write()));
    let router = router(shared, metrics.clone(), drain.clone());
    let server = Server::bind(config.port, certificate, router, metrics).await?;
    let admin = AdminPort::bind(config.health_port, readiness, registry, drain.clone()).await?;
    info!("serves admission on port {}", config.port);

    daemon.spawn("certificate", until(drain.clone(), keeper.keep()));
    daemon.spawn("link CA", until(drain.clone(), link_ca.follow()));
    daemon.spawn("admission", server.serve(LINGER, drain));
    daemon.spawn("admin port", admin.serve());
    Ok(daemon)
}

async fn until(drain: CancellationToken, task: impl Future<Output = ()>) -> anyhow::Result<()> {
    drain.run_until_cancelled(task).await;
    Ok(())
}
