//! What the operator tells the cloud of itself: memory, CPU, streams, numbers.
//!
//! The message was made for a Go program. Its fields hold here: heap in use
//! (both of them) what is in RAM and no file is behind; memory of the system what the
//! kernel promised for heap and stacks; goroutines the tasks of the runtime;
//! collections of garbage 0; limits 0 where there is none.

mod process;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::OperatorStats;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::inventory::convert::timestamp;
use process::{Limits, Memory, cpu_time};

/// From one message to the next.
const EVERY: Duration = Duration::from_secs(30);

/// What the other parts know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The data stream is open.
    pub data_stream: bool,
    /// The control stream is open.
    pub control_stream: bool,
    /// Messages sent since the start.
    pub sent: u64,
    /// Messages dropped since the start.
    pub dropped: u64,
    /// Watches whose list is complete, and all of them.
    pub watches: (usize, usize),
}

/// Sends what is to be said, as long as `known` says that there is somebody to
/// say it to, until the drain.
pub async fn tell(
    known: impl Fn() -> Option<Known> + Send,
    send: impl Fn(OperatorStats) + Send,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut sampler = Sampler::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while drain.run_until_cancelled(ticks.tick()).await.is_some() {
        // Also when nobody hears it, so that the CPU's use is that of the last interval.
        let used = sampler.sample();
        if let Some(known) = known() {
            send(message(&used, &known, Timestamp::now()));
        }
    }
    Ok(())
}

/// What the process uses.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    memory: Memory,
    limits: Limits,
    nano_cores: u64,
    tasks: usize,
}

#[derive(Default)]
struct Sampler {
    last: Option<(Instant, Duration)>,
}

impl Sampler {
    fn sample(&mut self) -> Used {
        let text = |name| fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
        let (now, cpu) = (Instant::now(), cpu_time(&text("stat")).unwrap_or_default());
        let before = self.last.replace((now, cpu));
        Used {
            memory: Memory::parse(&text("status")),
            limits: Limits::read(Path::new("/sys/fs/cgroup")),
            nano_cores: before.map_or(0, |(then, before)| nano_cores(cpu.saturating_sub(before), now - then)),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        }
    }
}

fn nano_cores(used: Duration, within: Duration) -> u64 {
    if within.is_zero() { 0 } else { (used.as_secs_f64() / within.as_secs_f64() * 1e9) as u64 }
}

fn message(used: &Used, known: &Known, now: Timestamp) -> OperatorStats {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    OperatorStats {
        timestamp: Some(timestamp(now)),
        memory_alloc_bytes: whole(used.memory.anonymous),
        memory_sys_bytes: whole(used.memory.data),
        memory_heap_inuse_bytes: whole(used.memory.anonymous),
        num_goroutines: count(used.tasks),
        num_gc_cycles: 0,
        cpu_usage_nano_cores: whole(used.nano_cores),
        memory_usage_bytes: whole(used.memory.resident),
        cpu_limit_nano_cores: whole(used.limits.nano_cores.unwrap_or_default()),
        memory_limit_bytes: whole(used.limits.memory.unwrap_or_default()),
        data_stream_healthy: known.data_stream,
        control_stream_healthy: known.control_stream,
        total_messages_sent: whole(known.sent),
        total_messages_dropped: whole(known.dropped),
        informers_synced: count(known.watches.0),
        informers_total: count(known.watches.1),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_while_somebody_hears_it() {
        let (to, mut messages) = tokio::sync::mpsc::unbounded_channel();
        let (connected, drain) = (std::sync::Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let known = {
            let connected = connected.clone();
            move || {
                let watches = (8, 9);
                let known = Known { data_stream: true, sent: 7, watches, ..Known::default() };
                connected.load(Ordering::Relaxed).then_some(known)
            }
        };
        let task = tokio::spawn(tell(known, move |message| to.send(message).unwrap(), drain.clone()));
        tokio::time::sleep(EVERY * 5 / 2).await;
        assert!(messages.try_recv().is_err());
        connected.store(true, Ordering::Relaxed);
        let message = messages.recv().await.unwrap();
        assert!(message.memory_usage_bytes > 0 && message.num_goroutines > 0, "{message:?}");
        assert!(message.data_stream_healthy && !message.control_stream_healthy);
        assert_eq!(
            (message.total_messages_sent, message.informers_synced, message.informers_total),
            (7, 8, 9)
        );
        drain.cancel();
        task.await.unwrap().unwrap();
    }

    #[test]
    fn the_use_of_the_cpu_is_that_of_the_interval() {
        let seconds = Duration::from_secs;
        assert_eq!(nano_cores(seconds(15), seconds(30)), 500_000_000);
        assert_eq!(nano_cores(seconds(1), seconds(0)), 0);
    }
}
