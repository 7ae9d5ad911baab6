//! `kestrel-node-agent tail`: the log engine by itself, for looking at and for measuring.

mod options;
mod ship;
mod sink;
mod usage;

use std::{
    io,
    time::{Duration, Instant, SystemTime},
};

use kestrel_link::wake::Wake;
use kestrel_runtime::{config::Environment, daemon::Daemon, limits};
use kestrel_tail::{
    discover::{Layout, Source},
    engine::{Engine, Policy, Stats},
    position::store::Store,
    redact::Redactor,
};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Config;
use options::Target;
pub use options::{Options, USAGE};
use sink::Sink;

/// How often directories are looked at.
const SCAN: Duration = Duration::from_secs(1);
/// Looking for new bytes starts with this pause and doubles while there are none.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// Turns of reading before the process listens to others.
const TURNS: u64 = 32;

/// Builds the tasks of the command. The one that reads ends the process when it is done.
///
/// # Errors
/// Positions or the settings of the link can't be used.
pub fn start(options: Options) -> anyhow::Result<Daemon> {
    limits::raise_open_files();
    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    let store = match &options.positions {
        Some(file) => Store::load(file)?,
        None => Store::default(),
    };
    let source = Source { directory: options.root.clone(), layout: Layout::Pods { except: None } };
    let engine = Engine::new(vec![source], store, Redactor::new(options.redact.clone()));
    let engine = match options.look_back {
        Some(look_back) => engine.looking_back(look_back, true, SystemTime::now()),
        None => engine,
    };
    match options.sink.clone() {
        Target::Link(endpoint) => {
            let mut link = Config { endpoint, ..Config::read(&Environment)? }.link();
            // It ships, and answers nothing.
            link.hello.features.clear();
            ship::spawn(&mut daemon, link, engine, options);
        }
        target => daemon.spawn("tail", async move {
            let _end = drain.clone().drop_guard();
            let sink = Sink::new(target);
            let stats = Follower { engine, sink, options }.run(&drain).await?;
            summary(stats);
            Ok(())
        }),
    }
    Ok(daemon)
}

/// What was done, and what it cost.
fn summary(stats: Stats) {
    let Stats {
        bytes_read,
        lines,
        followed,
        folded,
        joined,
        left_out,
        over_budget: _,
        looked_back: _,
        malformed,
        continued,
        cleaned,
        redacted,
        bytes_passed: _,
        bytes_repeated,
        gaps,
        bytes_lost,
    } = stats;
    let usage::Usage { cpu, peak } = usage::of_this_process();
    eprint_line(&format!(
        "lines={lines} followed={followed} folded={folded} bytes={bytes_read} joined={joined} left_out={left_out} \
         malformed={malformed} continued={continued} cleaned={cleaned} redacted={redacted} \
         bytes_repeated={bytes_repeated} gaps={gaps} bytes_lost={} \
         cpu_seconds={:.3} peak_rss_kib={peak}",
        bytes_lost.total(),
        cpu.as_secs_f64()
    ));
}

/// Standard output may be the sink.
fn eprint_line(text: &str) {
    let _nobody_reads = io::Write::write_all(&mut io::stderr(), format!("{text}\n").as_bytes());
}

/// Reads for a sink that takes everything at once.
struct Follower {
    engine: Engine,
    sink: Sink,
    options: Options,
}

impl Follower {
    async fn run(mut self, drain: &CancellationToken) -> anyhow::Result<Stats> {
        // A run that ends comes to the end of every file once: what the kernel would say later is of no use to it.
        let wake = (!self.options.until_end).then(|| Wake::watch(&mut self.engine));
        let (mut scanned, mut pause, mut is_ending) = (None::<Instant>, POLL.0, false);
        while !drain.is_cancelled() {
            let now = Instant::now();
            if scanned.is_none_or(|at| now.duration_since(at) >= SCAN) {
                self.scan(now)?;
                scanned = Some(now);
            }
            self.engine.poll(now);
            let has_read = self.read(now).await?;
            if wake.is_none() && self.engine.is_all_read() && !self.engine.has_counts() {
                break;
            }
            if has_read {
                pause = POLL.0;
            } else if let Some(wake) = &wake {
                tokio::select! {
                    () = wake.wait(self.engine.pause(pause)) => {}
                    () = drain.cancelled() => {}
                }
                pause = (pause * 2).min(POLL.1);
            } else if is_ending {
                break;
            } else {
                is_ending = true;
                self.engine.end();
            }
        }
        self.save()?;
        Ok(self.engine.stats())
    }

    fn scan(&mut self, now: Instant) -> anyhow::Result<()> {
        look(&mut self.engine, self.options.policy, now);
        self.save()
    }

    /// Reads all there is; whether that was anything.
    async fn read(&mut self, now: Instant) -> io::Result<bool> {
        let mut turns = 0;
        loop {
            let sink = &mut self.sink;
            let Some(chunk) = self.engine.read(turns, now, |record| sink.record(&record)) else { break };
            sink.close(&chunk)?;
            turns += 1;
            if turns.is_multiple_of(TURNS) {
                self.engine.ack(turns);
                yield_now().await;
            }
        }
        self.engine.ack(turns);
        Ok(turns > 0)
    }

    fn save(&mut self) -> anyhow::Result<()> {
        Ok(self.engine.save(SystemTime::now())?)
    }
}

/// Looks for files, wants the same of all of them, and says what can't be followed.
fn look(engine: &mut Engine, policy: Policy, now: Instant) {
    engine.scan(now);
    engine.assign(|_| Some(policy));
    for news in engine.news() {
        if let Some(problem) = news.problem {
            warn!("{}: {problem}", news.path.display());
        }
    }
}
