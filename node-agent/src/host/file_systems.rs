//! Room on file systems: bytes, and inodes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    condition::{Edge, Finding, PARTLY, bytes, percent, permille},
    sample::Seen,
};

/// Shares of the bytes and of the inodes that must be free, in percent: the kubelet's
/// defaults (`nodefs.available<10%`, `nodefs.inodesFree<5%`).
const BYTES_LOW: u64 = 10;
const INODES_LOW: u64 = 5;

/// A file system, and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// A folder on it, as the host names it.
    pub folder: String,
    /// What is left.
    pub room: Seen<Room>,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that unprivileged users can still use.
    pub available: u64,
    /// Bytes in all.
    pub size: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
    /// Inodes in all; 0 on file systems that make them as needed.
    pub inodes: u64,
}

/// Of the file system of the logs, and of others by their folders.
pub(super) fn rooms(logs: &Path, others: &[(String, PathBuf)]) -> Vec<FileSystem> {
    let logs = (logs.display().to_string(), logs.to_owned());
    let all = [logs].into_iter().chain(others.iter().cloned());
    all.map(|(folder, path)| FileSystem { folder, room: room(&path) }).collect()
}

fn room(path: &Path) -> Seen<Room> {
    let fs = rustix::fs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Room {
        available: fs.f_bavail.saturating_mul(fs.f_frsize),
        size: fs.f_blocks.saturating_mul(fs.f_frsize),
        inodes_free: fs.f_ffree,
        inodes: fs.f_files,
    })
}

/// Which of them are nearly full.
#[derive(Debug, Default)]
pub(super) struct FileSystems {
    /// By folder: of bytes, of inodes.
    edges: BTreeMap<String, (Edge, Edge)>,
}

impl FileSystems {
    pub(super) fn judge(&mut self, all: &[FileSystem]) -> Finding {
        const KIND: &str = "kestrel.ai/DiskPressure";
        let (mut low, mut said) = (Vec::new(), Vec::new());
        for FileSystem { folder, room } in all {
            let (of_bytes, of_inodes) = self.edges.entry(folder.clone()).or_default();
            match room {
                Ok(room) => {
                    let free = permille(room.available, room.size);
                    let inodes = permille(room.inodes_free, room.inodes);
                    of_bytes.is_under(free, BYTES_LOW * 10);
                    of_inodes.is_under(inodes, INODES_LOW * 10);
                    let (available, free, inodes) = (bytes(room.available), percent(free), percent(inodes));
                    said.push(format!(
                        "{available} ({free}) of {folder} and {inodes} of its inodes are free"
                    ));
                }
                // What was low is that until it is seen to be otherwise.
                Err(why) => said.push(format!("of {folder} nothing can be seen ({why})")),
            }
            if of_bytes.is_past() {
                low.push(format!("space of {folder}"));
            }
            if of_inodes.is_past() {
                low.push(format!("inodes of {folder}"));
            }
        }
        if all.iter().all(|it| it.room.is_err()) {
            return Finding::unseen(KIND, &said.join("; "));
        }
        let well = if all.iter().any(|it| it.room.is_err()) { PARTLY } else { "DiskSufficient" };
        let said = said.join("; ");
        let message = format!("{said}; pressure begins below {BYTES_LOW} % and {INODES_LOW} %");
        let reason = (!low.is_empty()).then(|| format!("DiskLow: {}", low.join(", ")));
        Finding::trouble(KIND, reason, well, message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::condition::Status;

    fn file_system(folder: &str, available: u64, inodes_free: u64, inodes: u64) -> FileSystem {
        let room = Room { available, size: 100, inodes_free, inodes };
        FileSystem { folder: folder.to_owned(), room: Ok(room) }
    }

    #[test]
    fn each_file_system_runs_out_of_space_or_inodes() {
        let mut all = FileSystems::default();
        let mut judge = |logs: [u64; 3], data: [u64; 3]| {
            let [a, b, c] = logs;
            let [d, e, f] = data;
            all.judge(&[file_system("/logs", a, b, c), file_system("/data", d, e, f)]).reason.into_owned()
        };
        // The second has no fixed number of inodes.
        assert_eq!(judge([50, 50, 100], [10, 0, 0]), "DiskSufficient");
        assert_eq!(judge([50, 50, 100], [5, 0, 0]), "DiskLow: space of /data");
        assert_eq!(
            judge([9, 4, 100], [12, 0, 0]),
            "DiskLow: space of /logs, inodes of /logs, space of /data"
        );
        assert_eq!(judge([13, 5, 100], [13, 0, 0]), "DiskLow: inodes of /logs");
        assert_eq!(judge([13, 7, 100], [13, 0, 0]), "DiskSufficient");
    }

    #[test]
    fn what_cannot_be_seen_is_said_beside_what_can() {
        let hidden = FileSystem { folder: "/data".to_owned(), room: Err("no such folder".to_owned()) };
        let mut all = FileSystems::default();
        let finding = all.judge(&[file_system("/logs", 50, 0, 0), hidden.clone()]);
        assert_eq!(finding.status, Status::False);
        assert!(finding.message.contains("of /data nothing can be seen (no such folder)"), "{finding:?}");
        assert_eq!(all.judge(std::slice::from_ref(&hidden)).status, Status::Unknown);
        let full = file_system("/data", 5, 0, 0);
        let reason = |finding: Finding| finding.reason.into_owned();
        assert_eq!(reason(all.judge(&[file_system("/logs", 50, 0, 0), full])), "DiskLow: space of /data");
        let finding = all.judge(&[file_system("/logs", 50, 0, 0), hidden]);
        assert!(finding.message.contains("of /data nothing can be seen"), "{finding:?}");
        assert_eq!(reason(finding), "DiskLow: space of /data", "nobody has seen that it is over");
    }

    proptest! {
        /// What is clearly low is told, what is clearly not is not, and between the two nothing changes.
        #[test]
        fn between_the_marks_nothing_changes(values in prop::collection::vec(0..=100_u64, 1..50)) {
            let (mut all, mut is_low) = (FileSystems::default(), false);
            for available in values {
                is_low = available < 10 || is_low && available < 13;
                let finding = all.judge(&[file_system("/logs", available, 0, 0)]);
                prop_assert_eq!(finding.status == Status::True, is_low);
            }
        }
    }
}
