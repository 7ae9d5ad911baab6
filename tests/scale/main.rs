//! What a large cluster costs: one aggregator, one API server, an agent link
//! for every node, and pods that change. Prints the figures; fails where one is
//! worse than promised.
//!
//! `KESTREL_AGGREGATOR` names the program. `KESTREL_SCALE_NODES` (5000) gives
//! the size: ten pods, a workload and a Service for each node.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may stop at the first surprise, and this one's figures are wanted"
)]

mod agents;
mod aggregator;
#[path = "../api_server.rs"]
mod api_server;
mod churn;
#[path = "../credentials.rs"]
mod credentials;
mod etcd;
mod objects;
mod requests;

use std::{
    env,
    time::{Duration, Instant},
};

use axum::http::Request;
use kestrel_dev_cloud::{Authority, Cloud, Config, Record};
use kube::Client;
use serde_json::{Value, json};

use agents::Agents;
use aggregator::{Aggregator, Memory};
use api_server::ApiServer;
use churn::{Churn, Latency};
use etcd::Etcd;
use objects::{AGENT, OPERATOR, Size, objects, pod};

/// Nothing here takes that long unless it is broken.
const LIMIT: Duration = Duration::from_secs(600);
const CHURN: Duration = Duration::from_secs(60);

/// KiB for the inventory of 5,000 nodes, and for one link; of fewer links than `MEASURABLE` the
/// rest of the process hides it.
const MOST_RESIDENT: u64 = 256 * 1024;
const MOST_A_LINK: u64 = 48;
const MEASURABLE: usize = 1000;
/// Part of a core under the churn.
const MOST_CPU: f64 = 0.15;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_cluster_costs_no_more_than_promised() {
    kestrel_runtime::tls::install_provider();
    let nodes = env::var("KESTREL_SCALE_NODES").map_or(5000, |nodes| nodes.parse().unwrap());
    let size = Size::of(nodes);
    println!("{size:?}, a pod is {} bytes of JSON", pod(size.nodes, size).content.to_string().len());
    let api_server = ApiServer::start();
    let client = api_server.client().await;
    let begin = Instant::now();
    let etcd = Etcd::connect(&api_server.kubeconfig.with_file_name("etcd:1")).await;
    etcd.put_all(objects(size)).await;
    create_account(&client).await;
    println!("everything is in etcd after {:.1?}", begin.elapsed());

    let cloud = kestrel_dev_cloud::serve(Config::new(Authority::generate().unwrap())).await.unwrap();
    let begin = Instant::now();
    let aggregator = Aggregator::start(&api_server.kubeconfig, &cloud);
    committed(&cloud, 1).await;
    let (time, cpu, sent) = (begin.elapsed(), aggregator.cpu(), cloud.read(bytes));
    println!("start to commit: {time:.1?}, {cpu:.1?} of CPU, {:.1} MiB to the cloud", mib(sent));
    let without_links = tell("memory without links", aggregator.memory());

    let begin = Instant::now();
    let agents = Agents::attach(&client, size, aggregator.link_port).await;
    println!("{nodes} links attached in {:.1?}", begin.elapsed());
    let with_links = tell("memory with links", aggregator.memory());
    let links = with_links.resident.saturating_sub(without_links.resident);
    println!("a link: {:.1} KiB", links as f64 / nodes as f64);

    let (begin, before) = (Instant::now(), aggregator.cpu());
    let churn = Churn::run(&etcd, size, CHURN).await;
    let churn_cpu = (aggregator.cpu() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    let (time, rate) = (begin.elapsed(), churn.rate);
    println!("churn for {time:.1?}, {rate:.0} changes a second: {:.1} % of a core", churn_cpu * 100.0);
    assert!(
        churn.is_enough(),
        "this machine could not make the churn, so the figures say nothing: {rate:.0} changes a second"
    );
    let records = cloud.wait_for(LIMIT, |record| churn.inventory(record)).await;
    let signals = cloud.wait_for(LIMIT, |record| churn.signals(record)).await;
    for (what, latency) in [
        ("records", records.expect("the cloud has the last state of every pod")),
        ("signals", signals.expect("the cloud was told of every incident's beginning and end, once")),
    ] {
        let Latency { number, p50, p99 } = latency;
        println!("from etcd to the cloud, {number} {what}: p50 {p50:.1} ms, p99 {p99:.1} ms");
    }
    tell("memory after the churn", aggregator.memory());

    let (begin, before, sent) = (Instant::now(), aggregator.cpu(), cloud.read(bytes));
    cloud.cut_connections();
    committed(&cloud, 2).await;
    let (cpu, sent) = (aggregator.cpu() - before, cloud.read(bytes) - sent);
    println!("reconnect to commit: {:.1?}, {cpu:.1?} of CPU, {:.1} MiB", begin.elapsed(), mib(sent));
    let at_the_end = tell("memory after the reconnect", aggregator.memory());
    let lists = requests::lists(&api_server.kubeconfig);
    println!("lists: {lists:?}");

    assert_eq!(agents.lost(), 0, "links that ended");
    aggregator.stop();
    let once = requests::WATCHED.map(|resource| (resource.to_owned(), 1));
    assert_eq!(lists, once.into(), "one list of each resource, also after a reconnect");
    assert!(without_links.resident <= MOST_RESIDENT, "memory for the inventory");
    assert!(nodes < MEASURABLE || links <= MOST_A_LINK * nodes as u64, "memory for a link");
    assert!(
        at_the_end.resident <= MOST_RESIDENT + MOST_A_LINK * nodes as u64,
        "memory for inventory and links"
    );
    assert!(churn_cpu <= MOST_CPU, "processor time under churn");
}

/// The agents' ServiceAccount.
async fn create_account(client: &Client) {
    let account = json!({"metadata": {"name": AGENT}}).to_string().into_bytes();
    let path = format!("/api/v1/namespaces/{OPERATOR}/serviceaccounts");
    let request = Request::post(path).header("content-type", "application/json").body(account).unwrap();
    client.request::<Value>(request).await.unwrap();
}

/// Waits until so many inventories were completed.
async fn committed(cloud: &Cloud, number: usize) {
    let commit = |record: &Record| (record.inventory.commits().len() >= number).then_some(());
    cloud.wait_for(LIMIT, commit).await.expect("a commit in time");
}

/// Bytes of all messages that the cloud was sent.
fn bytes(record: &Record) -> u64 {
    record.tallies().iter().map(|tally| tally.tally.bytes).sum()
}

fn tell(what: &str, memory: Memory) -> Memory {
    let Memory { resident, anonymous } = memory;
    println!("{what}: {:.1} MiB resident, {:.1} MiB anonymous", mib(resident * 1024), mib(anonymous * 1024));
    memory
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
