//! What is sent of real files, what is left out and counted, and that neither depends on
//! where turns, refusals and restarts fall.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use kestrel_tail::{
    budget::Limits,
    discover::{Layout, Source},
    engine::{Chunk, Engine, PATIENCE, Policy, Record},
    fold, multiline,
    position::store::Store,
    redact::{Expressions, Redactor},
    time::Timestamp,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// One container's log, and an engine that follows it.
struct Bench {
    root: TempDir,
    engine: Engine,
    policy: Option<Policy>,
    batch: u64,
    now: Instant,
    /// What was given, by where it ends in its file.
    given: BTreeMap<(String, u64), String>,
    repeats: usize,
    /// Neither a refusal nor a restart had anything read twice.
    is_first: bool,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("logs/ns_pod_uid/app")).unwrap();
        Self {
            engine: Self::engine(&root),
            root,
            policy: Some(policy),
            batch: 0,
            now: Instant::now(),
            given: BTreeMap::new(),
            repeats: 0,
            is_first: true,
        }
    }

    fn engine(root: &TempDir) -> Engine {
        let layout = Layout::Pods { except: None };
        let source = Source { directory: root.path().join("logs"), layout };
        let store = Store::load(&root.path().join("positions")).unwrap();
        Engine::new(vec![source], store, Redactor::new(Expressions::default()))
    }

    /// As a new process would: only what was saved is known.
    fn restart(&mut self) {
        self.is_first = false;
        self.engine = Self::engine(&self.root);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("logs/ns_pod_uid/app").join(name)
    }

    fn append(&self, lines: &[&str]) {
        self.append_to("app", lines);
    }

    fn append_to(&self, container: &str, lines: &[&str]) {
        let path = self.path("../").join(container);
        fs::create_dir_all(&path).unwrap();
        let mut file = OpenOptions::new().create(true).append(true).open(path.join("0.log")).unwrap();
        for line in lines {
            let line = if line.starts_with("std") { (*line).to_owned() } else { format!("stdout F {line}") };
            writeln!(file, "2026-11-21T13:50:00Z {line}").unwrap();
        }
    }

    fn poll(&mut self) -> bool {
        self.engine.scan(self.now);
        let policy = self.policy;
        self.engine.assign(|_| policy);
        self.engine.poll(self.now)
    }

    /// A turn that is broken off after `most` records; what it gave and left out.
    fn turn(&mut self, most: usize) -> Option<(Vec<String>, u64)> {
        let mut records = Vec::new();
        self.batch += 1;
        let emit = |record: Record<'_>| {
            records.push((record.text.to_owned(), record.end));
            if records.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let Chunk { file, start, end, left_out, entries, .. } =
            self.engine.read(self.batch, self.now, emit)?;
        assert_eq!(entries, records.len());
        for (text, at) in &records {
            let place = (file.to_string(), start + u64::from(*at));
            assert!(place.1 > start && place.1 <= end);
            self.repeats += usize::from(self.given.insert(place, text.clone()).is_some());
        }
        Some((records.into_iter().map(|(text, _)| text).collect(), left_out))
    }

    /// Reads all there is when nothing has come for a while.
    fn read_later(&mut self) -> Vec<String> {
        self.poll();
        self.now += multiline::PAUSE;
        self.read()
    }

    /// Reads all there is and returns the new lines.
    fn read(&mut self) -> Vec<String> {
        self.poll();
        let mut lines = Vec::new();
        while let Some((more, _)) = self.turn(usize::MAX) {
            lines.extend(more);
        }
        lines
    }

    fn ack_and_save(&mut self) {
        self.engine.ack(self.batch);
        self.engine.save(SystemTime::now()).unwrap();
    }
}

#[test]
fn undecided_pods_and_those_of_which_nothing_is_wanted_are_not_read() {
    let mut bench = Bench::new(Policy::Errors);
    bench.append(&["ERROR bad"]);
    for policy in [None, Some(Policy::Off)] {
        bench.policy = policy;
        assert!(!bench.poll());
    }
    bench.policy = Some(Policy::Errors);
    assert_eq!(bench.read_later(), ["ERROR bad"]);
}

#[test]
fn an_error_comes_with_its_own_lines_and_five_before_and_after() {
    let mut bench = Bench::new(Policy::Errors);
    bench.append(&["1", "2", "stderr F 3", "4", "5", "6", "ERROR bad", "  at one", "  at two"]);
    bench.append(&["INFO 7", "8", "9", "10", "11", "12", "13"]);
    let expected = ["2", "3", "4", "5", "6", "ERROR bad\n  at one\n  at two"];
    let after = ["INFO 7", "8", "9", "10", "11"];
    assert_eq!(bench.read_later(), [&expected[..], &after].concat());
    assert_eq!(bench.engine.stats().left_out, 1, "two may yet be somebody's context");
    bench.append(&["WARN odd"]);
    assert_eq!(bench.read_later(), ["12", "13", "WARN odd"]);
    bench.append(&["INFO 14", "15", "16", "17", "18", "19"]);
    bench.append(&["20", "21", "22", "23", "24", "25"]);
    bench.read_later();
    assert_eq!(bench.engine.stats().left_out, 3);
    assert_eq!(bench.repeats, 0);
}

#[test]
fn nothing_is_owed_to_what_is_left_out() {
    let mut bench = Bench::new(Policy::Errors);
    bench.append(&["1", "2", "3", "4", "5", "6", "7"]);
    assert!(bench.poll());
    assert_eq!(bench.turn(usize::MAX), Some((vec![], 2)));
    assert_eq!((bench.engine.in_flight(), bench.engine.unread_bytes()), (0, 0));
    assert!(!bench.poll());
    // A file that is let go has nothing more to come.
    fs::remove_dir_all(bench.path("")).unwrap();
    bench.now += 2 * PATIENCE;
    bench.poll();
    assert_eq!((bench.engine.files(), bench.engine.stats().left_out), (0, 7));
}

#[test]
fn pieces_and_long_lines_are_context_as_they_are_lines() {
    let mut bench = Bench::new(Policy::Errors);
    let long = "x".repeat(kestrel_tail::split::LINE_LIMIT + 10);
    bench.append(&["stdout P half ", "stderr F between", "stdout F done"]);
    assert!(bench.read_later().is_empty());
    bench.append(&["ERROR bad"]);
    assert_eq!(bench.read_later(), ["half done", "between", "ERROR bad"]);
    let after = ["INFO", "1", "2", "3", "4"];
    bench.append(&after);
    assert_eq!(bench.read_later(), after);
    bench.append(&["5", "6", &long, "7", "ERROR worse"]);
    assert_eq!(bench.read_later(), ["5", "6", "7", "ERROR worse"], "so long a line is context of nothing");
    assert_eq!(bench.engine.stats().left_out, 2);
    bench.append(&after);
    bench.append(&[&"y".repeat(40_000), "8", "stdout P half"]);
    bench.read_later();
    bench.append(&["stdout F  and WARN"]);
    assert_eq!(bench.read_later(), ["8", "half and WARN"], "nor is one that lies far back");
}

#[test]
fn what_is_left_out_does_not_prolong_a_turn_that_was_broken_off() {
    let mut bench = Bench::new(Policy::Errors);
    bench.append(&["stdout P ERROR ", "stderr F INFO fine", "stdout F bad"]);
    bench.append(&["stdout F ERROR next", "stdout F end"]);
    bench.poll();
    assert_eq!(bench.turn(1), Some((vec!["ERROR bad".to_owned(), "INFO fine".to_owned()], 0)));
    assert_eq!(bench.turn(1), Some((vec!["ERROR next".to_owned()], 0)));
}

#[test]
fn an_unfinished_line_is_sent_after_a_while_whatever_lies_before_it() {
    let mut bench = Bench::new(Policy::Errors);
    bench.append(&["1", "2"]);
    let mut file = OpenOptions::new().append(true).open(bench.path("0.log")).unwrap();
    write!(file, "2026-11-21T13:50:00Z stdout F ERROR half").unwrap();
    assert!(bench.read_later().is_empty());
    bench.now += PATIENCE;
    assert_eq!(bench.read_later(), ["ERROR half"]);
    assert_eq!(bench.engine.stats().left_out, 2);
}

#[test]
fn over_budget_errors_go_first_and_what_is_left_out_is_counted() {
    let mut bench = Bench::new(Policy::Errors);
    bench.engine.limit(Limits { pod: 100, ..Limits::default() });
    let error = "ERROR that is 40 bytes long, as is the other";
    let context = "a line that is 40 bytes long, as is the one";
    let (error, context) = (&error[..40], &context[..40]);
    bench.append(&[context, error, context, error, context, error, error, error]);
    // 100 bytes for all, and as many more for errors.
    assert_eq!(bench.read(), [context, error, context, error, error]);
    assert_eq!((bench.engine.held_back(), bench.engine.stats().over_budget), (1, 1));
    assert!(bench.read().is_empty() && bench.engine.unread_bytes() > 0);
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.read(), [error, error]);
    assert_eq!(bench.engine.stats().left_out, 0);
}

#[test]
fn where_all_is_wanted_what_there_is_no_room_for_waits_in_the_file() {
    let mut bench = Bench::new(Policy::All);
    bench.engine.limit(Limits { pod: 100, ..Limits::default() });
    let lines: Vec<_> = (0..40).map(|number| format!("{number:0>50}")).collect();
    bench.append(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(bench.read(), lines[..2]);
    let mut seconds = 0;
    while bench.given.len() < lines.len() {
        bench.now += Duration::from_secs(1);
        seconds += 1;
        bench.read();
    }
    assert_eq!((seconds, bench.engine.stats().over_budget, bench.engine.unread_bytes()), (19, 0, 0));
    assert!(bench.given.values().eq(lines.iter()), "in their order");
}

#[test]
fn whoever_writes_little_has_its_turn_among_those_that_write_much() {
    let mut bench = Bench::new(Policy::All);
    let line = "x".repeat(100);
    for container in ["a", "b", "c"] {
        bench.append_to(container, &vec![line.as_str(); 10_000]);
    }
    bench.append_to("quiet", &["quiet"]);
    for round in 0..3 {
        // Between any two turns others may have been looked for.
        let turns: Vec<_> = (0..4).map(|_| bench.poll().then(|| bench.turn(usize::MAX)).flatten()).collect();
        let is_quiet =
            |turn: &&Option<(Vec<String>, u64)>| matches!(turn, Some((lines, _)) if lines.len() == 1);
        assert_eq!(turns.iter().filter(is_quiet).count(), 1, "in round {round}");
        bench.append_to("quiet", &["quiet"]);
    }
}

#[test]
fn of_many_equal_errors_a_few_are_sent_and_the_others_counted() {
    let mut bench = Bench::new(Policy::Errors);
    let lines: Vec<_> =
        (0..100).map(|number| format!("ERROR order {number} failed, password=hunter{number}")).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    bench.append(&["INFO before"]);
    bench.append(&lines);
    bench.append(&["INFO after", "ERROR another"]);
    let mut expected = vec!["INFO before".to_owned()];
    expected.extend((0..5).map(|number| format!("ERROR order {number} failed, password=[redacted]")));
    expected.extend(["INFO after", "ERROR another"].map(str::to_owned));
    assert_eq!(bench.read_later(), expected);
    let stats = bench.engine.stats();
    assert_eq!((stats.lines, stats.folded, stats.left_out), (103, 95, 0));
    bench.ack_and_save();
    assert_eq!(bench.engine.in_flight(), 0);
    // The count comes in time although nothing is written, stands where the last one stands, and
    // is told again until it arrives.
    for _ in 0..2 {
        bench.now += fold::INTERVAL;
        let count = "95 more like this within 0.0 s: ERROR order 5 failed, password=[redacted]";
        assert_eq!(bench.read(), [count]);
        assert_eq!(bench.engine.in_flight(), 1);
        bench.engine.rewind();
    }
    assert_eq!(bench.repeats, 1);
    assert_eq!(bench.read().len(), 1);
    bench.ack_and_save();
    assert_eq!((bench.read().len(), bench.engine.in_flight()), (0, 0));

    // Where all is wanted nothing is folded.
    bench.policy = Some(Policy::All);
    bench.append(&lines);
    assert_eq!(bench.read_later().len(), 100);
}

/// Second `second` of the hour in which these logs are written.
fn at(second: u32) -> Timestamp {
    Timestamp { seconds: 1_795_269_000 + i64::from(second), nanos: 0 }
}

/// A harmless line for each of these seconds.
fn minutes(seconds: std::ops::Range<u32>) -> String {
    let clock = |second: u32| format!("2026-11-21T13:{:02}:{:02}Z", 50 + second / 60, second % 60);
    seconds.map(|second| format!("{} stdout F INFO {second}\n", clock(second))).collect()
}

fn texts(seconds: std::ops::Range<u32>) -> Vec<String> {
    seconds.map(|second| format!("INFO {second}")).collect()
}

#[test]
fn what_was_left_out_is_sent_when_somebody_looks_back_and_only_once() {
    let mut bench = Bench::new(Policy::Errors);
    fs::write(bench.path("0.log"), minutes(0..60)).unwrap();
    assert!(bench.read().is_empty());
    let mut file = OpenOptions::new().append(true).open(bench.path("0.log")).unwrap();
    writeln!(file, "2026-11-21T13:51:00Z stdout F ERROR bad").unwrap();
    let error = [texts(55..60), vec!["ERROR bad".to_owned()]].concat();
    assert_eq!(bench.read_later(), error);
    bench.ack_and_save();
    bench.policy = Some(Policy::All);
    bench.poll();
    bench.engine.look_back("another", at(0));
    bench.engine.look_back("uid", at(40));
    file.write_all(minutes(61..62).as_bytes()).unwrap();
    let expected = [texts(61..62), texts(40..55), error].concat();
    assert_eq!(bench.read(), expected, "what is new goes first");
    assert_eq!(bench.repeats, 6, "what was sent of it comes from the same places");
    bench.engine.look_back("uid", at(40));
    assert!(bench.read().is_empty());
    bench.engine.look_back("uid", at(30));
    assert_eq!(bench.read(), texts(30..40));

    // The position does not depend on it, and a refusal has it read again.
    bench.engine.look_back("uid", at(20));
    assert_eq!(bench.read(), texts(20..30));
    bench.engine.rewind();
    let again = bench.read();
    assert!(again.ends_with(&texts(20..30)), "{again:?}");
    bench.ack_and_save();
    assert_eq!(bench.engine.in_flight(), 0);
    bench.restart();
    assert!(bench.read().is_empty());
}

#[test]
fn looking_back_goes_through_rotated_packed_and_previous_files() {
    let mut bench = Bench::new(Policy::Errors);
    let rotated = "0.log.20261121-135100.gz";
    let mut encoder = GzEncoder::new(fs::File::create(bench.path(rotated)).unwrap(), Compression::fast());
    encoder.write_all(minutes(0..60).as_bytes()).unwrap();
    encoder.finish().unwrap();
    for (name, seconds) in [("0.log", 60..120), ("1.log.20261121-135300", 120..180), ("1.log", 180..200)] {
        fs::write(bench.path(name), minutes(seconds)).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        fs::File::options().append(true).open(bench.path(name)).unwrap().set_modified(long_ago).unwrap();
    }
    assert!(bench.read().is_empty());
    bench.policy = Some(Policy::All);
    bench.poll();
    bench.engine.look_back("uid", at(130));
    assert_eq!(bench.read(), texts(130..200));
    bench.engine.look_back("uid", at(50));
    assert_eq!(bench.read(), texts(50..130));
    assert_eq!(bench.engine.stats().looked_back, 150);
}

#[test]
fn looking_back_ends_after_some_bytes_and_begins_with_a_whole_line() {
    let mut bench = Bench::new(Policy::Errors);
    let line = format!("2026-11-21T13:50:00Z stdout F INFO {}\n", "x".repeat(1000));
    fs::write(bench.path("0.log"), line.repeat(6000)).unwrap();
    assert!(bench.read().is_empty());
    bench.policy = Some(Policy::All);
    bench.poll();
    bench.engine.look_back("uid", at(0));
    let lines = bench.read();
    assert_eq!(lines.len(), 4 * 1024 * 1024 / line.len());
    assert!(lines.iter().all(|line| line.len() == 1005));
    bench.engine.rewind();
    assert!(bench.read().ends_with(&lines), "the same after a refusal");
    bench.engine.look_back("uid", Timestamp::default());
    assert_eq!(lines.len() + bench.read().len(), 6000, "unless all is asked for");
}

/// Something that happens to the log or its reader.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u8>),
    Turn(usize),
    Ack,
    Refuse,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(0_u8..20, 1..12).prop_map(Step::Write),
        6 => (1_usize..6).prop_map(Step::Turn),
        2 => Just(Step::Ack),
        1 => Just(Step::Refuse),
        1 => Just(Step::Restart),
    ]
}

/// Which of the lines are wanted, looked at all at once.
fn wanted(kinds: &[u8]) -> Vec<bool> {
    let mut wanted = vec![false; kinds.len()];
    for (at, _) in kinds.iter().enumerate().filter(|(_, kind)| **kind == 0) {
        wanted[at.saturating_sub(5)..kinds.len().min(at + 6)].fill(true);
    }
    wanted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_same_lines_are_sent_whatever_happens_meanwhile(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = Bench::new(Policy::Errors);
        let (mut kinds, mut is_exact) = (Vec::new(), true);
        for step in steps {
            match step {
                Step::Write(more) => {
                    for kind in more {
                        let text = match kind { 0 => "ERROR", 1..10 => "line", _ => "INFO" };
                        // A number in letters, so that no error is like another.
                        let number = kinds.len().to_string();
                        let letters: String = number.bytes().map(|digit| char::from(digit + 49)).collect();
                        bench.append(&[&format!("{text} {number} {letters}")]);
                        kinds.push(kind);
                    }
                    bench.poll();
                }
                Step::Turn(most) => drop(bench.turn(most)),
                Step::Ack => bench.ack_and_save(),
                Step::Refuse => {
                    bench.engine.rewind();
                    bench.is_first = false;
                    bench.poll();
                }
                Step::Restart => {
                    bench.ack_and_save();
                    bench.restart();
                    bench.poll();
                    // What follows an error is not known to do so any more.
                    is_exact = false;
                }
            }
        }
        bench.read_later();
        let expected = wanted(&kinds);
        let mut sent = vec![false; kinds.len()];
        for text in bench.given.values() {
            sent[text.split(' ').nth(1).unwrap().parse::<usize>().unwrap()] = true;
        }
        for (at, kind) in kinds.iter().enumerate() {
            let is_right = sent[at] == expected[at] || (!is_exact && !sent[at] && *kind != 0);
            prop_assert!(is_right, "line {at} of {kinds:?}");
        }
        fs::remove_dir_all(bench.path("")).unwrap();
        bench.ack_and_save();
        bench.now += 2 * PATIENCE;
        bench.poll();
        let stats = bench.engine.stats();
        prop_assert!(bench.engine.files() == 0 && stats.left_out <= stats.lines);
        if bench.is_first {
            prop_assert_eq!(stats.lines - stats.left_out, bench.given.len() as u64);
        }
    }
}
