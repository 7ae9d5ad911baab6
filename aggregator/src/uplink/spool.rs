//! What waits on disk while the cloud is away, so that it outlives this process.

pub(crate) mod log;
mod record;
mod segment;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use log::Log;

/// Files in a full spool, give or take those that age closed.
const MOST_SEGMENTS: u64 = 256;

/// Where the spool is and how much it may hold.
#[derive(Clone, Debug)]
pub struct Spool {
    /// Its folder; nothing else is in it.
    pub folder: PathBuf,
    /// Bytes of all lanes together.
    pub bytes: u64,
    /// What waited for longer is dropped, give or take an hour.
    pub age: Duration,
}

impl Spool {
    /// The lane's part; all parts share `room`.
    ///
    /// # Errors
    /// The folder can't be made or read.
    pub(crate) fn open(&self, lane: &str, room: &Arc<Room>) -> io::Result<Log> {
        Log::open(self.folder.join(lane), Arc::clone(room))
    }

    /// Bytes that may be written.
    pub(crate) fn room(&self) -> Arc<Room> {
        Arc::new(Room { used: AtomicU64::new(0), budget: self.bytes })
    }
}

/// The bytes that all lanes share.
#[derive(Debug)]
pub(crate) struct Room {
    used: AtomicU64,
    budget: u64,
}

impl Room {
    fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.budget);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// Takes what is there already, even over the budget.
    fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// A file is closed at this size. Every file is open, so a large spool has
    /// larger files rather than more.
    fn segment_bytes(&self) -> u64 {
        (self.budget / MOST_SEGMENTS).max(1024 * 1024)
    }

    /// Whether an empty spool has room for this.
    pub(crate) fn could_hold(&self, bytes: usize) -> bool {
        bytes as u64 + record::HEAD_BYTES as u64 <= self.budget
    }
}
