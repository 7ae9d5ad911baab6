//! A program under measurement, alone on its core.

use std::{
    ffi::OsStr,
    fs,
    io::Read as _,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use wait4::{ResUse, Wait4 as _};

/// Where what is measured runs.
const SUBJECT_CORE: usize = 0;
/// Where all else runs: the rig itself with its sinks and writers.
pub(crate) const SINK_CORE: usize = 1;

/// What a process has in memory, KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
    pub(crate) peak: u64,
}

/// A running process; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    /// Until it has ended.
    child: Option<Child>,
    pub(crate) pid: u32,
}

/// A command that runs `program` on the subjects' core.
pub(crate) fn pinned(program: impl AsRef<OsStr>) -> Command {
    on_core(SUBJECT_CORE, program)
}

/// A command that runs `program` on a core.
pub(crate) fn on_core(core: usize, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program).stdin(Stdio::null());
    command
}

impl Process {
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?} can't be started"))?;
        Ok(Self { pid: child.id(), child: Some(child) })
    }

    /// Time on a processor since the start, of the threads that there are.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let nanos = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let field = |name: &str| {
            let text = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            text.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap_or_default()
        };
        Memory { resident: field("VmRSS"), anonymous: field("RssAnon"), peak: field("VmHWM") }
    }

    /// Its standard output, if that is piped and was not taken.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Asks the process to end; returns what it wrote to standard error and its time on the processor,
    /// children included.
    pub(crate) fn stop(self) -> anyhow::Result<(String, Duration)> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let (text, end) = self.end()?;
        Ok((text, cpu_of(&end)))
    }

    /// Waits for the end, which has to be a good one; returns what it wrote to standard error
    /// and its time on the processor, children included.
    pub(crate) fn finish(self) -> anyhow::Result<(String, Duration)> {
        let pid = self.pid;
        let (text, end) = self.end()?;
        ensure!(end.status.success(), "process {pid} ended with {}: {text}", end.status);
        Ok((text, cpu_of(&end)))
    }

    fn end(mut self) -> anyhow::Result<(String, ResUse)> {
        let mut child = self.child.take().context("it has ended already")?;
        let mut text = String::new();
        if let Some(mut error) = child.stderr.take() {
            error.read_to_string(&mut text)?;
        }
        Ok((text, child.wait4()?))
    }
}

fn cpu_of(end: &ResUse) -> Duration {
    end.rusage.utime + end.rusage.stime
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _has_ended = child.kill();
            let _is_gone = child.wait();
        }
    }
}
