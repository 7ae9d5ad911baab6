//! From listings to followed files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Instant,
};

use rustix::fs::stat;

use super::{
    Engine, MOST_PROBLEMS, PATIENCE, Place, Policy, Series, add,
    file::{Inode, Tracked},
    gap::Reason,
};
use crate::{
    discover::{Below, Candidate, Layout},
    identity::{FileId, head_of},
    position::{Ledger, store::Unread},
    read::open_below,
    split::Format,
};

/// What a listed file may be, of those that may come from another directory. Containers' files stay
/// in theirs, and are not among them.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Which series follows a file.
    followed: BTreeMap<Inode, u64>,
    /// The files of the directory that is listed, with their names, if one of them is packed.
    listed: BTreeMap<Inode, String>,
}

impl Engine {
    /// What files of a source may be.
    pub(super) fn known(&self, source: usize) -> Known {
        let mut known = Known::default();
        if matches!(self.sources[source].layout, Layout::Files { .. }) {
            for (id, series) in &self.series {
                known.followed.extend(series.files.iter().map(|file| (file.inode, *id)));
            }
        }
        known
    }

    /// A directory now has the files `names`.
    pub(super) fn listed(
        &mut self,
        source: usize,
        directory: &Below,
        names: &[String],
        known: &mut Known,
        now: Instant,
    ) {
        let path = self.sources[source].directory.join(&**directory);
        let layout = &self.sources[source].layout;
        let format = layout.format();
        let Some(origin) = layout.origin(directory) else { return };
        let plain: BTreeSet<_> = names.iter().map(String::as_str).collect();
        let candidates: Vec<_> = names
            .iter()
            .filter_map(|name| layout.candidate(directory, name))
            // While it is being packed a file is there twice.
            .filter(|c| !c.packed || c.name.strip_suffix(".gz").is_none_or(|twin| !plain.contains(twin)))
            .collect();
        known.listed.clear();
        if format == Format::Plain && candidates.iter().any(|candidate| candidate.packed) {
            let listed = |candidate: &Candidate| {
                let stat = stat(path.join(&candidate.name)).ok()?;
                Some((Inode::of(&stat), candidate.name.clone()))
            };
            known.listed.extend(candidates.iter().filter_map(listed));
        }
        let mut touched = BTreeSet::new();
        for candidate in candidates {
            let file_path = path.join(&candidate.name);
            let place = (source, directory.clone(), candidate.series.clone());
            match self.recognize_or_open(&place, candidate, &file_path, known, now) {
                Ok(None) => {}
                Ok(Some(mut file)) => {
                    file.is_from_before |= self.beginning.is_some() && !self.has_scanned;
                    if let Some(damage) = &file.damage {
                        add(&mut self.problems, file_path, damage.clone());
                    }
                    let id = *self.places.entry(place).or_insert_with(|| {
                        self.next_series += 1;
                        self.next_series
                    });
                    let series = self.series.entry(id).or_insert_with(|| Series {
                        origin: origin.clone(),
                        directory: path.clone(),
                        format,
                        policy: None,
                        is_queued: false,
                        files: Vec::new(),
                    });
                    // Most have one: what a vector takes in advance would be most of the memory.
                    series.files.reserve_exact(1);
                    if file.ledger.in_flight() > 0 {
                        self.unanswered.insert(id);
                    }
                    if format == Format::Plain {
                        known.followed.insert(file.inode, id);
                    }
                    series.files.push(file);
                    touched.insert(id);
                }
                // Gone since the listing, which has changed again by that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let sentence = unreadable(&file_path, &error);
                    add(&mut self.problems, file_path, sentence);
                    self.trees[source].unsettle(directory);
                }
            }
        }
        for id in touched {
            self.written.insert(id);
            if let Some(series) = self.series.get_mut(&id) {
                series.files.sort_by(|a, b| a.order.cmp(&b.order));
            }
            self.identify(id, now);
        }
    }

    /// The followed file that has the candidate's name now, taken out of its
    /// series; else the candidate opened; `None` if it can't be followed.
    fn recognize_or_open(
        &mut self,
        place: &Place,
        candidate: Candidate,
        path: &Path,
        known: &Known,
        now: Instant,
    ) -> io::Result<Option<Tracked>> {
        // Containers' files are all of one series, the others' may come from anywhere.
        let here = match self.sources[place.0].layout {
            Layout::Pods { .. } => self.places.get(place).copied(),
            Layout::Files { .. } => None,
        };
        // What is listed by now keeps its name.
        let is_any = !known.followed.is_empty() || self.files_of(here).iter().any(|file| !file.listed);
        let inode = if is_any { Some(Inode::of(&stat(path)?)) } else { None };
        let moved = inode.and_then(|inode| known.followed.get(&inode).copied());
        for id in here.into_iter().chain(moved) {
            let Some(series) = self.series.get_mut(&id) else { continue };
            let Some(at) = series.files.iter().position(|file| Some(file.inode) == inode) else { continue };
            if series.files[at].listed {
                // A second name, such as a link to the newest file.
                return Ok(None);
            }
            let mut file = series.files.remove(at);
            file.rename(candidate, now);
            return Ok(Some(file));
        }
        if self.room == 0 {
            add(
                &mut self.problems,
                path.to_owned(),
                format!(
                    "not followed: {} files are open already; it is tried again, and a higher limit of open files (ulimit -n) lets more be followed",
                    self.most_files
                ),
            );
            self.trees[place.0].unsettle(&place.1);
            return Ok(None);
        }
        let known_only = candidate.known_only;
        let mut file = Tracked::new(candidate, open_below(&self.sources[place.0].directory, path)?, now)?;
        if self.files_of(here).iter().any(|other| other.inode == file.inode) {
            // A second name, as above.
            return Ok(None);
        }
        if known_only {
            let Some(head) = file.head(&mut self.reader, true)? else { return Ok(None) };
            let root = &self.sources[place.0].directory;
            let begins = |name: &String| {
                let (other, _) = open_below(root, &path.with_file_name(name)).ok()?;
                head_of(&other, true).ok()?
            };
            let Some((id, offset)) = self.begun(&file, head, known, begins) else { return Ok(None) };
            self.store.remove(id);
            let id = FileId { inode: file.inode.number, ..id };
            (file.id, file.ledger) = (Some(id), Ledger::starting_at(offset));
        }
        self.room -= 1;
        Ok(Some(file))
    }

    fn files_of(&self, series: Option<u64>) -> &[Tracked] {
        series.and_then(|id| self.series.get(&id)).map_or(&[], |series| &series.files)
    }

    /// How far a file that is not to be begun was read, if that is not all of it.
    ///
    /// A packed one is another file than the one it was made of, whose position it takes over: that
    /// of a file which begins alike and is nowhere any more. Its inode may be another file's by now, so that
    /// is no sign of it; how that one `begins` is.
    fn begun(
        &self,
        file: &Tracked,
        head: u64,
        known: &Known,
        begins: impl Fn(&String) -> Option<u64>,
    ) -> Option<(FileId, u64)> {
        let is_gone = |number| {
            let inode = Inode { number, ..file.inode };
            let series = known.followed.get(&inode).and_then(|id| self.series.get(id));
            let followed = series.and_then(|series| series.files.iter().find(|file| file.inode == inode));
            followed.and_then(|file| file.id).is_none_or(|id| id.head != head)
                && known.listed.get(&inode).and_then(&begins) != Some(head)
        };
        let own = self.store.find(head, file.inode.number, |_| false);
        let begun = match own {
            None if file.packed => self.store.find(head, file.inode.number, is_gone),
            own => own,
        };
        begun.filter(|(_, offset)| *offset < file.size())
    }

    /// Gives the files of a series whose first line is complete their identity,
    /// and with it the position from which to read.
    pub(super) fn identify(&mut self, series: u64, now: Instant) {
        let Some(series) = self.series.get_mut(&series) else { return };
        for at in 0..series.files.len() {
            let Some(file) = series.files.get_mut(at) else { return };
            if file.id.is_some() || file.unread() == 0 {
                continue;
            }
            let over = self.ending || (!file.listed && file.quiet(now) > PATIENCE);
            let (inode, size, packed) = (file.inode.number, file.size(), file.packed);
            let head = match file.head(&mut self.reader, over) {
                Ok(Some(head)) => head,
                Ok(None) => continue,
                Err(error) => {
                    let path = series.directory.join(&file.name);
                    let sentence = unreadable(&path, &error);
                    if file.packed || !file.listed {
                        // It is damaged, or nobody can mend it any more.
                        let lost = file.give_up(sentence.clone());
                        self.gaps.add(&series.origin, Reason::Damaged, lost, None);
                    }
                    add(&mut self.problems, path, sentence);
                    continue;
                }
            };
            // Nothing of it was read before it was packed: the packed one is.
            let mut packs = series.files.iter().filter(|other| other.packed).filter_map(|other| other.id);
            if !packed && !series.files[at].listed && packs.any(|id| id.head == head) {
                series.files.remove(at);
                continue;
            }
            if series.files[at].is_new_generation(head) {
                continue;
            }
            // A packed file goes on where the plain one that it was made of was:
            // that one is not needed any more.
            let twin = series.files.iter().position(|other| {
                packed && !other.packed && !other.listed && other.id.is_some_and(|id| id.head == head)
            });
            let file = match twin {
                Some(twin) => {
                    let known = series.files.remove(twin);
                    let file = &mut series.files[if twin < at { at - 1 } else { at }];
                    (file.ledger, file.left_out) = (known.ledger, known.left_out);
                    file.whole = known.whole;
                    file.context = known.context;
                    (file.id, file.is_from_before) = (known.id, known.is_from_before);
                    continue;
                }
                None => &mut series.files[at],
            };
            let new = FileId { head, inode, generation: 0 };
            // The inode of a packed file is not that of the one that was read, and
            // its size is known only when it has been unpacked.
            let (id, offset) = match self.store.find(head, inode, |_| packed) {
                None => (new, 0),
                Some((id, offset)) if packed || offset <= size => {
                    file.is_from_before = false;
                    (id, offset)
                }
                // Emptied while nobody looked.
                Some((id, _)) => (FileId { generation: id.generation + 1, ..new }, 0),
            };
            (file.id, file.ledger) = (Some(id), Ledger::starting_at(offset));
        }
    }

    /// The files of a directory, or of all `below` it too, count as gone until
    /// they are listed again. What is open is still read.
    pub(super) fn unlist(&mut self, source: usize, directory: &Below, below: bool) {
        let path = self.sources[source].directory.join(&**directory);
        let is_here = |place: &Path| place == path || place.parent() == Some(&path);
        self.problems.retain(|place, _| !(is_here(place) || (below && place.starts_with(&path))));
        for id in self.series_in(source, directory, below) {
            for file in self.series.get_mut(&id).into_iter().flat_map(|series| &mut series.files) {
                file.listed = false;
            }
        }
    }

    /// Closes files that are gone and need not be read any more.
    pub(super) fn release(&mut self, now: Instant) {
        // Its last lines may have come after the last look at its size.
        let is_gone = |series: &Series| series.files.iter().any(|file| !file.listed);
        let gone: Vec<_> =
            self.series.iter().filter(|(_, series)| is_gone(series)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.measure(id, now));
        let mut closed = Vec::new();
        for series in self.series.values_mut() {
            let (format, policy) = (series.format, series.policy);
            let gone = series.files.extract_if(.., |file| {
                let finished = file.is_done() && (file.packed || file.quiet(now) > PATIENCE);
                !file.listed && (finished || policy == Some(Policy::Off))
            });
            closed.extend(gone.map(|file| (format, file)));
        }
        while self.pinned_bytes() > self.most_pinned {
            let pinned = self.series.iter().flat_map(|(id, series)| {
                let files = series.files.iter().enumerate().filter(|(_, file)| file.is_pinned());
                files.map(|(at, file)| (file.changed, *id, at))
            });
            let Some((_, id, at)) = pinned.min() else { break };
            let Some(series) = self.series.get_mut(&id) else { break };
            let file = series.files.remove(at);
            let lines = file.count_unread_lines(&mut self.reader);
            self.gaps.add(&series.origin, Reason::Removed, file.unread(), lines);
            self.gaps.watch(&series.origin, Reason::Removed, file.ledger.clone());
            closed.push((series.format, file));
        }
        if closed.is_empty() {
            return;
        }
        let others: BTreeSet<_> = if closed.iter().any(|(format, _)| *format == Format::Plain) {
            let others = self.series.values().flat_map(|series| &series.files).filter_map(|other| other.id);
            others.map(|id| (id.head, id.inode)).collect()
        } else {
            BTreeSet::new()
        };
        for (format, file) in closed {
            self.stats.left_out += file.context.open;
            self.forget(format, &file, &others);
        }
        self.series.retain(|_, series| !series.files.is_empty());
        self.places.retain(|_, id| self.series.contains_key(id));
    }

    /// Forgets the position of a removed file: the next one with its inode number
    /// may begin with the same line. First lines of containers' logs do not
    /// repeat, and a packed copy goes on from the position: it is kept.
    fn forget(&mut self, format: Format, file: &Tracked, others: &BTreeSet<(u64, u64)>) {
        if let Some(id) = file.id.filter(|_| !file.is_from_before) {
            self.store.set(id, file.position());
        }
        let Some(id) = file.last_id().filter(|_| format == Format::Plain && file.is_removed()) else {
            return;
        };
        if !others.contains(&(id.head, id.inode)) {
            self.store.remove(id);
        }
    }

    /// Tells what an earlier process had not read of files that are nowhere any more.
    pub(super) fn tell_unattended(&mut self) {
        if !self.store.has_left() {
            return;
        }
        let files = self.series.values().flat_map(|series| &series.files);
        let followed: BTreeSet<_> = files.filter_map(|file| file.id).map(|id| (id.head, id.inode)).collect();
        let (problems, sources) = (&self.problems, &self.sources);
        // Where something is not followed, it may be that.
        let is_unclear = |directory: &Path| {
            problems.len() == MOST_PROBLEMS
                || problems.keys().any(|place| place.starts_with(directory) || directory.starts_with(place))
        };
        let left =
            self.store.take_left(|key, unread| followed.contains(key) || !is_unclear(&unread.directory));
        for (_, Unread { bytes, directory }) in left.into_iter().filter(|(key, _)| !followed.contains(key)) {
            let origin = sources
                .iter()
                .find_map(|source| source.layout.origin(directory.strip_prefix(&source.directory).ok()?));
            if let Some(origin) = origin {
                self.gaps.add(&origin, Reason::Unattended, bytes, None);
            }
        }
    }

    fn pinned_bytes(&self) -> u64 {
        let files = self.series.values().flat_map(|series| &series.files);
        files.filter(|file| file.is_pinned()).map(Tracked::room).sum()
    }
}

/// Why a file is not followed and what would help; follows its name in a report.
fn unreadable(path: &Path, error: &io::Error) -> String {
    let owner = fs::metadata(path).ok().filter(|_| error.kind() == io::ErrorKind::PermissionDenied);
    let Some(file) = owner else { return format!("cannot be read: {error}") };
    format!(
        "may not be read: it belongs to {}:{} with mode {:04o}, this process is {}:{}; let the group or others read it, or run this process as its user or in its group",
        file.uid(),
        file.gid(),
        file.mode() & 0o7777,
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}
