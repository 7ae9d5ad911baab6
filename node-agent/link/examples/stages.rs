//! Runs one stage of the engine over so many lines, to count its instructions: `stages STAGE LINES`.
//! `hack/instructions` compares them with `stages.txt`.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a tool may stop at a surprise

use std::{cell::RefCell, fs, hint::black_box, ops::ControlFlow, time::Instant};

use kestrel_link::{batch::Builder, ship::FLUSH_BYTES};
use kestrel_tail::{
    class::class,
    discover::{Layout, Source},
    engine::{Chunk, Engine, Policy, Record},
    fingerprint::fingerprint,
    multiline::{First, Shape},
    position::store::Store,
    redact::{Expressions, Redactor},
    severity,
    split::{Format, Splitter, Unfinished},
    text::fit,
};

/// Lines of a window.
const WINDOW: usize = 1024;

/// What programs write, without the runtime's words.
const LINES: [&str; 16] = [
    r#"{"ts":"2026-11-21T13:50:00.123Z","level":"info","logger":"http","msg":"request served","method":"GET","path":"/api/v1/orders/1234","status":200,"duration_ms":12.7,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
    r#"{"ts":"2026-11-21T13:50:00.124Z","level":"error","logger":"db","msg":"query failed: connection refused","host":"10.1.2.3:5432","attempt":3}"#,
    "2026-11-21 13:50:00,123 INFO  [http-nio-8080-exec-7] c.e.orders.OrderService - order 8812 accepted for customer 991 in 13 ms",
    "2026-11-21 13:50:00,124 DEBUG [http-nio-8080-exec-7] c.e.orders.OrderRepository - select * from orders where id = 8812",
    "2026-11-21 13:50:00,125 WARN  [pool-2-thread-1] c.e.orders.Stock - stock of item 77 is low: 3 left",
    r#"10.244.1.17 - - [21/Nov/2026:13:50:00 +0000] "GET /healthz HTTP/1.1" 200 2 "-" "kube-probe/1.33" "-""#,
    r#"10.244.1.18 - - [21/Nov/2026:13:50:00 +0000] "POST /api/v1/orders HTTP/1.1" 201 388 "https://shop.example.com/cart" "Mozilla/5.0 (X11; Linux x86_64)" "10.0.0.9""#,
    "I1121 13:50:00.123456       1 reconciler.go:224] \"Reconciling\" controller=\"deployment\" namespace=\"shop\" name=\"web\"",
    "time=2026-11-21T13:50:00.123Z level=INFO msg=\"cache refreshed\" component=catalog entries=10233 took=41ms",
    "[2026-11-21T13:50:00.123Z] \"GET /productpage HTTP/1.1\" 200 - via_upstream - \"-\" 0 5183 41 40 \"-\" \"curl/8.5\"",
    "2026-11-21T13:50:00.123456Z  INFO shop::worker: job 3312 done in 17.3ms",
    "Connected to broker at kafka-0.kafka:9092, partition 14 of topic orders assigned",
    "2026-11-21 13:50:00,130 ERROR [http-nio-8080-exec-9] c.e.orders.OrderService - order 8813 failed",
    "java.lang.IllegalStateException: no stock of item 77",
    "\tat com.example.orders.Stock.take(Stock.java:41)",
    "\tat com.example.orders.OrderService.accept(OrderService.java:118)",
];

/// What a container runtime puts before each.
const RUNTIME: &str = "2026-11-21T13:50:00.123456789Z stdout F ";

fn main() {
    let mut words = std::env::args().skip(1);
    let (stage, count) = (words.next().expect("a stage"), words.next().expect("a number of lines"));
    let windows = count.parse::<usize>().expect("a number of lines").div_ceil(WINDOW);
    match stage.as_str() {
        "split" => {
            let mut splitter = Splitter::default();
            each_window(windows, |window| split(&mut splitter, window));
        }
        "all" => follow(windows, Policy::All, |record| keep(record), |_| {}),
        "errors" => follow(windows, Policy::Errors, |record| keep(record), |_| {}),
        "batch" => {
            let builder = RefCell::new(Builder::default());
            follow(
                windows,
                Policy::All,
                |record| builder.borrow_mut().record(&record),
                |chunk| {
                    let mut builder = builder.borrow_mut();
                    builder.close(chunk);
                    if builder.bytes() >= FLUSH_BYTES {
                        keep(builder.content());
                        builder.clear();
                    }
                },
            );
        }
        "clean" => each_window(windows, |window| keep(fit(window.as_bytes()))),
        "severity" => each(windows, |line| keep(severity::level(line.as_bytes()))),
        "redact" => {
            let mut redactor = Redactor::new(Expressions::default());
            each_window(windows, |window| redact(&mut redactor, window));
        }
        "fingerprint" => each(windows, |line| keep(fingerprint(line.as_bytes()))),
        "class" => each(windows, |line| keep(class(line))),
        "multiline" => {
            let mut shape = Shape::begin(First::Blank, b"");
            each(windows, |line| {
                let line = line.as_bytes();
                let first = First::of(line);
                if !shape.takes(first, line) {
                    shape = Shape::begin(first, line);
                }
            });
        }
        _ => panic!("there is no stage {stage}"),
    }
}

/// What was made, so that it is not left undone.
fn keep<T>(made: T) {
    black_box(made);
}

fn each(windows: usize, mut run: impl FnMut(&'static str)) {
    for line in LINES.iter().cycle().take(windows * WINDOW) {
        run(black_box(line));
    }
}

/// A window as a container runtime writes it.
fn window() -> String {
    let lines = LINES.map(|line| format!("{RUNTIME}{line}\n"));
    lines.concat().repeat(WINDOW / LINES.len())
}

fn each_window(windows: usize, mut run: impl FnMut(&str)) {
    let window = window();
    for _ in 0..windows {
        run(black_box(&window));
    }
}

fn split(splitter: &mut Splitter, window: &str) {
    splitter.split(Format::Cri, window.as_bytes(), Unfinished::Ends, |raw| {
        black_box(raw);
        ControlFlow::Continue(())
    });
}

fn redact(redactor: &mut Redactor, window: &str) {
    redactor.glance(window.as_bytes());
    let mut begin = 0;
    for line in LINES.iter().cycle().take(WINDOW) {
        let end = begin + RUNTIME.len() + line.len() + 1;
        keep(redactor.redact_line(line, begin..end).is_some());
        begin = end;
    }
}

/// The whole engine, from a file on, to who takes the records and then the chunk they are of.
fn follow(windows: usize, policy: Policy, take: impl Fn(Record<'_>), close: impl Fn(&Chunk<'_>)) {
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("ns_pod_uid/app");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("0.log"), window().repeat(windows)).expect("a file");
    let source = Source { directory: root.path().to_owned(), layout: Layout::Pods { except: None } };
    let mut engine =
        Engine::new(vec![source], Store::empty(root.path()), Redactor::new(Expressions::default()));
    let now = Instant::now();
    engine.scan(now);
    engine.assign(|_| Some(policy));
    engine.end();
    engine.poll(now);
    let emit = |record: Record<'_>| {
        take(record);
        ControlFlow::Continue(())
    };
    let mut batch = 0;
    while let Some(chunk) = engine.read(batch, now, emit) {
        close(&chunk);
        engine.ack(batch);
        batch += 1;
    }
    assert_eq!(engine.stats().lines, (windows * WINDOW) as u64);
}
