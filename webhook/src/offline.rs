//! Admission and explanations without an API server: what decides comes from
//! files.

use std::{io::Read as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use kestrel_runtime::{
    config::Source,
    daemon::Daemon,
    tls::{self, server::ServingCertificate},
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tracing::info;

use crate::{
    admission::{Metrics, router, server::Server},
    cluster::{Cluster, Shared},
    config::Config,
    explain, files,
    words::{Explain, Serve},
};

/// Stands for an authority that only a cluster has.
const NO_LINK_CA: &str = "(published by the aggregator)";
/// More than any list of objects that a person explains.
const LARGEST_INPUT: u64 = 4 * 1024 * 1024;

/// Serves what `options` ask for.
///
/// # Errors
/// A file that cannot be used, or an address that cannot be bound.
pub async fn serve(options: &Serve, source: &dyn Source) -> anyhow::Result<Daemon> {
    let mut cluster = cluster(source)?;
    if let Some(folder) = &options.profiles {
        files::load(folder, &mut cluster)?;
    }
    cluster.take_images_as_tried();
    for (name, image) in cluster.images_of_profiles() {
        info!("{image} of InjectionProfile {name} {}", explain::TRIED);
    }
    for conflict in cluster.profiles.conflicts(cluster.namespaces.iter()) {
        info!("InjectionProfile {}: {conflict}", conflict.loser);
    }
    let (chain, key) = (files::read(&options.certificate)?, files::read(&options.key)?);
    let shown = tls::certified_key(chain.as_bytes(), key.as_bytes()).map_err(|problem| {
        anyhow!("{} with {} {problem}", options.certificate.display(), options.key.display())
    })?;
    let certificate = Arc::new(ServingCertificate::default());
    certificate.replace(shown);

    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    let metrics = Metrics::register(&mut Registry::default());
    let profiles = cluster.profiles.iter().count();
    let router = router(Arc::new(Shared::new(cluster)), metrics.clone(), drain.clone());
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", options.listen))?;
    let server = Server::on(listener, certificate, router, metrics);
    info!("serves POST /mutate on {} with {profiles} profiles", server.address()?);
    daemon.spawn("admission", server.serve(Duration::ZERO, drain));
    Ok(daemon)
}

/// The text that answers `options`.
///
/// # Errors
/// A file that cannot be used.
pub fn explain(options: &Explain, source: &dyn Source) -> anyhow::Result<String> {
    let mut cluster = cluster(source)?;
    for path in &options.profiles {
        let problem = |problem| anyhow!("{}: {problem}", path.display());
        files::learn(&files::read(path)?, &mut cluster).map_err(problem)?;
    }
    cluster.take_images_as_tried();
    let text = if options.file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(LARGEST_INPUT).read_to_string(&mut text)?;
        text
    } else {
        files::read(&options.file)?
    };
    explain::explain(&text, &cluster).map_err(|problem| anyhow!("{}: {problem}", options.file.display()))
}

/// A cluster of which only the settings are known, and about which pods its webhook is asked.
fn cluster(source: &dyn Source) -> anyhow::Result<Cluster> {
    let config = Config::read_offline(source)?;
    let mut settings = config.injection;
    settings.link_ca = Some(match files::read(&config.link_ca_file) {
        Ok(authority) => authority,
        Err(_) => NO_LINK_CA.to_owned(),
    });
    let mut cluster = Cluster::new(settings);
    cluster.coverage.namespaces = config.namespaces;
    cluster.coverage.pods = config.pods;
    Ok(cluster)
}
