//! Hints of the kernel: in which directories something was written, created,
//! renamed or removed. They only save looking everywhere and waiting; what they
//! do not show (a file behind a link, say) is found by looking.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

use crate::discover::Below;

/// The most directories that are watched; each costs the kernel about 1 KiB.
const MOST_WATCHES: usize = 4_096;

/// Directories that could not be watched and are tried again at once.
const RETRIES: usize = 16;

/// The most events taken at once: the kernel keeps no more by default.
const MOST_EVENTS: usize = 16_384;

/// Bytes of events that are read at once.
const BUFFER: usize = 16 * 1024;

/// A directory: number of the source, path below it.
pub(crate) type Place = (usize, Below);

/// Where something happened.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// The kernel could not keep all events: anything may have happened.
    pub(crate) lost: bool,
    /// Their listings changed.
    pub(crate) changed: Vec<Place>,
    /// Files in them were written to.
    pub(crate) written: Vec<Place>,
}

/// Watches directories.
pub(crate) struct Watch {
    kernel: OwnedFd,
    directories: HashMap<i32, Directory>,
    /// Those with events that were not handed out.
    touched: Vec<i32>,
    /// Those for which there was no watch left.
    unwatched: HashSet<Place>,
    buffer: Vec<MaybeUninit<u8>>,
}

struct Directory {
    place: Place,
    changed: bool,
    written: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("directories", &self.directories.len()).finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel gives no more of them to this user.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            kernel: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            directories: HashMap::new(),
            touched: Vec::new(),
            unwatched: HashSet::new(),
            buffer: vec![MaybeUninit::uninit(); BUFFER],
        })
    }

    /// A descriptor that is readable when something happened.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.kernel.try_clone()
    }

    /// Watches the directory `place` of the source at `root`, if it is not watched
    /// yet. What happened in it before is not told.
    pub(crate) fn add(&mut self, place: Place, root: &Path) {
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ONLYDIR;
        if self.directories.len() >= MOST_WATCHES {
            self.unwatched.insert(place);
            return;
        }
        match inotify::add_watch(&self.kernel, root.join(&*place.1), flags) {
            Ok(descriptor) => {
                self.unwatched.remove(&place);
                let known = self.directories.get(&descriptor);
                if known.is_none_or(|known| known.place != place) {
                    let directory = Directory { place, changed: false, written: false };
                    self.directories.insert(descriptor, directory);
                }
            }
            // Its parent's listing shows that it is gone.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(_) => {
                self.unwatched.insert(place);
            }
        }
    }

    /// The directory at `place` is gone.
    pub(crate) fn forget(&mut self, place: &Place) {
        self.unwatched.remove(place);
    }

    /// Whether every directory is watched.
    pub(crate) fn is_complete(&self) -> bool {
        self.unwatched.is_empty()
    }

    /// Some directories that are not watched, to be tried again.
    pub(crate) fn unwatched(&self) -> Vec<Place> {
        self.unwatched.iter().take(RETRIES).cloned().collect()
    }

    /// What happened since the last call.
    pub(crate) fn drain(&mut self) -> Hints {
        let mut hints = Hints::default();
        let mut events = inotify::Reader::new(&self.kernel, &mut self.buffer);
        for number in 0.. {
            // What was read and not taken would be gone with the buffer.
            if number >= MOST_EVENTS && events.is_buffer_empty() {
                break;
            }
            let Ok(event) = events.next() else { break };
            let kinds = event.events();
            hints.lost |= kinds.contains(ReadFlags::QUEUE_OVERFLOW);
            if kinds.contains(ReadFlags::IGNORED) {
                self.directories.remove(&event.wd());
            }
            let Some(directory) = self.directories.get_mut(&event.wd()) else { continue };
            if !directory.changed && !directory.written {
                self.touched.push(event.wd());
            }
            if kinds.contains(ReadFlags::MODIFY) {
                directory.written = true;
            } else {
                directory.changed = true;
            }
        }
        for descriptor in self.touched.drain(..) {
            let Some(directory) = self.directories.get_mut(&descriptor) else { continue };
            if std::mem::take(&mut directory.changed) {
                hints.changed.push(directory.place.clone());
            }
            if std::mem::take(&mut directory.written) {
                hints.written.push(directory.place.clone());
            }
        }
        hints
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    #[test]
    fn hints_name_the_directory_once() {
        let root = tempfile::tempdir().unwrap();
        let place: Place = (0, PathBuf::from("a").into());
        let path = root.path().join("a");
        fs::create_dir(&path).unwrap();
        let mut watch = Watch::new().unwrap();
        watch.add(place.clone(), root.path());
        watch.add(place.clone(), root.path());
        fs::write(path.join("0.log"), "x").unwrap();
        fs::write(path.join("0.log"), "y").unwrap();
        let hints = watch.drain();
        assert_eq!((hints.changed, hints.written), (vec![place.clone()], vec![place.clone()]));
        fs::rename(path.join("0.log"), path.join("1.log")).unwrap();
        let hints = watch.drain();
        assert_eq!((hints.changed, hints.written, hints.lost), (vec![place], vec![], false));
        fs::remove_dir_all(&path).unwrap();
        watch.drain();
        assert!(watch.directories.is_empty() && watch.is_complete());
        watch.add((0, PathBuf::from("gone").into()), root.path());
        assert!(watch.is_complete());
    }
}
