//! The part of the spool that belongs to one lane: files of 1 MiB or a 256th of
//! the spool with records in their order, each deleted when its last record is
//! removed.
//!
//! A record is removed by overwriting one byte, so a removal is whole or did not
//! happen, whenever the process dies. Nothing but counts is kept in memory of
//! what has not been read yet.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use super::{
    Room,
    record::{self, Head},
    segment::Segment,
};
use crate::uplink::queue::Number;

/// After an error the disk is left alone for this time.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// More numbers than a file can have.
const MOST_NUMBERS: Number = 1 << 32;

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
    /// The disk fails from now on.
    Failed(io::Error),
    /// The disk failed before, and is left alone or failed again.
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
    /// The greatest number that a file may have that could not be read.
    unread_until: Option<Number>,
    /// The newest segment takes more.
    is_open: bool,
    room: Arc<Room>,
    failed: Option<Timestamp>,
    corrupt: u64,
}

impl Log {
    /// Opens what an earlier process left in `folder`, or begins it. Records
    /// that are damaged are left out; see [`Log::corrupt`]. A file that can't be read is
    /// left for the next start.
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
        let (segments, unread_until) = (VecDeque::new(), None);
        let mut log = Self { folder, segments, unread_until, is_open: false, room, failed: None, corrupt: 0 };
        for path in paths {
            match Segment::recover(&path) {
                Ok((segment, corrupt)) => {
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
                Err(error) => log.leave(&path, &error),
            }
        }
        Ok(log)
    }

    /// Perhaps the next process can read it: neither its numbers nor its bytes may
    /// be used for anything else.
    fn leave(&mut self, path: &Path, error: &io::Error) {
        warn!(
            "{} can't be read, and what waits there is not sent before a restart that can read it: {error}",
            path.display()
        );
        let first = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Number>().ok());
        self.unread_until = first.and_then(|first| first.checked_add(MOST_NUMBERS));
        self.room.add(fs::metadata(path).map_or(0, |metadata| metadata.len()));
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
        match self.write(number, now, &record) {
            Ok(()) => {
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                self.room.give_back(bytes);
                self.is_open = false;
                let is_news = self.failed.replace(now).is_none();
                Err(if is_news { Refused::Failed(error) } else { Refused::Paused })
            }
        }
    }

    fn write(&mut self, number: Number, now: Timestamp, record: &[u8]) -> io::Result<()> {
        let full = self.room.segment_bytes();
        if let Some(segment) =
            self.segments.back_mut().filter(|segment| self.is_open && segment.goes_on(full, now))
        {
            return segment.append(number, now, record);
        }
        let mut segment = Segment::create(&self.folder, number, now)?;
        if let Err(error) = segment.append(number, now, record) {
            segment.delete();
            return Err(error);
        }
        self.segments.push_back(segment);
        self.is_open = true;
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
        segment.remove(place.offset);
        if segment.live == 0 {
            self.delete(index);
        }
    }

    /// Removes the oldest record that was not read.
    pub(crate) fn skip(&mut self) {
        let Some((index, head)) = self.next_head() else { return };
        let segment = &mut self.segments[index];
        let place = Place { segment: segment.first, offset: segment.read };
        segment.pass(&head);
        self.remove(place);
    }

    /// Removes what was not read and came at `since` or later, but before `before`.
    pub(crate) fn forget(&mut self, since: Timestamp, before: Timestamp) {
        for index in (0..self.segments.len()).rev() {
            let segment = &mut self.segments[index];
            segment.forget(since, before);
            if segment.live == 0 {
                self.delete(index);
            }
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

    /// Records that were not removed.
    pub(crate) fn live(&self) -> u64 {
        self.segments.iter().map(|segment| segment.live).sum()
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// No record has a greater number.
    pub(crate) fn last(&self) -> Option<Number> {
        self.segments.back().map(|segment| segment.last).max(self.unread_until)
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
                    self.corrupt += segment.give_up();
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
        segment.delete();
    }
}

#[cfg(test)]
mod tests;
