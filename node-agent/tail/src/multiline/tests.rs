use proptest::prelude::*;

use super::*;

/// The records that lines make of each other, and whether each is a trace.
fn records(lines: &[&str]) -> Vec<(String, bool)> {
    let mut records: Vec<(String, Shape<'_>)> = Vec::new();
    for line in lines {
        if let Some((text, shape)) = records.last_mut()
            && shape.takes(First::of(line.as_bytes()), line.as_bytes())
        {
            *text = format!("{text}\n{line}");
        } else {
            records.push(((*line).to_owned(), Shape::begin(First::of(line.as_bytes()), line.as_bytes())));
        }
    }
    records.into_iter().map(|(text, shape)| (text, shape.is_trace())).collect()
}

/// Traces as programs print them; before and after each there is a line that is none of it.
const TRACES: [(&str, &str); 16] = [
    (
        "Java",
        "Exception in thread \"main\" java.lang.IllegalStateException: A book has a null property
\tat com.example.myproject.Author.getBookIds(Author.java:38)
\tat java.base/java.lang.Thread.run(Thread.java:833)
\tSuppressed: java.io.IOException: closed
\t\tat com.example.Resource.close(Resource.java:9)
Caused by: java.lang.NullPointerException
\tat com.example.myproject.Book.getId(Book.java:22)
\t... 12 more",
    ),
    (
        "logback: the message, then the exception",
        "2026-11-21 13:50:00,123 ERROR [main] c.e.Orders - order 7 failed
java.sql.SQLException: timeout
    at com.example.Db.query(Db.java:12)
Caused by: java.net.SocketTimeoutException: Read timed out
    at java.net.SocketInputStream.read(SocketInputStream.java:1)
    ... 3 more",
    ),
    (
        "Python",
        "Traceback (most recent call last):
  File \"/app/main.py\", line 3, in <module>
    d['x']
    ~^^^^^
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"/app/main.py\", line 5, in <module>
    raise requests.exceptions.Timeout
requests.exceptions.Timeout",
    ),
    (
        "Python's logging.exception",
        "ERROR:root:job failed
Traceback (most recent call last):
  File \"/app/main.py\", line 3, in run
    1 / 0
ZeroDivisionError: division by zero",
    ),
    (
        "Go",
        "panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47e0a5]

goroutine 1 [running]:
main.(*Server).handle(0x0, {0x4a1b2c, 0x5})
\t/app/main.go:12 +0x1d
main.main()
\t/app/main.go:7 +0x25

goroutine 18 [chan receive, 2 minutes]:
created by main.start in goroutine 1
\t/app/main.go:33 +0x66
exit status 2",
    ),
    (
        "Go's runtime",
        "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [chan receive]:\nmain.main()\n\t/app/x.go:5 +0x3b",
    ),
    (
        "debug.Stack",
        "goroutine 7 [running]:\nruntime/debug.Stack()\n\t/go/src/runtime/debug/stack.go:24 +0x5e",
    ),
    (
        "Node",
        "Error: Cannot find module 'x'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1048:15)
    at node:internal/main/run_main_module:23:47 {
  code: 'MODULE_NOT_FOUND',
}",
    ),
    (
        "Node with the source",
        "/app/index.js:10
    throw new TypeError('bad');
    ^

TypeError: bad
    at Object.<anonymous> (/app/index.js:10:9)
    at file:///app/x.mjs:3:9",
    ),
    (
        ".NET",
        "Unhandled exception. System.InvalidOperationException: outer
 ---> System.ArgumentException: inner
   at App.Program.Main() in /src/Program.cs:line 8
   --- End of inner exception stack trace ---
   at App.Program.Main() in /src/Program.cs:line 12
--- End of stack trace from previous location ---
   at System.Threading.Tasks.Task.Run()",
    ),
    (
        ".NET's console",
        "fail: App.Worker[0]\n      it failed\n      System.Exception: no\n         at App.Worker.Run() in /src/W.cs:line 3",
    ),
    ("Ruby", "/app/x.rb:3:in `fetch': key not found: \"a\" (KeyError)\n\tfrom /app/x.rb:3:in `<main>'"),
    (
        "Rails",
        "NoMethodError (undefined method `x' for nil):\n  \napp/models/a.rb:3:in `x'\napp/controllers/b.rb:7:in `show'",
    ),
    (
        "Rust",
        "thread 'main' panicked at src/main.rs:2:5:
index out of bounds: the len is 3 but the index is 99
stack backtrace:
   0: rust_begin_unwind
             at /rustc/9fc6b431/library/std/src/panicking.rs:652:5
note: run with `RUST_BACKTRACE=full` environment variable to display a backtrace",
    ),
    (
        "Rust before 1.73",
        "thread 'main' panicked at 'no', src/main.rs:2:5\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
    ),
    (
        "PHP",
        "PHP Fatal error:  Uncaught Exception: no in /app/a.php:3
Stack trace:
#0 /app/a.php(7): f()
#1 {main}
  thrown in /app/a.php on line 3",
    ),
];

#[test]
fn a_stack_trace_is_one_record_between_others() {
    for (name, trace) in TRACES {
        let all = format!("2026-11-21 INFO before\n{trace}\n2026-11-21 INFO after");
        let lines: Vec<_> = all.lines().collect();
        let expected = [("2026-11-21 INFO before", false), (trace, true), ("2026-11-21 INFO after", false)];
        assert_eq!(records(&lines), expected.map(|(text, trace)| (text.to_owned(), trace)), "{name}");
    }
}

#[test]
fn two_traces_are_two_records() {
    for (name, trace) in TRACES {
        let all = format!("{trace}\n{trace}");
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(records(&lines).len(), 2, "{name}");
    }
}

#[test]
fn indented_lines_follow_what_is_not() {
    let lines = ["Usage: app", "  --one", "\t--two", "done", "  alone", "  too"];
    let found = records(&lines);
    assert_eq!(
        found,
        [("Usage: app\n  --one\n\t--two".into(), false), ("done\n  alone\n  too".into(), false)]
    );
}

#[test]
fn ordinary_lines_are_records_of_their_own() {
    for (first, second) in [
        ("{\"level\":\"error\",\"msg\":\"x\"}", "  at f (a.js:1:2)"),
        ("time=2026-11-21T13:50:00Z level=error msg=x", "\tat a.B.c(D.java:1)"),
        ("2026-11-21 INFO one", "2026-11-21 INFO two"),
        ("2026-11-21 INFO fine", "java.io.IOException: not of the line before"),
        ("INFO fine", "Traceback (most recent call last):"),
        (" INFO app > one", " WARN app > two"),
        ("text", ""),
        ("SIGTERM received", "stopping"),
        ("goroutine 5 started", "ok"),
        ("thread 'a' started", "ok"),
        ("Error connecting to the database", "retrying"),
        ("Caused by me", "  "),
    ] {
        let count = records(&[first, second]).len();
        assert_eq!(count, if second == "  " { 1 } else { 2 }, "{first} / {second}");
        assert!(!records(&[first, second])[0].1, "{first}");
    }
    let [(_, is_trace)] = &records(&["Server runs", "  at http://localhost:3000"])[..] else { panic!() };
    assert!(!is_trace);
}

#[test]
fn what_likely_goes_on_is_awaited() {
    for (line, expected) in [
        ("INFO fine", false),
        ("plain", false),
        ("{\"level\":\"error\"}", false),
        ("level=error msg=x", false),
        ("ERROR bad", true),
        ("panic: x", true),
        ("java.io.IOException: x", true),
        ("", false),
    ] {
        assert_eq!(
            Shape::begin(First::of(line.as_bytes()), line.as_bytes()).is_awaited(),
            expected,
            "{line}"
        );
    }
}

proptest! {
    #[test]
    fn any_lines_are_survived(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut shape = Shape::begin(First::Blank, b"");
        for line in &lines {
            let first = First::of(line);
            if !shape.takes(first, line) {
                shape = Shape::begin(first, line);
            }
        }
    }

    /// What the splitter decides by the first bytes alone is what the shape decides.
    #[test]
    fn lines_of_no_note_are_not_joined(first in "[ -~]{0,30}", second in "[ -~]{0,30}") {
        let is_alone = |text: &str| matches!(First::of(text.as_bytes()), First::Other | First::Blank);
        if is_alone(&first) && is_alone(&second) {
            let mut shape = Shape::begin(First::of(first.as_bytes()), first.as_bytes());
            prop_assert!(!shape.is_trace());
            prop_assert!(!shape.takes(First::of(second.as_bytes()), second.as_bytes()));
        }
    }
}
