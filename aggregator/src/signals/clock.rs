//! Time, as the signals see it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// From one look at what time alone may have changed to the next.
const TICK: Duration = Duration::from_secs(1);

/// Ticks until the drain.
pub async fn run(tick: impl Fn(Timestamp), drain: CancellationToken) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while drain.run_until_cancelled(ticks.tick()).await.is_some() {
        tick(Timestamp::now());
    }
}
