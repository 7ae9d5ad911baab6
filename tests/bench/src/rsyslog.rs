//! A peer: rsyslog with its file input, and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    process::{self, Process},
    set::Set,
    speed::{LIMIT, Run},
};

/// A running rsyslog.
pub(crate) struct Rsyslog {
    pub(crate) process: Process,
    counters: PathBuf,
}

impl Rsyslog {
    /// One that reads the files in `root` and throws lines away; its own files go to `folder`.
    pub(crate) fn start(root: &Path, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let configuration = folder.join("rsyslog.conf");
        let counters = folder.join("counters");
        fs::write(&configuration, text(root, folder, &counters))?;
        let mut command = process::pinned("rsyslogd");
        command.arg("-n").arg("-f").arg(&configuration).arg("-i").arg(folder.join("pid"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { process: Process::start(command)?, counters })
    }

    /// Reads a set to its end and throws it away.
    pub(crate) fn discard(set: &Set, folder: &Path) -> anyhow::Result<Run> {
        set.warm()?;
        let mut rsyslog = Self::start(&set.root, &folder.join(format!("rsyslog-{}", fastrand::u64(..))))?;
        let deadline = Instant::now() + LIMIT;
        while rsyslog.written() < set.pieces {
            ensure!(
                rsyslog.process.is_running(),
                "rsyslogd has ended: try its configuration by rsyslogd -N1"
            );
            ensure!(
                Instant::now() < deadline,
                "rsyslogd wrote {} of {} lines",
                rsyslog.written(),
                set.pieces
            );
            sleep(Duration::from_millis(100));
        }
        let lines = rsyslog.written();
        ensure!(lines == set.pieces, "rsyslogd wrote {lines} of {} lines", set.pieces);
        let peak = rsyslog.process.memory().peak;
        let (_, cpu) = rsyslog.process.stop()?;
        Ok(Run { cpu, peak })
    }

    /// Lines that its output has taken, as it counts every second.
    fn written(&self) -> u64 {
        let text = fs::read_to_string(&self.counters).unwrap_or_default();
        let count = text.lines().rev().find_map(|line| {
            let (_, rest) = line.split_once("\"name\": \"out\"")?;
            let (_, rest) = rest.split_once("\"processed\": ")?;
            rest.split([',', ' ']).next()?.parse().ok()
        });
        count.unwrap_or_default()
    }
}

fn text(root: &Path, folder: &Path, counters: &Path) -> String {
    let (root, folder, counters) = (root.display(), folder.display(), counters.display());
    format!(
        r#"global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imfile" mode="inotify")
module(load="impstats" interval="1" format="json" log.syslog="off" log.file="{counters}" ruleset="own")
main_queue(queue.type="FixedArray" queue.size="200000" queue.dequeueBatchSize="2048" queue.workerThreads="1")
template(name="raw" type="string" string="%rawmsg%\n")
ruleset(name="own") {{ stop }}
ruleset(name="lines") {{ action(name="out" type="omfile" file="/dev/null" template="raw") }}
input(type="imfile" file="{root}/*/*/*.log" tag="bench" ruleset="lines")
"#
    )
}

/// The version of the program that is installed.
pub(crate) fn version() -> anyhow::Result<String> {
    let output =
        std::process::Command::new("rsyslogd").arg("-v").output().context("rsyslogd can't be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().nth(1).unwrap_or("unknown").to_owned())
}
