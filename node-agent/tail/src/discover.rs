//! Which files there are, found by looking: a scan is the truth, and costs one
//! `stat` per directory in which nothing was created, renamed or removed.

mod below;
pub mod glob;
pub mod pods;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

pub use below::Below;
use glob::Pattern;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, statat};

use crate::split::Format;

/// Whose lines a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod as its node knows it: of a static pod, the hash of its manifest.
    pub uid: String,
    /// Name of the container.
    pub container: String,
}

/// Where a file stands among those that continue each other: older ones first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// The container's restart count.
    pub instance: u32,
    /// What rotation appended to the name; the one being written has nothing.
    pub age: Age,
}

/// Whether a file is being written to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// Rotated away; suffixes of container logs are times and sort as such.
    Rotated(String),
    /// The current file.
    Live,
}

/// A file of a listed directory that may hold lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The name of the current file of its row, in its directory.
    pub series: String,
    /// Its place in that row.
    pub order: Order,
    /// Compressed by gzip.
    pub packed: bool,
    /// Only to be read on, not to be begun: nothing asks for it by its name.
    pub known_only: bool,
    /// Its own name.
    pub name: String,
}

/// A directory and what to follow below it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The directory.
    pub directory: PathBuf,
    /// What its files are.
    pub layout: Layout,
}

/// What the names below a directory mean.
#[derive(Clone, Debug)]
pub enum Layout {
    /// The kubelet's `/var/log/pods`.
    Pods {
        /// Namespace and name of a pod to leave out.
        except: Option<(String, String)>,
    },
    /// Files by pattern, all of one container.
    Files {
        /// Whose lines they hold.
        origin: Origin,
        /// Patterns relative to the directory.
        patterns: Vec<Pattern>,
    },
}

impl Layout {
    /// What the bytes of its files mean.
    pub fn format(&self) -> Format {
        match self {
            Self::Pods { .. } => Format::Cri,
            Self::Files { .. } => Format::Plain,
        }
    }

    /// Whose files lie in the directory at `relative`; `None` if nobody's.
    pub fn origin(&self, relative: &Path) -> Option<Origin> {
        match self {
            Self::Pods { .. } => pods::origin(relative),
            Self::Files { origin, .. } => Some(origin.clone()),
        }
    }

    /// What the file `name` in the directory at `relative` is, if it is to be followed.
    pub fn candidate(&self, relative: &Path, name: &str) -> Option<Candidate> {
        match self {
            Self::Pods { .. } => pods::candidate(name),
            Self::Files { patterns, .. } => glob::candidate(patterns, relative, name),
        }
    }

    /// Whether files to follow may lie in or below the directory at `relative`.
    fn enters(&self, relative: &Path) -> bool {
        match self {
            Self::Pods { except } => pods::enters(except.as_ref(), relative),
            Self::Files { patterns, .. } => patterns.iter().any(|pattern| pattern.enters(relative)),
        }
    }
}

/// What a scan found different from the one before.
#[derive(Debug)]
pub enum Change {
    /// A directory's files, by name; subdirectories are reported by themselves.
    Listed(Below, Vec<String>),
    /// A directory is gone with everything below it.
    Gone(Below),
    /// A directory can't be listed.
    Unreadable(PathBuf, io::Error),
}

/// The most directories of one source.
const MOST_DIRECTORIES: usize = 20_000;

/// The deepest directory below a source.
const DEEPEST: usize = 10;

/// Bytes of a listing that are read at once.
const LISTING: usize = 32 * 1024;

/// A listing is only kept if the directory had not changed for this long when
/// it was made: file times advance in steps, so that a second change within
/// one step would not show.
const SETTLED: Duration = Duration::from_millis(100);

/// The directories of one source as they were last seen.
#[derive(Debug, Default)]
pub struct Tree {
    root: Node,
    directories: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// The modification time for which the listing is known to be complete.
    listed_at: Option<SystemTime>,
    /// By name. Most have one: what a map takes in advance would be most of the memory.
    children: Vec<(OsString, Node)>,
}

impl Node {
    fn child(&mut self, name: &OsStr) -> Option<&mut Self> {
        let at = self.children.binary_search_by(|(known, _)| known.as_os_str().cmp(name)).ok()?;
        Some(&mut self.children[at].1)
    }
}

impl Tree {
    /// Looks for what changed below `source`; changes are appended to `changes`. Each directory that is listed is given
    /// to `listing` before: what happens in it from then on, the listing need not show.
    pub fn scan(&mut self, source: &Source, changes: &mut Vec<Change>, mut listing: impl FnMut(&Below)) {
        self.scan_all(&mut Scan::new(source, changes, &mut listing));
    }

    /// The same in the directory at `relative` and below it.
    pub fn look(
        &mut self,
        source: &Source,
        relative: &Path,
        changes: &mut Vec<Change>,
        mut listing: impl FnMut(&Below),
    ) {
        let scan = &mut Scan::new(source, changes, &mut listing);
        if relative.as_os_str().is_empty() {
            return self.scan_all(scan);
        }
        let mut root = std::mem::take(&mut self.root);
        if let Some(node) = relative.iter().try_fold(&mut root, Node::child) {
            let directories = self.directories;
            self.visit(scan, relative, node);
            self.directories = directories;
        }
        self.root = root;
    }

    fn scan_all(&mut self, scan: &mut Scan<'_>) {
        self.directories = 0;
        let mut root = std::mem::take(&mut self.root);
        self.visit(scan, Path::new(""), &mut root);
        self.root = root;
    }

    /// Has the directory at `relative` listed again by the next scan.
    pub fn unsettle(&mut self, relative: &Path) {
        if let Some(node) = relative.iter().try_fold(&mut self.root, Node::child) {
            node.listed_at = None;
        }
    }

    fn visit(&mut self, scan: &mut Scan<'_>, relative: &Path, node: &mut Node) {
        self.directories += 1;
        if let Err(error) = scan.list(relative, node) {
            node.listed_at = None;
            if error.kind() == io::ErrorKind::NotFound {
                node.children.clear();
                scan.changes.push(Change::Gone(relative.to_owned().into()));
            }
            // That a directory below is gone is nothing to mend.
            if error.kind() != io::ErrorKind::NotFound || relative.as_os_str().is_empty() {
                scan.changes.push(Change::Unreadable(relative.to_owned(), error));
            }
            return;
        }
        for (name, child) in &mut node.children {
            if self.directories < MOST_DIRECTORIES {
                self.visit(scan, &relative.join(name), child);
            } else {
                let text = format!(
                    "there are more than {MOST_DIRECTORIES} directories: no file of this one is followed"
                );
                scan.changes.push(Change::Unreadable(relative.join(name), io::Error::other(text)));
            }
        }
    }
}

/// A look at directories of a source.
struct Scan<'a> {
    source: &'a Source,
    changes: &'a mut Vec<Change>,
    listing: &'a mut dyn FnMut(&Below),
    buffer: Vec<u8>,
}

impl<'a> Scan<'a> {
    fn new(source: &'a Source, changes: &'a mut Vec<Change>, listing: &'a mut dyn FnMut(&Below)) -> Self {
        Self { source, changes, listing, buffer: Vec::with_capacity(LISTING) }
    }

    fn list(&mut self, relative: &Path, node: &mut Node) -> io::Result<()> {
        let path = self.source.directory.join(relative);
        if let Some(listed_at) = node.listed_at
            && fs::metadata(&path)?.modified()? == listed_at
        {
            return Ok(());
        }
        let place = Below::from(relative.to_owned());
        (self.listing)(&place);
        let directory =
            File::options().read(true).custom_flags(OFlags::DIRECTORY.bits() as i32).open(&path)?;
        let (now, modified) = (SystemTime::now(), directory.metadata()?.modified()?);
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        let mut entries = RawDir::new(&directory, self.buffer.spare_capacity_mut());
        while let Some(entry) = entries.next().transpose()? {
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let found = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(found.st_mode)
                }
                kind => kind,
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            // Links to directories are not entered: they may lead in circles.
            if kind == FileType::Directory {
                let below = relative.join(name);
                let is_below = ![".", ".."].map(OsStr::new).contains(&name);
                if is_below && below.components().count() <= DEEPEST && self.source.layout.enters(&below) {
                    directories.push(name.to_owned());
                }
            } else if let Some(name) = name.to_str() {
                files.push(name.to_owned());
            }
        }
        directories.sort_unstable();
        let mut known: BTreeMap<_, _> = std::mem::take(&mut node.children).into_iter().collect();
        node.children.reserve_exact(directories.len());
        node.children.extend(directories.into_iter().map(|name| {
            let child = known.remove(&name).unwrap_or_default();
            (name, child)
        }));
        self.changes.extend(known.into_keys().map(|name| Change::Gone(relative.join(name).into())));
        self.changes.push(Change::Listed(place, files));
        let settled = now.duration_since(modified).is_ok_and(|age| age > SETTLED);
        node.listed_at = settled.then_some(modified);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(tree: &mut Tree, source: &Source) -> Vec<String> {
        let mut changes = Vec::new();
        tree.scan(source, &mut changes, |_| {});
        changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Listed(_, files) if files.is_empty() => None,
                Change::Listed(path, mut files) => {
                    files.sort();
                    Some(format!("{}: {}", path.display(), files.join(" ")))
                }
                Change::Gone(path) => Some(format!("{} gone", path.display())),
                Change::Unreadable(path, error) => Some(format!("{} {}", path.display(), error.kind())),
            })
            .collect()
    }

    #[test]
    fn a_scan_reports_only_what_changed() {
        let root = tempfile::tempdir().unwrap();
        let source = Source { directory: root.path().join("pods"), layout: Layout::Pods { except: None } };
        let mut tree = Tree::default();
        assert_eq!(scan(&mut tree, &source), [" gone", " entity not found"]);
        let container = source.directory.join("ns_pod_uid/app");
        fs::create_dir_all(&container).unwrap();
        fs::write(container.join("0.log"), "").unwrap();
        fs::create_dir_all(source.directory.join("not-a-pod/app")).unwrap();
        assert_eq!(scan(&mut tree, &source), ["ns_pod_uid/app: 0.log"]);

        let long_ago = SystemTime::now() - Duration::from_secs(60);
        for directory in [&source.directory, container.parent().unwrap(), &container] {
            fs::File::open(directory).unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!(scan(&mut tree, &source), ["ns_pod_uid/app: 0.log"]);
        assert!(scan(&mut tree, &source).is_empty());
        tree.unsettle(Path::new("ns_pod_uid/app"));
        assert_eq!(scan(&mut tree, &source), ["ns_pod_uid/app: 0.log"]);

        fs::write(container.join("1.log"), "").unwrap();
        assert_eq!(scan(&mut tree, &source), ["ns_pod_uid/app: 0.log 1.log"]);
        fs::remove_dir_all(container.parent().unwrap()).unwrap();
        assert_eq!(scan(&mut tree, &source), ["ns_pod_uid gone"]);
    }
}
