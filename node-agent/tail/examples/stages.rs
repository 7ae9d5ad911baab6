//! Runs one stage of the engine over generated lines, to count its instructions: `stages STAGE LINES`.

#![allow(clippy::expect_used)] // a tool may stop at a surprise

use std::{hint::black_box, ops::ControlFlow};

use kestrel_tail::{
    multiline::{First, Shape},
    redact::{Expressions, Redactor},
    severity,
    split::{Format, Splitter, Unfinished},
    text::clean,
};

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

fn main() {
    let mut words = std::env::args().skip(1);
    let (stage, times) = (words.next().expect("a stage"), words.next().expect("a number"));
    let times: usize = times.parse().expect("a number");
    let log: String = LINES.map(|line| format!("2026-11-21T13:50:00.123456789Z stdout F {line}\n")).concat();
    let window = log.repeat(64);
    let mut splitter = Splitter::default();
    let mut redactor = Redactor::new(Expressions::default());
    for _ in 0..times.div_ceil(LINES.len() * 64) {
        match stage.as_str() {
            "split" => {
                splitter.split(Format::Cri, window.as_bytes(), Unfinished::Ends, |raw| {
                    black_box(raw);
                    ControlFlow::Continue(())
                });
            }
            _ => {
                for line in LINES.iter().cycle().take(LINES.len() * 64) {
                    let line = black_box(*line);
                    match stage.as_str() {
                        "nothing" => {}
                        "clean" => drop(black_box(clean(line.as_bytes()))),
                        "severity" => drop(black_box(severity::level(line.as_bytes()))),
                        "redact" => drop(black_box(redactor.redact(line).is_some())),
                        "multiline" => {
                            black_box(First::of(line.as_bytes()));
                        }
                        "shape" => drop(black_box(Shape::begin(line.as_bytes()))),
                        _ => panic!("no stage {stage}"),
                    }
                }
            }
        }
    }
}
