//! Tasks, of which the kernel makes no more than its limits say.

use std::path::Path;

use super::{
    condition::{Edge, Finding, permille},
    sample::{Seen, number, text},
};

/// The share of the tasks that must be left, in percent. The kubelet has none for it.
const LOW: u64 = 10;

/// Tasks and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// Threads of all processes.
    pub running: u64,
    /// The lower of the kernel's limits of threads and of process ids.
    pub limit: u64,
}

/// Counts them.
pub(super) fn count(proc: &Path) -> Seen<Tasks> {
    let path = proc.join("loadavg");
    let running =
        running(&text(&path)?).ok_or_else(|| format!("{}: not in the kernel's form", path.display()))?;
    let limit = |name: &str| number(&proc.join("sys/kernel").join(name));
    Ok(Tasks { running, limit: limit("threads-max")?.min(limit("pid_max")?) })
}

/// The number after the slash in the fourth field of `/proc/loadavg`.
fn running(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// Whether too few are left.
#[derive(Debug, Default)]
pub(super) struct Left(Edge);

impl Left {
    pub(super) fn judge(&mut self, tasks: &Seen<Tasks>) -> Finding {
        const KIND: &str = "kestrel.ai/PIDPressure";
        let Tasks { running, limit } = match tasks {
            Ok(tasks) => *tasks,
            Err(why) => return Finding::unseen(KIND, why),
        };
        let free = permille(limit.saturating_sub(running), limit);
        let reason = self.0.is_under(free, LOW * 10).then_some("HostTasksLow");
        let message =
            format!("{running} of {limit} tasks exist, pressure begins when less than {LOW} % are left");
        Finding::trouble(KIND, reason, "HostTasksSufficient", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::condition::Status;

    #[test]
    fn the_kernels_text_is_read() {
        assert_eq!(running("0.20 0.18 0.12 2/811 12345\n"), Some(811));
        assert_eq!(running(""), None);
    }

    #[test]
    fn tasks_run_out() {
        let mut left = Left::default();
        let statuses =
            [900, 901, 880, 870].map(|running| left.judge(&Ok(Tasks { running, limit: 1000 })).status);
        assert_eq!(statuses, [Status::False, Status::True, Status::True, Status::False]);
    }
}
