//! Our subject: the log engine by itself.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{
    process::{self, Process},
    set::Set,
    sink::Sink,
    speed::Run,
};

/// The program.
#[derive(Debug)]
pub(crate) struct Agent(pub(crate) PathBuf);

impl Agent {
    /// Reads a set to its end and throws it away.
    pub(crate) fn discard(&self, set: &Set, policy: &str) -> anyhow::Result<Run> {
        let mut command = self.tail(&set.root);
        command.args(["--sink", "discard", "--until-end", "--policy", policy]);
        self.run(command, set)
    }

    /// Reads a set to its end and ships it.
    pub(crate) fn ship(&self, set: &Set, sink: &Sink) -> anyhow::Result<Run> {
        let before = sink.lines();
        let mut command = self.follow(&set.root, sink);
        command.arg("--until-end");
        let run = self.run(command, set)?;
        let arrived = sink.lines() - before;
        ensure!(arrived == set.lines, "{arrived} of {} lines arrived", set.lines);
        Ok(run)
    }

    /// Reads what is in `root` and what is added to it, and throws it away.
    pub(crate) fn discards(&self, root: &Path) -> Command {
        let mut command = self.tail(root);
        command.args(["--policy", "all", "--sink", "discard"]);
        command
    }

    /// Ships what is in `root` and what is added to it.
    pub(crate) fn follow(&self, root: &Path, sink: &Sink) -> Command {
        let mut command = self.tail(root);
        command
            .args(["--policy", "all", "--sink"])
            .arg(format!("link=localhost:{}", sink.address.port()))
            .env("NODE_NAME", "bench")
            .env("KESTREL_LINK_TOKEN_FILE", &sink.token)
            .env("KESTREL_LINK_CA_FILE", &sink.authority);
        command
    }

    fn tail(&self, root: &Path) -> Command {
        let mut command = process::pinned(&self.0);
        command.arg("tail").arg("--root").arg(root).stderr(Stdio::piped());
        command
    }

    fn run(&self, command: Command, set: &Set) -> anyhow::Result<Run> {
        set.warm()?;
        let (text, cpu) = Process::start(command)?.finish()?;
        let summary = text.lines().rev().find(|line| line.starts_with("lines="));
        let value = |name: &str| {
            let mut words = summary?.split(' ').filter_map(|word| word.split_once('='));
            words.find(|(word, _)| *word == name)?.1.parse::<u64>().ok()
        };
        let (lines, bytes) = value("lines").zip(value("bytes")).context("no summary")?;
        ensure!(
            lines == set.lines && bytes == set.bytes,
            "{lines} of {} lines, {bytes} of {} bytes were read",
            set.lines,
            set.bytes
        );
        Ok(Run { cpu, peak: value("peak_rss_kib").unwrap_or_default() })
    }
}
