//! Incidents that happen for real, and exactly what is told of each: when it
//! begins, changes and ends.

mod node;
mod pod;
mod workload;

use serde_json::Value;

use crate::kubectl::{cloud, eventually};

/// What the cloud was told of an object in messages of a kind, in order and
/// without what is told again and again, such as each restart: `CREATE
/// +CrashLoop`, `UPDATE -CrashLoop`, `DELETE`.
fn story(kind: &str, namespace: &str, name: &str) -> Vec<String> {
    let mut told: Vec<_> = signals(kind, namespace, name).iter().map(sentence).collect();
    told.dedup();
    told
}

fn signals(kind: &str, namespace: &str, name: &str) -> Vec<Value> {
    let found = cloud(&format!("/v1/signals?kind={kind}&namespace={namespace}&name={name}&limit=1000"));
    let mut found: Vec<Value> = found.as_array().unwrap().clone();
    found.sort_by_key(|signal| signal["at"].as_str().unwrap().to_owned());
    found
}

fn sentence(signal: &Value) -> String {
    let mut words = vec![signal["action"].as_str().unwrap().to_owned()];
    words.extend(
        findings(signal).map(|(kind, is_open, _)| format!("{}{kind}", if is_open { '+' } else { '-' })),
    );
    words.join(" ")
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
