//! The webhook's process: configuration in, parts built, run, drained.

use std::{process::ExitCode, sync::Arc, time::Duration};

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
    certificate::Keeper,
    cluster::{Cluster, Kind, Shared},
    config::Config,
    coverage::writer::Writer,
    link_ca::LinkCa,
    watch::Watch,
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Within the 30 s that Kubernetes gives: 5 s for requests that still come,
/// the rest for those under way.
const GRACE: Duration = Duration::from_secs(25);

/// One thread: a request is 30 µs of work.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    tls::install_provider();
    telemetry::init(Format::Text)?;
    let daemon = match start().await {
        Ok(daemon) => daemon,
        Err(problem) => {
            error!("the webhook cannot start: {problem:#}");
            return Ok(ExitCode::FAILURE);
        }
    };
    Ok(daemon.run(GRACE).await)
}

async fn start() -> anyhow::Result<Daemon> {
    let config = Config::read(&Environment)?;
    let api_server =
        kube::Config::infer().await.context("no API server to talk to (in a cluster, or KUBECONFIG)")?;
    let client = kube::Client::try_from(api_server)?;

    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();
    let certificate = Arc::new(ServingCertificate::default());
    let mut cluster = Cluster::new(config.injection);
    cluster.coverage.namespaces = config.namespaces;
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
