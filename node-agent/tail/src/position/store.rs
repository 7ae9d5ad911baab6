//! Positions on disk: one line per file, replaced as a whole.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::identity::FileId;

/// The first line: name and version of the format.
const HEADER: &str = "kestrel-positions 1";

/// The most files that are remembered; those seen longest ago go first.
const MOST: usize = 20_000;

/// A file that was not seen for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What is remembered of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    generation: u32,
    offset: u64,
    /// Seconds since 1970; [`NOW`] since the last write.
    seen: u64,
}

/// Head and inode of a file.
type Key = (u64, u64);

/// What lay behind a file's position when it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// How much.
    pub bytes: u64,
    /// The directory of its file: whose lines they are.
    pub directory: PathBuf,
}

/// Stands for the time of the next write: no clock is read before that.
const NOW: u64 = u64::MAX;

/// The positions in a file; by default in none.
#[derive(Debug, Default)]
pub struct Store {
    /// `None`: they are not kept.
    path: Option<PathBuf>,
    entries: BTreeMap<Key, Entry>,
    unread: BTreeMap<Key, Unread>,
    /// What an earlier process had not read.
    left: BTreeMap<Key, Unread>,
    changed: bool,
}

/// Positions could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} {problem}", path.display())]
pub struct StoreError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("cannot be written: {0}")]
    Write(io::Error),
    #[error("is not a positions file of this version (line {0})")]
    Format(usize),
}

impl Store {
    /// Positions in the file `path`, none yet.
    pub fn empty(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..Self::default() }
    }

    /// Reads the positions in the file `path`; none if there is no such file yet.
    ///
    /// # Errors
    /// The file is there but not readable, or of another format.
    pub fn load(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self::empty(path);
        let fail = |problem| StoreError { path: path.to_owned(), problem };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(store),
            Err(error) => return Err(fail(Problem::Read(error))),
        };
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, line)| line != HEADER) {
            return Err(fail(Problem::Format(1)));
        }
        for (number, line) in lines {
            let (id, entry, unread) = parse(line).ok_or_else(|| fail(Problem::Format(number + 1)))?;
            store.left.extend(unread.map(|unread| ((id.head, id.inode), unread)));
            store.entries.insert((id.head, id.inode), entry);
        }
        Ok(store)
    }

    /// Whether there is a file for them.
    pub fn is_kept(&self) -> bool {
        self.path.is_some()
    }

    /// When something was written last; `None` if nothing ever was.
    pub fn saved(&self) -> Option<SystemTime> {
        let seen = self.entries.values().map(|entry| entry.seen).filter(|seen| *seen != NOW).max()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seen))
    }

    /// Where to go on in the file with this head and inode; or, as the inode of a
    /// compressed copy is another, with this head and an inode that `may_be` it. The
    /// identity is the one that the file had first.
    pub fn find(&self, head: u64, inode: u64, may_be: impl Fn(u64) -> bool) -> Option<(FileId, u64)> {
        let mut of_head = self.entries.range((head, 0)..=(head, u64::MAX));
        let found = self.entries.get_key_value(&(head, inode));
        let ((head, inode), entry) = found.or_else(|| of_head.find(|((_, inode), _)| may_be(*inode)))?;
        Some((FileId { head: *head, inode: *inode, generation: entry.generation }, entry.offset))
    }

    /// Remembers that `id` is there and was delivered up to `offset`.
    pub fn set(&mut self, id: FileId, offset: u64) {
        let entry = Entry { generation: id.generation, offset, seen: NOW };
        let before = self.entries.insert((id.head, id.inode), entry);
        // Being seen is written along with the next real change.
        self.changed |= before.is_none_or(|before| Entry { seen: NOW, ..before } != entry);
    }

    /// Remembers what is unread of the files that have a position, by head and inode.
    pub fn keep_unread(&mut self, unread: BTreeMap<Key, Unread>) {
        self.changed |= self.unread != unread;
        self.unread = unread;
    }

    /// Whether an earlier process left something unread that was not taken.
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// What an earlier process left unread, of files of which is known what became of them.
    pub fn take_left(&mut self, is_known: impl Fn(&Key, &Unread) -> bool) -> Vec<(Key, Unread)> {
        let taken: Vec<_> = self.left.extract_if(.., |key, unread| is_known(key, unread)).collect();
        self.changed |= !taken.is_empty();
        taken
    }

    /// Forgets `id`: the file is no more.
    pub fn remove(&mut self, id: FileId) {
        self.changed |= self.entries.remove(&(id.head, id.inode)).is_some();
    }

    /// Writes what changed since the last time, so that after a crash the file
    /// is either the old or the new one.
    ///
    /// # Errors
    /// The file cannot be written; the next call tries again.
    pub fn save(&mut self, now: SystemTime) -> Result<(), StoreError> {
        let Some(path) = self.path.clone().filter(|_| self.changed) else { return Ok(()) };
        self.forget(now);
        let mut text = format!("{HEADER}\n");
        for (key, Entry { generation, offset, seen }) in &self.entries {
            let id = FileId { head: key.0, inode: key.1, generation: *generation };
            text += &format!("{id} {offset} {seen}");
            let unread = self.unread.get(key).or_else(|| self.left.get(key));
            // A path that is not text, or would break the line, is no container's.
            let directory = unread.and_then(|unread| unread.directory.to_str());
            if let (Some(unread), Some(directory)) = (unread, directory.filter(|path| !path.contains('\n'))) {
                text += &format!(" {} {directory}", unread.bytes);
            }
            text.push('\n');
        }
        replace(&path, text.as_bytes())
            .map_err(|error| StoreError { path, problem: Problem::Write(error) })?;
        self.changed = false;
        Ok(())
    }

    fn forget(&mut self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for entry in self.entries.values_mut() {
            // A clock that was put back must not make an entry last for ever.
            entry.seen = entry.seen.min(now);
        }
        self.entries.retain(|_, entry| now.saturating_sub(entry.seen) < FORGET_AFTER.as_secs());
        if self.entries.len() > MOST {
            let mut seen: Vec<_> = self.entries.values().map(|entry| entry.seen).collect();
            seen.sort_unstable();
            let oldest_kept = seen[seen.len() - MOST];
            self.entries.retain(|_, entry| entry.seen >= oldest_kept);
        }
    }
}

fn parse(line: &str) -> Option<(FileId, Entry, Option<Unread>)> {
    let mut words = line.splitn(5, ' ');
    let id: FileId = words.next()?.parse().ok()?;
    let (offset, seen) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let unread = match words.next() {
        Some(bytes) => Some(Unread { bytes: bytes.parse().ok()?, directory: words.next()?.into() }),
        None => None,
    };
    Some((id, Entry { generation: id.generation, offset, seen }, unread))
}

/// Writes the file `path` so that after a crash it is either the old or the new one.
///
/// # Errors
/// It cannot be written, and is the old one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FileId = FileId { head: 1, inode: 2, generation: 3 };

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut store = Store::load(&directory.path().join("positions")).unwrap();
        store.set(ID, 42);
        store.save(now).unwrap();
        let store = Store::load(&directory.path().join("positions")).unwrap();
        assert_eq!(store.find(1, 2, |_| false), Some((ID, 42)));
        assert_eq!(store.find(1, 9, |_| false), None);
        assert_eq!(store.find(1, 9, |inode| inode == 2), Some((ID, 42)));
    }

    #[test]
    fn what_was_left_unread_is_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("positions");
        let now = SystemTime::now();
        let mut store = Store::empty(&path);
        let unread = Unread { bytes: 7, directory: "/logs/a pod/app".into() };
        let (known, unclear) = ((2, 2), (1, 2));
        for (head, inode) in [known, unclear] {
            store.set(FileId { head, inode, generation: 0 }, 42);
        }
        store.keep_unread([(known, unread.clone()), (unclear, unread.clone())].into());
        store.save(now).unwrap();
        for taken in [vec![(known, unread)], vec![]] {
            let mut store = Store::load(&path).unwrap();
            assert!(store.has_left());
            assert_eq!(store.take_left(|key, _| *key == known), taken);
            store.save(now).unwrap();
            assert_eq!(store.find(2, 2, |_| false).map(|(_, offset)| offset), Some(42));
        }
    }

    #[test]
    fn old_entries_go_with_the_next_write() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut store = Store::empty(&directory.path().join("positions"));
        store.set(ID, 42);
        store.save(now - FORGET_AFTER).unwrap();
        store.set(FileId { head: 2, ..ID }, 1);
        store.save(now).unwrap();
        assert_eq!(Store::load(&directory.path().join("positions")).unwrap().find(1, 2, |_| true), None);
    }

    #[test]
    fn a_file_of_another_format_is_refused_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("positions"), format!("{HEADER}\n{ID} 1 2\n{ID} 1 2 three\n"))
            .unwrap();
        let error = Store::load(&directory.path().join("positions")).unwrap_err().to_string();
        assert!(error.ends_with("is not a positions file of this version (line 3)"), "{error}");
    }
}
