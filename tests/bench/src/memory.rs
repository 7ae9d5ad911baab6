//! Memory, and what doing nothing costs.

use std::{
    fs::File,
    path::Path,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    Bench,
    process::{Memory, Process},
    report::Report,
    rsyslog::Rsyslog,
    set::{Set, Shape, log_file, write_piece},
    sink::Pace,
    speed::{FILES, LIMIT},
};

/// Lines of a file that is idle.
const LINES: u64 = 20;
/// MiB that the link, a TLS and HTTP/2 client, may take.
const LINK: f64 = 4.0;
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);
/// What the sink takes when it is slow, bytes a second: less than a tenth of what comes.
const SLOW: u64 = 20_000_000;

/// All rows about memory.
///
/// # Errors
/// Lines are missing.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    // MiB, and percents of a core.
    for (files, most, most_cpu) in [(FILES[0], 8.0, 0.1), (FILES[1], 12.0, 0.5)] {
        idle(bench, report, files, most, most_cpu)?;
    }
    stalled(bench, report)
}

/// The engine by itself beside rsyslog, and the engine with its link beside both.
fn idle(bench: &Bench, report: &mut Report, files: u64, most: f64, most_cpu: f64) -> anyhow::Result<()> {
    let folder = bench.folder.join(format!("idle-{files}"));
    let root = folder.join("pods");
    for number in 0..files {
        write(&root, number, LINES)?;
    }
    let before = bench.sink.lines();
    let mut linked = start(bench, &root)?;
    let engine = Process::start(bench.agent.discards(&root))?;
    let rsyslog = Rsyslog::start(&root, &folder.join("rsyslog"))?;
    wait_for(&mut linked, || bench.sink.lines() - before >= files * LINES)?;
    sleep(bench.size.idle);
    let all = [&engine, &linked, &rsyslog.process].map(|process| (process, process.cpu()));
    let begin = Instant::now();
    sleep(bench.size.idle);
    let time = begin.elapsed();
    let [alone, linked, rsyslog] = all.map(|(process, before)| {
        (process.memory(), 100.0 * (process.cpu() - before).as_secs_f64() / time.as_secs_f64())
    });
    let rsyslog = format!("rsyslog {}", text(rsyslog));
    for (what, took, most) in [("", alone, most), (", with its link", linked, most + LINK)] {
        let is_met = mib(took.0.resident) <= most && took.1 <= most_cpu;
        let gate = format!("at most {most} MiB resident and {most_cpu} % of a core");
        report.gate(&format!("idle, {files} files{what}"), text(took), rsyslog.clone(), &gate, is_met);
    }
    let (said, _) = engine.stop()?;
    ensure!(said.contains(&format!("lines={} ", files * LINES)), "not all lines were read: {said}");
    Ok(())
}

/// A sink that takes nothing, then a tenth of what comes, then all.
fn stalled(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let set = Set::generate(bench.folder.join("stalled"), bench.size.bytes, 1, Shape::Ordinary)?;
    let before = bench.sink.lines();
    bench.sink.set_pace(Pace::Slow(SLOW));
    let mut agent = start(bench, &set.root)?;
    wait_for(&mut agent, || bench.sink.lines() > before)?;
    let mut most = [0; 2];
    for (pace, most) in [Pace::Stalled, Pace::Slow(SLOW)].into_iter().zip(&mut most) {
        bench.sink.set_pace(pace);
        let end = Instant::now() + bench.size.stall;
        while Instant::now() < end {
            sleep(SAMPLE);
            *most = agent.memory().resident.max(*most);
        }
    }
    bench.sink.set_pace(Pace::AtOnce);
    wait_for(&mut agent, || bench.sink.lines() - before >= set.lines)?;
    let peak = mib(agent.memory().peak);
    let [stalled, slow] = most.map(mib);
    report.gate(
        &format!("sink stalled for {} s, then at a tenth of what comes", bench.size.stall.as_secs()),
        format!("{stalled:.1} MiB stalled, {slow:.1} MiB slow, peak {peak:.1} MiB, nothing lost"),
        String::new(),
        "at most 24 MiB",
        peak <= 24.0,
    );
    Ok(())
}

/// Our program, with its end at the sink.
pub(crate) fn start(bench: &Bench, root: &Path) -> anyhow::Result<Process> {
    let mut command = bench.agent.follow(root, &bench.sink);
    command.stdout(Stdio::null()).stderr(File::create(bench.folder.join("agent.log"))?);
    Process::start(command)
}

pub(crate) fn wait_for(agent: &mut Process, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        ensure!(agent.is_running(), "the agent has ended");
        ensure!(Instant::now() < deadline, "lines are missing at the sink");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Some lines of the container with that number.
pub(crate) fn write(root: &Path, number: u64, lines: u64) -> anyhow::Result<()> {
    let mut file = File::create(log_file(root, number)?)?;
    for line in 0..lines {
        let text = format!("INFO container {number} has started, line {line} of {lines}");
        write_piece(&mut file, jiff::Timestamp::now(), "F", &text)?;
    }
    Ok(())
}

fn text((memory, cpu): (Memory, f64)) -> String {
    let (resident, anonymous) = (mib(memory.resident), mib(memory.anonymous));
    format!("{resident:.1} MiB resident ({anonymous:.1} anonymous), {cpu:.3} % of a core")
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
