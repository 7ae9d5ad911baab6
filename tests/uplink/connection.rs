//! Connections that end, do not begin, or are too slow.

use std::time::Duration;

use jiff::SignedDuration;
use kestrel_dev_cloud::{
    Faults,
    faults::{Door, Flap},
};

use crate::{
    is_full,
    world::{LIMIT, World},
};

/// Waits until a connection is in use that is younger than the first `before`.
async fn reconnected(world: &World, before: u64, limit: Duration) {
    world
        .wait_longer(limit, "a new connection", |record| {
            let counts = record.connections.counts();
            (counts.opened > before && counts.streams >= 5).then_some(())
        })
        .await;
}

fn opened(world: &World) -> u64 {
    world.cloud.read(|record| record.connections.counts().opened)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_is_made_again_and_nothing_is_lost() {
    let mut world = World::new().await;
    for _ in 0..if is_full() { 20 } else { 2 } {
        let before = opened(&world);
        world.cloud.cut_connections();
        reconnected(&world, before, LIMIT).await;
        world.whole().await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_goaway_all_moves_to_a_new_connection_and_nothing_is_lost() {
    let mut world = World::new().await;
    // Patient, impatient, and at once.
    for grace in [None, Some(SignedDuration::from_secs(2)), Some(SignedDuration::ZERO)] {
        let before = opened(&world);
        world.cloud.set_faults(Faults { goaway: true, grace, ..Faults::default() });
        reconnected(&world, before, LIMIT).await;
        world.whole().await;
        world
            .wait_for("the end of the old connection", |record| {
                (record.connections.counts().open == 1).then_some(())
            })
            .await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_came_before_goaway_is_answered() {
    let mut world = World::new().await;
    let stream = kestrel_dev_cloud::Stream::Control;
    let goaway = async {
        world.cloud.set_faults(Faults { goaway: true, ..Faults::default() });
    };
    tokio::join!(world.ask(stream, "large"), goaway);
    world.whole().await;
    world.end().await;
}

/// Cuts the connection while the door is as a fault wants it, for a time.
async fn shut_out(door: Door, seconds: i64) {
    let mut world = World::new().await;
    let before = opened(&world);
    let lasts = Some(SignedDuration::from_secs(seconds));
    world.cloud.set_faults(Faults { door, lasts, cut: true, ..Faults::default() });
    let limit = Duration::from_secs(seconds.unsigned_abs()) + LIMIT;
    // A connection that was not served counts as well.
    reconnected(&world, before, limit).await;
    world.whole_within(limit).await;
    world.end().await;
}

/// The time for which the cloud is away.
fn outage() -> i64 {
    if is_full() { 120 } else { 5 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_costs_nothing_but_time() {
    shut_out(Door::Closed, outage()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_tls_costs_nothing_but_time() {
    shut_out(Door::RefuseTls, outage()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_is_silent_costs_nothing_but_time() {
    shut_out(Door::Silent, outage()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_shakes_hands_and_is_silent_costs_nothing_but_time() {
    shut_out(Door::Mute, outage()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_cuts_in_a_minute_lose_nothing() {
    let mut world = World::new().await;
    let before = opened(&world);
    let (times, seconds) = if is_full() { (100, 60) } else { (15, 9) };
    let flap = Some(Flap { times, period: SignedDuration::from_secs(seconds) });
    world.cloud.set_faults(Faults { flap, ..Faults::default() });
    tokio::time::sleep(Duration::from_secs(seconds.unsigned_abs())).await;
    world.connected().await;
    world.whole().await;
    let connections = opened(&world) - before;
    assert!(connections <= u64::from(times) * 3, "{connections} connections for {times} cuts");
    world.end().await;
}

/// Lets the server read less than passes, so that a backlog grows on the way to
/// it while it goes on talking.
async fn read_slowly(world: &World) {
    // Our small traffic is about 20 kB/s.
    world.cloud.set_faults(Faults { read_rate: Some(10_000), ..Faults::default() });
    tokio::time::sleep(Duration::from_secs(if is_full() { 120 } else { 10 })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_reads_slowly_gets_everything_in_the_end() {
    let mut world = World::new().await;
    read_slowly(&world).await;
    world.cloud.set_faults(Faults::default());
    world.whole().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_server_had_not_read_is_not_lost_with_the_connection() {
    let mut world = World::new().await;
    let before = opened(&world);
    read_slowly(&world).await;
    world.cloud.set_faults(Faults { cut: true, ..Faults::default() });
    reconnected(&world, before, LIMIT).await;
    world.whole().await;
    world.end().await;
}
