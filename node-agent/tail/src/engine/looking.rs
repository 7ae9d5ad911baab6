//! Looking for files and for what was written to them. Looking everywhere is the
//! truth; where the kernel says where to look, that is rarely needed.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use super::{Engine, Policy, Reason, add, file::Tracked};
use crate::{
    discover::{Below, Change, Source},
    watch::{Hints, Watch},
};

/// While every directory is watched, all of them are looked at this often.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

/// Directories in which something changes all the time are looked at this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// While every directory is watched, the sizes of all files are looked at this often.
const MEASURE_ANYWAY: Duration = Duration::from_secs(2);

/// While something is waited for, such as the end of a record, it is looked for this often.
const LOOK_ON: Duration = Duration::from_millis(500);

/// When what was looked at; `None` if it is to be now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    /// Every directory.
    pub(super) everywhere: Option<Instant>,
    /// Those of which the kernel says that something changed.
    pub(super) where_it_changed: Option<Instant>,
    /// Every file's size.
    pub(super) into_all: Option<Instant>,
}

impl Engine {
    /// Has the kernel say where to look, from the first scan on. What is returned
    /// becomes readable when there is something to [`poll`](Self::poll) for.
    ///
    /// # Errors
    /// It does not, and everything is looked at all the time.
    pub fn watch(&mut self) -> io::Result<OwnedFd> {
        self.watch.insert(Watch::new()?).handle()
    }

    /// Whether the kernel says where to look, everywhere.
    pub fn is_watched(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_complete)
    }

    /// After which time something is to be looked at although the kernel says nothing; `unwatched` where it does not
    /// say all.
    pub fn pause(&self, unwatched: Duration) -> Duration {
        let is_quiet = self.changed.is_empty() && self.waiting.is_empty() && self.held.is_empty();
        match self.is_watched() {
            true if is_quiet && !self.looks_back() => MEASURE_ANYWAY,
            true => LOOK_ON,
            false => unwatched,
        }
    }

    /// Looks for files that came, went or were renamed.
    pub fn scan(&mut self, now: Instant) {
        if self.is_watched() && !is_due(self.looked.everywhere, LOOK_ANYWAY, now) {
            self.look_where_it_changed(now);
        } else {
            self.looked.everywhere = Some(now);
            for number in 0..self.sources.len() {
                let (mut changes, source) = (Vec::new(), &self.sources[number]);
                let watch = watching(&mut self.watch, number, source);
                self.trees[number].scan(source, &mut changes, watch);
                self.apply(number, changes, now);
            }
            self.watch_the_rest();
            self.tell_unattended();
            self.has_scanned = true;
        }
        self.release(now);
        self.budget.forget(now);
    }

    /// Looks for bytes that were appended; true if there are any to read.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.watch.is_some() && is_due(self.looked.where_it_changed, LOOK_AGAIN, now) {
            self.look_where_it_changed(now);
        } else {
            self.take_hints();
        }
        let enough = if self.is_watched() { MEASURE_ANYWAY } else { Duration::ZERO };
        if is_due(self.looked.into_all, enough, now) {
            self.looked.into_all = Some(now);
            self.written.extend(self.series.keys());
        }
        self.written.append(&mut self.waiting);
        for id in std::mem::take(&mut self.written) {
            self.measure(id, now);
        }
        while let Some(id) = self.held.pop_back() {
            self.ready.push_front(id);
        }
        !self.ready.is_empty() || self.looks_back()
    }

    /// Takes what the kernel says.
    fn take_hints(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let Hints { lost, changed, written } = watch.drain();
        if lost {
            self.looked = Looked::default();
        }
        for (number, directory) in &changed {
            // Changes within one step of the file system's clock have the same time.
            self.trees[*number].unsettle(directory);
        }
        for (number, directory) in &written {
            self.written.extend(self.series_in(*number, directory, false));
        }
        self.changed.extend(changed);
    }

    /// Looks at directories of which the kernel says that something changed.
    fn look_where_it_changed(&mut self, now: Instant) {
        self.take_hints();
        if self.changed.is_empty() {
            return;
        }
        self.looked.where_it_changed = Some(now);
        let changed = std::mem::take(&mut self.changed);
        for number in 0..self.sources.len() {
            let mut changes = Vec::new();
            let mut above: Option<&Path> = None;
            for (_, directory) in changed.iter().filter(|(source, _)| *source == number) {
                // What lies below a directory is looked at with it, and comes next here.
                if above.is_none_or(|above| !directory.starts_with(above)) {
                    let source = &self.sources[number];
                    let watch = watching(&mut self.watch, number, source);
                    self.trees[number].look(source, directory, &mut changes, watch);
                    above = Some(directory);
                }
            }
            self.apply(number, changes, now);
        }
    }

    /// Takes up what was found below a source.
    fn apply(&mut self, number: usize, changes: Vec<Change>, now: Instant) {
        if changes.is_empty() {
            return;
        }
        self.room = self.most_files.saturating_sub(self.files());
        // A file that moved may be listed where it went before its old
        // directory is, so first all of them count as gone.
        for change in &changes {
            match change {
                Change::Listed(directory, _) => self.unlist(number, directory, false),
                Change::Gone(directory) => self.unlist(number, directory, true),
                Change::Unreadable(..) => {}
            }
        }
        let mut known = self.known(number);
        for change in changes {
            match change {
                Change::Listed(directory, names) => {
                    self.listed(number, &directory, &names, &mut known, now);
                }
                Change::Gone(directory) => {
                    if let Some(watch) = &mut self.watch {
                        watch.forget(&(number, directory));
                    }
                }
                Change::Unreadable(directory, error) => {
                    let path = self.sources[number].directory.join(directory);
                    add(&mut self.problems, path, format!("the directory cannot be listed: {error}"));
                }
            }
        }
    }

    /// Tries again to watch what could not be watched.
    fn watch_the_rest(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        for place in watch.unwatched() {
            watch.add(place.clone(), &self.sources[place.0].directory);
            // What happened until now, nobody says.
            self.changed.insert(place);
            self.looked.into_all = None;
        }
        let limit = Path::new("/proc/sys/fs/inotify/max_user_watches");
        if watch.is_complete() {
            self.problems.remove(limit);
        } else {
            let text = "not all directories can be watched: they are looked at all the time, which takes more processor time";
            add(&mut self.problems, limit.to_owned(), text.to_owned());
        }
    }

    /// Looks for bytes that were appended to files of a series.
    pub(super) fn measure(&mut self, id: u64, now: Instant) {
        let Some(series) = self.series.get_mut(&id) else { return };
        let mut is_unidentified = false;
        for file in &mut series.files {
            if let Some(former) = file.measure(now).filter(|_| series.policy != Some(Policy::Off)) {
                self.gaps.add(&series.origin, Reason::Emptied, former.unread, None);
                self.gaps.watch(&series.origin, Reason::Emptied, former.ledger);
            }
            is_unidentified |= file.id.is_none() && file.unread() > 0;
        }
        if is_unidentified {
            self.identify(id, now);
        }
        let Some(series) = self.series.get_mut(&id) else { return };
        if !series.is_queued && series.is_wanted() && series.files.iter().any(Tracked::is_unread) {
            series.is_queued = true;
            self.ready.push_back(id);
        }
    }
}

/// Watches each directory of a source before it is listed: what comes after is in the listing or told by the kernel.
fn watching(watch: &mut Option<Watch>, number: usize, source: &Source) -> impl FnMut(&Below) {
    move |directory| {
        if let Some(watch) = watch {
            watch.add((number, directory.clone()), &source.directory);
        }
    }
}

fn is_due(last: Option<Instant>, enough: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= enough)
}
