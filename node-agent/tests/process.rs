//! The agent as a process: exit codes, and the words that go with them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kestrel-node-agent"));
    command.env_clear();
    command
}

#[test]
fn what_cannot_be_mended_by_waiting_ends_it_with_all_reasons() {
    let output = agent().env("KESTREL_LINK_ENDPOINT", "http://plain").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(
        log.contains("NODE_NAME is not set") && log.contains("KESTREL_LINK_ENDPOINT=http://plain"),
        "{log}"
    );
}

#[test]
fn what_may_come_later_is_waited_for_until_it_is_asked_to_end() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("pods")).unwrap();
    let mut child = agent()
        .envs([
            ("NODE_NAME", "n1"),
            ("HEALTH_PORT", "0"),
            ("POD_NAMESPACE", "kestrel-ai"),
            ("POD_NAME", "agent-1"),
        ])
        .env("KESTREL_POD_LOGS_DIR", directory.path().join("pods"))
        .env("KESTREL_STATE_DIR", directory.path())
        .env("KESTREL_LINK_CA_FILE", directory.path().join("ca.crt"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut story = Vec::new();
    for part in
        ["not following kestrel-ai/agent-1", "KESTREL_LINK_CA_FILE", "following 0 containers of 0 pods"]
    {
        let is_told = |line: &String| line.contains(part);
        if !story.iter().any(is_told) {
            story.extend(log.by_ref().take_while(|line| !is_told(line)).collect::<Vec<_>>());
        }
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let end: Vec<_> = log.collect();
    assert!(end.iter().any(|line| line.contains("the agent of node n1 ends")), "{end:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
