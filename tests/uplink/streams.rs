//! Streams that end: with every code, at every moment.

use jiff::SignedDuration;
use kestrel_aggregator::uplink::receipt::Source;
use kestrel_dev_cloud::{
    Faults, Stream,
    faults::{Reset, When},
};
use kestrel_proto::cloud::v1::{
    KubernetesEvent, L7AccessLog, stream_events_request::Request as Signal,
    stream_flows_request::Request as FlowRequest,
};
use tonic::Code;

use crate::{
    is_full,
    traffic::logs,
    world::{LARGE, World},
};

const CODES: [Code; 10] = [
    Code::Cancelled,
    Code::Unknown,
    Code::DeadlineExceeded,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::Aborted,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// Every stream with every code, or with one.
fn cases(which: usize) -> impl Iterator<Item = (Stream, Code)> {
    Stream::ALL.into_iter().enumerate().flat_map(move |(number, stream)| {
        let all = CODES.into_iter().enumerate();
        all.filter(move |(code, _)| is_full() || *code == (number * 3 + which) % CODES.len())
            .map(move |(_, code)| (stream, code))
    })
}

fn once(stream: Stream, code: Code, when: When) -> Reset {
    Reset { streams: vec![stream], code, when, times: Some(1) }
}

fn faults(resets: impl Into<Vec<Reset>>) -> Faults {
    Faults { resets: resets.into(), ..Faults::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_is_opened_again_and_nothing_is_lost() {
    let mut world = World::new().await;
    for (stream, code) in cases(0) {
        let before = world.opened(stream);
        let ended = Reset { times: None, ..once(stream, Code::Ok, When::Now) };
        world.cloud.set_faults(faults([ended, once(stream, code, When::Open)]));
        world.used_up().await;
        world.reopened(stream, before).await;
        world.whole().await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_in_the_middle_is_opened_again_and_nothing_is_lost() {
    let mut world = World::new().await;
    for (stream, code) in cases(1) {
        let before = world.opened(stream);
        world.cloud.set_faults(Faults::reset([stream], code, When::Now));
        world.reopened(stream, before).await;
        world.whole().await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_within_a_large_message_is_opened_again_and_nothing_is_lost() {
    let mut world = World::new().await;
    for (stream, code) in cases(2) {
        let before = world.opened(stream);
        world.cloud.set_faults(faults([once(stream, code, When::Within(LARGE as u64 / 2))]));
        send_large(&world, stream).await;
        world.used_up().await;
        world.reopened(stream, before).await;
        world.whole().await;
    }
    world.end().await;
}

/// Sends a message of 9 MiB on a stream. Answers must arrive.
async fn send_large(world: &World, stream: Stream) {
    let text = "x".repeat(LARGE);
    match stream {
        Stream::Data | Stream::Control => drop(world.ask(stream, "large").await),
        Stream::Events => world.lanes.signals().send(Signal::KubernetesEvent(KubernetesEvent {
            name: format!("large-{}", world.opened(stream)),
            message: text,
            ..KubernetesEvent::default()
        })),
        Stream::Logs => {
            let large = logs("large", std::iter::once(text));
            world.lanes.logs().send(large, Source::new().0.receipt(1, 0)).await;
        }
        Stream::Flows => world
            .lanes
            .flows()
            .send(FlowRequest::L7AccessLog(L7AccessLog { node_id: text, ..Default::default() })),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_stream_that_is_not_offered_has_its_fallback_and_comes_back() {
    let mut world = World::new().await;
    for stream in [Stream::Control, Stream::Flows, Stream::Events, Stream::Logs] {
        // Refused, after the headers, after the first message.
        for when in [When::Open, When::Received(0), When::Received(1)] {
            let before = world.opened(stream);
            let reset = Reset { streams: vec![stream], code: Code::Unimplemented, when, times: None };
            let ended = Reset { when: When::Now, code: Code::Ok, ..reset.clone() };
            world.cloud.set_faults(faults([ended, reset]));
            if stream == Stream::Control {
                // What the cloud asks on the data stream is answered on it.
                world.ask(Stream::Data, "small").await;
            }
            world.whole().await;
            world.cloud.set_faults(Faults::default());
            world.reopened(stream, before).await;
            world.whole().await;
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_heartbeats_loses_nothing() {
    let mut world = World::new().await;
    let quiet = Stream::ALL.to_vec();
    let lasts = Some(SignedDuration::from_secs(5));
    world.cloud.set_faults(Faults { quiet, lasts, ..Faults::default() });
    world.whole().await;
    world.end().await;
}
