//! A connection whose other end is not there any more, and nobody said so: the
//! packets on the way to it go nowhere.

use tokio_util::sync::CancellationToken;

use crate::{network::Network, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_without_a_word_is_noticed_and_nothing_is_lost() {
    let network = Network::new();
    let end = CancellationToken::new();
    let _ended = end.clone().drop_guard();
    let mut world = World::at(network.cloud(end)).await;
    for _ in 0..if crate::is_full() { 3 } else { 1 } {
        network.lose();
        world.problem("").await;
        network.find();
        world.connected().await;
        world.whole().await;
    }
    world.end().await;
}
