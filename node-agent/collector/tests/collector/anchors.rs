//! Whom the collector trusts when the authority of the link changes.

use std::fs;

use kestrel_proto::node::v1::LogPolicy;
use kestrel_runtime::tls::authority::Authority;
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::{Aggregator, CREDIT, DEADLINE, Duration, Pod};

#[tokio::test]
async fn a_pod_from_before_the_authority_changed_connects_after_it_and_after_a_restart() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let process = pod.start();
    let stream = aggregator.accept(CREDIT).await;

    // Both are trusted for a while; then only the new one is there.
    let next = Authority::generate("the next").unwrap();
    let both = format!("{}{}", aggregator.authority_pem, next.certificate_pem());
    stream.anchors(both.clone()).await;
    let kept = pod.directory.path().join("state/anchors");
    let is_kept = async {
        while fs::read_to_string(&kept).ok().as_ref() != Some(&both) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, is_kept).await.expect("the anchors are not kept");
    aggregator.certified_by(&next);
    stream.fail(Status::unavailable("a new leader")).await;
    let stream = aggregator.accept(CREDIT).await;
    stream.anchors(next.certificate_pem().to_owned()).await;
    stream.anchors("no PEM".to_owned()).await;
    drop((stream, process));

    pod.write("one\n");
    let _process = pod.start();
    let mut stream = aggregator.accept(CREDIT).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    assert_eq!(stream.lines(1).await, ["one"]);
}

#[tokio::test]
async fn an_aggregator_of_another_authority_is_not_spoken_to() {
    let aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    aggregator.certified_by(&Authority::generate("another").unwrap());
    let mut process = pod.start();
    process.says("signed by an authority that we do not trust").await;
    assert!(process.0.try_wait().unwrap().is_none());
}
