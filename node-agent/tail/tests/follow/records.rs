//! What is in the files.

use std::{
    fs::{self},
    ops::ControlFlow,
    time::{Duration, SystemTime},
};

use kestrel_tail::{
    engine::{News, PATIENCE},
    multiline,
};

use super::bench::*;

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
    // However long all of that takes: a test has no clock but its own.
    let later = SystemTime::now() + Duration::from_secs(60);
    bench.set_modified(LIVE, later);
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
    bench.set_modified(LIVE, later);
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
fn what_was_written_long_before_is_waited_for_no_longer() {
    let mut bench = Bench::pods();
    bench.append(LIVE, "2026-11-21T13:50:00Z stderr F ERROR bad\n");
    bench.set_modified(LIVE, SystemTime::now() - Duration::from_secs(60));
    assert_eq!(bench.read(), ["ERROR bad"]);
    bench.append(LIVE, "2026-11-21T13:50:00Z stderr F ERROR again\n");
    assert!(bench.read().is_empty());
    bench.later(multiline::PAUSE);
    assert_eq!(bench.read(), ["ERROR again"]);
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
