//! To an aggregator, as the agent ships.

use std::time::{Duration, Instant, SystemTime};

use kestrel_link::{
    Event,
    connection::{self, Link},
    ship::{Notice, Shipper},
    wake::Wake,
};
use kestrel_runtime::daemon::Daemon;
use kestrel_tail::engine::Engine;
use tokio::{sync::mpsc, task::yield_now, time::interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Options, SCAN, look, summary};

/// Ships what `engine` reads until the drain or, if that is asked for, the end of all files.
pub(super) fn spawn(daemon: &mut Daemon, link: connection::Config, engine: Engine, options: Options) {
    let drain = daemon.drain();
    let (link, events) = Link::new(link);
    let ends = drain.clone();
    daemon.spawn("agent link", async {
        link.run(ends).await;
        Ok(())
    });
    daemon.spawn("tail", async move {
        let _end = drain.clone().drop_guard();
        let mut shipper = Shipper::new(engine, Instant::now());
        run(&mut shipper, events, &options, &drain).await;
        shipper.save();
        summary(shipper.engine.stats());
        shipper.save_error().map_or(Ok(()), |error| anyhow::bail!("positions cannot be kept: {error}"))
    });
}

async fn run(
    shipper: &mut Shipper,
    mut events: mpsc::Receiver<Event>,
    options: &Options,
    drain: &CancellationToken,
) {
    let wake = Wake::watch(&mut shipper.engine);
    let (mut scan, mut pause) = (interval(SCAN), Duration::ZERO);
    while !drain.is_cancelled() {
        if pause.is_zero() {
            yield_now().await;
        }
        tokio::select! {
            () = drain.cancelled() => return,
            Some(event) = events.recv() => match shipper.take(event) {
                Some(Notice::Connected { .. }) => info!("connected"),
                Some(Notice::Disconnected { reason, retry_in }) => {
                    warn!("not connected: {reason}; next attempt in {} s", retry_in.as_secs());
                }
                _ => {}
            },
            _ = scan.tick() => look(&mut shipper.engine, options.policy, Instant::now()),
            () = wake.wait(pause) => {}
        }
        pause = shipper.pump(Instant::now(), SystemTime::now());
        if options.until_end && shipper.is_connected() && shipper.engine.is_all_read() {
            // The rest of a batch has not to wait for more.
            shipper.add_counts(Instant::now());
            shipper.flush();
            if shipper.is_delivered() && shipper.engine.in_flight() == 0 {
                return;
            }
        }
    }
}
