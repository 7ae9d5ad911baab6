//! The corpora of requests, judged by the code that judges them in a cluster.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use kestrel_aggregator::{
    excluded::Excluded,
    executor::{replay, rules::Rules},
};

fn judge(requests: &str) -> (replay::Summary, String) {
    judge_by(Rules::default(), requests)
}

fn judge_by(rules: Rules, requests: &str) -> (replay::Summary, String) {
    let mut out = Vec::new();
    let summary = replay::test(requests, rules, &Excluded::default(), &mut out).unwrap();
    let wrong = String::from_utf8(out)
        .unwrap()
        .lines()
        .filter(|line| line.contains("WRONG") || line.contains("NOT A"))
        .map(|line| format!("{line}\n"))
        .collect();
    (summary, wrong)
}

#[test]
fn no_path_of_the_corpus_does_more_than_the_policy_says() {
    let (summary, wrong) = judge(include_str!("policy/api.jsonl"));
    assert_eq!(wrong, "");
    assert!(summary.refused > 200 && summary.allowed > 30, "{summary:?}");
}

#[test]
fn no_command_of_the_corpus_does_more_than_the_policy_says() {
    let (summary, wrong) = judge(include_str!("policy/commands.jsonl"));
    assert_eq!(wrong, "");
    assert!(summary.refused > 550, "{summary:?}");
}

#[test]
fn what_incident_work_asks_for_is_allowed() {
    let (summary, wrong) = judge(include_str!("policy/honest.jsonl"));
    assert_eq!(wrong, "");
    assert!(summary.allowed >= 150, "{summary:?}");
}

/// Apart from the others, as kubectl itself would make a pod for each.
#[test]
fn what_incident_work_asks_of_nodes_is_allowed() {
    let (summary, wrong) = judge(include_str!("policy/nodes.jsonl"));
    assert_eq!(wrong, "");
    assert!(summary.allowed >= 25, "{summary:?}");
}

/// As with `--dry-run`: what is tried where the owner allows it.
#[test]
fn of_dry_runs_what_has_no_secret_is_allowed() {
    let rules = Rules { dry_run: true, ..Rules::default() };
    let (summary, wrong) = judge_by(rules, include_str!("policy/dry_runs.jsonl"));
    assert_eq!(wrong, "");
    assert!(summary.allowed >= 8 && summary.refused >= 12, "{summary:?}");
}
