use proptest::prelude::*;

use super::*;

type Record = (String, usize, bool);

fn split_with(format: Format, window: &[u8], unfinished: Unfinished, most: usize) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let used = Splitter::default().split(format, window, unfinished, |raw| {
        records.push((String::from_utf8_lossy(raw.content).into_owned(), raw.end, raw.malformed));
        if records.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    (records, used)
}

fn split(window: &str, unfinished: Unfinished) -> (Vec<String>, usize) {
    let (records, used) = split_with(Format::Cri, window.as_bytes(), unfinished, usize::MAX);
    (records.into_iter().map(|(text, ..)| text).collect(), used)
}

fn line(stream: &str, tag: &str, content: &str) -> String {
    format!("2026-11-21T13:50:00Z {stream} {tag} {content}\n")
}

#[test]
fn pieces_are_joined_per_stream_even_when_they_interleave() {
    let window = line("stdout", "P", "a")
        + &line("stderr", "P", "x")
        + &line("stdout", "P", "b")
        + &line("stderr", "F", "y")
        + &line("stderr", "F", "z")
        + &line("stdout", "F", "c");
    let (records, used) = split(&window, Unfinished::Wait);
    assert_eq!(records, ["abc", "xy", "z"]);
    assert_eq!(used, window.len());
}

#[test]
fn an_open_piece_waits_with_everything_after_it() {
    let done = line("stdout", "F", "one");
    let open = line("stdout", "P", "two ") + &line("stderr", "F", "three");
    let (records, used) = split(&(done.clone() + &open), Unfinished::Wait);
    assert_eq!(records, ["one"]);
    assert_eq!(used, done.len());
    assert_eq!(split(&open, Unfinished::Wait), (vec![], 0));
    assert_eq!(split(&open, Unfinished::Ends), (vec!["two ".into(), "three".into()], open.len()));
}

#[test]
fn a_malformed_line_costs_only_itself() {
    let window = line("stdout", "P", "a") + "what?\n\n" + &line("stdout", "F", "b");
    let (records, used) = split_with(Format::Cri, window.as_bytes(), Unfinished::Wait, usize::MAX);
    let seen: Vec<_> = records.iter().map(|(text, _, malformed)| (text.as_str(), *malformed)).collect();
    assert_eq!(seen, [("a", false), ("what?", true), ("b", false)]);
    assert_eq!(used, window.len());
}

#[test]
fn a_line_of_the_limit_stays_whole_and_a_longer_one_becomes_several() {
    for (length, expected) in [(LINE_LIMIT, vec![LINE_LIMIT]), (LINE_LIMIT + 1, vec![LINE_LIMIT, 1])] {
        let text = "x".repeat(length);
        let mut pieces = String::new();
        for part in text.as_bytes().chunks(16 * 1024) {
            pieces += &line("stdout", "P", str::from_utf8(part).unwrap());
        }
        pieces += &line("stdout", "F", "");
        let lengths = |(records, used): (Vec<Record>, usize)| {
            (records.iter().map(|(text, ..)| text.len()).filter(|l| *l > 0).collect::<Vec<_>>(), used)
        };
        let cri = split_with(Format::Cri, pieces.as_bytes(), Unfinished::Wait, usize::MAX);
        assert_eq!(lengths(cri), (expected.clone(), pieces.len()));
        let plain = text + "\n";
        let plain_records = split_with(Format::Plain, plain.as_bytes(), Unfinished::Wait, usize::MAX);
        assert_eq!(lengths(plain_records), (expected, plain.len()));
    }
}

#[test]
fn a_plain_line_without_an_end_waits_unless_it_is_over() {
    assert_eq!(split_with(Format::Plain, b"one\ntwo", Unfinished::Ends, 9).1, 4);
    assert_eq!(split_with(Format::Plain, b"two", Unfinished::Wait, 9).1, 0);
    assert_eq!(split_with(Format::Plain, b"two", Unfinished::Ends, 9).0, [("two".into(), 3, false)]);
}

#[test]
fn a_trace_is_joined_past_the_lines_of_the_other_stream() {
    let lines = [
        "stdout F before",
        "stderr F Traceback (most recent call last):",
        "stdout F GET / 200",
        "stderr F   File \"a.py\", line 3, in f",
        "stdout F GET /x 200",
        "stdout F   indented",
        "stderr F KeyError: 'x'",
        "stderr F after",
        "stdout F end",
    ];
    let window = lines.map(|line| format!("2026-11-21T13:50:00Z {line}\n")).concat();
    let (records, used) = split(&window, Unfinished::Wait);
    let trace = "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\nKeyError: 'x'";
    assert_eq!(records, ["before", trace, "GET / 200", "GET /x 200\n  indented", "after", "end"]);
    assert_eq!(used, window.len());
    // Broken off after the trace has begun, it ends only after what lies between.
    let (records, used) = split_with(Format::Cri, window.as_bytes(), Unfinished::Wait, 2);
    assert_eq!((records.len(), &window[used..].lines().count()), (4, &2));
}

#[test]
fn a_trace_waits_for_what_follows_as_long_as_that_may_come() {
    let before = line("stdout", "F", "before");
    let trace = line("stderr", "F", "panic: no") + &line("stderr", "F", "") + &line("stdout", "F", "beside");
    let window = before.clone() + &trace;
    for unfinished in [Unfinished::GoesOn, Unfinished::Wait] {
        assert_eq!(split(&window, unfinished), (vec!["before".into()], before.len()));
        assert_eq!(split(&trace, unfinished), (vec![], 0));
    }
    let all: Vec<String> = ["before", "panic: no\n", "beside"].map(str::to_owned).into();
    for unfinished in [Unfinished::Quiet, Unfinished::Ends] {
        assert_eq!(split(&window, unfinished), (all.clone(), window.len()));
    }
    assert_eq!(split(&trace, Unfinished::Full), (all[1..].to_vec(), trace.len()));
    // What is likely over is given out at once.
    assert_eq!(split(&before, Unfinished::Wait).1, before.len());
    assert_eq!(split(&before, Unfinished::GoesOn).1, 0);
}

#[test]
fn a_trace_ends_with_its_time_and_its_size() {
    let at = |millis: usize, text: &str| {
        format!("2026-11-21T13:50:{:02}.{:03}Z stderr F {text}\n", millis / 1000, millis % 1000)
    };
    let frame = "\tat a.B.c(D.java:1)";
    let late = at(0, "java.lang.Error: x") + &at(501, frame);
    assert_eq!(split(&late, Unfinished::Ends).0.len(), 2);
    let slow: String = (0..20).map(|n| at(n * 400, frame)).collect();
    assert_eq!(split(&slow, Unfinished::Ends).0.len(), 2);

    let mut cuts = 0;
    let (mut records, window) = (Vec::new(), at(0, frame).repeat(2000));
    Splitter::default().split(Format::Cri, window.as_bytes(), Unfinished::Ends, |raw| {
        records.push((raw.lines, raw.trace));
        cuts += u32::from(raw.continued);
        ControlFlow::Continue(())
    });
    let (count, bytes) = (records.len(), at(0, frame).len());
    assert_eq!((cuts as usize, count), (count - 1, (2000_usize).div_ceil(crate::multiline::LIMIT / bytes)));
    assert_eq!(records.iter().map(|(lines, _)| lines).sum::<u32>(), 2000);
    assert!(records.iter().all(|(_, trace)| *trace));
}

/// A log of both streams as a runtime would write it, and its whole lines by stream.
fn log() -> impl Strategy<Value = (Vec<u8>, [Vec<String>; 2])> {
    let piece = (any::<bool>(), prop::bool::weighted(0.6), "[a-z]{0,5}");
    prop::collection::vec(piece, 0..60).prop_map(|pieces| {
        let mut text = String::new();
        let mut lines = [Vec::new(), Vec::new()];
        let mut open = [None::<String>, None];
        for (stderr, last, content) in pieces {
            let stream = usize::from(stderr);
            text += &line(["stdout", "stderr"][stream], ["P", "F"][usize::from(last)], &content);
            let joined = open[stream].take().unwrap_or_default() + &content;
            if last { lines[stream].push(joined) } else { open[stream] = Some(joined) }
        }
        for stream in 0..2 {
            lines[stream].extend(open[stream].take());
        }
        (text.into_bytes(), lines)
    })
}

/// The records of a file that is read in windows of these sizes, which grow until they help as the
/// reader's do, and with `most` records a turn.
fn read_in_windows(format: Format, bytes: &[u8], sizes: &[usize], most: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let (mut at, mut turn) = (0, 0);
    while at < bytes.len() {
        let mut size = sizes[turn % sizes.len()];
        turn += 1;
        loop {
            let rest = &bytes[at..];
            let is_end = size >= rest.len();
            let unfinished = if is_end { Unfinished::Ends } else { Unfinished::GoesOn };
            let (found, used) = split_with(format, &rest[..size.min(rest.len())], unfinished, most);
            assert!(found.iter().all(|(_, end, _)| *end <= used) && (used > 0 || !is_end));
            records.extend(found.into_iter().map(|(text, end, malformed)| (text, at + end, malformed)));
            at += used;
            if used > 0 {
                break;
            }
            size *= 2;
        }
    }
    records
}

/// Lines of two streams of which some belong together, with pieces and what is no line at all.
fn traces() -> impl Strategy<Value = String> {
    const CONTENTS: [&str; 18] = [
        "INFO fine",
        "ERROR bad",
        "  indented",
        "",
        "Traceback (most recent call last):",
        "  File \"a.py\", line 3, in f",
        "KeyError: 'x'",
        "During handling of the above exception, another exception occurred:",
        "java.io.IOException: no",
        "\tat a.B.c(D.java:1)",
        "Caused by: x",
        "panic: x",
        "goroutine 1 [running]:",
        "main.main()",
        "thread 'a' panicked at src/a.rs:1:2:",
        "{\"level\":\"error\"}",
        "}",
        "what",
    ];
    let line = (
        0..2_usize,
        prop::bool::weighted(0.9),
        prop::sample::select(CONTENTS.to_vec()),
        0..20_u32,
        prop::bool::weighted(0.02),
    );
    prop::collection::vec(line, 0..80).prop_map(|lines| {
        let (mut text, mut millis) = (String::new(), 0);
        for (stream, last, content, pause, malformed) in lines {
            // A long pause now and then.
            millis += if pause == 19 { 700 } else { pause };
            let (stream, tag) = (["stdout", "stderr"][stream], ["P", "F"][usize::from(last)]);
            if malformed {
                text += "malformed\n";
            }
            text += &format!(
                "2026-11-21T13:50:{:02}.{:03}Z {stream} {tag} {content}\n",
                millis / 1000,
                millis % 1000
            );
        }
        text
    })
}

proptest! {
    #[test]
    fn any_windows_give_the_same_records(log in traces(), sizes in prop::collection::vec(1_usize..600, 1..9), most in 1_usize..5) {
        for format in [Format::Cri, Format::Plain] {
            let expected = read_in_windows(format, log.as_bytes(), &[log.len().max(1)], usize::MAX);
            prop_assert_eq!(read_in_windows(format, log.as_bytes(), &sizes, most), expected);
        }
    }

    #[test]
    fn every_line_arrives_once((bytes, lines) in log(), sizes in prop::collection::vec(1_usize..400, 1..9), most in 1_usize..5) {
        let mut records: Vec<_> =
            read_in_windows(Format::Cri, &bytes, &sizes, most).into_iter().map(|(text, ..)| text).collect();
        let mut expected: Vec<_> = lines.into_iter().flatten().collect();
        expected.sort();
        records.sort();
        prop_assert_eq!(records, expected);
    }

    #[test]
    fn any_bytes_are_used_up(bytes in prop::collection::vec(prop::sample::select(b"\n PF2026-11-21T13:50:00Z stdout\0\xFF".to_vec()), 0..400)) {
        for format in [Format::Cri, Format::Plain] {
            let mut at = 0;
            while at < bytes.len() {
                let (_, used) = split_with(format, &bytes[at..], Unfinished::Ends, usize::MAX);
                prop_assert!(used > 0);
                at += used;
            }
        }
    }
}
