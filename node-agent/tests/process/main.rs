//! The agent as a process: exit codes, and the words that go with them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

#[path = "../../link/tests/support/aggregator.rs"]
mod aggregator;
mod check;
mod kernel;
mod kills;
mod reads;
mod runtime;
mod ship;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
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

/// A host that is all files: every sentence about it is of them.
#[test]
fn what_it_sees_of_its_host_is_in_its_log() {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("proc/meminfo", "MemAvailable: 51200 kB\n"),
        ("proc/loadavg", "0.20 0.18 0.12 2/811 12345\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "100\n"),
        ("host/proc/1/net/stat/nf_conntrack", "entries insert_failed drop\n0000005a 00000000 00000000\n"),
        ("host/data/keep", ""),
        ("pods/keep", ""),
    ] {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut child = agent()
        .envs([("NODE_NAME", "n1"), ("HEALTH_PORT", "0"), ("KESTREL_CONNTRACK", "true")])
        .env("KESTREL_FILE_SYSTEMS", "/data,/none")
        .env("KESTREL_PROC_DIR", directory.path().join("proc"))
        .env("KESTREL_HOST_DIR", directory.path().join("host"))
        .env("KESTREL_POD_LOGS_DIR", directory.path().join("pods"))
        .env("KESTREL_STATE_DIR", directory.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    for part in [
        "not watched: the container runtime (nodeAgent.runtimeSocket), the kernel's log (nodeAgent.kernelLog), the pressure",
        "kestrel.ai/MemoryPressure is True: 50 MiB of memory can be had",
        "of /none nothing can be seen (",
        "kestrel.ai/PIDPressure is Unknown: ",
        "kestrel.ai/ConntrackPressure is True: 90 of 100 entries",
    ] {
        assert!(log.any(|line| line.contains(part)), "{part}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// No Cilium, no Istio, no AWS.
#[test]
fn sources_of_flows_that_are_not_there_are_one_sentence_and_no_trouble() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("pods")).unwrap();
    let mut child = agent()
        .envs([("NODE_NAME", "n1"), ("HEALTH_PORT", "0"), ("KESTREL_ZTUNNEL_NAMESPACE", "istio-system")])
        .env("KESTREL_POD_LOGS_DIR", path("pods"))
        .env("KESTREL_STATE_DIR", directory.path())
        .env("KESTREL_AWS_POLICY_LOG", path("aws/network-policy-agent.log"))
        .env("KESTREL_HUBBLE_SOCKET", path("cilium/hubble.sock"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let is_of_flows =
        |line: &String| ["flows", "Hubble", "ztunnel", "AWS"].iter().any(|it| line.contains(it));
    let told = log.find(is_of_flows).unwrap();
    assert!(told.contains(" INFO network flows: on this node there is no "), "{told}");
    for part in ["Hubble at ", "log of the AWS network policy agent", "log of ztunnel", "what comes is read"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(log.find(is_of_flows), None);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn tail(root: &Path, words: &[&str]) -> (String, String) {
    let output = agent().arg("tail").arg("--root").arg(root).args(words).output().unwrap();
    let [out, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{said}");
    (out, said)
}

#[test]
fn the_engine_alone_reads_to_the_end_and_sums_up() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("pods");
    let container = root.join("shop_web-1_5f2a/app");
    fs::create_dir_all(&container).unwrap();
    let time = "2026-11-21T13:50:00.5Z stdout";
    let lines =
        format!("{time} F ERROR \"a\"\n{time} P in two \n{time} F pieces\n{time} F password=hunter2\n");
    fs::write(container.join("0.log"), lines).unwrap();

    let (out, said) = tail(&root, &["--until-end"]);
    assert_eq!(out, "ERROR \"a\"\nin two pieces\npassword=[redacted]\n");
    for part in
        ["lines=3 ", "joined=1 ", "redacted=1 ", "bytes_repeated=0 gaps=0 bytes_lost=0 ", "cpu_seconds=0."]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (out, _) = tail(&root, &["--until-end", "--sink=json", "--policy=errors"]);
    let first = r#"{"namespace":"shop","pod":"web-1","container":"app","time":1795269000.500000000,"level":"ERROR","text":"ERROR \"a\""}"#;
    assert_eq!(out.lines().next(), Some(first));
    assert_eq!(tail(&root, &["--until-end", "--sink=discard"]).0, "");

    let positions = directory.path().join("positions");
    let on = ["--until-end", "--positions", positions.to_str().unwrap()];
    assert_eq!(tail(&root, &on).0.lines().count(), 3);
    fs::OpenOptions::new()
        .append(true)
        .open(container.join("0.log"))
        .unwrap()
        .write_all(format!("{time} F more\n").as_bytes())
        .unwrap();
    assert_eq!(tail(&root, &on).0, "more\n", "it goes on where it ended");
}

#[test]
fn words_that_are_not_known_are_answered_with_those_that_are() {
    for (words, part) in [
        (&["tial"][..], "usage: kestrel-node-agent [status | check | tail]"),
        (&["tail", "--sink", "file"], "link=HOST:PORT"),
    ] {
        let output = agent().args(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
    }
    let help = agent().args(["tail", "--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--until-end"));
}
