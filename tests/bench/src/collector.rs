//! A peer: the OpenTelemetry Collector's filelog receiver, to its OTLP exporter.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    process::{self, Process, SINK_CORE},
    set::Set,
    speed::{LIMIT, Run},
};

/// The program, and the server that its exporter sends to.
pub(crate) struct Collector {
    program: PathBuf,
    port: u16,
    received: Arc<AtomicU64>,
    _sink: Process,
}

impl Collector {
    /// Starts the server.
    pub(crate) fn new(program: PathBuf) -> anyhow::Result<Self> {
        let mut command = process::on_core(SINK_CORE, &program);
        command.arg("sink").stdout(Stdio::piped());
        let mut sink = Process::start(command)?;
        let mut lines = BufReader::new(sink.stdout().context("no standard output")?).lines();
        let port = lines.next().context("the collector's sink does not start")??.parse()?;
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        thread::spawn(move || {
            for number in lines.map_while(Result::ok).filter_map(|line| line.parse().ok()) {
                count.store(number, Relaxed);
            }
        });
        Ok(Self { program, port, received, _sink: sink })
    }

    /// Reads a set to its end and ships it.
    pub(crate) fn ship(&self, set: &Set, folder: &Path) -> anyhow::Result<Run> {
        set.warm()?;
        let folder = folder.join(format!("collector-{}", fastrand::u64(..)));
        fs::create_dir_all(&folder)?;
        let configuration = folder.join("collector.yaml");
        fs::write(&configuration, text(&set.root, &folder, self.port))?;
        let before = self.received.load(Relaxed);
        let mut command = process::pinned(&self.program);
        command.arg(&configuration).stdout(Stdio::null());
        command.stderr(fs::File::create(folder.join("log"))?);
        let mut process = Process::start(command)?;
        let deadline = Instant::now() + LIMIT;
        let arrived = || self.received.load(Relaxed) - before;
        while arrived() < set.lines {
            let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            ensure!(process.is_running(), "the collector has ended: {}", log());
            ensure!(Instant::now() < deadline, "{} of {} records arrived: {}", arrived(), set.lines, log());
            thread::sleep(Duration::from_millis(20));
        }
        let peak = process.memory().peak;
        let (_, cpu) = process.stop()?;
        ensure!(arrived() == set.lines, "{} of {} records arrived", arrived(), set.lines);
        Ok(Run { cpu, peak })
    }
}

fn text(root: &Path, folder: &Path, port: u16) -> String {
    let (root, folder) = (root.display(), folder.display());
    format!(
        "receivers:
  file_log:
    include: ['{root}/*/*/*.log']
    include_file_path: true
    start_at: beginning
    storage: file_storage
    operators: [{{type: container, format: containerd}}]
processors:
  batch: {{}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{port}
    compression: zstd
    tls: {{insecure_skip_verify: true}}
extensions:
  file_storage: {{directory: '{folder}'}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    logs: {{receivers: [file_log], processors: [batch], exporters: [otlp_grpc]}}
"
    )
}

/// The version of the modules that the program is built of.
pub(crate) fn version() -> &'static str {
    let modules = include_str!("../collector/go.mod");
    let own =
        modules.lines().find_map(|line| line.trim().strip_prefix("go.opentelemetry.io/collector/otelcol "));
    own.unwrap_or("unknown")
}
