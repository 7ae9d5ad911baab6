//! What the log engine costs, beside rsyslog and an OpenTelemetry Collector on the same logs; and how long admission
//! takes at a steady rate. `hack/bench` builds all of them and runs this.

mod admission;
mod agent;
mod collector;
mod latency;
mod memory;
mod process;
mod report;
mod rsyslog;
mod set;
mod sink;
mod speed;

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::thread::{CpuSet, sched_setaffinity};

use agent::Agent;
use collector::Collector;
use process::SINK_CORE;
use report::Report;
use sink::Sink;

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Runs of each subject, one after the other.
    rounds: u32,
    /// Bytes of a generated set.
    bytes: u64,
    /// What an idle program is left alone, and then watched.
    idle: Duration,
    /// How long the sink stalls, and then is slow.
    stall: Duration,
    /// How long lines are written to see when they arrive.
    latency: Duration,
}

const FULL: Size = Size {
    rounds: 5,
    bytes: 268_400_000,
    idle: Duration::from_secs(30),
    stall: Duration::from_secs(60),
    latency: Duration::from_secs(10),
};

const QUICK: Size = Size {
    rounds: 2,
    bytes: FULL.bytes / 4,
    idle: Duration::from_secs(5),
    stall: Duration::from_secs(5),
    latency: Duration::from_secs(5),
};

/// What all rows need.
struct Bench {
    size: Size,
    folder: PathBuf,
    agent: Agent,
    collector: Collector,
    sink: Sink,
}

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(missed) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(missed) => say(&format!("missed: {}", missed.join("; "))),
        Err(problem) => say(&format!("{problem:#}")),
    }
}

fn say(problem: &str) -> ExitCode {
    let _nobody_reads = writeln!(io::stderr(), "{problem}");
    ExitCode::FAILURE
}

/// What the figures belong to.
fn machine() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let (rsyslog, collector) = (rsyslog::version()?, collector::version());
    let kernel = kernel.trim();
    Ok(format!("{model}, Linux {kernel}; rsyslog {rsyslog}, OpenTelemetry Collector {collector}"))
}

/// The gates that were missed.
fn run(words: &[String]) -> anyhow::Result<Vec<String>> {
    let (size, programs) = match words {
        [first, words @ ..] if first == "admission" => {
            kestrel_runtime::tls::install_provider();
            return admission::run(words).map(|()| Vec::new());
        }
        [quick, programs @ ..] if quick == "--quick" => (QUICK, programs),
        programs => (FULL, programs),
    };
    let [agent, collector, folder] = programs else {
        bail!("usage: kestrel-bench [--quick] NODE-AGENT COLLECTOR FOLDER, or kestrel-bench admission ...");
    };
    let mut core = CpuSet::new();
    core.set(SINK_CORE);
    sched_setaffinity(None, &core).context("this needs two cores")?;
    kestrel_runtime::tls::install_provider();
    let runtime = tokio::runtime::Runtime::new()?;
    let folder = tempfile::tempdir_in(folder)?;
    let bench = Bench {
        size,
        folder: folder.path().to_owned(),
        agent: Agent(agent.into()),
        collector: Collector::new(collector.into())?,
        sink: runtime.block_on(Sink::start(folder.path()))?,
    };
    let mut report = Report::default();
    speed::measure(&bench, &mut report)?;
    memory::measure(&bench, &mut report)?;
    latency::measure(&bench, &mut report)?;
    Ok(report.print(&machine()?)?)
}
