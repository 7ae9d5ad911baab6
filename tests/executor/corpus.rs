//! What is asked for in tests of the executor, and how answers are compared with kubectl's.

use serde_json::Value;

/// Objects to ask for.
pub(crate) const SEED: &str = include_str!("seed.yaml");
pub(crate) const HONEST: &str = include_str!("../../aggregator/tests/policy/honest.jsonl");
const ADVERSARIAL: &str = include_str!("../../aggregator/tests/policy/commands.jsonl");
/// Every secret of the seed.
pub(crate) const MARKER: &str = "marker-of-a-secret";
/// The same in base64, as far as it does not depend on what is around.
pub(crate) const ENCODED: &str = "bWFya2VyLW9mLWEtc2VjcmV0";

/// What goes straight for the secrets of the seed.
const STRAIGHT: [&str; 21] = [
    "kubectl get secrets -A -o yaml",
    "kubectl get secret db -n vault -o json",
    "kubectl get secret x -o jsonpath='{.data.password}'",
    "kubectl get secret x -o custom-columns=D:.data.password",
    "kubectl describe secret x",
    "kubectl get cm keys -n vault -o yaml",
    "kubectl get cm -A -o json",
    "kubectl get pod leaks -n vault -o yaml",
    "kubectl describe pod leaks -n vault",
    "kubectl describe deploy leaks -n vault",
    "kubectl describe all,cm -n vault",
    "kubectl describe cronjob leaks -n vault",
    "kubectl get pods -A -o jsonpath='{..env}'",
    "kubectl get pods -A -o jsonpath='{..args}'",
    "kubectl get all,cm -n vault -o json",
    "kubectl get secrets -A --sort-by=.data.password",
    "kubectl get secret db -n vault -o jsonpath='{.metadata.annotations}'",
    "kubectl get pod leaks -n vault -o jsonpath='{.metadata.annotations}'",
    "kubectl get cm keys -n vault -o jsonpath='{.data}'",
    "kubectl get cm keys -n vault -o jsonpath='{.data.manifest\\.yaml}'",
    "kubectl get pods -A -o jsonpath='{.items[*].spec.containers[?(@.env)].env}'",
];

/// The adversarial corpus, and what goes straight for the secrets of the seed.
pub(crate) fn adversarial() -> Vec<String> {
    commands(ADVERSARIAL).into_iter().chain(STRAIGHT.map(str::to_owned)).collect()
}

/// The commands of a corpus.
pub(crate) fn commands(corpus: &str) -> Vec<String> {
    corpus
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["shell_command_request"]["commands"][0].as_str().unwrap().to_owned()
        })
        .collect()
}

/// What differs by design: who answers, addresses of the API server as the caller sees it, and error texts of programs.
pub(crate) fn differs(command: &str) -> bool {
    ["kubectl version", "kubectl cluster-info", "kubectl top", "kubectl describe crd", "kubectl logs"]
        .iter()
        .any(|beginning| command.starts_with(beginning))
}

/// Words of each line, with ages as one word: they go on between the two answers.
pub(crate) fn comparable(text: &str) -> Vec<Vec<String>> {
    let is_age = |word: &str| {
        word.ends_with(['s', 'm', 'h', 'd'])
            && word.starts_with(|char: char| char.is_ascii_digit())
            && word.chars().all(|char| char.is_ascii_digit() || "smhdy".contains(char))
    };
    let word = |word: &str| if is_age(word) { "AGE".to_owned() } else { word.to_owned() };
    text.lines().map(|line| line.split_whitespace().map(word).collect()).collect()
}
