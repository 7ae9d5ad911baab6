//! Logs that a kubelet deletes before anybody has read them.

use std::collections::BTreeSet;

use crate::{
    kubectl::{OPERATOR, apply, cloud, eventually, json, kubectl, metric, pods_of},
    logs::{agent_of, every_line, manifest, nodes, sequence},
    namespace::Namespace,
};

/// Lines of about 300 bytes that are written at once: 33 MB, of which the kubelet makes a file of its own.
const BURST: u64 = 100_000;

/// The kubelet keeps five files, packed to 25 MB each, and the agent holds 64 MiB of those that are gone: two or three are lost.
const BURSTS: u64 = 10;

/// No aggregator runs while this lives.
struct Away(String);

impl Away {
    fn new() -> Self {
        let deployment = json(&["get", "deployment", "-n", OPERATOR, "kestrel-aggregator"]);
        let away = Self(deployment["spec"]["replicas"].to_string());
        scale("0");
        eventually("the end of all aggregators", 120, || match pods_of("aggregator") {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{some:?}")),
        });
        away
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        scale(&self.0);
    }
}

fn scale(replicas: &str) {
    kubectl(&[
        "scale",
        "deployment",
        "-n",
        OPERATOR,
        "kestrel-aggregator",
        &format!("--replicas={replicas}"),
    ]);
}

/// Lines that are missing by one of the agent's own words, such as "kestrel: 12 lines (3400 bytes) of this log are missing: ...".
fn missing(told: &str) -> u64 {
    let lines = told
        .strip_prefix("kestrel: ")
        .and_then(|rest| rest.split_once(" lines ("))
        .map(|(lines, _)| lines.parse());
    lines.unwrap_or_else(|| panic!("{told}")).unwrap_or_else(|_| panic!("{told}"))
}

/// Scenario: while no aggregator is there, a container writes more than its kubelet keeps and its agent may hold on to.
/// Guarantee: what arrives afterwards, and the lines that the cloud is told are missing, are together all that were written.
#[test]
fn what_a_kubelet_deleted_unread_is_told_to_the_line() {
    let namespace = Namespace::new("gaps");
    let (_, node) = nodes().into_iter().min().unwrap();
    // Text that packs badly: the kubelet packs what it rotates away, and the agent holds files by their room on the disk.
    let burst = format!(
        r#"head -c {} /dev/urandom | base64 -w 280 | awk -v first=$first '{{ print "line " (first + NR - 1) " " $0 }}'"#,
        BURST * 210
    );
    let last = BURST * (BURSTS - 1) + 1;
    let script = format!("for first in $(seq 1 {BURST} {last}); do {burst}; sleep 10; done");
    let away = Away::new();
    apply(&namespace.0, &manifest("writer", &script, Some(&node), &every_line()).to_string());
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    kubectl(&["wait", "-n", &namespace.0, ended, "--timeout=300s", "pod/writer"]);
    let agent = agent_of(&namespace.0, "writer").unwrap();
    eventually("bytes that the agent counts as lost", 60, || {
        match metric(&agent, "kestrel_agent_bytes_lost_total") {
            lost if lost > 0.0 => Ok(()),
            lost => Err(format!("{lost}")),
        }
    });
    drop(away);
    // The cloud keeps the newest of them only.
    let mut told = BTreeSet::new();
    eventually("arrived and missing lines that are all lines", 240, || {
        let answer =
            cloud(&format!("/v1/logs?namespace={}&pod=writer&contains=kestrel:%20&limit=100", namespace.0));
        told.extend(
            answer["lines"].as_array().into_iter().flatten().map(|line| {
                (line["time"].to_string(), line["message"].as_str().unwrap_or_default().to_owned())
            }),
        );
        let lost: u64 = told.iter().map(|(_, text)| missing(text)).sum();
        let seen = sequence(&namespace.0, "writer");
        let distinct = seen["distinct"].as_u64().unwrap_or_default();
        if lost > 0 && lost + distinct == BURST * BURSTS {
            println!(
                "{lost} of {} lines were deleted unread and told; {} repeats",
                BURST * BURSTS,
                seen["duplicates"]
            );
            Ok(())
        } else {
            Err(format!("{told:?} {seen}"))
        }
    });
}
