//! Incidents that happen for real, and exactly what is told of each: when it
//! begins, changes and ends.

mod node;
mod pod;
mod workload;

use serde_json::Value;

use crate::kubectl::{cloud, eventually};

/// What the cloud was told of an object in messages of a kind, in order: `CREATE
/// +CrashLoop`, `UPDATE -CrashLoop`, `DELETE`. Without updates that count what is
/// known, such as one more restart.
fn story(kind: &str, namespace: &str, name: &str) -> Vec<String> {
    let mut told: Vec<_> = signals(kind, namespace, name).iter().map(told).collect();
    told.dedup_by(|now, before| now.0 == "UPDATE" && now.1 == before.1);
    told.into_iter().map(|(action, findings)| action + &findings).collect()
}

fn signals(kind: &str, namespace: &str, name: &str) -> Vec<Value> {
    let found = cloud(&format!("/v1/signals?kind={kind}&namespace={namespace}&name={name}&limit=1000"));
    let mut found: Vec<Value> = found.as_array().unwrap().clone();
    found.sort_by_key(|signal| signal["at"].as_str().unwrap().to_owned());
    found
}

/// The action, and what is open (+) and over (-).
fn told(signal: &Value) -> (String, String) {
    let findings =
        findings(signal).map(|(kind, is_open, _)| format!(" {}{kind}", if is_open { '+' } else { '-' }));
    (signal["action"].as_str().unwrap().to_owned(), findings.collect())
}

/// Kind, whether it is open, and the condition, of everything that is wrong.
fn findings(signal: &Value) -> impl Iterator<Item = (&str, bool, &Value)> {
    let conditions = signal["message"]["conditions"].as_array().into_iter().flatten();
    conditions.filter_map(|condition| {
        let kind = condition["type"].as_str()?.strip_prefix("kestrel.ai/")?;
        Some((kind, condition["status"] == "True", condition))
    })
}

/// Waits until the story is this, and nothing more.
fn expect_story(kind: &str, namespace: &str, name: &str, expected: &[&str]) {
    eventually(&format!("the story of {name}: {expected:?}"), 150, || {
        let told = story(kind, namespace, name);
        if told == expected { Ok(()) } else { Err(format!("{told:?}")) }
    });
}
