//! The certificate's keeper against an API server, with two replicas.

use std::{sync::Arc, time::Duration};

use hyper::Method;
use kestrel_runtime::{
    admin::Readiness,
    tls::{self, server::ServingCertificate},
};
use kestrel_webhook::{
    admission::{Metrics, router, server::Server},
    certificate::{Keeper, Names},
    cluster::Shared,
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api_server::{ApiServer, CONFIGURATION, SECRET},
    caller::{Caller, Protocol},
    review::{self, Answer},
};

/// How long an API server may take to see a change; here it takes none.
const TRUST_DELAY: Duration = Duration::from_millis(100);

struct Replicas {
    ports: Vec<u16>,
    readiness: Readiness,
    tasks: TaskTracker,
    drain: CancellationToken,
}

async fn replicas(api_server: &ApiServer, count: usize) -> Replicas {
    tls::install_provider();
    let (readiness, tasks, drain) = (Readiness::default(), TaskTracker::new(), CancellationToken::new());
    let mut ports = Vec::new();
    for _ in 0..count {
        let certificate = Arc::new(ServingCertificate::default());
        let metrics = Metrics::register(&mut Registry::default());
        let cluster = Arc::new(Shared::new(review::cluster()));
        let router = router(cluster, metrics.clone(), drain.clone());
        let server = Server::bind(0, Arc::clone(&certificate), router, metrics).await.unwrap();
        ports.push(server.address().unwrap().port());
        let names = Names {
            namespace: "kestrel-ai".to_owned(),
            secret: SECRET.to_owned(),
            configuration: CONFIGURATION.to_owned(),
        };
        let ready = readiness.require("certificate");
        let keeper = Keeper::new(api_server.client(), names, TRUST_DELAY, certificate, ready);
        let end = drain.clone();
        tasks.spawn(async move { end.run_until_cancelled(keeper.keep()).await });
        tasks.spawn(server.serve(Duration::ZERO, drain.clone()));
    }
    let replicas = Replicas { ports, readiness, tasks, drain };
    until("ready", async || replicas.readiness.missing().is_empty()).await;
    replicas
}

impl Replicas {
    async fn end(self) {
        self.drain.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether a pod that is created now gets its collector through `port`.
    async fn injects(&self, port: u16, bundle: &str) -> bool {
        let pod =
            json!({"metadata": {"annotations": {"kestrel.ai/inject": "true"}}, "spec": {"containers": []}});
        let question = review::question(&pod, "shop").to_string();
        let caller = Caller { port, bundle: bundle.to_owned(), protocol: Protocol::Http1 };
        match caller.call(Method::POST, "/mutate", &question).await {
            Ok(reply) => Answer::read(&reply.body).patch != json!([]),
            Err(_) => false,
        }
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "not {what} in time");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_deleted_secret_rotates_the_authority_without_a_failed_call() {
    let api_server = ApiServer::new();
    let replicas = replicas(&api_server, 2).await;
    let old = api_server.bundle();
    let mut calls = 0;
    api_server.delete_secret();
    until("rotated", async || {
        for &port in &replicas.ports {
            let bundle = api_server.bundle();
            let injected = replicas.injects(port, &bundle).await;
            // An API server that is slower than the trust delay is another matter.
            assert!(injected || bundle != api_server.bundle(), "a call failed after {calls} calls");
            calls += 1;
        }
        !api_server.bundle().contains(old.trim())
    })
    .await;
    let new = api_server.bundle();
    assert_eq!(new.matches("BEGIN CERTIFICATE").count(), 1);
    for &port in &replicas.ports {
        assert!(replicas.injects(port, &new).await);
        assert!(!replicas.injects(port, &old).await, "the old authority is out of use");
    }
    replicas.end().await;
}

#[tokio::test]
async fn a_bundle_that_an_upgrade_removes_is_put_back() {
    let api_server = ApiServer::new();
    let replicas = replicas(&api_server, 1).await;
    let bundle = api_server.bundle();
    api_server.remove_bundle();
    until("put back", async || api_server.bundle() == bundle).await;
    assert!(replicas.injects(replicas.ports[0], &bundle).await);
    replicas.end().await;
}
