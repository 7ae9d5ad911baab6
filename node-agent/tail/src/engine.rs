//! Follows files: what there is, what was read, what was delivered.

mod beginning;
mod context;
mod file;
mod folding;
mod gap;
mod listing;
mod look_back;
mod looking;
mod splice;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Bound, ControlFlow},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Resource, getrlimit};

use crate::{
    budget::{Budget, Limits, Room},
    class,
    discover::{Below, Origin, Source, Tree},
    fold::Folds,
    identity::FileId,
    position::store::{Store, StoreError, Unread},
    read::Reader,
    redact::Redactor,
    severity::Level,
    split::{Format, Splitter},
    time::Timestamp,
    watch::{self, Watch},
};
use beginning::Beginning;
use file::Tracked;
use gap::Gaps;
pub use gap::{Gap, Lost, LostBytes, Reason};
use look_back::LookBack;
use looking::Looked;

/// How long the end of a begun line is waited for. Until then what follows
/// it in the file waits too. (For the next line of a record see [`crate::multiline`].)
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Unread bytes of removed files that open descriptors may keep on the disk.
pub const PINNED_BYTES: u64 = 64 * 1024 * 1024;

/// Ranges of files that may wait for an answer, in all.
const MOST_IN_FLIGHT: usize = 50_000;

/// The most files followed at once.
const MOST_FILES: usize = 20_000;

/// Descriptors that files leave to their owner: connection, token, positions.
const SPARE_DESCRIPTORS: u64 = 64;

/// The most problems kept for the report.
const MOST_PROBLEMS: usize = 100;

/// Which lines of a container are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Those that name a severity of at least [`Level::Warn`], with five before and after; of
    /// those that are like each other a few and how many more there were.
    Errors,
    /// Every line.
    All,
    /// None: the files are not read.
    Off,
}

impl Policy {
    /// Whether files are not read on for want of room. Of a pod of which all is wanted nothing is
    /// left out: what there is no room for waits in the file.
    fn waits(self, room: Room) -> bool {
        match self {
            Self::Errors => room.errors <= 0,
            Self::All | Self::Off => room.others <= 0,
        }
    }
}

/// A line, or all that a program wrote as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was written; `None` if the file does not say so.
    pub timestamp: Option<Timestamp>,
    /// What was written, fit for every store.
    pub text: &'a str,
    /// The severity that it names.
    pub level: Option<Level>,
    /// The class of an error: see [`crate::class`].
    pub class: Option<&'a str>,
    /// Where it ends in its file, as bytes after the chunk's start. What the next file holds of it is counted as if it were
    /// there.
    pub end: u32,
}

/// The records of one turn: consecutive bytes of one file.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Whose lines they are.
    pub origin: &'a Origin,
    /// The file.
    pub file: FileId,
    /// Where the bytes begin.
    pub start: u64,
    /// Where they end.
    pub end: u64,
    /// A newer instance of the container exists.
    pub previous_instance: bool,
    /// Lines of the file since its last chunk that were not wanted.
    pub left_out: u64,
    /// Records that were given out; a chunk without any needs no answer.
    pub entries: usize,
}

/// What happened since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of files that became records.
    pub bytes_read: u64,
    /// Lines of programs, wanted or not.
    pub lines: u64,
    /// Lines of them that belong to the record of the line before: stack traces.
    pub followed: u64,
    /// Lines that the policy left out.
    pub left_out: u64,
    /// Lines of errors like others that were sent, which are counted instead.
    pub folded: u64,
    /// Records that were left out because their pod sent too much.
    pub over_budget: u64,
    /// Records that were sent when it turned out that what was left out before matters; some
    /// of them had been sent.
    pub looked_back: u64,
    /// Lines that were not of their file's format, sent as they are.
    pub malformed: u64,
    /// Records that were made of pieces of a line.
    pub joined: u64,
    /// Additional records that lines and stack traces over the limit became.
    pub continued: u64,
    /// Records in which bytes were replaced to make them text.
    pub cleaned: u64,
    /// Secrets that were taken out.
    pub redacted: u64,
    /// Bytes that were passed over because they were there long before.
    pub bytes_passed: u64,
    /// Bytes that were under way when a connection ended and are sent again: at most so many
    /// arrived twice.
    pub bytes_repeated: u64,
    /// How often bytes were gone before they were delivered.
    pub gaps: u64,
    /// How many.
    pub bytes_lost: LostBytes,
}

/// Why a file or directory is not followed, and what would help.
pub type Problems = BTreeMap<PathBuf, String>;

/// What became a problem or ceased to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The file or directory.
    pub path: PathBuf,
    /// Why it is not followed; `None` if nothing is wrong any more.
    pub problem: Option<String>,
}

/// Files that continue each other: of one container, or of one name.
#[derive(Debug)]
struct Series {
    origin: Origin,
    directory: PathBuf,
    format: Format,
    policy: Option<Policy>,
    /// It is among those with unread bytes.
    is_queued: bool,
    /// The oldest first.
    files: Vec<Tracked>,
}

impl Series {
    fn is_wanted(&self) -> bool {
        matches!(self.policy, Some(Policy::All | Policy::Errors))
    }
}

/// Where a series lies: number of the source, directory below it, name.
type Place = (usize, Below, String);

/// The engine. All times are given to it.
#[derive(Debug)]
pub struct Engine {
    sources: Vec<Source>,
    trees: Vec<Tree>,
    watch: Option<Watch>,
    looked: Looked,
    /// Directories of which the kernel says that something changed.
    changed: BTreeSet<watch::Place>,
    /// Series whose files are looked at next.
    written: BTreeSet<u64>,
    /// Series in which the end of a record is waited for.
    waiting: BTreeSet<u64>,
    places: BTreeMap<Place, u64>,
    series: BTreeMap<u64, Series>,
    next_series: u64,
    /// Series with unread bytes, in the order of their turns.
    ready: VecDeque<u64>,
    /// Those of them that sent too much to have a turn now; they come first when they may.
    held: VecDeque<u64>,
    budget: Budget,
    look_backs: VecDeque<LookBack>,
    store: Store,
    beginning: Option<Beginning>,
    /// The first scan is over.
    has_scanned: bool,
    reader: Reader,
    splitter: Splitter,
    /// For records that are wanted after all.
    again: Splitter,
    redactor: Redactor,
    stats: Stats,
    gaps: Gaps,
    folds: Folds,
    problems: Problems,
    problems_told: Problems,
    in_flight: usize,
    /// Series of which ranges may wait for an answer.
    unanswered: BTreeSet<u64>,
    most_files: usize,
    /// So many more may be opened until their number is looked at again.
    room: usize,
    ending: bool,
    /// Bytes of removed files that may stay open.
    most_pinned: u64,
}

impl Engine {
    /// An engine that follows `sources` from the positions in `store`, and gives out no record
    /// before `redactor` has seen it.
    pub fn new(sources: Vec<Source>, store: Store, redactor: Redactor) -> Self {
        Self {
            trees: sources.iter().map(|_| Tree::default()).collect(),
            sources,
            watch: None,
            looked: Looked::default(),
            changed: BTreeSet::new(),
            written: BTreeSet::new(),
            waiting: BTreeSet::new(),
            places: BTreeMap::new(),
            series: BTreeMap::new(),
            next_series: 0,
            ready: VecDeque::new(),
            held: VecDeque::new(),
            budget: Budget::default(),
            look_backs: VecDeque::new(),
            store,
            beginning: None,
            has_scanned: false,
            reader: Reader::default(),
            splitter: Splitter::default(),
            again: Splitter::default(),
            redactor,
            stats: Stats::default(),
            gaps: Gaps::default(),
            folds: Folds::default(),
            problems: Problems::new(),
            problems_told: Problems::new(),
            in_flight: 0,
            unanswered: BTreeSet::new(),
            most_files: most_files(),
            room: 0,
            ending: false,
            most_pinned: PINNED_BYTES,
        }
    }

    /// From now on no more is sent than `limits` allow.
    pub fn limit(&mut self, limits: Limits) {
        self.budget = Budget::new(limits);
    }

    /// Decides what is wanted of each container; `None` leaves its files alone for now.
    pub fn assign(&mut self, mut decide: impl FnMut(&Origin) -> Option<Policy>) {
        for series in self.series.values_mut() {
            let policy = decide(&series.origin);
            if series.policy != policy {
                series.policy = policy;
                self.looked.into_all = None;
            }
        }
        self.begin();
    }

    /// Gives the records of one turn of one file to `emit`, for the batch with
    /// the given id; `None` if nothing is left to read now. After `emit` breaks the
    /// turn ends soon.
    pub fn read(
        &mut self,
        batch: u64,
        now: Instant,
        mut emit: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Option<Chunk<'_>> {
        if self.folds.tell(batch, now, self.ending) {
            return self.tell_count(emit);
        }
        if self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        let (id, index, turn) = match self.take_turn(batch, now, &mut emit) {
            Some(turn) => turn,
            None => self.take_look_back(batch, now, &mut emit)?,
        };
        let series = self.series.get(&id)?;
        let newest = series.files.last()?.order.instance;
        Some(Chunk {
            origin: &series.origin,
            file: turn.file,
            start: turn.start,
            end: turn.end,
            previous_instance: series.files.get(index)?.order.instance < newest,
            left_out: turn.left_out,
            entries: turn.entries,
        })
    }

    /// As [`Self::read`], but only how many errors were not sent because others like them were,
    /// since that was told.
    pub fn read_counts(
        &mut self,
        batch: u64,
        now: Instant,
        emit: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Option<Chunk<'_>> {
        if self.folds.tell(batch, now, true) { self.tell_count(emit) } else { None }
    }

    /// A record that stands where the last of the errors lies that it counts: that one was not
    /// sent, so nobody takes it for one that was.
    fn tell_count(&mut self, mut emit: impl FnMut(Record<'_>) -> ControlFlow<()>) -> Option<Chunk<'_>> {
        self.in_flight += 1;
        let folded = self.folds.told()?;
        let (start, end) = folded.last;
        let text = folded.text();
        let _one_turn = emit(Record {
            timestamp: folded.times.map(|(_, last)| last),
            text: &text,
            level: Some(folded.level),
            class: class::class(&folded.sample),
            end: u32::try_from(end - start).unwrap_or(u32::MAX),
        });
        let previous_instance = folded.previous_instance;
        let (origin, file) = (&folded.origin, folded.file);
        Some(Chunk { origin, file, start, end, previous_instance, left_out: 0, entries: 1 })
    }

    /// Batches up to `up_to` arrived.
    pub fn ack(&mut self, up_to: u64) {
        self.gaps.ack(up_to);
        self.folds.ack(up_to);
        self.in_flight = self.gaps.in_flight() + self.folds.in_flight();
        self.unanswered.retain(|id| {
            let files = self.series.get_mut(id).into_iter().flat_map(|series| &mut series.files);
            let waiting: usize = files
                .map(|file| {
                    file.ledger.ack(up_to);
                    file.ledger.in_flight()
                })
                .sum();
            self.in_flight += waiting;
            waiting > 0
        });
        self.ack_look_backs(up_to);
    }

    /// The connection is gone, or something did not arrive: what is not
    /// acknowledged is read again.
    pub fn rewind(&mut self) {
        self.gaps.rewind();
        self.folds.rewind();
        self.looked.into_all = None;
        for file in self.series.values_mut().flat_map(|series| &mut series.files) {
            self.stats.bytes_repeated += file.ledger.settled() - file.ledger.acked();
            file.rewind();
        }
        self.unanswered.clear();
        self.in_flight = self.gaps.in_flight() + self.folds.in_flight();
        self.rewind_look_backs();
    }

    /// What was gone before it was delivered, to be told in the batch with the
    /// given id; if that does not arrive, it is given again.
    pub fn tell_gaps(&mut self, batch: u64) -> Vec<Gap> {
        let gaps = self.gaps.tell(batch);
        self.in_flight += gaps.len();
        gaps
    }

    /// Whether [`Self::tell_gaps`] has something to tell.
    pub fn has_gaps(&self) -> bool {
        self.gaps.is_open()
    }

    /// From now on no end of a record is waited for.
    pub fn end(&mut self) {
        self.ending = true;
        self.looked.into_all = None;
    }

    /// Nothing more is read: what was not read of removed files is gone when they are closed, and a gap from
    /// now on.
    pub fn close_removed(&mut self, now: Instant) {
        self.most_pinned = 0;
        self.looked = Looked::default();
        self.scan(now);
    }

    /// Writes positions that changed.
    ///
    /// # Errors
    /// They cannot be written; the next call tries again.
    pub fn save(&mut self, now: SystemTime) -> Result<(), StoreError> {
        if !self.store.is_kept() {
            return Ok(());
        }
        // Nobody knows of it any more once this process was killed and the file removed.
        let mut unread = BTreeMap::new();
        for series in self.series.values() {
            for file in &series.files {
                let Some(id) = file.id.filter(|_| !file.is_from_before) else { continue };
                if series.format == Format::Plain && file.is_pinned() && file.is_done() {
                    // Its packed copy must not be taken for one that begins alike.
                    self.store.remove(id);
                } else {
                    // Also if nothing of it arrived yet, so that it keeps its identity.
                    self.store.set(id, file.position());
                    let bytes = file.size().saturating_sub(file.position());
                    if bytes > 0 && series.format == Format::Cri && series.is_wanted() {
                        unread.insert(
                            (id.head, id.inode),
                            Unread { bytes, directory: series.directory.clone() },
                        );
                    }
                }
            }
        }
        self.store.keep_unread(unread);
        self.store.save(now)
    }

    /// Every container with files, and what is wanted of it.
    pub fn origins(&self) -> impl Iterator<Item = (&Origin, Option<Policy>)> {
        self.series.values().map(|series| (&series.origin, series.policy))
    }

    /// Containers that sent too much to be read on now.
    pub fn held_back(&self) -> usize {
        self.held.len()
    }

    /// Number of files that are open.
    pub fn files(&self) -> usize {
        self.series.values().map(|series| series.files.len()).sum()
    }

    /// Bytes that are on the disk, wanted and not read yet.
    pub fn unread_bytes(&self) -> u64 {
        let wanted = self.series.values().filter(|series| series.is_wanted());
        wanted.flat_map(|series| &series.files).map(Tracked::unread).sum()
    }

    /// Whether none of them are left.
    pub fn is_all_read(&self) -> bool {
        self.ready.is_empty() && self.unread_bytes() == 0
    }

    /// Whether [`Self::read_counts`] has something to give, or will have.
    pub fn has_counts(&self) -> bool {
        !self.folds.is_empty()
    }

    /// The same by container.
    pub fn unread(&self) -> BTreeMap<&Origin, u64> {
        let mut unread = BTreeMap::new();
        for series in self.series.values().filter(|series| series.is_wanted()) {
            *unread.entry(&series.origin).or_default() +=
                series.files.iter().map(Tracked::unread).sum::<u64>();
        }
        unread
    }

    /// Ranges that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        let (gaps, bytes_lost) = (self.gaps.count(), self.gaps.total());
        Stats { redacted: self.redactor.count(), gaps, bytes_lost, ..self.stats }
    }

    /// What cannot be followed at present.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// How problems changed since the last call.
    pub fn news(&mut self) -> Vec<News> {
        let (now, before) = (&self.problems, &self.problems_told);
        let mended = before.keys().filter(|path| !now.contains_key(*path));
        let mended = mended.map(|path| News { path: path.clone(), problem: None });
        let new = now.iter().filter(|(path, problem)| before.get(*path) != Some(problem));
        let new = new.map(|(path, problem)| News { path: path.clone(), problem: Some(problem.clone()) });
        let news = mended.chain(new).collect();
        self.problems_told.clone_from(&self.problems);
        news
    }

    /// Ids of the series in a directory and, with `below`, under it.
    fn series_in(&self, source: usize, directory: &Below, below: bool) -> Vec<u64> {
        let from = (source, directory.clone(), String::new());
        self.places
            .range((Bound::Included(&from), Bound::Unbounded))
            .take_while(|((number, path, _), _)| {
                *number == source && if below { path.starts_with(&**directory) } else { path == directory }
            })
            .map(|(_, id)| *id)
            .collect()
    }
}

/// How many files may be followed within this process's limit of open ones.
fn most_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(SPARE_DESCRIPTORS)).map_or(MOST_FILES, |most| most.min(MOST_FILES))
}

/// Keeps a problem for the report, if that has room.
fn add(problems: &mut Problems, path: PathBuf, sentence: String) {
    if problems.len() < MOST_PROBLEMS || problems.contains_key(&path) {
        problems.insert(path, sentence);
    }
}
