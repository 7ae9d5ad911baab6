//! One followed file.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use super::context::Context;
use crate::{
    discover::{Age, Candidate, Order},
    identity::{self, FileId},
    position::{Ledger, Owed, Reached},
    read::{self, Reader},
    split,
};

/// What is the same file under any name, as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    pub(super) number: u64,
}

impl Inode {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
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
    /// Records that the policy left out since the last chunk.
    pub(super) left_out: u64,
    /// What decides about its next records.
    pub(super) context: Context,
    /// The end of a record that is waited for.
    pub(super) unfinished: Option<Unfinished>,
    /// Bytes in the file, unpacked.
    size: u64,
    /// When it last had another size.
    pub(super) changed: Instant,
    /// No name leads to it any more.
    removed: bool,
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

impl Tracked {
    pub(super) fn open(candidate: Candidate, file: File, now: Instant) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let size = if candidate.packed { read::unpacked_size(&file)? } else { metadata.len() };
        Ok(Self {
            name: candidate.name,
            order: candidate.order,
            packed: candidate.packed,
            listed: true,
            inode: Inode::of(&metadata),
            file,
            id: None,
            ledger: Ledger::default(),
            left_out: 0,
            context: Context::default(),
            unfinished: None,
            size,
            changed: now,
            removed: false,
            emptied: None,
        })
    }

    /// Looks at the size. A file that is shorter than what was read of it was
    /// emptied and begun again; returns the bytes that were lost by that.
    pub(super) fn measure(&mut self, now: Instant) -> u64 {
        let Ok(metadata) = self.file.metadata() else { return 0 };
        self.removed = metadata.nlink() == 0;
        if self.packed || metadata.len() == self.size {
            return 0;
        }
        let before = std::mem::replace(&mut self.size, metadata.len());
        self.changed = now;
        if self.size >= self.ledger.read() {
            return 0;
        }
        let lost = before.saturating_sub(self.ledger.read());
        self.begin_again();
        lost
    }

    /// The file's bytes are not those that were read: it is another one now.
    pub(super) fn begin_again(&mut self) {
        self.emptied = self.id.take().or(self.emptied);
        self.ledger = Ledger::default();
        self.left_out = 0;
        self.context = Context::default();
        self.unfinished = None;
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

    /// A packed file turned out to hold this many bytes.
    pub(super) fn set_size(&mut self, size: u64) {
        self.size = size;
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

    /// Nothing more of it is read; returns the bytes that are lost by that.
    pub(super) fn give_up(&mut self) -> u64 {
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
    }
}
