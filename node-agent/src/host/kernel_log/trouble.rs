//! Which lines of the kernel's log say that something does not work.

use std::time::Duration;

/// A kind of trouble.
pub(super) struct Trouble {
    /// The type of its condition.
    pub(super) kind: &'static str,
    /// Its reason.
    pub(super) word: &'static str,
    /// It is over when the kernel has not named it for so long.
    pub(super) quiet: Duration,
    /// Completes "the log says nothing of …".
    pub(super) name: &'static str,
    /// What it means.
    pub(super) advice: &'static str,
}

/// All of them. The kernel repeats a hung task after two minutes and a lockup after twenty seconds. That a
/// file system is read-only it says once, and that it is no more not always: a day later somebody has seen to
/// it.
pub(super) const TROUBLES: [Trouble; 5] = [
    Trouble {
        kind: "kestrel.ai/TaskHung",
        word: "TaskHung",
        quiet: Duration::from_mins(5),
        name: "tasks that hang",
        advice: "a task waits for a disk, a network file system or a driver that does not answer, and cannot even be killed",
    },
    Trouble {
        kind: "kestrel.ai/CPULockedUp",
        word: "SoftLockup",
        quiet: Duration::from_mins(2),
        name: "processors that are locked up",
        advice: "a processor does nothing but one kernel task: a driver's fault, or a virtual machine that gets no time",
    },
    Trouble {
        kind: "kestrel.ai/FileSystemError",
        word: "FileSystemError",
        quiet: Duration::from_mins(15),
        name: "errors of file systems and disks",
        advice: "a disk or what is on it is damaged: drain the node, then check the file system",
    },
    Trouble {
        kind: READ_ONLY,
        word: "FileSystemReadOnly",
        quiet: Duration::from_hours(24),
        name: "file systems that became read-only",
        advice: "after an error the kernel lets nothing be written any more: drain the node, check the file system, mount it again",
    },
    Trouble {
        kind: "kestrel.ai/ConntrackFull",
        word: "ConntrackFull",
        quiet: Duration::from_mins(2),
        name: "a full table of connections",
        advice: "new connections are dropped: raise net.netfilter.nf_conntrack_max",
    },
];

const READ_ONLY: &str = "kestrel.ai/FileSystemReadOnly";

/// What a line says of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<'a> {
    /// It is there, of this device if it is of one.
    Is(&'a str),
    /// It is over.
    Over(&'a str),
}

/// Which of [`TROUBLES`] a line is about, and what it says.
///
/// The texts are those of the kernel's sources, of 4.18 to 6.18: `kernel/hung_task.c`, `kernel/watchdog.c`,
/// `block/blk-core.c`, `fs/jbd2/journal.c`, `fs/ext4/super.c`, `fs/xfs/xfs_fsops.c` and `xfs_mount.c`,
/// `fs/btrfs/messages.c`, `fs/buffer.c`, `net/netfilter/nf_conntrack_core.c`.
pub(super) fn of(text: &str) -> Option<(usize, Turn<'_>)> {
    const FILE_SYSTEMS: [&str; 6] = ["EXT4-fs ", "EXT3-fs ", "EXT2-fs ", "XFS ", "BTRFS ", "BTRFS: "];
    if text.starts_with("INFO: task ") && text.contains(" blocked ") && text.contains(" for more than ") {
        return Some((0, Turn::Is("")));
    }
    if text.contains("BUG: soft lockup - CPU#") {
        return Some((1, Turn::Is("")));
    }
    if text.contains("nf_conntrack: table full") {
        return Some((4, Turn::Is("")));
    }
    if let Some(device) = text.strip_prefix("Buffer I/O error on dev") {
        // "on device sda1, logical block 5" before 4.13, then "on dev sda1, logical block 5, async page read".
        let device = device.trim_start_matches("ice").split([',', ' ']).find(|word| !word.is_empty());
        return Some((2, Turn::Is(device?)));
    }
    // Of the block layer, before 5.12 with `blk_update_request: ` or `print_req_error: ` before it: "I/O
    // error, dev sda, sector 5", "critical medium error, dev sda, sector 5".
    if let Some((error, rest)) = text.split_once(" error, dev ")
        && (error.ends_with("I/O") || error.ends_with("critical medium"))
    {
        return Some((2, Turn::Is(rest.split([',', ' ']).next()?)));
    }
    if let Some((_, device)) = text.split_once("Aborting journal on device ") {
        return Some((2, Turn::Is(device.rsplit_once('-')?.0)));
    }
    if !FILE_SYSTEMS.iter().any(|start| text.starts_with(start)) {
        return None;
    }
    let (head, said) = text.split_once('(')?;
    let (device, said) = said.split_once(')')?;
    let device = device.trim_start_matches("device ").split_whitespace().next()?.trim_end_matches(':');
    let is = |part: &str| said.contains(part);
    if is("Remounting filesystem read-only") || is("forced readonly") {
        return Some((3, Turn::Is(device)));
    }
    // XFS has no read-only state: after an error nothing works on it.
    if text.starts_with("XFS ") && (is("Filesystem has been shut down") || is("Shutting down filesystem")) {
        return Some((3, Turn::Is(device)));
    }
    // Only newer kernels say how: "re-mounted UUID ro." and "r/w."; to others it is at least somebody's
    // doing.
    let is_writable = is("re-mounted") && !is(" ro.")
        || is(" mounted filesystem")
        || is("first mount of filesystem")
        || is("Ending clean mount")
        || is("Ending recovery");
    if is_writable
        || is("unmounting filesystem")
        || is("Unmounting Filesystem")
        || is("last unmount of filesystem")
    {
        return Some((3, Turn::Over(device)));
    }
    let is_error = head.contains("error") || head.contains("critical");
    let is_damage = ["I/O error", "I/O Error", "Corruption ", "corruption detected", "Internal error"]
        .iter()
        .any(|it| is(it));
    (is_error || is_damage).then_some((2, Turn::Is(device)))
}
