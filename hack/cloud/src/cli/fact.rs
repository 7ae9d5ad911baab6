//! A message in a few words.

use serde_json::Value;

/// What a message of `kind` says, beside whom it is about. Empty where there is no more to say.
pub fn fact(kind: &str, message: &Value) -> String {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let number = |pointer: &str| message.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let yes = |pointer: &str| message.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
    let ready = if yes("/ready") { "ready" } else { "not ready" };
    match kind {
        "pod" => join([text("/phase"), ready, text("/pod_ip")]),
        "node" => join([ready, text("/internal_ips/0"), text("/instance_type"), text("/zone")]),
        "workload" => text("/kind").to_owned(),
        "service" => join([text("/service_type"), text("/cluster_ip")]),
        "network_policy" | "authorization_policy" => {
            format!("selects {} workloads", list(message, "/target_workloads").len())
        }
        "inventory_commit" => "the initial inventory is complete".to_owned(),
        "kubernetes_event" => format!(
            "{} {}/{}: {} ({}x)",
            text("/reason"),
            text("/involved_object/kind"),
            text("/involved_object/name"),
            text("/message"),
            number("/count"),
        ),
        "pod_status_change" => pod_status(message),
        "node_condition_change" => node_conditions(message),
        "workload_rollout_status" => join([
            text("/rollout_status"),
            &format!("{} of {} ready", number("/ready_replicas"), number("/desired_replicas")),
            text("/rollout_message"),
        ]),
        "datadog_monitor_alert" => format!("{}, was {}", text("/current_status"), text("/previous_status")),
        "flow" => format!(
            "{} → {} {}/{} {} ({}x)",
            end(message, "src"),
            end(message, "dst"),
            text("/protocol"),
            number("/port"),
            if yes("/allowed") { "allowed" } else { "denied" },
            number("/count"),
        ),
        "l7_access_log" => format!(
            "{} → {} {} {} {} ({}x)",
            text("/source/name"),
            text("/destination/name"),
            text("/http_data/method"),
            text("/http_data/path"),
            number("/http_data/response_code"),
            number("/count"),
        ),
        "pod_logs" => format!("{} lines of {}", list(message, "/log_entries").len(), text("/container_name")),
        "network_policy_with_errors" => match text("/policies/0/error_message") {
            "" => "accepted".to_owned(),
            error => format!("refused: {error}"),
        },
        _ => answer(message),
    }
}

/// The outcome of a tool answer: of its parts, or its own.
fn answer(message: &Value) -> String {
    let outcome = |part: &Value| {
        let good = ["success", "valid"].iter().any(|field| part[field] == true);
        let error = part["error_message"].as_str().unwrap_or_default();
        if good { "done".to_owned() } else { format!("failed: {error}") }
    };
    let results = list(message, "/results");
    let parts: Vec<String> = match results {
        [] => vec![outcome(message)],
        results => results.iter().map(outcome).collect(),
    };
    let request = message["request_id"].as_str().unwrap_or_default();
    format!("request {request}: {}", parts.join(", "))
}

fn pod_status(message: &Value) -> String {
    let containers = ["/init_container_statuses", "/container_statuses"];
    let containers = containers.iter().flat_map(|pointer| list(message, pointer));
    let states = containers.filter_map(|container| {
        let name = container["name"].as_str().unwrap_or_default();
        let (state, reason) = ["waiting", "terminated"].iter().find_map(|state| {
            Some((state, container.pointer(&format!("/state/{state}/reason"))?.as_str()?))
        })?;
        Some(format!("{name} {state}: {reason} ({} restarts)", container["restart_count"]))
    });
    let phase = message["phase"].as_str().unwrap_or_default().to_owned();
    std::iter::once(phase).chain(states).collect::<Vec<_>>().join(", ")
}

/// The conditions that are not as they should be: `Ready` true, all others false.
fn node_conditions(message: &Value) -> String {
    let conditions = list(message, "/conditions");
    let bad = conditions.iter().filter(|condition| {
        let good = if condition["type"] == "Ready" { "True" } else { "False" };
        condition["status"] != good
    });
    let bad: Vec<String> = bad
        .map(|condition| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            format!("{} is {}: {}", text("type"), text("status"), text("message"))
        })
        .collect();
    if bad.is_empty() { format!("all {} conditions are good", conditions.len()) } else { bad.join(", ") }
}

fn end(message: &Value, side: &str) -> String {
    let name = message.pointer(&format!("/{side}/name")).and_then(Value::as_str).unwrap_or_default();
    let ip = message[format!("{side}_ip")].as_str().unwrap_or_default();
    if name.is_empty() { ip.to_owned() } else { name.to_owned() }
}

fn list<'a>(message: &'a Value, pointer: &str) -> &'a [Value] {
    message.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn join<const N: usize>(parts: [&str; N]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_what_a_person_would_ask() {
        let pod = json!({ "phase": "Running", "ready": true, "pod_ip": "10.1.0.7" });
        assert_eq!(fact("pod", &pod), "Running, ready, 10.1.0.7");
        let crash = json!({ "phase": "Running", "container_statuses": [
            { "name": "app", "restart_count": 4, "state": { "waiting": { "reason": "CrashLoopBackOff" } } },
            { "name": "proxy", "restart_count": 0, "state": { "running": {} } },
        ]});
        assert_eq!(fact("pod_status_change", &crash), "Running, app waiting: CrashLoopBackOff (4 restarts)");
        let node = json!({ "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "DiskPressure", "status": "True", "message": "3 % free" },
        ]});
        assert_eq!(fact("node_condition_change", &node), "DiskPressure is True: 3 % free");
        let answer = json!({ "request_id": "r1", "results": [
            { "success": true }, { "success": false, "error_message": "not found" },
        ]});
        assert_eq!(fact("shell_command_response", &answer), "request r1: done, failed: not found");
    }
}
