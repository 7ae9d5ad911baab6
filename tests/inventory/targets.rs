//! Which workloads a policy is for.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::expected::all;

/// The `target_workloads` of a policy with this selector (`null`: all pods), made from the lists of
/// its namespace's pods and of all ReplicaSets and Jobs.
pub(crate) fn targets(namespace: &Value, selector: &Value, pods: &[Value], controllers: &[Value]) -> Value {
    let pods = pods.iter().filter(|pod| pod["metadata"]["namespace"] == *namespace);
    let selected = pods.filter(|pod| is_selected(selector, &pod["metadata"]["labels"]));
    let names: BTreeSet<String> = selected.map(|pod| workload(namespace, pod, controllers)).collect();
    json!(names)
}

fn is_selected(selector: &Value, labels: &Value) -> bool {
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    let holds = |requirement: &Value| {
        let label = &labels[requirement["key"].as_str().unwrap()];
        let is_listed = all(&requirement["values"]).any(|value| value == label);
        match requirement["operator"].as_str().unwrap() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => !label.is_null(),
            _ => label.is_null(),
        }
    };
    equal.all(|(name, value)| labels[name] == *value) && all(&selector["matchExpressions"]).all(holds)
}

/// What the pod belongs to in the end: its controller's controller, its controller, or itself.
fn workload(namespace: &Value, pod: &Value, controllers: &[Value]) -> String {
    let own = controller(pod);
    let between =
        controllers.iter().find(|object| own.is_some_and(|own| own["uid"] == object["metadata"]["uid"]));
    let (kind, name) = match (between.and_then(controller), own) {
        (Some(last), _) | (None, Some(last)) => (&last["kind"], &last["name"]),
        (None, None) => (&json!("Pod"), &pod["metadata"]["name"]),
    };
    [namespace, kind, name].map(|part| part.as_str().unwrap()).join(".")
}

fn controller(object: &Value) -> Option<&Value> {
    all(&object["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true)
}
