//! Warnings that Kubernetes keeps of the cluster.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::events_about;
use crate::{
    kubectl::{apply, eventually, kubectl},
    namespace::Namespace,
};

/// A Warning of the older API, which counts in one object.
fn counted(count: u32) -> Value {
    let now = Timestamp::now().strftime("%FT%TZ").to_string();
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "boiler.1"}, "type": "Warning",
        "reason": "Overheated", "message": format!("It has {count} degrees too many"), "count": count,
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "boiler", "uid": "1"},
        "source": {"component": "thermometer"}, "firstTimestamp": now, "lastTimestamp": now,
    })
}

/// A Warning of the newer API, which is another object each time.
fn single(number: u32) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": format!("kiln.{number}")},
        "type": "Warning", "reason": "Overheated", "note": format!("It has {number} degrees too many"),
        "regarding": {"apiVersion": "v1", "kind": "Pod", "name": "kiln", "uid": "2"}, "action": "Heat",
        "reportingController": "example.com/thermometer", "reportingInstance": "thermometer-1",
        "eventTime": Timestamp::now().strftime("%FT%T%.6fZ").to_string(),
    })
}

/// Scenario: a warning happens eight times in a few seconds, once counted in one object, once in
/// eight objects.
/// Guarantee: five are told at once, and in the time of the next one the newest text and the count of all.
#[test]
fn warnings_that_go_on_and_on() {
    let namespace = Namespace::new("warnings");
    let in_it = |mut event: Value, about: &str| {
        event[about]["namespace"] = namespace.0.clone().into();
        event.to_string()
    };
    for number in 1..=8 {
        apply(&namespace.0, &in_it(counted(number), "involvedObject"));
        apply(&namespace.0, &in_it(single(number), "regarding"));
    }
    for about in ["boiler", "kiln"] {
        let told = eventually(&format!("all of the {about}"), 60, || {
            let told = events_about(&namespace.0, about);
            if told.last().is_some_and(|last| last["count"] == 8) {
                Ok(told)
            } else {
                Err(format!("{told:#?}"))
            }
        });
        let what = |told: &Value| {
            let text = told["message"].as_str().unwrap().to_owned();
            (told["action"].as_str().unwrap().to_owned(), told["count"].as_u64().unwrap(), text)
        };
        let expected = [1, 2, 3, 4, 5, 8].map(|number| {
            let action = if number == 1 { "ACTION_CREATE" } else { "ACTION_UPDATE" };
            (action.to_owned(), number, format!("It has {number} degrees too many"))
        });
        assert_eq!(told.iter().map(what).collect::<Vec<_>>(), expected);
        assert!(told.iter().all(|one| one["uid"] == told[0]["uid"] && one["name"] == told[0]["name"]));
    }
    // What is gone says no more.
    kubectl(&["delete", "events", "-n", &namespace.0, "--all"]);
    assert_eq!(["boiler", "kiln"].map(|about| events_about(&namespace.0, about).len()), [6, 6]);
}
