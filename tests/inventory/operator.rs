//! What of the aggregator brings the inventory to a cloud.

use std::{path::Path, sync::Arc, time::Duration};

use kestrel_aggregator::{
    inventory::{self, Integrations, Mirror, Parts, Pods, Watches},
    signals::{Signals, thresholds::Thresholds},
    uplink::{
        Config, Keepalive, Retry, Uplink,
        credentials::{Bootstrap, Credentials, TokenSource},
        lanes::Lanes,
        metrics::Metrics,
    },
};
use kestrel_dev_cloud::Cloud;
use kestrel_proto::node::v1::LogPolicy;
use kube::Client;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::credentials::credentials;

const RETRY: Retry = Retry {
    first: Duration::from_millis(10),
    most: Duration::from_millis(200),
    absent: Duration::from_millis(200),
};

pub(crate) struct Operator {
    drain: CancellationToken,
    tasks: JoinSet<()>,
    _credentials: TempDir,
}

impl Operator {
    /// Watches through `client` and tells `cloud`.
    pub(crate) fn start(client: Client, cloud: &Cloud) -> Self {
        let credentials = credentials(cloud);
        let (metrics, mirror, drain) = (Metrics::default(), Mirror::default(), CancellationToken::new());
        let lanes = Lanes::new(metrics.clone());
        lanes.lead();
        let config = config(credentials.path(), cloud);
        let uplink = Uplink::new(config, lanes.clone(), mirror.clone(), Arc::new(|_, _| {}), metrics);
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let drain = drain.clone();
            async move { uplink.run(&drain).await }
        });
        let pods = Pods::new(LogPolicy::Errors);
        let signals = Signals::new(&Thresholds::default(), &lanes.signals(), &pods);
        let parts = Parts {
            mirror,
            pods,
            signals,
            mesh_root: "istio-system".to_owned(),
            integrations: Integrations::default(),
        };
        let watch = inventory::watch(client, parts, Watches::default(), RETRY, drain.clone());
        tasks.spawn(async move { watch.await.unwrap() });
        Self { drain, tasks, _credentials: credentials }
    }

    /// Ends it; fails if a part of it did.
    pub(crate) async fn stop(self) {
        self.drain.cancel();
        self.tasks.join_all().await;
    }
}

fn config(folder: &Path, cloud: &Cloud) -> Config {
    Config {
        host: cloud.address().ip().to_string(),
        port: cloud.address().port(),
        server_name: "localhost".to_owned(),
        credentials: Credentials::new(Bootstrap {
            client_certificate: folder.join("client.crt"),
            client_key: folder.join("client.key"),
            authority: folder.join("ca.crt"),
            token: TokenSource::File(folder.join("token")),
            insecure: false,
            look: Duration::from_secs(30),
        }),
        proxy: None,
        keepalive: Keepalive { interval: Duration::from_secs(1), timeout: Duration::from_secs(10) },
        retry: RETRY,
    }
}
