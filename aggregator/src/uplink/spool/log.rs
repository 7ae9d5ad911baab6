//! The part of the spool that belongs to one lane: files of about 1 MiB with
//! records in their order, each deleted when its last record is removed.
//!
//! A record is removed by overwriting one byte, so a removal is whole or did not
//! happen, whenever the process dies. Nothing but counts is kept in memory of
//! what has not been read yet.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    Room,
    record::{self, HEAD_BYTES, Head},
};
use crate::uplink::queue::Number;

/// A file is closed at this size …
const SEGMENT_BYTES: u64 = 1024 * 1024;
/// … or age, because age limits what is kept by whole files.
const SEGMENT_AGE: SignedDuration = SignedDuration::from_hours(1);
/// After an error the disk is left alone for this time.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment's first number.
    segment: Number,
    offset: u64,
}

/// A record as it was read.
#[derive(Debug)]
pub(crate) struct Record {
    pub number: Number,
    pub time: Timestamp,
    pub place: Place,
    pub payload: Bytes,
}

/// Why a record was not written.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The spool's budget is used up.
    Full,
    /// The disk failed.
    Failed(io::Error),
    /// The disk failed a short time ago.
    Paused,
}

/// A segment that was deleted with what it still had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evicted {
    segment: Number,
    /// Its last number.
    pub last: Number,
    /// Records that were not removed.
    pub records: u64,
}

impl Evicted {
    /// Whether the record was there.
    pub(crate) fn had(&self, place: Place) -> bool {
        place.segment == self.segment
    }
}

/// The segments of one lane.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    segments: VecDeque<Segment>,
    /// The newest segment takes more.
    is_open: bool,
    room: Arc<Room>,
    failed: Option<Timestamp>,
    corrupt: u64,
}

#[derive(Debug)]
struct Segment {
    first: Number,
    last: Number,
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
    /// Bytes of records that were read.
    read: u64,
    /// Records that were not removed …
    live: u64,
    /// … and of these the ones that were not read, and their payload's bytes.
    unread: u64,
    unread_bytes: u64,
    oldest: Timestamp,
    newest: Timestamp,
}

impl Log {
    /// Opens what an earlier process left in `folder`, or begins it. Records
    /// that are damaged are left out; see [`Log::corrupt`].
    ///
    /// # Errors
    /// The folder can't be made, listed or read.
    pub(super) fn open(folder: PathBuf, room: Arc<Room>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        let mut paths = fs::read_dir(&folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        // The names are of one length, so this is the order of the numbers.
        paths.sort();
        let mut log =
            Self { folder, segments: VecDeque::new(), is_open: false, room, failed: None, corrupt: 0 };
        for path in paths {
            // A file that can't be read is damaged as a whole.
            let (segment, corrupt) = Segment::recover(&path).unwrap_or((None, 1));
            log.corrupt += corrupt;
            match segment {
                Some(segment) => {
                    log.room.add(segment.length);
                    log.segments.push_back(segment);
                }
                None => {
                    let _best_effort = fs::remove_file(&path);
                }
            }
        }
        Ok(log)
    }

    /// Adds a record; its number is greater than all before.
    ///
    /// # Errors
    /// It was not written, and why.
    pub(crate) fn append(
        &mut self,
        number: Number,
        now: Timestamp,
        payload: [&[u8]; 2],
    ) -> Result<(), Refused> {
        if self.failed.is_some_and(|failed| now.duration_since(failed).abs() < PAUSE) {
            return Err(Refused::Paused);
        }
        let record = record::encode(number, now, payload);
        let bytes = record.len() as u64;
        if !self.room.reserve(bytes) {
            return Err(Refused::Full);
        }
        self.write(number, now, &record).map_err(|error| {
            self.room.give_back(bytes);
            self.failed = Some(now);
            self.is_open = false;
            Refused::Failed(error)
        })?;
        self.failed = None;
        Ok(())
    }

    fn write(&mut self, number: Number, now: Timestamp, record: &[u8]) -> io::Result<()> {
        let goes_on = |segment: &Segment| {
            segment.length < SEGMENT_BYTES && now.duration_since(segment.oldest).abs() < SEGMENT_AGE
        };
        if !self.is_open || !self.segments.back().is_some_and(goes_on) {
            let segment = Segment::create(&self.folder, number, now)?;
            if let Err(error) = segment.file.write_all_at(record, 0) {
                // With an error that is told already, this one adds nothing.
                let _best_effort = fs::remove_file(&segment.path);
                return Err(error);
            }
            self.segments.push_back(segment);
            self.is_open = true;
        } else if let Some(segment) = self.segments.back_mut()
            && let Err(error) = segment.file.write_all_at(record, segment.length)
        {
            let _best_effort = segment.file.set_len(segment.length);
            return Err(error);
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.length += record.len() as u64;
            segment.live += 1;
            segment.unread += 1;
            segment.unread_bytes += (record.len() - HEAD_BYTES) as u64;
            segment.last = number;
            segment.newest = segment.newest.max(now);
        }
        Ok(())
    }

    /// Number and time of the oldest record that was not read.
    pub(crate) fn peek(&mut self) -> Option<(Number, Timestamp)> {
        self.next_head().map(|(_, head)| (head.number, head.time))
    }

    /// Reads the oldest record that was not read.
    pub(crate) fn next(&mut self) -> Option<Record> {
        loop {
            let (index, head) = self.next_head()?;
            let segment = &mut self.segments[index];
            let offset = segment.read;
            let payload = segment.payload(offset, &head);
            segment.pass(&head);
            let place = Place { segment: segment.first, offset };
            if let Some(payload) = payload {
                return Some(Record { number: head.number, time: head.time, place, payload });
            }
            self.corrupt += 1;
            self.remove(place);
        }
    }

    /// Reads a record again; `None`: it can't be read.
    pub(crate) fn read(&mut self, place: Place) -> Option<Bytes> {
        let index = self.segment(place)?;
        let segment = &self.segments[index];
        let payload = segment.head(place.offset).and_then(|head| segment.payload(place.offset, &head));
        if payload.is_none() {
            self.corrupt += 1;
            self.remove(place);
        }
        payload
    }

    /// Removes a record that was read.
    pub(crate) fn remove(&mut self, place: Place) {
        let Some(index) = self.segment(place) else { return };
        let segment = &mut self.segments[index];
        // Should it fail, the record comes again after a restart.
        let _best_effort = segment.file.write_all_at(&[record::REMOVED], place.offset);
        segment.live -= 1;
        if segment.live == 0 {
            self.delete(index);
        }
    }

    /// Removes what was not read and came before `time`.
    pub(crate) fn forget(&mut self, time: Timestamp) {
        while let Some((index, head)) = self.next_head()
            && head.time < time
        {
            let segment = &mut self.segments[index];
            let place = Place { segment: segment.first, offset: segment.read };
            segment.pass(&head);
            self.remove(place);
        }
    }

    /// Deletes the oldest segment with all it has.
    pub(crate) fn evict(&mut self) -> Option<Evicted> {
        let Segment { first, last, live, .. } = *self.segments.front()?;
        self.delete(0);
        Some(Evicted { segment: first, last, records: live })
    }

    /// Deletes the oldest segment if all that is in it came before `time`.
    pub(crate) fn expire(&mut self, time: Timestamp) -> Option<Evicted> {
        if self.segments.front()?.newest < time { self.evict() } else { None }
    }

    /// Records that were not read, and the bytes of their payload.
    pub(crate) fn unread(&self) -> (u64, u64) {
        self.segments.iter().fold((0, 0), |(records, bytes), segment| {
            (records + segment.unread, bytes + segment.unread_bytes)
        })
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// The greatest number that a record has.
    pub(crate) fn last(&self) -> Option<Number> {
        self.segments.back().map(|segment| segment.last)
    }

    /// Records, or rests of segments, that were found damaged since the last call.
    pub(crate) fn corrupt(&mut self) -> u64 {
        std::mem::take(&mut self.corrupt)
    }

    /// Place in `segments`, and head, of the oldest record that was not read and
    /// not removed.
    fn next_head(&mut self) -> Option<(usize, Head)> {
        loop {
            let index = self.segments.iter().position(|segment| segment.unread > 0)?;
            let segment = &mut self.segments[index];
            match segment.head(segment.read) {
                Some(head) if head.is_live => return Some((index, head)),
                Some(head) => segment.read += head.record_bytes(),
                None => {
                    self.is_open = false;
                    self.corrupt += segment.unread;
                    segment.live -= segment.unread;
                    (segment.unread, segment.unread_bytes) = (0, 0);
                    if segment.live == 0 {
                        self.delete(index);
                    }
                }
            }
        }
    }

    fn segment(&self, place: Place) -> Option<usize> {
        self.segments.binary_search_by_key(&place.segment, |segment| segment.first).ok()
    }

    fn delete(&mut self, index: usize) {
        self.is_open &= index + 1 < self.segments.len();
        let Some(segment) = self.segments.remove(index) else { return };
        self.room.give_back(segment.length);
        // What can't be deleted may be as good as empty at least.
        if fs::remove_file(&segment.path).is_err() {
            let _best_effort = segment.file.set_len(0);
        }
    }
}

impl Segment {
    fn create(folder: &Path, first: Number, now: Timestamp) -> io::Result<Self> {
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
    fn recover(path: &Path) -> io::Result<(Option<Self>, u64)> {
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

    fn head(&self, offset: u64) -> Option<Head> {
        let mut bytes = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let head = record::head(&bytes)?;
        (offset + head.record_bytes() <= self.length).then_some(head)
    }

    fn payload(&self, offset: u64, head: &Head) -> Option<Bytes> {
        let mut payload = vec![0; head.length as usize];
        self.file.read_exact_at(&mut payload, offset + HEAD_BYTES as u64).ok()?;
        head.is_of(&payload).then(|| payload.into())
    }

    /// The next record counts as read.
    fn pass(&mut self, head: &Head) {
        self.read += head.record_bytes();
        self.unread -= 1;
        self.unread_bytes -= u64::from(head.length);
    }
}

#[cfg(test)]
mod tests;
