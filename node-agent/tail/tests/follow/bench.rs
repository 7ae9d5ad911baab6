//! A directory of logs, and an engine that follows it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use kestrel_tail::{
    discover::{Layout, Origin, Source},
    engine::{Engine, Policy},
    multiline::PAUSE,
    position::store::Store,
    redact::{Expressions, Redactor},
};
use tempfile::TempDir;

/// A directory of logs, an engine that follows it, and what it gave.
pub(super) struct Bench {
    pub(super) root: TempDir,
    pub(super) layout: Layout,
    pub(super) engine: Engine,
    pub(super) batch: u64,
    pub(super) now: Instant,
    pub(super) lines: Vec<String>,
    /// Ranges by file, to see that the names of files stay.
    pub(super) ranges: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Bench {
    pub(super) fn new(layout: Layout) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("logs")).unwrap();
        let engine = Self::engine(root.path(), &layout);
        let now = Instant::now();
        Self { root, layout, engine, batch: 0, now, lines: Vec::new(), ranges: BTreeMap::new() }
    }

    pub(super) fn pods() -> Self {
        Self::new(Layout::Pods { except: Some(("kestrel-ai".into(), "agent".into())) })
    }

    pub(super) fn files(pattern: &str) -> Self {
        let origin = Origin { container: "app".into(), ..Origin::default() };
        Self::new(Layout::Files { origin, patterns: vec![pattern.parse().unwrap()] })
    }

    pub(super) fn engine(root: &Path, layout: &Layout) -> Engine {
        let source = Source { directory: root.join("logs"), layout: layout.clone() };
        let store = Store::load(&root.join("positions")).unwrap();
        let mut engine = Engine::new(vec![source], store, Redactor::new(Expressions::default()));
        engine.watch().unwrap();
        engine
    }

    /// As a new process would: only what was saved is known.
    pub(super) fn restart(&mut self) {
        self.engine = Self::engine(self.root.path(), &self.layout);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        let path = self.root.path().join("logs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub(super) fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(super) fn set_modified(&self, name: &str, time: SystemTime) {
        OpenOptions::new().append(true).open(self.path(name)).unwrap().set_modified(time).unwrap();
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// What the kubelet does to rotated files: pack, then remove the plain one.
    pub(super) fn pack(&self, name: &str) {
        let plain = fs::read(self.path(name)).unwrap();
        let mut encoder =
            GzEncoder::new(File::create(self.path(&format!("{name}.tmp"))).unwrap(), Compression::fast());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap();
        self.rename(&format!("{name}.tmp"), &format!("{name}.gz"));
        fs::remove_file(self.path(name)).unwrap();
    }

    pub(super) fn scan(&mut self) {
        self.engine.scan(self.now);
        self.engine.assign(|_| Some(Policy::All));
    }

    /// Scans and reads all there is, a batch each turn, and returns the new lines.
    pub(super) fn read(&mut self) -> Vec<String> {
        self.scan();
        self.read_without_scan()
    }

    /// The same, and again when nothing is written to rotated files any more.
    pub(super) fn read_rotated(&mut self) -> Vec<String> {
        let mut lines = self.read();
        self.later(PAUSE);
        lines.extend(self.read());
        self.later(PAUSE);
        lines.extend(self.read());
        lines
    }

    pub(super) fn read_without_scan(&mut self) -> Vec<String> {
        let before = self.lines.len();
        while self.engine.poll(self.now) {
            let mut progress = false;
            loop {
                self.batch += 1;
                let lines = &mut self.lines;
                let emit = |record: kestrel_tail::engine::Record<'_>| {
                    lines.push(record.text.to_owned());
                    ControlFlow::Continue(())
                };
                let Some(chunk) = self.engine.read(self.batch, self.now, emit) else { break };
                progress = true;
                self.ranges.entry(chunk.file.to_string()).or_default().push((chunk.start, chunk.end));
            }
            if !progress {
                break;
            }
        }
        self.lines[before..].to_vec()
    }

    pub(super) fn ack_and_save(&mut self) {
        self.engine.ack(self.batch);
        self.engine.save(SystemTime::now()).unwrap();
    }

    pub(super) fn later(&mut self, time: Duration) {
        self.now += time;
    }
}

pub(super) fn cri(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("2026-11-21T13:50:00.{n:09}Z stdout F line {n}\n")).collect()
}

pub(super) fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

pub(super) const LIVE: &str = "ns_pod_uid/app/0.log";
pub(super) const OTHER: &str = "ns_other_uid2/app/0.log";
pub(super) const ROTATED: &str = "ns_pod_uid/app/0.log.20261121-135000";
pub(super) const ROTATED_LATER: &str = "ns_pod_uid/app/0.log.20261121-135010";
