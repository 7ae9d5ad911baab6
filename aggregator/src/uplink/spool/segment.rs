//! One file of the spool.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::record::{self, HEAD_BYTES, Head};
use crate::uplink::queue::Number;

/// Records in their order, and how far they were read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: Number,
    pub(super) last: Number,
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    pub(super) length: u64,
    /// Bytes of records that were read.
    pub(super) read: u64,
    /// Records that were not removed …
    pub(super) live: u64,
    /// … and of these the ones that were not read, and their payload's bytes.
    pub(super) unread: u64,
    pub(super) unread_bytes: u64,
    oldest: Timestamp,
    pub(super) newest: Timestamp,
}

/// A file is closed at this age, because age limits what is kept by whole files.
const OLD: SignedDuration = SignedDuration::from_hours(1);

impl Segment {
    /// A new file.
    ///
    /// # Errors
    /// It can't be made.
    pub(super) fn create(folder: &Path, first: Number, now: Timestamp) -> io::Result<Self> {
        let path = folder.join(format!("{first:020}.log"));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Self {
            first,
            last: first,
            path,
            file,
            length: 0,
            read: 0,
            live: 0,
            unread: 0,
            unread_bytes: 0,
            oldest: now,
            newest: now,
        })
    }

    /// What an earlier process left, if anything is to be sent of it, and how
    /// much was damaged. A record that was not written to its end is not counted:
    /// nobody was told that it was kept.
    ///
    /// # Errors
    /// The file can't be read or cut.
    pub(super) fn recover(path: &Path) -> io::Result<(Option<Self>, u64)> {
        let content = fs::read(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let (mut segment, mut corrupt, mut offset) = (None::<Self>, 0, 0);
        while let Some(bytes) = content.get(offset..offset + HEAD_BYTES) {
            let Some(head) = record::head(bytes) else {
                corrupt += 1;
                break;
            };
            let begin = offset + HEAD_BYTES;
            let Some(payload) = content.get(begin..begin + head.length as usize) else { break };
            let place = offset as u64;
            offset = begin + payload.len();
            let is_whole = !head.is_live || head.is_of(payload);
            if !is_whole {
                corrupt += 1;
                file.write_all_at(&[record::REMOVED], place)?;
            }
            let segment = match &mut segment {
                Some(segment) => segment,
                none => none.insert(Self {
                    first: head.number,
                    last: head.number,
                    path: path.to_owned(),
                    file: file.try_clone()?,
                    length: 0,
                    read: 0,
                    live: 0,
                    unread: 0,
                    unread_bytes: 0,
                    oldest: head.time,
                    newest: head.time,
                }),
            };
            segment.last = head.number;
            segment.newest = segment.newest.max(head.time);
            segment.length = offset as u64;
            if head.is_live && is_whole {
                segment.live += 1;
                segment.unread += 1;
                segment.unread_bytes += u64::from(head.length);
            }
        }
        let segment = segment.filter(|segment| segment.live > 0);
        if let Some(segment) = &segment {
            file.set_len(segment.length)?;
        }
        Ok((segment, corrupt))
    }

    /// Whether it takes more, if `full` bytes are enough.
    pub(super) fn goes_on(&self, full: u64, now: Timestamp) -> bool {
        self.length < full && now.duration_since(self.oldest).abs() < OLD
    }

    /// Adds a record.
    ///
    /// # Errors
    /// It was not written; the segment must take no more.
    pub(super) fn append(&mut self, number: Number, now: Timestamp, record: &[u8]) -> io::Result<()> {
        self.file.write_all_at(record, self.length).inspect_err(|_| {
            let _best_effort = self.file.set_len(self.length);
        })?;
        self.length += record.len() as u64;
        self.live += 1;
        self.unread += 1;
        self.unread_bytes += (record.len() - HEAD_BYTES) as u64;
        self.last = number;
        self.newest = self.newest.max(now);
        Ok(())
    }

    /// Marks a record as removed. Should the disk fail, it comes again after a
    /// restart.
    pub(super) fn remove(&mut self, offset: u64) {
        let _best_effort = self.file.write_all_at(&[record::REMOVED], offset);
        self.live -= 1;
    }

    /// Removes what was not read and came at `since` or later, but before `before`.
    pub(super) fn forget(&mut self, since: Timestamp, before: Timestamp) {
        if self.unread == 0 || self.newest < since {
            return;
        }
        let mut offset = self.read;
        while let Some(head) = self.head(offset)
            && head.time < before
        {
            if head.is_live && since <= head.time {
                // What can't be marked would be read after all.
                if self.file.write_all_at(&[record::REMOVED], offset).is_err() {
                    return;
                }
                self.live -= 1;
                self.unread -= 1;
                self.unread_bytes -= u64::from(head.length);
            }
            offset += head.record_bytes();
        }
    }

    /// Counts what was not read as lost; returns how much that is.
    pub(super) fn give_up(&mut self) -> u64 {
        let lost = std::mem::take(&mut self.unread);
        self.unread_bytes = 0;
        self.live -= lost;
        lost
    }

    /// Deletes the file; what can't be deleted may be as good as empty at least.
    pub(super) fn delete(self) {
        if fs::remove_file(&self.path).is_err() {
            let _best_effort = self.file.set_len(0);
        }
    }

    /// The head of the record at `offset`; `None`: there is none that can be read.
    pub(super) fn head(&self, offset: u64) -> Option<Head> {
        let mut bytes = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let head = record::head(&bytes)?;
        (offset + head.record_bytes() <= self.length).then_some(head)
    }

    /// What follows `head` at `offset`; `None`: it is damaged.
    pub(super) fn payload(&self, offset: u64, head: &Head) -> Option<Bytes> {
        let mut payload = vec![0; head.length as usize];
        self.file.read_exact_at(&mut payload, offset + HEAD_BYTES as u64).ok()?;
        head.is_of(&payload).then(|| payload.into())
    }

    /// The next record counts as read.
    pub(super) fn pass(&mut self, head: &Head) {
        self.read += head.record_bytes();
        self.unread -= 1;
        self.unread_bytes -= u64::from(head.length);
    }
}
