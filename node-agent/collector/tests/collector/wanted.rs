//! What the aggregator wants of the pod.

use kestrel_proto::node::v1::{LogPolicy, PodInfo, Welcome};

use super::{Aggregator, CREDIT, Pod, messages};

fn named(policy: LogPolicy, look_back: Option<i64>) -> Vec<PodInfo> {
    vec![PodInfo {
        uid: "1-1".into(),
        namespace: "ns".into(),
        name: "web".into(),
        log_policy: policy.into(),
        look_back_from: look_back.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
    }]
}

#[tokio::test]
async fn a_policy_that_changes_holds_at_once_and_what_was_left_out_before_an_incident_is_sent() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let plain: Vec<_> = (0..20).map(|number| format!("line {number}")).collect();
    pod.write(&format!("{}\nERROR bad\n", plain.join("\n")));
    let _process = pod.start();
    let mut stream = aggregator.accept(CREDIT).await;
    stream.pods(named(LogPolicy::Errors, None)).await;
    let with_context = [&plain[15..], &["ERROR bad".to_owned()]].concat();
    assert_eq!(stream.lines(6).await, with_context);
    stream.pods(named(LogPolicy::All, Some(1))).await;
    assert_eq!(stream.lines(21).await, [&plain[..], &["ERROR bad".to_owned()]].concat());
    pod.write("after\n");
    assert_eq!(stream.lines(1).await, ["after"]);
    stream.pods(named(LogPolicy::Off, None)).await;
    pod.write("never\n");
    stream.pods(named(LogPolicy::All, None)).await;
    pod.write("again\n");
    let sent = stream.lines(1).await;
    assert!(sent.contains(&"again".to_owned()) || sent == ["never"], "{sent:?}");
}

#[tokio::test]
async fn no_more_is_sent_than_the_aggregator_allows_and_the_rest_waits_in_the_file() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let lines: Vec<_> = (0..120).map(|number| format!("{number:0>50}")).collect();
    pod.write(&(lines.join("\n") + "\n"));
    let _process = pod.start();
    let welcome = Welcome { credit_bytes: CREDIT, pod_bytes_per_second: 2000, ..Welcome::default() };
    let mut stream = aggregator.accept_with(welcome).await;
    stream.pods(named(LogPolicy::All, None)).await;
    let (_, first) = stream.batch().await;
    let mut sent = messages(&first);
    assert!(sent.len() < 60, "{} lines at once", sent.len());
    while sent.len() < lines.len() {
        sent.extend(messages(&stream.batch().await.1));
    }
    assert_eq!(sent, lines);
}
