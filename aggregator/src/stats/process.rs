//! What the kernel says of this process and of its container's limits: texts
//! of `/proc` and of the control groups' files, in both of their versions.

use std::{fs, path::Path, time::Duration};

/// What the kernel counts in `/proc/self/stat`, on every architecture we build for.
const TICKS_PER_SECOND: u64 = 100;
/// Version 1 says "no limit" with the largest multiple of a page.
const NO_LIMIT: u64 = 1 << 60;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// All that is in RAM.
    pub resident: u64,
    /// Of that, what no file is behind: heap and stacks.
    pub anonymous: u64,
    /// What the kernel has promised for heap and stacks.
    pub data: u64,
}

/// What a container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Billionths of a core.
    pub nano_cores: Option<u64>,
}

impl Memory {
    /// From `/proc/self/status`.
    pub(super) fn parse(status: &str) -> Self {
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        let bytes = |name| kilobytes(name).unwrap_or_default().saturating_mul(1024);
        Self { resident: bytes("VmRSS"), anonymous: bytes("RssAnon"), data: bytes("VmData") }
    }
}

/// The CPU time that a process has used, from `/proc/self/stat`.
pub(super) fn cpu_time(stat: &str) -> Option<Duration> {
    // The name before it may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let [user, system] = [fields.next()?, fields.next()?].map(|ticks| ticks.parse::<u64>());
    let ticks = user.ok()?.checked_add(system.ok()?)?;
    Some(Duration::from_millis(ticks.checked_mul(1000 / TICKS_PER_SECOND)?))
}

impl Limits {
    /// Of the container whose control group is mounted at `root`.
    pub(super) fn read(root: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(root.join(name)).ok();
        let memory = text("memory.max").or_else(|| text("memory/memory.limit_in_bytes"));
        let cpu = text("cpu.max").or_else(|| {
            Some(format!("{} {}", text("cpu/cpu.cfs_quota_us")?.trim(), text("cpu/cpu.cfs_period_us")?))
        });
        Self {
            memory: memory.and_then(|text| bytes(&text)),
            nano_cores: cpu.and_then(|text| nano_cores(&text)),
        }
    }
}

/// A limit of memory; `max` is none.
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

/// Quota and period; `max` and `-1` are no quota.
fn nano_cores(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let quota: u64 = quota.parse().ok()?;
    quota.checked_mul(1_000_000_000)?.checked_div(period.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 5 0 100 1 1";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        let status = "Name:\ta\nVmData:\t  3072 kB\nVmRSS:\t    2048 kB\nRssAnon:\t 1024 kB\n";
        let expected = Memory { resident: 2 << 20, anonymous: 1 << 20, data: 3 << 20 };
        assert_eq!(Memory::parse(status), expected);
        assert_eq!(Memory::parse("VmRSS: lots"), Memory::default());
    }

    #[test]
    fn this_process_is_there() {
        let read = |name| fs::read_to_string(Path::new("/proc/self").join(name)).unwrap();
        let memory = Memory::parse(&read("status"));
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0, "{memory:?}");
        assert!(cpu_time(&read("stat")).is_some());
    }

    #[test]
    fn limits_are_those_of_either_version() {
        let limits = |files: &[(&str, &str)]| {
            let root = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let file = root.path().join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            let Limits { memory, nano_cores } = Limits::read(root.path());
            (memory, nano_cores)
        };
        assert_eq!(limits(&[]), (None, None));
        let second = [("memory.max", "805306368\n"), ("cpu.max", "50000 100000\n")];
        assert_eq!(limits(&second), (Some(768 << 20), Some(500_000_000)));
        assert_eq!(limits(&[("memory.max", "max\n"), ("cpu.max", "max 100000\n")]), (None, None));
        let first = [
            ("memory/memory.limit_in_bytes", "1048576\n"),
            ("cpu/cpu.cfs_quota_us", "200000\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits(&first), (Some(1 << 20), Some(2_000_000_000)));
        let unlimited = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits(&unlimited), (None, None));
        assert_eq!(limits(&[("cpu.max", "1 0")]), (None, None));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[\\PC\\n]{0,80}", numbers in "[0-9 )]{0,120}") {
            Memory::parse(&text);
            for text in [text, numbers] {
                cpu_time(&text);
                nano_cores(&text);
                bytes(&text);
            }
        }
    }
}
