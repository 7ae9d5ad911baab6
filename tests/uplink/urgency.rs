//! What is urgent does not wait for what is not.

use std::time::Duration;

use kestrel_aggregator::uplink::{
    lanes::{Lane, Lanes},
    receipt::Source,
};
use kestrel_dev_cloud::{Faults, Stream};
use kestrel_proto::cloud::v1::{L7AccessLog, stream_flows_request::Request as Flow};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    is_full,
    network::Network,
    traffic::logs,
    world::{LIMIT, World, apart, cloud},
};

/// Signals that come while `meanwhile` runs; the longest gap between two.
async fn longest_gap(world: &World, meanwhile: impl Future<Output = ()>) -> Duration {
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut seen = world.cloud.read(|record| record.signals.total());
    let watch = async {
        loop {
            let now = world.wait_for("a signal", |record| {
                let total = record.signals.total();
                (total > seen).then_some(total)
            });
            seen = now.await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    };
    tokio::select! {
        () = watch => {}
        () = meanwhile => {}
    }
    assert!(last > begun, "no signal came meanwhile");
    longest.max(last.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_delays_no_signal_by_more_than_its_bytes_need() {
    let mut world = World::new().await;
    let mut needed = Duration::ZERO;
    let longest = longest_gap(&world, async {
        for _ in 0..4 {
            needed = needed.max(world.ask(Stream::Control, "large").await);
        }
    })
    .await;
    // Signals come every few milliseconds: one may wait for a whole answer, and for this machine.
    let most = (needed + Duration::from_millis(20)) * 10;
    assert!(longest <= most, "{longest:?} without a signal, {needed:?} for the answer");
    println!("large answer: {needed:?}; longest time without a signal: {longest:?}");
    world.whole().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_delays_no_other() {
    let mut world = World::new().await;
    let (source, _outcomes) = Source::new();
    for stalled in [Stream::Logs, Stream::Flows, Stream::Data] {
        world.cloud.set_faults(Faults { stall: vec![stalled], ..Faults::default() });
        // More than the stream's window takes.
        for number in 0..3 {
            let filler = logs("filler", std::iter::once("x".repeat(1 << 20)));
            world.lanes.logs().send(filler, source.receipt(number, 0)).await;
        }
        let flowing = longest_gap(&world, async {
            for _ in 0..10 {
                world.ask(Stream::Control, "small").await;
            }
        });
        let longest = flowing.await;
        assert!(longest < Duration::from_secs(10), "{stalled:?} stalled: {longest:?} without a signal");
        world.cloud.set_faults(Faults::default());
        world.whole().await;
    }
    world.end().await;
}

/// Against it the client cannot help.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_streams_can_stop_each_other_is_named() {
    let world = World::at(cloud(|config| config.connection_window = 1 << 20).await).await;
    let narrow = || world.view.state().connection.and_then(|connection| connection.narrow);
    let deadline = Instant::now() + LIMIT;
    while narrow().is_none() {
        assert!(Instant::now() < deadline, "{:?}", world.view.state());
        sleep(Duration::from_millis(20)).await;
    }
    world.end().await;
}

/// The 99th of 100 round trips.
async fn p99(world: &mut World, count: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(world.ask(Stream::Control, "small").await);
        // The flood pushes them out of the record.
        world.see_flows();
    }
    times.sort_unstable();
    times[count * 99 / 100 - 1]
}

/// As many logs in batches of `bytes` as the lane takes.
async fn flood_of_logs(lanes: Lanes, bytes: usize) {
    let (source, _outcomes) = Source::new();
    for number in 0_u64.. {
        let lines = (0..10).map(|_| "x".repeat(bytes / 10));
        lanes.logs().send(logs("flood", lines), source.receipt(number, 0)).await;
    }
}

/// As many access logs of 4 kB as can be sent: more would be dropped.
async fn flood_of_flows(lanes: Lanes) {
    let log = || L7AccessLog { node_id: "x".repeat(4000), ..L7AccessLog::default() };
    loop {
        while lanes.depth(Lane::Flows).bytes < 1 << 20 {
            lanes.flows().send(Flow::L7AccessLog(log()));
        }
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_answered_in_time_while_logs_and_flows_saturate_the_connection() {
    if !is_full() {
        return;
    }
    // As in life, the cloud and the load have threads of their own, and the way out of the
    // cluster is the bottleneck, and not this machine.
    let network = Network::new();
    let end = CancellationToken::new();
    let _ended = end.clone().drop_guard();
    let mut world = World::at(network.cloud(end)).await;
    network.limit("100mbit");
    let unloaded = p99(&mut world, 300).await;
    let most = unloaded * 3 + Duration::from_millis(20);
    for bytes in [20_000, 1_000_000] {
        let (lanes, enough) = (world.lanes.clone(), CancellationToken::new());
        apart({
            let enough = enough.clone();
            move || async move {
                let flood =
                    async { tokio::join!(flood_of_logs(lanes.clone(), bytes), flood_of_flows(lanes)) };
                enough.run_until_cancelled(flood).await;
            }
        });
        let bytes_before = received(&world);
        let begun = Instant::now();
        let loaded = p99(&mut world, 500).await;
        let rate = (received(&world) - bytes_before) as f64 / begun.elapsed().as_secs_f64() / 1e6;
        enough.cancel();
        println!(
            "tool round trip, p99: {unloaded:?} unloaded, {loaded:?} with {rate:.1} MB/s of flows and of logs in \
             batches of {bytes} bytes, wanted at most {most:?}"
        );
        assert!(loaded <= most * 10, "{loaded:?}, wanted at most {most:?}");
    }
    world.whole().await;
    world.end().await;
}

/// Bytes of messages that came.
fn received(world: &World) -> u64 {
    world.cloud.read(|record| record.tallies().iter().map(|kind| kind.tally.bytes).sum())
}
