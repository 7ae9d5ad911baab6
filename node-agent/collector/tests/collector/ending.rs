//! The end of the pod.

use kestrel_proto::node::v1::{BatchContent, LogGapReason, LogPolicy, agent_message::Message};
use prost::Message as _;
use tonic::{Status, metadata::MetadataValue};

use super::{Aggregator, CREDIT, Pod};

#[tokio::test]
async fn a_pod_that_was_handed_over_whole_says_farewell_without_a_gap() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    pod.write("one\n");
    let process = pod.start();
    let mut stream = aggregator.accept(CREDIT).await;
    assert_eq!(stream.hello.features, ["farewell"]);
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    assert_eq!(stream.lines(1).await, ["one"]);
    process.ask_to_end();
    assert_eq!(stream.farewell().await, []);
    drop(stream);
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn what_the_aggregator_does_not_take_is_a_gap_of_the_farewell() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    // Does not compress, and is more than may be under way.
    let line = || std::iter::repeat_with(fastrand::alphanumeric).take(1000).collect::<String>() + "\n";
    let text: String = (0..8000).map(|_| line()).collect();
    pod.write(&text);
    let mut process = pod.start();
    let mut stream = aggregator.accept(CREDIT).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    let mut taken = stream.batch().await.1.logs.last().unwrap().end_offset;
    process.ask_to_end();
    let gaps = loop {
        match stream.next().await {
            Some(Message::Batch(batch)) => {
                let bytes = zstd::stream::decode_all(batch.payload.as_ref()).unwrap();
                taken = BatchContent::decode(bytes.as_slice()).unwrap().logs.last().unwrap().end_offset;
            }
            Some(Message::Farewell(farewell)) => break farewell.gaps,
            other => panic!("{other:?}"),
        }
    };
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((gap.reason(), &*gap.pod_uid, &*gap.container_name), (LogGapReason::Ended, "1-1", "app"));
    assert_eq!(gap.bytes, text.len() as u64 - taken);
    drop(stream);
    process.says("bytes could not be handed over within 8 s").await;
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn the_end_does_not_wait_for_the_next_attempt() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    pod.write("one\n");
    let mut process = pod.start();
    let mut later = Status::unavailable("there is no place");
    later.metadata_mut().insert("retry-after-ms", MetadataValue::from_static("300000"));
    aggregator.refuse(later).await;
    process.says("there is no place").await;
    process.ask_to_end();
    let mut stream = aggregator.accept(CREDIT).await;
    assert_eq!(stream.lines(1).await, ["one"]);
    assert_eq!(stream.farewell().await, []);
    drop(stream);
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn what_could_not_be_handed_over_is_told_at_the_end() {
    let pod = Pod::new(&"https://127.0.0.1:1".parse().unwrap(), "no PEM");
    pod.write("one\n");
    let mut process = pod.start();
    pod.has_kept(0).await;
    // Appended while nothing can be sent, and still seen.
    pod.write("two\n");
    process.ask_to_end();
    process.says("0 lines were sent, but 8 bytes could not be handed over within 8 s").await;
    assert_eq!(process.ends().await, Some(0));
}
