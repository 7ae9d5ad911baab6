//! What this process has taken of the machine (proc(5)).

use std::{fs, time::Duration};

/// Processor time and memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// In user and kernel mode.
    pub(super) cpu: Duration,
    /// Most memory that was resident at a time, KiB.
    pub(super) peak: u64,
}

/// Of this process until now; nothing where `/proc` can't be read.
pub(super) fn of_this_process() -> Usage {
    // Nanoseconds on a processor: `stat` counts in steps of 10 ms.
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
    Usage { cpu: Duration::from_nanos(nanos.sum()), peak: peak.unwrap_or_default() }
}
