//! Waiting for lines.

use std::{os::fd::OwnedFd, time::Duration};

use kestrel_tail::engine::Engine;
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    time::{Instant, sleep, sleep_until},
};

/// What was written to within this time is read together, however fast it comes.
const TOGETHER: Duration = Duration::from_millis(2);

/// Wakes who waits for something to be written to an engine's files.
#[derive(Debug)]
pub struct Wake(Option<AsyncFd<OwnedFd>>);

impl Wake {
    /// Has `engine` watch its files, or the clock alone wake, where the kernel
    /// does not let us.
    pub fn watch(engine: &mut Engine) -> Self {
        #[expect(deprecated, reason = "an OwnedFd stays what it is; what comes instead is unsafe")]
        let watched = engine.watch().and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE));
        if let Err(error) = &watched {
            tracing::warn!("directories cannot be watched and are looked at all the time: {error}");
        }
        Self(watched.ok())
    }

    /// Waits until something was written, and no longer than `pause`.
    pub async fn wait(&self, pause: Duration) {
        let end = Instant::now() + pause;
        sleep(pause.min(TOGETHER)).await;
        let Some(watched) = self.0.as_ref().filter(|_| pause > TOGETHER) else {
            return sleep_until(end).await;
        };
        select! {
            () = sleep_until(end) => {}
            // What comes from here on is told anew.
            Ok(mut ready) = watched.readable() => ready.clear_ready(),
        }
    }
}
