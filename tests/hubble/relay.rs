//! The leading aggregator reads Relay.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use kestrel_aggregator::{
    excluded::Excluded,
    inventory::Mirror,
    signals::{component::Components, edges::Edges},
    traffic::{
        self, Traffic,
        relay::{self, Config, Follower},
    },
    uplink::{lanes::Lanes, metrics::Metrics},
};
use kestrel_dev_cloud::credentials::Authority;
use kestrel_flows::counts::Counts;
use kestrel_runtime::tls;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Hubble, shows};

const NAME: &str = "ui.hubble-relay.cilium.io";

/// A node's Hubble, and an aggregator that looks for Relay at an address.
struct World {
    folder: TempDir,
    config: Config,
    registry: Registry,
    follower: JoinHandle<()>,
    drain: CancellationToken,
}

impl World {
    fn start(has_tls: bool) -> Self {
        tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = Config {
            address: Some(("127.0.0.1".to_owned(), port)),
            tls: has_tls.then(|| folder.path().join("client")),
            server_name: has_tls.then(|| NAME.to_owned()),
        };
        let (counts, metrics, mut registry) =
            (Counts::default(), traffic::metrics::Metrics::default(), Registry::default());
        counts.register(&mut registry);
        let lanes = Lanes::new(Metrics::default());
        let edges = Edges::new(Components::new(lanes.signals()), lanes.signals());
        let traffic = Traffic::new(Mirror::default(), Excluded::parse(""), edges, lanes.flows(), metrics);
        let drain = CancellationToken::new();
        let follower = Follower::new(config.clone(), traffic, counts).at_once().run(drain.clone());
        Self { folder, config, registry, follower: tokio::spawn(follower), drain }
    }

    fn node(&self) -> Hubble {
        Hubble::start(&self.socket(), "4095")
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("hubble.sock")
    }

    fn relay(&self, tls: Option<&Path>) -> Hubble {
        let (host, port) = self.config.address.as_ref().unwrap();
        Hubble::relay(&format!("{host}:{port}"), &self.socket(), tls)
    }

    async fn counts(&self, packets: u64) {
        shows(&self.registry, r#"flows_seen_total{source="relay"}"#, |seen| {
            assert!(seen <= packets, "{seen} of {packets}: some were counted twice");
            seen == packets
        })
        .await;
    }

    async fn stop(self) {
        self.drain.cancel();
        self.follower.await.unwrap();
    }
}

/// Certificates of a server or a client for `folder`.
fn write(folder: &Path, authority: &Authority, certificate: &str, key: &str) {
    fs::create_dir_all(folder).unwrap();
    for (file, text) in [("ca.crt", authority.certificate()), ("tls.crt", certificate), ("tls.key", key)] {
        fs::write(folder.join(file), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_is_used_when_it_comes_and_after_a_restart_nothing_is_counted_twice() {
    let world = World::start(false);
    let mut node = world.node();
    let relay = world.relay(None);
    node.happen("passed 1");
    world.counts(1).await;
    node.happen("passed 5");
    node.happen("dropped 2");
    node.happen("lost 12");
    world.counts(8).await;
    shows(&world.registry, r#"hubble_events_lost_total{by="perf_ring"}"#, |events| events == 12).await;
    drop(relay);
    node.happen("passed 4");
    let _relay = world.relay(None);
    world.counts(12).await;
    node.happen("passed 1");
    world.counts(13).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_that_asks_who_it_is_gets_a_certificate_and_a_renewed_one_without_a_restart() {
    let world = World::start(true);
    let (authority, other) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let [certificate, key, _] = authority.state();
    let server = tls::authority::Authority::from_pem(certificate, key).unwrap();
    let (chain, key) = server.server_pem(&[NAME.to_owned()], Duration::from_secs(600)).unwrap();
    let (of_server, of_client) = (world.folder.path().join("server"), world.folder.path().join("client"));
    write(&of_server, &authority, &chain, &key);
    let unknown = other.client("kestrel").unwrap();
    write(&of_client, &authority, &unknown.certificate, &unknown.key);
    let mut node = world.node();
    let _relay = world.relay(Some(&of_server));
    let problem = relay::trial(&world.config).await.unwrap_err();
    assert!(problem.contains("hubble-relay-client-certs"), "{problem}");

    let known = authority.client("kestrel").unwrap();
    write(&of_client, &authority, &known.certificate, &known.key);
    node.happen("passed 3");
    world.counts(3).await;
    let found = relay::trial(&world.config).await.unwrap();
    assert!(found.contains("reaches 1 nodes"), "{found}");
    world.stop().await;
}
