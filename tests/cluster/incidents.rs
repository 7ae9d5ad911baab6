//! Incidents that happen for real, and exactly what is told of each: when it
//! begins, changes and ends.

mod component;
mod event;
mod host;
mod leader;
pub(crate) mod node;
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
    expect_after(&[], kind, namespace, name, expected);
}

/// The story so far, once nothing of it is open: what is made on a busy machine may have been late.
fn settled(kind: &str, namespace: &str, name: &str) -> Vec<String> {
    eventually(&format!("nothing wrong with {name}"), 60, || {
        let told = story(kind, namespace, name);
        if told.last().is_some_and(|last| last.contains('+')) { Err(format!("{told:?}")) } else { Ok(told) }
    })
}

/// Waits until the story of an object of which something was told `before` goes on like this, and no
/// further.
fn expect_after(before: &[String], kind: &str, namespace: &str, name: &str, expected: &[&str]) {
    eventually(&format!("the story of {name}: {expected:?}"), 150, || {
        let told = story(kind, namespace, name);
        if told.strip_prefix(before).is_some_and(|told| told == expected) {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
}

/// The events about an object that were told.
pub(crate) fn events_about(namespace: &str, name: &str) -> Vec<Value> {
    let all = cloud(&format!("/v1/signals?kind=kubernetes_event&namespace={namespace}&limit=10000"));
    let all = all.as_array().unwrap().iter().map(|signal| signal["message"].clone());
    all.filter(|told| told["involved_object"]["name"] == name).collect()
}

/// What was told of a component: of its workload, or of the node on which it fails.
fn component_signals(namespace: &str, name: &str) -> Vec<Value> {
    // What is in no namespace has its events in this one.
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    let mut told = events_about(namespace, name);
    told.retain(|told| told["source"]["component"] == "kestrel-operator");
    told
}

/// One begins, changes and is over.
fn is_one_incident(told: &[Value], area: &str) {
    for (index, signal) in told.iter().enumerate() {
        println!("{} {}: {}", signal["action"], signal["reason"], signal["message"]);
        let expected = if index == 0 { "ACTION_CREATE" } else { "ACTION_UPDATE" };
        let state = if index + 1 == told.len() { "Recovered" } else { "Degraded" };
        assert_eq!((&signal["action"], &signal["uid"]), (&expected.into(), &told[0]["uid"]), "{told:#?}");
        assert_eq!(signal["reason"], format!("{area}{state}"), "{told:#?}");
    }
}
