//! Containers that write, a kubelet that rotates, an engine that reads, and the
//! truth about every line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Write as _,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use kestrel_tail::{
    discover::{Layout, Source},
    engine::{Engine, Policy},
    position::store::Store,
    redact::{Expressions, Redactor},
};
use tempfile::TempDir;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// In its file, not delivered.
    Written,
    /// Under way in a batch.
    InFlight(u64),
    /// It arrived; `saved` if a new process knows that.
    Arrived { saved: bool },
    /// Its file is gone, and the engine knew of it.
    Lost,
    /// Its file is gone, and the engine could not know of it.
    Unknown,
}

/// Where a line lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    OnDisk,
    /// Who has the file open can read it.
    Removed,
    Emptied,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) fate: Fate,
    /// Bytes in its file.
    bytes: u64,
    /// What its file was.
    file: Where,
    /// It had not arrived when positions were saved last.
    is_saved_unread: bool,
}

/// A container's files: numbers of the lines in each, the oldest file first.
struct Container {
    directory: PathBuf,
    name: String,
    rotated: Vec<(String, Vec<u64>)>,
    live: Vec<u64>,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: fastrand::Rng,
    root: TempDir,
    engine: Engine,
    is_watched: bool,
    containers: Vec<Container>,
    pub(super) lines: BTreeMap<u64, Line>,
    next: u64,
    rotations: u32,
    batch: u64,
    now: Instant,
    clock: SystemTime,
    /// Lost bytes that engines counted which are gone.
    counted: u64,
    /// Bytes that engines must take for lost as they were unread when positions were saved, and are in no file that they
    /// can find.
    unattended: u64,
    /// Batches up to here arrived.
    acked: u64,
}

impl World {
    pub(super) fn new(seed: u64, containers: usize) -> Self {
        let is_watched = seed % 2 == 1;
        let root = tempfile::tempdir().unwrap();
        let mut world = Self {
            seed,
            random: fastrand::Rng::with_seed(seed),
            engine: engine(&root, is_watched),
            root,
            is_watched,
            containers: Vec::new(),
            lines: BTreeMap::new(),
            next: 0,
            rotations: 0,
            batch: 0,
            now: Instant::now(),
            clock: SystemTime::now(),
            counted: 0,
            unattended: 0,
            acked: 0,
        };
        (0..containers).for_each(|_| world.start_container());
        world
    }

    fn start_container(&mut self) {
        self.next += 1;
        let name = format!("ns_pod-{}_uid", self.next);
        let directory = self.root.path().join("logs").join(&name).join("app");
        fs::create_dir_all(&directory).unwrap();
        File::create(directory.join("0.log")).unwrap();
        self.containers.push(Container { directory, name, rotated: Vec::new(), live: Vec::new() });
    }

    /// One random thing happens.
    pub(super) fn step(&mut self) {
        let at = self.random.usize(..self.containers.len());
        match self.random.u32(..100) {
            0..30 => self.write(at),
            30..40 => self.rotate(at),
            40..46 => self.pack(at),
            46..50 => self.remove_oldest(at),
            50..53 => self.empty(at),
            53..55 => self.delete_pod(at),
            55..65 => self.scan(),
            65..85 => self.read(),
            85..91 => self.ack(),
            91..94 => self.save(),
            94..96 => self.refuse(),
            96..98 => self.kill(),
            _ => self.pass_time(),
        }
    }

    fn write(&mut self, at: usize) {
        let container = &mut self.containers[at];
        let mut text = Vec::new();
        for _ in 0..self.random.u32(1..60) {
            self.next += 1;
            let number = self.next;
            let begin = text.len();
            let time = format!("2026-11-21T13:50:00.{number:09}Z stdout");
            let filling =
                "x".repeat(if self.random.u32(..200) == 0 { 40_000 } else { self.random.usize(..100) });
            if self.random.u32(..20) == 0 {
                writeln!(text, "{time} P {number} \n{time} F {filling}").unwrap();
            } else {
                writeln!(text, "{time} F {number} {filling}").unwrap();
            }
            let bytes = (text.len() - begin) as u64;
            self.lines.insert(
                number,
                Line { fate: Fate::Written, bytes, file: Where::OnDisk, is_saved_unread: false },
            );
            container.live.push(number);
        }
        let mut file = OpenOptions::new().append(true).open(container.directory.join("0.log")).unwrap();
        // As a runtime may be seen to write.
        let (first, rest) = text.split_at(self.random.usize(..text.len()));
        file.write_all(first).unwrap();
        if self.random.u32(..10) == 0 {
            self.engine.poll(self.now);
            self.read();
        }
        file.write_all(rest).unwrap();
    }

    fn rotate(&mut self, at: usize) {
        let container = &mut self.containers[at];
        self.rotations += 1;
        let name = format!("0.log.20261121-{:06}", self.rotations);
        fs::rename(container.directory.join("0.log"), container.directory.join(&name)).unwrap();
        File::create(container.directory.join("0.log")).unwrap();
        container.rotated.push((name, std::mem::take(&mut container.live)));
    }

    /// What the kubelet does to a rotated file.
    fn pack(&mut self, at: usize) {
        let container = &mut self.containers[at];
        let Some((name, _)) = container.rotated.iter_mut().find(|(name, _)| !name.ends_with(".gz")) else {
            return;
        };
        let path = |name: &str| container.directory.join(name);
        let plain = fs::read(path(name)).unwrap();
        let mut encoder =
            GzEncoder::new(File::create(path(&format!("{name}.tmp"))).unwrap(), Compression::fast());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap();
        fs::rename(path(&format!("{name}.tmp")), path(&format!("{name}.gz"))).unwrap();
        if self.random.bool() {
            scan(&mut self.engine, self.now);
        }
        fs::remove_file(path(name)).unwrap();
        name.push_str(".gz");
    }

    /// The engine holds what it has seen, and reads it to its end.
    fn remove_oldest(&mut self, at: usize) {
        if self.containers[at].rotated.is_empty() {
            return;
        }
        self.scan();
        let container = &mut self.containers[at];
        let (name, lines) = container.rotated.remove(0);
        fs::remove_file(container.directory.join(name)).unwrap();
        self.are_gone(lines);
    }

    fn delete_pod(&mut self, at: usize) {
        self.scan();
        let container = self.containers.swap_remove(at);
        fs::remove_dir_all(self.root.path().join("logs").join(&container.name)).unwrap();
        let rotated = container.rotated.into_iter().flat_map(|(_, lines)| lines);
        self.are_gone(rotated.chain(container.live));
        self.start_container();
    }

    /// No process that begins later can read them.
    fn are_gone(&mut self, lines: impl IntoIterator<Item = u64>) {
        for number in lines {
            self.lines.get_mut(&number).unwrap().file = Where::Removed;
        }
    }

    /// Copy and truncate, where nobody reads the copy.
    fn empty(&mut self, at: usize) {
        self.scan();
        self.engine.poll(self.now);
        let container = &mut self.containers[at];
        let path = container.directory.join("0.log");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        for number in std::mem::take(&mut container.live) {
            let line = self.lines.get_mut(&number).unwrap();
            line.file = Where::Emptied;
            if line.fate == Fate::Written {
                line.fate = Fate::Lost;
            }
        }
        if self.random.bool() {
            // It may grow past the place of reading before anybody looks.
            self.write(at);
            self.write(at);
        }
    }

    pub(super) fn scan(&mut self) {
        scan(&mut self.engine, self.now);
    }

    /// A batch of some turns.
    pub(super) fn read(&mut self) {
        self.engine.poll(self.now);
        self.batch += 1;
        for _ in 0..self.random.u32(1..8) {
            let most = if self.random.bool() { usize::MAX } else { self.random.usize(1..50) };
            let mut numbers = Vec::new();
            let chunk = self.engine.read(self.batch, self.now, |record| {
                numbers.push(record.text.split(' ').next().unwrap().parse::<u64>().unwrap());
                if numbers.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if chunk.is_none() {
                break;
            }
            for number in numbers {
                let line =
                    self.lines.get_mut(&number).unwrap_or_else(|| panic!("{number} was never written"));
                assert!(
                    matches!(line.fate, Fate::Written | Fate::Unknown),
                    "seed {}: line {number} comes again: {line:?}",
                    self.seed
                );
                line.fate = Fate::InFlight(self.batch);
            }
        }
    }

    pub(super) fn ack(&mut self) {
        self.acked = self.random.u64(self.acked..=self.batch);
        self.settle();
    }

    fn settle(&mut self) {
        self.engine.ack(self.acked);
        for line in self.lines.values_mut() {
            if let Fate::InFlight(batch) = line.fate
                && batch <= self.acked
            {
                line.fate = Fate::Arrived { saved: false };
            }
        }
    }

    fn save(&mut self) {
        self.scan();
        self.engine.poll(self.now);
        self.engine.save(self.clock).unwrap();
        for line in self.lines.values_mut() {
            let is_readable = matches!(line.fate, Fate::Written | Fate::InFlight(_));
            line.is_saved_unread = is_readable && line.file != Where::Emptied;
            if line.fate == (Fate::Arrived { saved: false }) {
                line.fate = Fate::Arrived { saved: true };
            }
        }
    }

    /// What is under way did not arrive.
    fn refuse(&mut self) {
        self.engine.rewind();
        for line in self.lines.values_mut() {
            if matches!(line.fate, Fate::InFlight(_)) {
                line.fate = if line.file == Where::Emptied { Fate::Lost } else { Fate::Written };
            }
        }
        self.batch += 1;
        self.acked = self.batch;
    }

    /// A new process knows what was saved.
    fn kill(&mut self) {
        // What it had not noticed, nobody counts.
        self.engine.poll(self.now);
        self.counted += self.engine.stats().bytes_lost.total();
        for line in self.lines.values_mut() {
            if line.is_saved_unread && line.file != Where::OnDisk {
                self.unattended += line.bytes;
            }
            line.fate = match (line.fate, line.file) {
                (Fate::Written | Fate::InFlight(_) | Fate::Arrived { saved: false }, Where::OnDisk) => {
                    Fate::Written
                }
                (Fate::Written | Fate::InFlight(_), _) => Fate::Unknown,
                (fate, _) => fate,
            };
        }
        self.engine = engine(&self.root, self.is_watched);
        self.batch += 1;
        self.acked = self.batch;
        self.scan();
    }

    /// The system's clock may be set to anything.
    fn pass_time(&mut self) {
        self.now += Duration::from_millis(self.random.u64(..30_000));
        self.clock = match self.random.u32(..4) {
            0 => self.clock + Duration::from_secs(self.random.u64(..200_000)),
            1 => self.clock - Duration::from_secs(self.random.u64(..200_000)),
            _ => self.clock + Duration::from_secs(1),
        };
    }

    /// Everything is read and arrives.
    pub(super) fn finish(&mut self) {
        self.now += Duration::from_secs(60);
        self.scan();
        loop {
            let before = self.engine.stats().lines;
            self.read();
            self.acked = self.batch;
            self.settle();
            self.now += Duration::from_secs(1);
            if self.engine.stats().lines == before && self.engine.unread_bytes() == 0 {
                break;
            }
        }
        let missing: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, line)| matches!(line.fate, Fate::Written | Fate::InFlight(_)))
            .collect();
        assert!(missing.is_empty(), "seed {}: missing {:?}", self.seed, &missing[..missing.len().min(5)]);
        let lost: u64 =
            self.lines.values().filter(|line| line.fate == Fate::Lost).map(|line| line.bytes).sum();
        let counted = self.counted + self.engine.stats().bytes_lost.total();
        assert_eq!(counted, lost + self.unattended, "seed {}: gaps are not the truth", self.seed);
    }

    /// What the walk did, so that a test knows that it tested something.
    pub(super) fn fates(&self) -> BTreeSet<&'static str> {
        let name = |line: &Line| match line.fate {
            Fate::Arrived { saved: true } => "saved",
            Fate::Arrived { .. } => "arrived",
            Fate::Lost => "lost",
            _ => "other",
        };
        self.lines.values().map(name).collect()
    }
}

fn engine(root: &TempDir, is_watched: bool) -> Engine {
    let source = Source { directory: root.path().join("logs"), layout: Layout::Pods { except: None } };
    let store = Store::load(&root.path().join("positions")).unwrap();
    let mut engine = Engine::new(vec![source], store, Redactor::new(Expressions::default()));
    if is_watched {
        engine.watch().unwrap();
    }
    engine
}

fn scan(engine: &mut Engine, now: Instant) {
    engine.scan(now);
    engine.assign(|_| Some(Policy::All));
}
