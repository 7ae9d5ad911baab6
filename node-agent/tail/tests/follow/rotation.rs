//! Files that are renamed, packed and written anew.

use std::{
    fs::{self},
    time::SystemTime,
};

use kestrel_tail::{engine::PATIENCE, multiline::PAUSE};

use super::bench::*;

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
    let expected: Vec<_> = numbered(10..20).into_iter().chain(numbered(30..31)).collect();
    assert_eq!(bench.read(), expected);
    // Meanwhile what comes next in time waits.
    bench.append(ROTATED, &cri(31..32));
    assert_eq!(bench.read(), numbered(31..32));
    bench.later(PAUSE);
    assert_eq!(bench.read(), numbered(20..30));
    bench.pack(ROTATED);
    assert!(bench.read().is_empty());
    assert_eq!(bench.ranges.len(), 2, "{:?}", bench.ranges);
}

/// A line of a stream, or a piece of one.
fn piece(stream: &str, tag: &str, content: &str) -> String {
    format!("2026-11-21T13:50:00Z {stream} {tag} {content}\n")
}

/// As containerd does it: the new file is there and written to before the last piece is in the old one.
#[test]
fn a_line_that_a_rotation_splits_arrives_whole() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..1));
    assert_eq!(bench.read(), numbered(0..1));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &(piece("stderr", "F", "other") + &piece("stdout", "F", "1 password=x") + &cri(2..3)));
    assert!(bench.read().is_empty());
    bench.append(ROTATED, &piece("stdout", "P", "line "));
    assert!(bench.read().is_empty());
    bench.later(PAUSE);
    assert_eq!(bench.read(), ["line 1 password=[redacted]", "other", "line 2"]);
    // Until all of that is answered, both files are sent again.
    bench.engine.rewind();
    assert_eq!(bench.read(), ["line 0", "line 1 password=[redacted]", "other", "line 2"]);
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty());
}

#[test]
fn lines_that_a_rotation_splits_arrive_whole_while_nobody_runs() {
    for packed in 0..=2 {
        let mut bench = Bench::pods();
        bench.append(LIVE, &(piece("stdout", "P", "one ") + &piece("stderr", "P", "two ")));
        bench.rename(LIVE, ROTATED);
        bench.append(LIVE, &(piece("stdout", "P", "and ") + &piece("stderr", "F", "all")));
        bench.append(LIVE, &(piece("stdout", "F", "rest") + &piece("stdout", "P", "three ")));
        bench.rename(LIVE, ROTATED_LATER);
        bench.append(LIVE, &(piece("stdout", "F", "four") + &cri(5..6)));
        [ROTATED, ROTATED_LATER].into_iter().take(packed).for_each(|name| bench.pack(name));
        let lines = bench.read_rotated();
        assert_eq!(lines, ["one and rest", "two all", "three four", "line 5"], "{packed} packed");
    }
}

#[test]
fn what_was_sent_of_the_next_file_is_not_sent_again_with_a_piece_that_comes_late() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..1));
    bench.read();
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &(piece("stderr", "F", "other") + &piece("stdout", "F", "ended")));
    assert_eq!(bench.read_rotated(), ["other", "ended"]);
    bench.append(ROTATED, &piece("stdout", "P", "begun "));
    assert_eq!(bench.read_rotated(), ["begun ended"]);
}

#[test]
fn a_long_line_that_a_rotation_splits_arrives_whole() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &piece("stdout", "P", "begun "));
    bench.rename(LIVE, ROTATED);
    let part = "x".repeat(16 * 1024);
    bench.append(LIVE, &(piece("stderr", "P", &part) + &piece("stdout", "F", "ended")));
    for _ in 0..30 {
        bench.append(LIVE, &piece("stderr", "P", &part));
    }
    bench.append(LIVE, &piece("stderr", "F", "end"));
    let lines = bench.read_rotated();
    let lengths: Vec<_> = lines.iter().map(String::len).collect();
    assert_eq!(lengths, ["begun ended".len(), 31 * part.len() + "end".len()]);
}

#[test]
fn a_line_whose_end_never_comes_does_not_split_that_of_the_other_stream() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &(piece("stdout", "P", "begun ") + &piece("stderr", "P", "50 % ")));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &(piece("stdout", "F", "ended") + &cri(1..2)));
    assert!(bench.read_rotated().is_empty());
    bench.later(PATIENCE);
    assert_eq!(bench.read(), ["begun ended", "50 % ", "line 1"]);
}

#[test]
fn a_file_that_ends_within_a_piece_takes_nothing_of_the_next() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &(piece("stdout", "P", "begun ") + "2026-11-21T13:50:00Z stdout F to"));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &cri(1..2));
    let lines = bench.read_rotated();
    assert_eq!(lines.last().map(String::as_str), Some("line 1"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("2026")), "{lines:?}");
}

/// Scenario: what a rotation split is on its way when the process ends, and the old file goes.
#[test]
fn what_follows_a_split_line_is_kept_until_that_has_arrived() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &piece("stdout", "P", "begun "));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &(piece("stderr", "F", "other") + &piece("stdout", "F", "ended") + &cri(1..2)));
    assert_eq!(bench.read_rotated(), ["begun ended", "other", "line 1"]);
    bench.engine.save(SystemTime::now()).unwrap();
    fs::remove_file(bench.path(ROTATED)).unwrap();
    bench.restart();
    assert_eq!(bench.read_rotated(), ["other", "ended", "line 1"]);
}

#[test]
fn a_line_without_its_end_is_given_out_though_there_is_a_newer_file() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..1));
    assert_eq!(bench.read(), numbered(0..1));
    bench.append(LIVE, &piece("stdout", "P", "begun"));
    bench.rename(LIVE, ROTATED);
    bench.append(LIVE, &piece("stderr", "F", "other"));
    bench.read();
    bench.later(PAUSE);
    assert!(bench.read().is_empty());
    bench.later(PATIENCE);
    assert_eq!(bench.read(), ["begun", "other"]);
}

#[test]
fn the_next_instance_of_a_container_does_not_end_the_lines_of_the_one_before() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &piece("stdout", "P", "begun"));
    bench.append("ns_pod_uid/app/1.log", &cri(0..1));
    bench.read();
    bench.later(PATIENCE);
    bench.read();
    bench.lines.sort();
    assert_eq!(bench.lines, ["begun", "line 0"]);
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
    assert_eq!(bench.read_rotated(), numbered(10..40));
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
    assert_eq!(bench.read_rotated(), numbered(10..50));
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
fn a_file_that_logrotate_packs_is_read_on_where_it_was() {
    let mut bench = Bench::files("**/*.log");
    bench.append("app.log", "banner\nline 0\n");
    assert_eq!(bench.read(), ["banner", "line 0"]);
    bench.ack_and_save();

    // Packed while it is read: what is open is read to its end, and the packed one is no second.
    bench.append("app.log", "line 1\n");
    bench.rename("app.log", "app.log.1");
    bench.pack("app.log.1");
    bench.append("app.log", "banner\nline 2\n");
    let mut found = bench.read();
    found.sort();
    assert_eq!(found, ["banner", "line 1", "line 2"]);
    bench.ack_and_save();
    bench.later(2 * PATIENCE);
    assert!(bench.read().is_empty());
    bench.ack_and_save();

    // Packed while nobody runs: only the last one was not read to its end. All begin alike.
    bench.append("app.log", "line 3\n");
    bench.rename("app.log.1.gz", "app.log.2.gz");
    bench.rename("app.log", "app.log.1");
    bench.pack("app.log.1");
    bench.append("app.log", "another banner\nline 4\n");
    bench.append("old.log.gz", "not even packed");
    bench.restart();
    let mut found = bench.read();
    found.sort();
    assert_eq!(found, ["another banner", "line 3", "line 4"]);
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty());
}

#[test]
fn a_packed_file_is_known_though_another_has_its_inode_by_now() {
    let mut bench = Bench::files("*.log");
    bench.append("app.log", "banner\nline 0\n");
    assert_eq!(bench.read(), ["banner", "line 0"]);
    bench.ack_and_save();
    // While nobody runs. The number of a file that was removed is free, and the next is given it.
    bench.append("app.log", "line 1\n");
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.pack("app.log.1");
    fs::write(bench.path("app.log"), "line 2\n").unwrap();
    bench.restart();
    let mut found = bench.read();
    found.sort();
    assert_eq!(found, numbered(1..3));
}

#[test]
fn a_packed_copy_of_a_file_that_is_there_is_not_read() {
    let mut bench = Bench::files("*.log");
    bench.append("app.log", "banner\nline 0\nline 1\n");
    assert_eq!(bench.read().len(), 3);
    bench.ack_and_save();
    // Copied, packed and emptied, as `copytruncate` does: both begin with the same line.
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.pack("app.log.1");
    fs::write(bench.path("app.log"), "banner\n").unwrap();
    assert_eq!(bench.read(), ["banner"]);
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty());
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
