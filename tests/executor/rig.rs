//! The executor as the chart installs it, before an API server of its own and behind a development cloud: with the rights of the
//! chart's accounts, and asked over the wire.

use std::{path::Path, sync::Arc, time::Duration};

use kestrel_aggregator::{
    excluded::Excluded,
    executor::{Access, Executor, audit, client_as, switch::Switch},
    inventory::Mirror,
    link::Nodes,
    uplink::{
        self, Keepalive, Retry, Uplink,
        credentials::{Bootstrap, Credentials, TokenSource},
        lanes::Lanes,
        metrics::Metrics,
    },
};
use kestrel_dev_cloud::{Authority, Cloud, Stream};
use kube::{
    Client, Config,
    config::{AuthInfo, Kubeconfig},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    api_server::ApiServer,
    credentials::credentials,
    installed::{NAMESPACE, install, kubectl},
};

/// Nothing here takes that long unless it is broken.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) server: ApiServer,
    cloud: Cloud,
    drain: CancellationToken,
    tasks: [JoinHandle<()>; 2],
    _folder: TempDir,
}

/// The API server, for who shows this token.
async fn config(server: &ApiServer, token: &str) -> Config {
    let mut kubeconfig = Kubeconfig::read_from(&server.kubeconfig).unwrap();
    let bearer: AuthInfo = serde_json::from_value(json!({ "token": token })).unwrap();
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(bearer.clone());
    }
    Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap()
}

fn uplink_to(cloud: &Cloud, folder: &Path) -> uplink::Config {
    uplink::Config {
        host: "127.0.0.1".to_owned(),
        port: cloud.address().port(),
        server_name: "localhost".to_owned(),
        proxy: None,
        credentials: Credentials::new(Bootstrap {
            client_certificate: folder.join("client.crt"),
            client_key: folder.join("client.key"),
            authority: folder.join("ca.crt"),
            token: TokenSource::File(folder.join("token")),
            insecure: false,
            look: Duration::from_secs(30),
        }),
        keepalive: Keepalive { interval: Duration::from_secs(20), timeout: Duration::from_secs(10) },
        retry: Retry {
            first: Duration::from_millis(10),
            most: Duration::from_millis(200),
            absent: Duration::from_secs(1),
        },
    }
}

impl Rig {
    /// The chart with these settings, and its executor.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        kestrel_runtime::tls::install_provider();
        let server = ApiServer::start();
        install(&server, settings);
        // As the aggregator's pod has it.
        let token = kubectl(&server, &["create", "token", "kestrel-aggregator", "-n", NAMESPACE]);
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        let config = config(&server, String::from_utf8(token.stdout).unwrap().trim()).await;
        let own = Client::try_from(config.clone()).unwrap();
        let acting_as = |account| client_as(config.clone(), NAMESPACE, Some(account)).unwrap();

        let cloud = kestrel_dev_cloud::serve(kestrel_dev_cloud::Config::new(Authority::generate().unwrap()))
            .await
            .unwrap();
        let folder = credentials(&cloud);
        let (metrics, drain) = (Metrics::default(), CancellationToken::new());
        let lanes = Lanes::new(metrics.clone());
        let uplink = uplink_to(&cloud, folder.path());
        let access = Access {
            reader: acting_as("kestrel-executor"),
            trier: acting_as("kestrel-dry-run"),
            switch: Switch::config_map(own, NAMESPACE, "kestrel-executor"),
            excluded: Excluded::default(),
            nodes: Nodes::default(),
            metrics: audit::Metrics::default(),
        };
        let executor =
            Executor::new(access, uplink.credentials.clone(), lanes.clone(), drain.clone()).unwrap();
        let uplink = Uplink::new(uplink, lanes, Mirror::default(), executor.requests(), metrics);
        let ending = drain.clone();
        let tasks = [
            tokio::spawn(async move { uplink.run(&ending).await }),
            tokio::spawn(async move { Arc::clone(&executor).finish().await }),
        ];
        let connected = cloud
            .wait_for(LIMIT, |record| (record.connections.stream(Stream::Control).open > 0).then_some(()));
        assert!(connected.await.is_some(), "the uplink does not connect");
        Self { server, cloud, drain, tasks, _folder: folder }
    }

    /// What the cloud gets as an answer.
    pub(crate) async fn ask(&self, request: Value) -> Value {
        let sent = self.cloud.send(&request, Some(Stream::Control), LIMIT).await.unwrap();
        sent.answer.unwrap().message.json()
    }

    /// What `kubectl` prints, or its complaint.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = kubectl(&self.server, arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub(crate) async fn stop(self) {
        self.drain.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.cloud.stop().await.unwrap();
    }
}
