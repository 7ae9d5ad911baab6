//! Entries of some seconds, counted by what they have in common.
//!
//! Memory is bounded by the bytes that the caller allows and by the rows of each destination. When there is no more room for
//! an entry's own row, it is counted in one that says less: without its path, then without more than whom it was between and whether
//! it failed, then without the other end, at last only that its reporter had it. The other end goes last: without it nobody can tell
//! whether that end's proxy has counted the same requests.

use std::{collections::HashMap, hash::BuildHasher as _, ops::Range, vec};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    counts::Counts,
    entry::Entry,
    headers::Headers,
    key::{self, Key},
};

/// Rows of one destination with paths of their own, for each reporter.
const MOST_PATHS: u32 = 1000;
/// Rows of one destination beyond these, that are told apart by anything.
const MOST_DETAILS: u32 = MOST_PATHS + 256;
/// At most as many rows beyond those say whom they are between, and how it ended.
const MOST_PEERS: u32 = MOST_DETAILS + 256;
/// At most as many rows beyond those say no more than the destination and how it ended.
const MOST_ROWS: u32 = MOST_PEERS + 64;

/// Bytes of a row beside its texts. What grows by doubling is three quarters full on average, and the heap adds to what a sketch
/// takes.
const ROW: usize = full(size_of::<Row>()) + 2 * (size_of::<Place>() + 1) + 16;

/// Bytes that `used` ones take in what grows by doubling.
const fn full(used: usize) -> usize {
    used + used / 2
}

/// Destinations of one reporter that only the client's `Host` names. Whoever asks for names that he makes up has no more rows.
const MOST_HOSTS: u32 = 500;

/// How much rows may take.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Bytes in all.
    pub bytes: usize,
    /// Bytes of one reporter, as soon as half of all are taken.
    pub each: usize,
}

impl From<usize> for Room {
    /// For whichever reporter.
    fn from(bytes: usize) -> Self {
        Self { bytes, each: bytes }
    }
}

/// What one reporter takes.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    bytes: usize,
    hosts: u32,
}

/// What is left out of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fold {
    /// Nothing.
    Nothing,
    /// The path.
    Path,
    /// All but both ends, the flags and the class of the status.
    Detail,
    /// The other end too: all but the destination, the flags and the class of the status.
    Peer,
    /// All but the reporter.
    All,
}

/// Who reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// A number of its own.
    pub number: u32,
    /// Address of its pod as text; empty: unknown.
    pub address: Box<[u8]>,
}

/// What is counted of one key.
#[derive(Debug)]
struct Row {
    /// Where its key begins among all.
    begin: u32,
    length: u16,
    counts: Counts,
}

impl Row {
    /// Where its key is among all.
    #[inline]
    fn key(&self) -> Range<usize> {
        let begin = self.begin as usize;
        begin..begin + usize::from(self.length)
    }
}

/// One of several entries that are counted together.
#[derive(Debug)]
struct Sought {
    hash: u32,
    /// Where its key ends among theirs.
    end: usize,
    /// The row that is its own, as far as was looked.
    row: usize,
    /// Where that row's key is.
    known: Range<usize>,
}

/// Which row has a key with this hash.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    row: u32,
}

/// The entries of some seconds.
///
/// What rows take outgrows the processor's caches, and to wait for memory is most of what counting costs. So they are found by a
/// table of eight bytes each, and what is counted of one lies together, its key apart in one piece with all others.
#[derive(Debug, Default)]
pub struct Window {
    places: HashTable<Place>,
    hasher: RandomState,
    rows: Vec<Row>,
    keys: Vec<u8>,
    /// Rows of each destination, by a hash of what it is called.
    of_destination: HashMap<u64, u32, RandomState>,
    shares: HashMap<u32, Share, RandomState>,
    bytes: usize,
    /// Those of them that headers take.
    samples: usize,
    /// That of the last entry.
    key: Vec<u8>,
    /// Its row.
    last: usize,
    /// Entries that are counted together, and their keys.
    sought: Vec<Sought>,
    sought_keys: Vec<u8>,
}

/// What was counted, row by row.
pub type Rows<'a> = Box<dyn Iterator<Item = (Key<'a>, &'a Counts)> + 'a>;

impl Window {
    /// Counts an entry; how much of it is told apart, as far as there is `room` for rows of their own.
    pub fn add(&mut self, reporter: &Reporter, entry: &Entry<'_>, room: impl Into<Room>) -> Fold {
        let authority = if key::names_somebody(entry.cluster) { &[] } else { key::host(entry.authority) };
        self.count(
            room.into(),
            (reporter.number, entry.cluster, authority),
            |key, fold| key::write(key, reporter, entry, fold),
            |counts, has_room| counts.add(entry, has_room),
        )
    }

    /// Counts entries; how many of them are not told apart. Of the first one of a row `headers` are kept.
    ///
    /// Each step is made for all of them before the next one, so that the processor waits for all their rows at a time.
    pub(crate) fn add_all(
        &mut self,
        reporter: &Reporter,
        entries: &[Entry<'_>],
        room: impl Into<Room>,
        headers: &Headers,
    ) -> u64 {
        let room = room.into();
        let Self { places, hasher, rows, keys, sought, sought_keys, .. } = self;
        sought_keys.clear();
        sought.clear();
        sought.extend(entries.iter().map(|entry| {
            let begin = sought_keys.len();
            key::write(sought_keys, reporter, entry, Fold::Nothing);
            let hash = hasher.hash_one(sought_keys.get(begin..).unwrap_or_default()) as u32;
            Sought { hash, end: sought_keys.len(), row: usize::MAX, known: 0..0 }
        }));
        for Sought { hash, row, .. } in &mut *sought {
            *row = places
                .find(spread(*hash), |place| place.hash == *hash)
                .map_or(usize::MAX, |place| place.row as usize);
        }
        for Sought { row, known, .. } in &mut *sought {
            *known = rows.get(*row).map_or(0..0, Row::key);
        }
        let mut begin = 0;
        for Sought { end, row, known, .. } in &mut *sought {
            if keys.get(known.clone()) != sought_keys.get(begin..*end) {
                *row = usize::MAX;
            }
            begin = *end;
        }
        let mut folded = 0;
        for (at, entry) in entries.iter().enumerate() {
            let row = self.sought.get(at).and_then(|sought| self.rows.get_mut(sought.row));
            if let Some(row) = row {
                self.bytes += row.counts.add(entry, self.bytes < room.bytes);
            } else if self.add(reporter, entry, room) == Fold::Nothing {
                self.sample(entry, headers, room.bytes);
            } else {
                folded += 1;
            }
        }
        folded
    }

    /// Counts those of a row of another window; how much of them is told apart.
    pub fn merge(&mut self, key: &Key<'_>, counts: &Counts, room: impl Into<Room>) -> Fold {
        self.count(
            room.into(),
            (key.reporter, key.cluster, key.authority),
            |out, fold| key::write_again(out, key, fold),
            |into, has_room| {
                let before = into.heap();
                into.merge_within(counts, has_room);
                into.heap() - before
            },
        )
    }

    #[inline]
    fn count(
        &mut self,
        room: Room,
        destination: (u32, &[u8], &[u8]),
        write: impl Fn(&mut Vec<u8>, Fold),
        add: impl Fn(&mut Counts, bool) -> usize,
    ) -> Fold {
        let Room { bytes, each } = room;
        let (reporter, _, host) = destination;
        let mut fold = Fold::Nothing;
        let mut of_destination = None;
        loop {
            self.key.clear();
            write(&mut self.key, fold);
            let hash = self.hasher.hash_one(&*self.key) as u32;
            if let Some(row) = self.find(hash) {
                self.last = row;
                self.bytes += add(&mut self.rows[row].counts, self.bytes < bytes);
                return fold;
            }
            let destination = *of_destination.get_or_insert_with(|| self.hasher.hash_one(destination));
            let rows = self.of_destination.get(&destination).copied().unwrap_or_default();
            let share = self.shares.get(&reporter).copied().unwrap_or_default();
            let is_crowded = share.bytes >= each && self.bytes >= bytes / 2;
            let is_made_up = rows == 0 && !host.is_empty() && share.hosts >= MOST_HOSTS;
            let most = match fold {
                Fold::Nothing => MOST_PATHS,
                Fold::Path => MOST_DETAILS,
                Fold::Detail => MOST_PEERS,
                Fold::Peer => MOST_ROWS,
                Fold::All => u32::MAX,
            };
            let next = match fold {
                // A few for each reporter, of whom there are not many.
                Fold::All => None,
                _ if is_made_up => Some(Fold::All),
                _ if rows < most && self.bytes < bytes && !is_crowded => None,
                Fold::Nothing => Some(Fold::Path),
                Fold::Path => Some(Fold::Detail),
                Fold::Detail => Some(Fold::Peer),
                Fold::Peer => Some(Fold::All),
            };
            if let Some(next) = next {
                fold = next;
                continue;
            }
            let mut counts = Counts::default();
            let mut taken = ROW + full(self.key.len()) + add(&mut counts, self.bytes < bytes);
            let is_new = fold != Fold::All && self.of_destination.insert(destination, rows + 1).is_none();
            if is_new {
                taken += 32;
            }
            if !self.shares.contains_key(&reporter) {
                taken += 32;
            }
            let share = self.shares.entry(reporter).or_default();
            share.bytes += taken;
            share.hosts += u32::from(is_new && !host.is_empty());
            self.bytes += taken;
            self.insert(hash, counts);
            return fold;
        }
    }

    /// The row of the last entry's key.
    #[inline]
    fn find(&self, hash: u32) -> Option<usize> {
        let is_it = |place: &Place| {
            place.hash == hash
                && self.rows.get(place.row as usize).is_some_and(|row| self.key_of(row) == self.key)
        };
        self.places.find(spread(hash), is_it).map(|place| place.row as usize)
    }

    /// A row for the last entry's key.
    fn insert(&mut self, hash: u32, counts: Counts) {
        self.last = self.rows.len();
        // They fit: no key is longer than its texts' bounds, and what all take is bounded by far less than 4 GiB.
        let (begin, length, row) = (self.keys.len() as u32, self.key.len() as u16, self.last as u32);
        self.keys.extend_from_slice(&self.key);
        self.rows.push(Row { begin, length, counts });
        self.places.insert_unique(spread(hash), Place { hash, row }, |place| spread(place.hash));
    }

    #[inline]
    fn key_of(&self, row: &Row) -> &[u8] {
        self.keys.get(row.key()).unwrap_or_default()
    }

    /// Keeps headers of an entry that was counted just now, if it is the first of a row of its own. They may take an eighth of `bytes`.
    fn sample(&mut self, entry: &Entry<'_>, headers: &Headers, bytes: usize) {
        if headers.is_empty() {
            return;
        }
        let counts = self.rows.get_mut(self.last).map(|row| &mut row.counts);
        let Some(counts) = counts.filter(|counts| counts.count == 1) else { return };
        let Some(sample) = headers.of(entry) else { return };
        let heap = sample.heap();
        if self.samples + heap <= bytes / 8 {
            (self.samples, self.bytes) = (self.samples + heap, self.bytes + heap);
            counts.sample = Some(sample);
        }
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All that was counted, to be taken row by row.
    pub(crate) fn into_rows(self) -> IntoRows {
        IntoRows { rows: self.rows.into_iter(), keys: self.keys }
    }

    /// All that was counted.
    pub fn rows(&self) -> Rows<'_> {
        Box::new(self.rows.iter().filter_map(|row| Some((Key::read(self.key_of(row))?, &row.counts))))
    }
}

/// Rows whose window is over.
pub(crate) struct IntoRows {
    rows: vec::IntoIter<Row>,
    keys: Vec<u8>,
}

impl IntoRows {
    /// The next one.
    pub(crate) fn next(&mut self) -> Option<(Key<'_>, Counts)> {
        let row = self.rows.next()?;
        // All were written here.
        Some((Key::read(self.keys.get(row.key())?)?, row.counts))
    }

    /// Whether there are no more.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }
}

/// A table takes a bucket from the lowest bits of a hash, and from the highest what it compares first.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests;
