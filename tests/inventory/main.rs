//! The inventory against a real API server with faults in between: whatever
//! happens, the cloud has what a fresh list has, field by field.
//!
//! `KESTREL_SEED=7` plays the operations and faults of one seed again;
//! `KESTREL_FULL=1` makes it 10,000 operations.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../api_server.rs"]
mod api_server;
#[path = "../credentials.rs"]
mod credentials;
mod expected;
mod operations;
mod operator;
mod proxy;
mod resource;
mod targets;

use std::{env, time::Duration};

use fastrand::Rng;
use kestrel_dev_cloud::{Authority, Record};

use api_server::ApiServer;
use expected::{expected, found};
use operations::Operations;
use operator::Operator;
use proxy::Proxy;

/// Nothing here takes that long unless it is broken.
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_has_what_a_fresh_list_has_whatever_the_api_server_does() {
    let is_full = env::var_os("KESTREL_FULL").is_some_and(|value| value == "1");
    let operations = if is_full { 10_000 } else { 500 };
    let seed = env::var("KESTREL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    if let Err(failed) = tokio::spawn(run(seed, operations)).await {
        panic!("KESTREL_SEED={seed} plays this again: {failed}");
    }
}

async fn run(seed: u64, count: u32) {
    kestrel_runtime::tls::install_provider();
    let mut random = Rng::with_seed(seed);
    let api_server = ApiServer::start();
    let client = api_server.client().await;
    let mut cloud = kestrel_dev_cloud::Config::new(Authority::generate().unwrap());
    // So that a DELETE that was lost is missed.
    cloud.prunes = false;
    let cloud = kestrel_dev_cloud::serve(cloud).await.unwrap();
    let proxy = Proxy::start(client.clone(), seed).await;

    let mut operations = Operations::begin(client.clone(), random.fork()).await;
    let operator = Operator::start(proxy.client(), &cloud);
    for number in 0..count {
        operations.step().await;
        if number == count / 2 {
            operations.install_istio().await;
        }
        if random.u8(..100) == 0 {
            cloud.cut_connections();
        }
    }
    let faults = proxy.end_faults();
    let expected = expected(&client).await;
    let is_equal = |record: &Record| !record.inventory.commits().is_empty() && found(record) == expected;
    let is_equal = cloud.wait_for(LIMIT, |record| is_equal(record).then_some(())).await;
    let found = cloud.read(found);
    let keys = expected.keys().chain(found.keys());
    let differing = keys.filter(|key| expected.get(key) != found.get(key));
    let first: Vec<_> = differing.take(3).map(|key| (key, expected.get(key), found.get(key))).collect();
    assert!(is_equal.is_some(), "differing (expected, found), after {faults:?}: {first:#?}");
    operator.stop().await;
}
