//! One followed file.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use memchr::memchr_iter;
use rustix::fs::{Stat, fstat};

use super::context::Context;
use crate::{
    discover::{Age, Candidate, Order},
    identity::{self, FileId},
    multiline::PAUSE,
    position::{Ledger, Owed, Reached},
    read::{self, Reader, Window},
    split,
};

/// So many bytes before the place where reading goes on are compared with those
/// that were read there, to see that the file still is the one it was.
const SEAM: u64 = 64;

/// What is the same file under any name, as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode {
    pub(super) device: u64,
    pub(super) number: u64,
}

impl Inode {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, number: stat.st_ino }
    }
}

/// A file that is open. As long as it is, its inode number belongs to no other,
/// so a rename shows as the same inode under another name.
#[derive(Debug)]
pub(super) struct Tracked {
    /// Its name when it was last listed.
    pub(super) name: String,
    pub(super) order: Order,
    pub(super) packed: bool,
    /// False once no listing shows it any more.
    pub(super) listed: bool,
    pub(super) file: File,
    pub(super) inode: Inode,
    /// `None` until its first line is complete.
    pub(super) id: Option<FileId>,
    pub(super) ledger: Ledger,
    /// It was there before the engine and has no position: where to begin is
    /// decided when it is known what is wanted of it.
    pub(super) is_from_before: bool,
    /// Records that the policy left out since the last chunk.
    pub(super) left_out: u64,
    /// From there to where it was read, all of it was sent.
    pub(super) whole: Option<u64>,
    /// What decides about its next records.
    pub(super) context: Context,
    /// The end of a record that is waited for.
    pub(super) unfinished: Option<Unfinished>,
    /// Bytes in the file, unpacked.
    size: u64,
    /// When it was last written to, as its file system says.
    modified: (i64, i64),
    /// Hash of the last [`SEAM`] bytes that were read.
    seam: Option<u64>,
    /// When it last had another size or name.
    pub(super) changed: Instant,
    /// No name leads to it any more.
    removed: bool,
    /// Why nothing more of it is read.
    pub(super) damage: Option<String>,
    /// It was emptied and begun again: the identity it had until then.
    emptied: Option<FileId>,
}

/// A record that begins at `offset` had no end yet in a file of `size` bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) since: Instant,
    /// What it was waited for with.
    pub(super) patience: split::Unfinished,
}

/// What can't be read any more of a file that was emptied.
#[derive(Debug)]
pub(super) struct Former {
    /// Bytes that were there when it was last looked at, and were not read.
    pub(super) unread: u64,
    /// What was read.
    pub(super) ledger: Ledger,
}

impl Tracked {
    pub(super) fn new(candidate: Candidate, (file, stat): (File, Stat), now: Instant) -> io::Result<Self> {
        let size = if candidate.packed { read::unpacked_size(&file)? } else { stat.st_size as u64 };
        let (modified, at) = (modified(&stat), SystemTime::now());
        // What was written long before needs no waiting for what follows it.
        let quiet = at.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(since_1970(modified));
        Ok(Self {
            name: candidate.name,
            order: candidate.order,
            packed: candidate.packed,
            listed: true,
            inode: Inode::of(&stat),
            file,
            id: None,
            ledger: Ledger::default(),
            is_from_before: false,
            left_out: 0,
            whole: None,
            context: Context::default(),
            unfinished: None,
            size,
            modified,
            seam: None,
            changed: now.checked_sub(quiet).unwrap_or(now),
            removed: false,
            damage: None,
            emptied: None,
        })
    }

    /// Looks at the size. Returns what is lost if the file was emptied since.
    pub(super) fn measure(&mut self, now: Instant) -> Option<Former> {
        // It is asked for all files all the time: `statx` takes half as long again.
        let stat = fstat(&self.file).ok()?;
        self.removed = stat.st_nlink == 0;
        let (size, modified) = (stat.st_size as u64, modified(&stat));
        if self.packed || (size, modified) == (self.size, self.modified) {
            return None;
        }
        self.modified = modified;
        let before = std::mem::replace(&mut self.size, size);
        self.changed = now;
        if self.size >= self.ledger.read() && self.is_same() {
            let cut = before.saturating_sub(self.size);
            return (cut > 0).then(|| Former { unread: cut, ledger: Ledger::default() });
        }
        let size = std::mem::replace(&mut self.size, before);
        let former = self.begin_again();
        self.size = size;
        Some(former)
    }

    /// Whether the file still is the one that was read. A file may have been
    /// emptied and have grown past that place since, which its size does not show,
    /// and lines of one length may end alike at one place.
    fn is_same(&self) -> bool {
        let at = self.ledger.read();
        let lead = at.min(SEAM);
        let mut bytes = [0; SEAM as usize];
        let bytes = &mut bytes[..lead as usize];
        let is_seam =
            |seam| self.file.read_exact_at(bytes, at - lead).is_ok() && identity::hash(bytes) == seam;
        self.seam.filter(|_| lead > 0).is_none_or(is_seam) && self.begins_as_before()
    }

    /// Whether its head is that of its identity.
    fn begins_as_before(&self) -> bool {
        let Some(id) = self.id else { return true };
        identity::head_of(&self.file, true).is_ok_and(|head| head == Some(id.head))
    }

    /// How many bytes before the place to read on are to be read again, for
    /// [`Self::joins`].
    pub(super) fn lead(&self) -> u64 {
        if self.packed { 0 } else { self.ledger.read().min(SEAM) }
    }

    /// Whether what is there now goes on from what was read: `lead` is what lies
    /// before the place to read on.
    pub(super) fn joins(&self, lead: &[u8]) -> bool {
        if self.packed || self.ledger.read() == 0 {
            return true;
        }
        match self.seam {
            Some(seam) => identity::hash(lead) == seam,
            None => self.begins_as_before(),
        }
    }

    /// The bytes up to the place to read on end with `bytes`.
    pub(super) fn keep_seam(&mut self, bytes: &[u8]) {
        self.seam = Some(identity::hash(&bytes[bytes.len().saturating_sub(SEAM as usize)..]));
    }

    /// The file's bytes are not those that were read: it is another one now.
    pub(super) fn begin_again(&mut self) -> Former {
        let unread = self.unread();
        self.emptied = self.id.take().or(self.emptied);
        self.left_out = 0;
        self.whole = None;
        self.context = Context::default();
        self.unfinished = None;
        self.seam = None;
        Former { unread, ledger: std::mem::take(&mut self.ledger) }
    }

    /// Gives a file that was emptied an identity of its own. True if it has one.
    pub(super) fn is_new_generation(&mut self, head: u64) -> bool {
        let Some(before) = self.emptied else { return false };
        let generation = if before.head == head { before.generation + 1 } else { 0 };
        self.id = Some(FileId { head, inode: self.inode.number, generation });
        true
    }

    /// The hash of its first line, if that is complete or `over`.
    pub(super) fn head(&self, reader: &mut Reader, over: bool) -> io::Result<Option<u64>> {
        if self.packed {
            let window = reader.packed(&self.file, 0, identity::HEAD)?;
            return Ok(identity::head(window.bytes, window.at_end));
        }
        identity::head_of(&self.file, over)
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the disk that it takes.
    pub(super) fn room(&self) -> u64 {
        if self.packed { self.file.metadata().map_or(0, |metadata| metadata.len()) } else { self.size }
    }

    /// Reading begins at `offset`.
    pub(super) fn begin_at(&mut self, offset: u64) {
        self.ledger = Ledger::starting_at(offset);
    }

    /// A packed file was read up to `end`, and `is_over` then or not, whatever
    /// size it names.
    pub(super) fn found(&mut self, end: u64, is_over: bool) {
        self.size = if is_over { end } else { self.size.max(end + 1) };
    }

    pub(super) fn unread(&self) -> u64 {
        self.size.saturating_sub(self.ledger.read())
    }

    pub(super) fn is_unread(&self) -> bool {
        self.id.is_some() && self.unread() > 0
    }

    /// Takes room on the disk only because it is open.
    pub(super) fn is_pinned(&self) -> bool {
        self.removed && !self.listed
    }

    /// No name leads to it now: once it is closed, another file may get its
    /// inode number.
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// At most `want` bytes of it from `offset` on, unpacked.
    pub(super) fn window<'a>(
        &self,
        reader: &'a mut Reader,
        offset: u64,
        want: usize,
    ) -> io::Result<Window<'a>> {
        match self.packed {
            true => reader.packed(&self.file, offset, want),
            false => reader.plain(&self.file, offset, want),
        }
    }

    /// It has another name now.
    pub(super) fn rename(&mut self, candidate: Candidate, now: Instant) {
        if self.order != candidate.order {
            self.changed = now;
        }
        (self.name, self.order, self.listed) = (candidate.name, candidate.order, true);
    }

    /// Whether `next`, which follows it in its series, goes on where it ends.
    pub(super) fn goes_on_in(&self, next: &Self) -> bool {
        self.order.instance == next.order.instance
    }

    /// Whether something may still be written to it, or its last record still be ended, though there is a newer file.
    pub(super) fn is_settling(&self, now: Instant) -> bool {
        let is_waited_for = self.is_unread() && self.unfinished.is_some();
        is_waited_for || (self.order.age != Age::Live && !self.packed && self.quiet(now) < PAUSE)
    }

    /// The lines that were not read, unless they are in more bytes than anybody should wait for.
    pub(super) fn count_unread_lines(&self, reader: &mut Reader) -> Option<u64> {
        let (mut at, mut lines) = (self.ledger.read(), 0);
        for _ in 0..=super::PINNED_BYTES / read::READ as u64 {
            let window = self.window(reader, at, read::READ).ok()?;
            lines += memchr_iter(b'\n', window.bytes).count() as u64;
            at += window.bytes.len() as u64;
            if window.at_end {
                reader.close_packed();
                return Some(lines);
            }
        }
        None
    }

    /// Nothing more of it is read, and why; returns the bytes that are lost by that.
    pub(super) fn give_up(&mut self, damage: String) -> u64 {
        self.damage = Some(damage);
        let lost = self.unread();
        self.ledger.skip(Reached { settled: self.size, read: self.size, owed: Owed::default() });
        self.context = Context::default();
        lost
    }

    /// Its identity, or if it was emptied and has none yet, the one until then.
    pub(super) fn last_id(&self) -> Option<FileId> {
        self.id.or(self.emptied)
    }

    /// Read and delivered to its end.
    pub(super) fn is_done(&self) -> bool {
        self.ledger.in_flight() == 0 && self.ledger.read() >= self.size
    }

    /// The offset at which a new start begins to read. A file that was rotated away has
    /// come to its end: it need not be unpacked for what might have been sent of it.
    pub(super) fn position(&self) -> u64 {
        let is_over = self.order.age != Age::Live && self.is_done();
        if is_over { self.ledger.read() } else { self.ledger.acked() }
    }

    /// How long nothing was appended.
    pub(super) fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.changed)
    }

    /// Goes back to what was acknowledged.
    pub(super) fn rewind(&mut self) {
        self.context = Context::owing(self.ledger.rewind());
        self.left_out = 0;
        self.unfinished = None;
        self.seam = None;
    }
}

fn modified(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

fn since_1970((seconds, nanos): (i64, i64)) -> Duration {
    let seconds = Duration::from_secs(seconds.try_into().unwrap_or_default());
    seconds.saturating_add(Duration::from_nanos(nanos.try_into().unwrap_or_default()))
}
