//! One look at the host.

use std::{fs, path::Path};

/// What was seen; `None` where it could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Bytes of memory that programs can get without swapping.
    pub memory_available: Option<u64>,
    /// The file system that holds the container logs.
    pub disk: Option<Disk>,
    /// Tasks of all processes.
    pub tasks: Option<Tasks>,
    /// The container runtime's name and version, or why it did not answer;
    /// `None` if it is not asked.
    pub runtime: Option<Result<String, String>>,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that unprivileged users can still use.
    pub available: u64,
    /// Bytes in all.
    pub size: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
    /// Inodes in all; 0 on file systems that make them as needed.
    pub inodes: u64,
}

/// Tasks and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// Threads of all processes.
    pub running: u64,
    /// The lower of the kernel's limits of threads and of process ids.
    pub limit: u64,
}

impl Sample {
    /// Reads `/proc`, which shows the whole host in a container too, and asks
    /// for the file system of `logs`.
    pub fn of_host(logs: &Path) -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = [number("/proc/sys/kernel/threads-max"), number("/proc/sys/kernel/pid_max")];
        Self {
            memory_available: fs::read_to_string("/proc/meminfo")
                .ok()
                .and_then(|text| memory_available(&text)),
            disk: rustix::fs::statvfs(logs).ok().map(|fs| Disk {
                available: fs.f_bavail.saturating_mul(fs.f_frsize),
                size: fs.f_blocks.saturating_mul(fs.f_frsize),
                inodes_free: fs.f_ffree,
                inodes: fs.f_files,
            }),
            tasks: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| running_tasks(&text))
                .zip(limit.into_iter().flatten().min())
                .map(|(running, limit)| Tasks { running, limit }),
            runtime: None,
        }
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn memory_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The number after the slash in the fourth field of `/proc/loadavg`.
fn running_tasks(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(memory_available("MemTotal: 9 kB\nMemAvailable:   20971520 kB\n"), Some(20 << 30));
        assert_eq!(memory_available("MemTotal: 9 kB\n"), None);
        assert_eq!(running_tasks("0.20 0.18 0.12 2/811 12345\n"), Some(811));
        assert_eq!(running_tasks(""), None);
    }

    #[test]
    fn this_host_can_be_read() {
        let sample = Sample::of_host(Path::new("/"));
        assert!(sample.memory_available.is_some_and(|bytes| bytes > 0));
        assert!(sample.disk.is_some_and(|disk| disk.size >= disk.available));
        assert!(sample.tasks.is_some_and(|tasks| tasks.running > 0 && tasks.limit > tasks.running));
        assert!(Sample::of_host(Path::new("/does/not/exist")).disk.is_none());
    }
}
