//! Files that are removed, emptied or moved, and disks that are full.

use std::{
    fs::{self, OpenOptions},
    time::{Duration, SystemTime},
};

use kestrel_tail::engine::{PATIENCE, PINNED_BYTES, Reason};

use super::bench::*;

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
fn what_was_not_read_of_removed_files_at_the_very_end_is_a_gap() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    bench.append(OTHER, &cri(0..10));
    assert_eq!(bench.read().len(), 20);
    bench.ack_and_save();
    let unread = cri(10..13);
    bench.append(LIVE, &unread);
    fs::remove_dir_all(bench.path("ns_pod_uid")).unwrap();
    bench.engine.close_removed(bench.now);
    let [gap] = &bench.engine.tell_gaps(9)[..] else { panic!("one gap") };
    assert_eq!((gap.lost.bytes, gap.lost.lines), (unread.len() as u64, 3));
    assert_eq!((gap.origin.pod.as_str(), bench.engine.files()), ("pod", 1));
}

#[test]
fn lines_that_were_packed_and_removed_unread_are_counted_too() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    assert_eq!(bench.read().len(), 10);
    bench.ack_and_save();
    bench.append(LIVE, &cri(10..13));
    bench.rename(LIVE, ROTATED);
    bench.pack(ROTATED);
    bench.append(LIVE, &cri(13..14));
    bench.restart();
    bench.scan();
    fs::remove_dir_all(bench.path("ns_pod_uid")).unwrap();
    bench.engine.close_removed(bench.now);
    let [gap] = &bench.engine.tell_gaps(9)[..] else { panic!("one gap") };
    assert_eq!((gap.lost.bytes, gap.lost.lines, gap.lost.uncounted), (cri(10..14).len() as u64, 4, 0));
}

#[test]
fn what_a_killed_process_left_unread_is_a_gap_once_its_file_is_gone() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..10));
    bench.append(OTHER, &cri(20..30));
    assert_eq!(bench.read().len(), 20);
    bench.ack_and_save();
    let unread = cri(10..13);
    for file in [LIVE, OTHER] {
        bench.append(file, &unread);
    }
    bench.scan();
    bench.engine.poll(bench.now);
    bench.engine.save(SystemTime::now()).unwrap();
    fs::remove_dir_all(bench.path("ns_pod_uid")).unwrap();
    bench.restart();
    assert_eq!(bench.read(), numbered(10..13), "what is there is read on");
    let [gap] = &bench.engine.tell_gaps(9)[..] else { panic!("one gap") };
    assert_eq!((gap.reason, gap.lost.bytes, gap.lost.lines), (Reason::Unattended, unread.len() as u64, 0));
    assert_eq!((&*gap.origin.namespace, &*gap.origin.pod, &*gap.origin.container), ("ns", "pod", "app"));
    bench.ack_and_save();
    bench.restart();
    assert!(bench.read().is_empty() && !bench.engine.has_gaps(), "it is told once");
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
fn a_second_name_of_a_containers_file_is_no_second_file() {
    let mut bench = Bench::pods();
    bench.append(LIVE, &cri(0..1));
    std::os::unix::fs::symlink("0.log", bench.path("ns_pod_uid/app/1.log")).unwrap();
    assert_eq!(bench.read(), numbered(0..1), "seen when both are new");
    fs::hard_link(bench.path(LIVE), bench.path("ns_pod_uid/app/2.log")).unwrap();
    bench.append(LIVE, &cri(1..2));
    assert_eq!(bench.read(), numbered(1..2), "and when one of them is");
    assert_eq!((bench.engine.files(), bench.engine.problems().len()), (1, 0));
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
