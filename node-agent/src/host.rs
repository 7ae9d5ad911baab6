//! The node as its host shows it: samples, conditions made of them, and what happened.

mod clock;
pub mod condition;
mod conntrack;
pub mod event;
pub(crate) mod file_systems;
mod kernel_log;
pub mod kubelet;
mod memory;
mod pressure;
mod runtime;
pub mod sample;
mod tasks;

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use kubelet::Probes;
pub use pressure::Limits;
pub(crate) use runtime::version as runtime_version;
use sample::{Places, Sample, Seen};

/// How often the host is looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// What of the host is looked at.
pub struct Watched {
    /// Where files are.
    pub places: Places,
    /// How the end of the kernel's log is read, if it is: see [`kernel_log`].
    pub kernel_log: Option<fn() -> Seen<String>>,
    /// The container runtime's socket, if it is asked.
    pub runtime_socket: Option<PathBuf>,
    /// What the kubelet was heard of.
    pub probes: Probes,
}

/// The end of the kernel's log by syslog(2), which takes nothing from other readers.
///
/// # Errors
/// What is missing.
pub fn kernel_log() -> Seen<String> {
    kernel_log::read()
}

/// A clock that is so many seconds ahead of this one, as far as there is such a time.
pub(crate) fn ahead(clock: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { clock.checked_sub(by) } else { clock.checked_add(by) };
    moved.unwrap_or(clock)
}

/// Looks at the host until nobody takes the samples any more.
///
/// # Errors
/// None; a source that cannot be read is part of the sample.
pub async fn watch(watched: Watched, samples: mpsc::Sender<Sample>) -> anyhow::Result<()> {
    let Watched { places, kernel_log, runtime_socket, probes } = watched;
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = async {
        loop {
            looks.tick().await;
            let runtime = match &runtime_socket {
                Some(socket) => Some(runtime::version(socket).await),
                None => None,
            };
            let kernel_log =
                kernel_log.map(|read| -> Seen<_> { Ok((read()?, sample::uptime(&places.proc)?)) });
            let kubelet = probes.silence(Instant::now());
            let sample = Sample { kernel_log, runtime, kubelet, ..places.look() };
            if samples.send(sample).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = look => {}
        () = samples.closed() => {}
    }
    Ok(())
}
