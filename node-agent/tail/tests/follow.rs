//! The engine on real files: rotation in every form, restarts, refusals.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

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
    engine::{Engine, News, PATIENCE, PINNED_BYTES, Policy},
    multiline,
    position::store::Store,
    redact::{Expressions, Redactor},
};
use proptest::prelude::*;
use tempfile::TempDir;

/// A directory of logs, an engine that follows it, and what it gave.
struct Bench {
    root: TempDir,
    layout: Layout,
    engine: Engine,
    batch: u64,
    now: Instant,
    lines: Vec<String>,
    /// Ranges by file, to see that the names of files stay.
    ranges: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Bench {
    fn new(layout: Layout) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("logs")).unwrap();
        let engine = Self::engine(root.path(), &layout);
        let now = Instant::now();
        Self { root, layout, engine, batch: 0, now, lines: Vec::new(), ranges: BTreeMap::new() }
    }

    fn pods() -> Self {
        Self::new(Layout::Pods { except: Some(("kestrel-ai".into(), "agent".into())) })
    }

    fn files(pattern: &str) -> Self {
        let origin = Origin { container: "app".into(), ..Origin::default() };
        Self::new(Layout::Files { origin, patterns: vec![pattern.parse().unwrap()] })
    }

    fn engine(root: &Path, layout: &Layout) -> Engine {
        let source = Source { directory: root.join("logs"), layout: layout.clone() };
        let store = Store::load(&root.join("positions")).unwrap();
        let mut engine = Engine::new(vec![source], store, Redactor::new(Expressions::default()));
        engine.watch().unwrap();
        engine
    }

    /// As a new process would: only what was saved is known.
    fn restart(&mut self) {
        self.engine = Self::engine(self.root.path(), &self.layout);
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.root.path().join("logs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// What the kubelet does to rotated files: pack, then remove the plain one.
    fn pack(&self, name: &str) {
        let plain = fs::read(self.path(name)).unwrap();
        let mut encoder =
            GzEncoder::new(File::create(self.path(&format!("{name}.tmp"))).unwrap(), Compression::fast());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap();
        self.rename(&format!("{name}.tmp"), &format!("{name}.gz"));
        fs::remove_file(self.path(name)).unwrap();
    }

    fn scan(&mut self) {
        self.engine.scan(self.now);
        self.engine.assign(|_| Some(Policy::All));
    }

    /// Scans and reads all there is, a batch each turn, and returns the new lines.
    fn read(&mut self) -> Vec<String> {
        self.scan();
        self.read_without_scan()
    }

    fn read_without_scan(&mut self) -> Vec<String> {
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

    fn ack_and_save(&mut self) {
        self.engine.ack(self.batch);
        self.engine.save(SystemTime::now()).unwrap();
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
    }
}

fn cri(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("2026-11-21T13:50:00.{n:09}Z stdout F line {n}\n")).collect()
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

const LIVE: &str = "ns_pod_uid/app/0.log";
const ROTATED: &str = "ns_pod_uid/app/0.log.20261121-135000";
const ROTATED_LATER: &str = "ns_pod_uid/app/0.log.20261121-135010";

#[test]
fn lines_arrive_once_over_rotation_by_rename() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    assert_eq!(bench.read(), numbered(0..10));
    bench.append(LIVE, &cri(10..20));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &cri(20..30));
    // The runtime writes to the old file until it is told of the new one.
    bench.append(ROTATED, &cri(30..31));
    let expected: Vec<_> =
        numbered(10..20).into_iter().chain(numbered(30..31)).chain(numbered(20..30)).collect();
    assert_eq!(bench.read(), expected);
    bench.append(ROTATED, &cri(31..32));
    assert_eq!(bench.read(), numbered(31..32));
    bench.pack(ROTATED);
    assert!(bench.read().is_empty());
    assert_eq!(bench.ranges.len(), 2, "{:?}", bench.ranges);
}

#[test]
fn no_secret_leaves_the_engine_not_even_in_pieces() {
    let mut bench = Bench::pods();
    let time = "2026-11-21T13:50:00Z stdout";
    bench.append(
        LIVE,
        &format!("{time} F password=hunter2\n{time} P pass\n{time} F word=hunter2\nsecret=hunter2\n"),
    );
    assert_eq!(bench.read(), ["password=[redacted]", "password=[redacted]", "secret=[redacted]"]);
    assert_eq!(bench.engine.stats().redacted, 3);
}

#[test]
fn two_rotations_between_scans_lose_nothing() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    assert_eq!(bench.read(), numbered(0..10));
    bench.append(LIVE, &cri(10..20));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &cri(20..30));
    bench.pack(ROTATED);
    bench.rename(LIVE, ROTATED_LATER);
    bench.append(LIVE, &cri(30..40));
    assert_eq!(bench.read(), numbered(10..40));
}

#[test]
fn a_restart_goes_on_where_the_acks_ended_even_in_packed_files() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    assert_eq!(bench.read(), numbered(0..10));
    bench.ack_and_save();
    bench.append(LIVE, &cri(10..20));
    assert_eq!(bench.read(), numbered(10..20));
    bench.engine.save(SystemTime::now()).unwrap();

    // While nobody runs, the file is rotated away and packed, and so is the next.
    bench.append(LIVE, &cri(20..30));
    bench.rename(LIVE, ROTATED);
    bench.pack(ROTATED);
    bench.append(LIVE, &cri(30..40));
    bench.rename(LIVE, ROTATED_LATER);
    bench.append(LIVE, &cri(40..50));
    bench.restart();
    assert_eq!(bench.read(), numbered(10..50));
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty());
    // The packed file kept the name it had when it was plain.
    assert_eq!(bench.ranges.len(), 3, "{:?}", bench.ranges);
}

#[test]
fn a_packed_file_takes_over_what_is_in_flight_in_the_plain_one() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    bench.read();
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &cri(10..20));
    bench.pack(ROTATED);
    bench.read();
    bench.engine.rewind();
    assert_eq!(bench.read(), numbered(0..20));
    assert_eq!(bench.engine.files(), 2);
    bench.ack_and_save();
    assert_eq!(bench.engine.in_flight(), 0);
}

#[test]
fn a_file_that_was_packed_before_it_was_read_is_read_once() {
    let mut bench = Bench::pods();
    bench.append(LIVE, "");
    assert!(bench.read().is_empty());
    bench.append(LIVE, &cri(0..10));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, "");
    bench.pack(ROTATED);
    assert_eq!(bench.read(), numbered(0..10));
}

#[test]
fn a_reused_inode_is_another_file() {
    let mut bench = Bench::files("*.log");
    bench.append("a.log", "line 0\n");
    assert_eq!(bench.read(), numbered(0..1));
    bench.ack_and_save();
    drop(std::mem::replace(&mut bench.engine, Bench::engine(bench.root.path(), &bench.layout)));
    fs::remove_file(bench.path("a.log")).unwrap();
    // Most file systems give the freed number to the next file.
    bench.append("a.log", "line 1\nline 2\n");
    assert_eq!(bench.read(), numbered(1..3));
}

#[test]
fn a_removed_files_position_does_not_outlive_it() {
    let mut bench = Bench::files("*.log");
    bench.append("a.log", "banner\nline 0\n");
    assert_eq!(bench.read(), ["banner", "line 0"]);
    bench.ack_and_save();
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.scan();
    bench.later(2 * PATIENCE);
    bench.scan();
    assert_eq!(bench.engine.files(), 0);
    // Most file systems give the freed number to the next file, and this one
    // begins with the same line.
    bench.append("a.log", "banner\nline 1\nline 2\n");
    assert_eq!(bench.read(), ["banner", "line 1", "line 2"]);
    bench.ack_and_save();
    let positions = fs::read_to_string(bench.root.path().join("positions")).unwrap();
    assert_eq!(positions.lines().count(), 2, "{positions}");
}

#[test]
fn deleted_pods_are_read_to_their_end_and_let_go() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    bench.scan();
    bench.append(LIVE, &cri(10..20));
    fs::remove_dir_all(bench.path("ns_pod_uid")).unwrap();
    assert_eq!(bench.read(), numbered(0..20));
    bench.later(2 * PATIENCE);
    bench.scan();
    assert_eq!(bench.engine.files(), 1, "not delivered yet");
    bench.ack_and_save();
    bench.scan();
    assert_eq!(bench.engine.files(), 0);
}

#[test]
fn what_is_removed_unread_is_held_only_up_to_a_bound_and_counted() {
    let mut bench = Bench::pods();
    let sizes = [PINNED_BYTES - 1000, 500, 700];
    for (number, size) in sizes.iter().enumerate() {
        bench.append(&format!("ns_pod{number}_uid/app/0.log"), &cri(0..1));
        let file = OpenOptions::new()
            .write(true)
            .open(bench.path(&format!("ns_pod{number}_uid/app/0.log")))
            .unwrap();
        file.set_len(*size).unwrap();
        bench.engine.scan(bench.now);
        bench.engine.poll(bench.now);
        bench.later(Duration::from_secs(1));
    }
    fs::remove_dir_all(bench.path("")).unwrap();
    bench.engine.scan(bench.now);
    bench.engine.poll(bench.now);
    bench.engine.scan(bench.now);
    assert_eq!(bench.engine.files(), 2);
    assert_eq!(bench.engine.stats().bytes_lost.total(), sizes[0]);
}

#[test]
fn copytruncate_begins_anew_and_counts_what_it_lost() {
    let mut bench = Bench::files("**/*.log");
    bench.append("x/app.log", "banner\nline 0\nline 1\n");
    assert_eq!(bench.read(), ["banner", "line 0", "line 1"]);
    bench.ack_and_save();
    fs::copy(bench.path("x/app.log"), bench.path("x/app.log.1")).unwrap();
    fs::write(bench.path("x/app.log"), "banner\n").unwrap();
    assert_eq!(bench.read(), ["banner"]);
    bench.append("x/app.log", "line 2\n");
    assert_eq!(bench.read(), numbered(2..3));
    assert_eq!(bench.engine.stats().bytes_lost.total(), 0);
    // Both lives have names of their own, though head and inode are equal.
    assert_eq!(bench.ranges.len(), 2, "{:?}", bench.ranges);
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty());

    // Emptied and longer than before at once, which only its bytes show.
    for (number, banner) in [(10, "other banner"), (20, "other banner")] {
        let lines: Vec<_> = (number..number + 5).map(|n| format!("line {n}")).collect();
        fs::write(bench.path("x/app.log"), format!("{banner}\n{}\n", lines.join("\n"))).unwrap();
        assert_eq!(bench.read(), [vec![banner.to_owned()], lines].concat());
    }
    assert_eq!(bench.engine.stats().bytes_lost.total(), 0);

    // What was there and not read is lost, whatever its size is then.
    for size in [0, 40, 400] {
        bench.append("x/app.log", "lost\n");
        bench.later(Duration::from_secs(1));
        bench.engine.poll(bench.now);
        let before = bench.engine.stats().bytes_lost.total();
        fs::write(bench.path("x/app.log"), format!("new {size}\n{}\n", "x".repeat(size))).unwrap();
        assert_eq!(bench.read()[0], format!("new {size}"));
        assert_eq!(bench.engine.stats().bytes_lost.total(), before + 5, "{size}");
    }
}

#[test]
fn renamed_files_are_read_on_under_any_name() {
    let mut bench = Bench::files("**/*.log");
    bench.append("app.log", "line 0\n");
    assert_eq!(bench.read(), numbered(0..1));
    bench.append("app.log", "line 1\n");
    bench.rename("app.log", "old/app-2.log");
    bench.append("app.log", "line 2\n");
    let mut found = bench.read();
    found.sort();
    assert_eq!(found, numbered(1..3));
    bench.ack_and_save();

    // Into a directory that is listed before the old one.
    bench.append("z/app.log", "line 3\n");
    assert_eq!(bench.read(), numbered(3..4));
    fs::create_dir_all(bench.path("a")).unwrap();
    bench.rename("z/app.log", "a/app.log");
    bench.append("a/app.log", "line 4\n");
    assert_eq!(bench.read(), numbered(4..5));
    bench.ack_and_save();

    // A second name is no second file.
    std::os::unix::fs::symlink("app.log", bench.path("latest.log")).unwrap();
    fs::hard_link(bench.path("app.log"), bench.path("current.log")).unwrap();
    assert!(bench.read().is_empty());

    // A name that no pattern has is read on from its position, after a restart too.
    for other in ["latest.log", "current.log"] {
        fs::remove_file(bench.path(other)).unwrap();
    }
    bench.append("app.log", "line 5\n");
    bench.rename("app.log", "app.log.1");
    bench.append("app.log.2", "never begun\n");
    bench.restart();
    assert_eq!(bench.read(), numbered(5..6));
    bench.ack_and_save();
    assert!(bench.read().is_empty());
}

#[test]
fn last_lines_of_a_quiet_pod_are_read_although_it_is_deleted_at_once() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..1));
    assert_eq!(bench.read(), numbered(0..1));
    bench.ack_and_save();
    bench.later(2 * PATIENCE);
    bench.append(LIVE, &cri(1..3));
    fs::remove_dir_all(bench.path("ns_pod_uid")).unwrap();
    assert_eq!(bench.read(), numbered(1..3));
}

#[test]
fn a_file_that_was_emptied_and_packed_before_anybody_looked_is_read_once() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    bench.scan();
    fs::write(bench.path(LIVE), cri(10..40)).unwrap();
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, "");
    bench.pack(ROTATED);
    bench.scan();
    assert_eq!(bench.read(), numbered(10..40));
}

#[test]
fn a_full_disk_keeps_the_positions_that_there_are() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    bench.read();
    bench.ack_and_save();
    bench.append(LIVE, &cri(10..20));
    bench.read();
    bench.engine.ack(bench.batch);
    // Whatever is written there fails as on a full disk.
    let new = bench.root.path().join("positions.new");
    std::os::unix::fs::symlink("/dev/full", &new).unwrap();
    let error = bench.engine.save(SystemTime::now()).unwrap_err().to_string();
    assert!(error.contains("cannot be written") && error.contains("No space left"), "{error}");
    bench.append(LIVE, &cri(20..30));
    assert_eq!(bench.read(), numbered(20..30), "it reads on");
    bench.restart();
    assert_eq!(bench.read(), numbered(10..30));
    fs::remove_file(new).unwrap();
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty());
}

/// A line of `age` seconds ago, which is its text too.
fn ago(age: i64) -> String {
    let time = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(age);
    format!("{time:.9} stdout F {age:05}\n")
}

#[test]
fn what_ran_before_is_read_from_the_look_back_and_what_comes_later_from_its_beginning() {
    let mut bench = Bench::pods();
    let live = ["ns_a_uid/app/0.log", "ns_b_uid/app/0.log"];
    for name in live {
        let packed = format!("{name}.20261121-135000");
        bench.append(&packed, &[3000, 2000, 500].map(ago).concat());
        bench.pack(&packed);
        bench.append(name, &[400, 300].map(ago).concat());
    }
    let begin = |bench: &Bench, in_all| {
        let engine = Bench::engine(bench.root.path(), &bench.layout);
        engine.looking_back(Duration::from_secs(1000), in_all, SystemTime::now())
    };
    let unread = |bench: &mut Bench| {
        bench.engine.scan(bench.now);
        let policy = |origin: &Origin| if origin.pod == "a" { Policy::Errors } else { Policy::All };
        bench.engine.assign(|origin| Some(policy(origin)));
        bench.engine.unread_bytes() / ago(0).len() as u64
    };
    // Of what all is wanted is read from the beginning, unless that is asked for.
    bench.engine = begin(&bench, false);
    assert_eq!(unread(&mut bench), 3 + 5);
    bench.engine = begin(&bench, true);
    assert_eq!(unread(&mut bench), 3 + 3);
    bench.append("ns_c_uid/app/0.log", &[9000, 8000].map(ago).concat());
    assert_eq!(unread(&mut bench), 3 + 3 + 2, "a new file");
    bench.read();
    bench.ack_and_save();

    // Positions go before, and what was written since they were kept is new.
    bench.append(live[0], &ago(9000));
    bench.engine = begin(&bench, true);
    assert_eq!(unread(&mut bench), 1);
    bench.read();
    bench.engine.ack(bench.batch);
    bench.engine.save(SystemTime::now() - Duration::from_secs(5000)).unwrap();
    bench.append("ns_d_uid/app/0.log", &[8000, 4000].map(ago).concat());
    bench.engine = begin(&bench, true);
    assert_eq!(unread(&mut bench), 1);
}

#[test]
fn a_new_instance_marks_the_lines_of_the_one_before() {
    let mut bench = Bench::pods();
    bench.append("ns_pod_uid/app/0.log", &cri(0..1));
    bench.append("ns_pod_uid/app/1.log", &cri(1..2));
    bench.append("kestrel-ai_agent_uid/app/0.log", &cri(7..8));
    bench.scan();
    bench.engine.poll(bench.now);
    let mut seen = Vec::new();
    while let Some(chunk) = bench.engine.read(1, bench.now, |_| ControlFlow::Continue(())) {
        seen.push((chunk.origin.pod.clone(), chunk.origin.container.clone(), chunk.previous_instance));
    }
    assert_eq!(seen, [("pod".into(), "app".into(), true), ("pod".into(), "app".into(), false)]);
}

#[test]
fn an_unfinished_record_is_waited_for_and_then_sent_as_it_is() {
    let mut bench = Bench::pods();
    bench.append(LIVE, "2026-11-21T13:50:00Z stdout P half \n2026-11-21T13:50:00Z stderr F beside\n");
    assert!(bench.read().is_empty());
    bench.append(LIVE, "2026-11-21T13:50:00Z stdout F done\n");
    assert_eq!(bench.read(), ["half done", "beside"]);
    bench.append(LIVE, "2026-11-21T13:50:00Z stdout P alone\n2026-11-21T13:50:00Z stderr F beside\n");
    assert!(bench.read().is_empty());
    bench.later(PATIENCE);
    assert_eq!(bench.read(), ["alone", "beside"]);

    bench.append(LIVE, "2026-11-21T13:50:00Z stdout P last");
    assert!(bench.read().is_empty());
    bench.engine.end();
    assert_eq!(bench.read(), ["last"]);
}

#[test]
fn a_stack_trace_arrives_whole_however_it_is_written() {
    let mut bench = Bench::pods();
    let line = |text: &str| format!("2026-11-21T13:50:00Z stderr F {text}\n");
    let beside = "2026-11-21T13:50:00Z stdout F beside\n";
    bench.append(LIVE, &(line("before") + &line("ERROR bad")));
    assert_eq!(bench.read(), ["before"]);
    for text in ["java.io.IOException: no", "\tat a.B.c(D.java:1)"] {
        bench.append(LIVE, &line(text));
        bench.later(multiline::PAUSE / 2);
        assert!(bench.read().is_empty());
    }
    bench.append(LIVE, beside);
    bench.later(multiline::PAUSE / 2);
    assert!(bench.read().is_empty());
    // A restart meanwhile begins before it.
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty());
    bench.later(multiline::PAUSE);
    let trace = "ERROR bad\njava.io.IOException: no\n\tat a.B.c(D.java:1)";
    assert_eq!(bench.read(), [trace, "beside"]);
    let stats = bench.engine.stats();
    assert_eq!((stats.lines, stats.followed), (4, 2));
    // What comes without a pause is waited for only so long.
    let mut waited = Duration::ZERO;
    bench.append("a_b_c/app/0.log", &line("Traceback (most recent call last):"));
    while bench.read().is_empty() {
        bench.append("a_b_c/app/0.log", &line("  File \"a.py\", line 3, in f"));
        bench.later(multiline::PAUSE / 2);
        waited += multiline::PAUSE / 2;
    }
    assert!(waited <= multiline::SPAN + multiline::PAUSE, "{waited:?}");
}

#[test]
fn bytes_that_are_no_text_are_replaced_and_long_lines_kept() {
    let mut bench = Bench::pods();
    let mut bytes = b"2026-11-21T13:50:00Z stdout F a\0b\xFFc\n".to_vec();
    let long = "x".repeat(1024 * 1024);
    for piece in long.as_bytes().chunks(16 * 1024) {
        bytes.extend_from_slice(b"2026-11-21T13:50:00.123456789Z stdout P ");
        bytes.extend_from_slice(piece);
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(b"2026-11-21T13:50:00.123456789Z stdout F \n");
    bytes.extend_from_slice(cri(0..3).as_bytes());
    fs::write(bench.path(LIVE), &bytes).unwrap();
    let lines = bench.read();
    assert_eq!(lines[0], "a\u{2400}b\u{FFFD}c");
    assert!(lines[1] == long, "{} bytes", lines[1].len());
    assert_eq!(lines[2..], numbered(0..3));
    let stats = bench.engine.stats();
    assert_eq!((stats.cleaned, stats.malformed, stats.continued), (1, 0, 0));
}

#[test]
fn files_that_cannot_be_followed_are_named() {
    let mut bench = Bench::files("*.log");
    bench.append("good.log", "line 0\n");
    fs::write(bench.root.path().join("secret"), "x\n").unwrap();
    std::os::unix::fs::symlink("../secret", bench.path("bad.log")).unwrap();
    assert_eq!(bench.read(), numbered(0..1));
    let news = bench.engine.news();
    let problem = |news: &[News]| news.iter().map(|news| news.problem.clone()).collect::<Vec<_>>();
    assert!(matches!(&problem(&news)[..], [Some(text)] if text.contains("outside of")), "{news:?}");
    bench.scan();
    assert!(bench.engine.news().is_empty());
    fs::remove_file(bench.path("bad.log")).unwrap();
    bench.scan();
    assert_eq!(problem(&bench.engine.news()), [None]);
    assert!(bench.engine.problems().is_empty());
}

#[test]
fn a_packed_file_that_cannot_be_identified_is_lost_once_and_let_go() {
    let mut bench = Bench::pods();
    let name = format!("{ROTATED}.gz");
    // No gzip header, and a trailer that says 7 bytes.
    bench.append(&name, "damaged\u{7}\0\0\0");
    bench.append(LIVE, &cri(0..1));
    assert_eq!(bench.read(), numbered(0..1));
    assert_eq!(bench.engine.stats().bytes_lost.total(), 7);
    assert_eq!((bench.engine.problems().len(), bench.engine.unread_bytes()), (1, 0));
    assert!(bench.read().is_empty());
    assert_eq!(bench.engine.stats().bytes_lost.total(), 7);
    fs::remove_file(bench.path(&name)).unwrap();
    bench.scan();
    assert_eq!((bench.engine.files(), bench.engine.problems().len()), (1, 0));
}

/// What may happen to a container's log, and to those who read it.
#[derive(Clone, Debug)]
enum Event {
    Write(u32),
    Rotate,
    Pack,
    Read,
    Ack,
    Reconnect,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_u32..40).prop_map(Event::Write),
        2 => Just(Event::Rotate),
        2 => Just(Event::Pack),
        6 => Just(Event::Read),
        3 => Just(Event::Ack),
        1 => Just(Event::Reconnect),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever happens, every line is delivered in a batch that was
    /// acknowledged, and without refusals and restarts exactly once.
    #[test]
    fn no_line_is_lost(events in prop::collection::vec(event(), 1..60)) {
        let mut bench = Bench::pods();
        let mut written = 0;
        let mut rotations = 0;
        let mut repeats = false;
        bench.append(LIVE, "");
        for event in events {
            match event {
                Event::Write(lines) => {
                    bench.append(LIVE, &cri(written..written + lines));
                    written += lines;
                }
                Event::Rotate => {
                    bench.rename(LIVE, &format!("{LIVE}.20261121-{rotations:06}"));
                    bench.append(LIVE, "");
                    rotations += 1;
                }
                Event::Pack => {
                    for number in 0..rotations {
                        let name = format!("{LIVE}.20261121-{number:06}");
                        if bench.path(&name).exists() {
                            bench.pack(&name);
                        }
                    }
                }
                Event::Read => {
                    bench.read();
                }
                Event::Ack => bench.ack_and_save(),
                Event::Reconnect => {
                    bench.engine.rewind();
                    repeats = true;
                }
                Event::Restart => {
                    bench.restart();
                    repeats = true;
                }
            }
        }
        bench.read();
        let mut lines = bench.lines.clone();
        lines.sort_by_key(|line| line["line ".len()..].parse::<u32>().unwrap());
        if repeats {
            lines.dedup();
        }
        prop_assert_eq!(lines, numbered(0..written));
    }
}
