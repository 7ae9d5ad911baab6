//! Connections in memory, between which bytes take their time, or do not arrive.

use std::{io, sync::Arc, time::Duration};

use fastrand::Rng;
use futures::future::BoxFuture;
use kestrel_runtime::tls::client::ConnectError;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{peer, world::World};
use crate::uplink::{
    dial::{Dial, Transport},
    problem::Problem,
};

/// Bytes that one end of a connection takes ahead of the other.
const BUFFER: usize = 64 * 1024;
/// A kernel gives up a connection on which bytes are not acknowledged for so long
/// (`TCP_USER_TIMEOUT`, see `dial`), and none of them arrives later.
const GIVES_UP: Duration = Duration::from_secs(10);
/// Bytes that travel together.
const PACKET: usize = 16 * 1024;
/// Bytes that are on their way, at most.
pub(super) const IN_FLIGHT: usize = 2 * BUFFER + PACKET;

/// The way to the simulated server.
pub(super) struct Network(pub Arc<World>);

impl Dial for Network {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Transport>, Problem>> {
        Box::pin(async {
            let world = &self.0;
            sleep(world.latency()).await;
            if world.faults(|faults| faults.refuse) {
                let source = io::ErrorKind::ConnectionRefused.into();
                let error = ConnectError::Reach { host: "simulation".to_owned(), port: 1, source };
                return Err(Problem::Connect { server: "simulation:1".to_owned(), error });
            }
            world.dialed();
            let ((ours, far), (near, theirs)) = (duplex(BUFFER), duplex(BUFFER));
            let cut = world.link();
            let ((from_us, to_us), (from_them, to_them)) = (split(far), split(near));
            tokio::spawn(carry(from_us, to_them, Arc::clone(world), cut.clone()));
            tokio::spawn(carry(from_them, to_us, Arc::clone(world), cut));
            tokio::spawn(peer::serve(theirs, Arc::clone(world)));
            Ok(Box::new(ours) as _)
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.new_credentials.notified())
    }
}

/// One direction of a connection, until it is cut.
async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    world: Arc<World>,
    cut: CancellationToken,
) {
    let mut packet = vec![0; PACKET];
    let carried = async {
        while let Ok(count @ 1..) = from.read(&mut packet).await {
            sleep(world.latency()).await;
            if timeout(GIVES_UP, world.thawed()).await.is_err() {
                // For both directions.
                cut.cancel();
            }
            if to.write_all(&packet[..count]).await.is_err() {
                break;
            }
        }
        let _other_end_is_gone = to.shutdown().await;
    };
    cut.run_until_cancelled(carried).await;
}

/// From one millisecond to a tenth of a second, or ten times that.
pub(super) fn latency(rng: &mut Rng, slow: bool) -> Duration {
    Duration::from_millis(rng.u64(1..100) * if slow { 10 } else { 1 })
}
