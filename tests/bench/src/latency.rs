//! From a line in a file to the sink that has read it.

use std::{
    fs::OpenOptions,
    io::Write as _,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    Bench,
    memory::{start, wait_for, write},
    report::{Report, Spread},
    set::{log_file, write_piece},
    sink::{WRITTEN, nanos_since_1970},
    speed::FILES,
};

/// A line's text.
const TEXT: &str = "INFO the order was received, the payment was accepted, and the customer was sent a mail about the items \
                    that are shipped from the nearest warehouse, with the invoice for all of it";

/// All rows about latency.
///
/// # Errors
/// Lines are missing.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let root = bench.folder.join("latency");
    for number in 0..FILES[0] {
        write(&root, number, 1)?;
    }
    let before = bench.sink.lines();
    let mut agent = start(bench, &root)?;
    wait_for(&mut agent, || bench.sink.lines() - before >= FILES[0])?;
    // 27 lines a second, and 10 MiB a second in portions of a millisecond.
    for (what, portion, pause, [median, late]) in [
        ("27 lines/s", 1, Duration::from_micros(37_037), [2.0, 10.0]),
        ("10 MiB/s", 41, Duration::from_millis(1), [30.0, 30.0]),
    ] {
        let mut file = OpenOptions::new().append(true).open(log_file(&root, 0)?)?;
        let before = bench.sink.lines();
        bench.sink.take_latencies();
        let (begin, mut portions) = (Instant::now(), 0);
        let mut text = Vec::new();
        while begin.elapsed() < bench.size.latency {
            text.clear();
            for _ in 0..portion {
                let line = format!("{WRITTEN}{} {TEXT}", nanos_since_1970());
                write_piece(&mut text, jiff::Timestamp::now(), "F", &line)?;
            }
            file.write_all(&text)?;
            portions += 1;
            sleep((pause * portions).saturating_sub(begin.elapsed()));
        }
        let lines = u64::from(portions) * portion;
        wait_for(&mut agent, || bench.sink.lines() - before >= lines)?;
        let latencies = bench.sink.take_latencies();
        ensure!(latencies.len() as u64 == lines, "{} of {lines} lines arrived", latencies.len());
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| Spread::percentile(&latencies, part));
        let is_met = p50 <= median && p99 <= late;
        report.goal(
            &format!("written to delivered, {what}"),
            format!("p50 {p50:.2} ms, p99 {p99:.2} ms, most {most:.2} ms"),
            &format!("p50 {median} ms, p99 {late} ms"),
            is_met,
        );
    }
    Ok(())
}
