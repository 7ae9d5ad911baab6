//! Tokens and certificates that are refused for a while.

use jiff::SignedDuration;
use kestrel_dev_cloud::{
    Faults, Stream,
    faults::{Door, Reset, When},
};
use tonic::Code;

use crate::world::{World, write_certificate, write_token};

/// Ends all streams, so that the token is shown again.
fn ended() -> Reset {
    Reset { streams: Stream::ALL.to_vec(), code: Code::Ok, when: When::Now, times: None }
}

async fn refused(world: &World) {
    world
        .wait_for("a refused token", |record| {
            record.connections.refusals().iter().any(|one| one.reason.contains("token")).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_and_back_costs_nothing_but_time() {
    let mut world = World::new().await;
    let clock = SignedDuration::from_hours(2);
    world.cloud.set_faults(Faults { clock, resets: vec![ended()], ..Faults::default() });
    refused(&world).await;
    world.cloud.set_faults(Faults::default());
    world.connected().await;
    world.whole().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_used_when_the_clock_stays_ahead() {
    let mut world = World::new().await;
    let clock = SignedDuration::from_hours(2);
    world.cloud.set_faults(Faults { clock, resets: vec![ended()], ..Faults::default() });
    refused(&world).await;
    write_token(&world.cloud, world.folder.path(), 4 * 3600);
    world.connected().await;
    world.whole().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expired_is_said_and_a_new_one_is_used() {
    let mut world = World::new().await;
    let expired = Faults { door: Door::RefuseCertificates, cut: true, ..Faults::default() };
    world.cloud.set_faults(expired);
    world
        .wait_for("a refused certificate", |record| {
            record.connections.refusals().iter().any(|one| one.reason.contains("Expired")).then_some(())
        })
        .await;
    world.problem("CLIENT_CERT_FILE").await;
    write_certificate(&world.cloud, world.folder.path());
    world.cloud.set_faults(Faults::default());
    world.connected().await;
    world.whole().await;
    world.end().await;
}
