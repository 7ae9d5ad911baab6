//! Memory that can still be had.

use std::path::Path;

use super::{
    condition::{Edge, Finding, bytes},
    sample::{Seen, text},
};

/// Available memory below this is pressure: the kubelet's own default for
/// evicting pods (`memory.available<100Mi`).
const LOW: u64 = 100 << 20;

/// What `/proc/meminfo` calls `MemAvailable`, in bytes.
pub(super) fn available(proc: &Path) -> Seen<u64> {
    let path = proc.join("meminfo");
    parse(&text(&path)?).ok_or_else(|| format!("{} has no MemAvailable", path.display()))
}

fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether there is too little of it.
#[derive(Debug, Default)]
pub(super) struct Memory(Edge);

impl Memory {
    pub(super) fn judge(&mut self, available: &Seen<u64>) -> Finding {
        const KIND: &str = "kestrel.ai/MemoryPressure";
        let available = match available {
            Ok(available) => *available,
            Err(why) => return Finding::unseen(KIND, why),
        };
        let reason = self.0.is_under(available, LOW).then_some("HostMemoryLow");
        let (available, low) = (bytes(available), bytes(LOW));
        let message = format!("{available} of memory can be had, pressure begins below {low}");
        Finding::trouble(KIND, reason, "HostMemorySufficient", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        assert_eq!(parse("MemTotal: 9 kB\nMemAvailable:   20971520 kB\n"), Some(20 << 30));
        assert_eq!(parse("MemTotal: 9 kB\n"), None);
    }
}
