//! Who may speak on the agent link.

use serde_json::{Value, json};

use crate::kubectl::{OPERATOR, apply, attempt, eventually, json, log_of, operator_image, sample_image};

/// A pod of the operator's namespace that is removed at the end.
struct Intruder(&'static str);

impl Drop for Intruder {
    fn drop(&mut self) {
        let _best_effort =
            attempt(&["delete", "pod", "-n", OPERATOR, self.0, "--wait=false", "--grace-period=0"]);
    }
}

fn run(name: &'static str, node: &str, account: &str, container: &Value, volumes: &Value) -> Intruder {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [container], "volumes": volumes,
        },
    });
    apply(OPERATOR, &manifest.to_string());
    Intruder(name)
}

/// What an intruder has for a token.
enum Token {
    /// That of the pod it runs in.
    Own,
    /// One that no API server made.
    Forged,
    /// None.
    Missing,
}

/// A node agent that claims to run on `claimed`.
fn agent(claimed: &str, token: Token) -> (Value, Value) {
    let mut mounts = vec![
        json!({"name": "ca", "mountPath": "/etc/kestrel/link-ca"}),
        json!({"name": "logs", "mountPath": "/var/log/pods"}),
    ];
    let mut volumes = vec![
        json!({"name": "ca", "configMap": {"name": "kestrel-agent-link-ca"}}),
        json!({"name": "logs", "emptyDir": {}}),
    ];
    let own = || json!({"serviceAccountToken": {"audience": "kestrel-agent-link", "path": "token"}});
    // Any text that is no token: the pod's name.
    let forged =
        || json!({"downwardAPI": {"items": [{"path": "token", "fieldRef": {"fieldPath": "metadata.name"}}]}});
    let source = match token {
        Token::Own => Some(own()),
        Token::Forged => Some(forged()),
        Token::Missing => None,
    };
    if let Some(source) = source {
        mounts.push(json!({"name": "token", "mountPath": "/var/run/secrets/kestrel"}));
        volumes.push(json!({"name": "token", "projected": {"sources": [source]}}));
    }
    let container = json!({
        "name": "agent", "image": operator_image(), "imagePullPolicy": "IfNotPresent",
        "command": ["/kestrel-node-agent"],
        "env": [
            {"name": "NODE_NAME", "value": claimed},
            {"name": "POD_NAMESPACE", "value": OPERATOR},
            {"name": "POD_NAME", "value": "intruder"},
            {"name": "KESTREL_STATE_DIR", "value": "/tmp"},
        ],
        "volumeMounts": mounts,
    });
    (container, volumes.into())
}

fn nodes() -> (String, String) {
    let list = json(&["get", "nodes"]);
    let name = |index: usize| list["items"][index]["metadata"]["name"].as_str().unwrap().to_owned();
    (name(0), name(1))
}

fn aggregator_says(parts: &[&str]) {
    eventually("the refusal in the aggregator's log", 60, || {
        let log = log_of("aggregator");
        let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        found.map(|line| println!("{line}")).ok_or_else(|| format!("no line with {parts:?}"))
    });
}

/// Scenario: an agent with the token of one node says that it is another's.
/// Guarantee: it is refused, and the log says who claimed what.
#[test]
fn an_agent_may_not_speak_for_another_node() {
    let (here, elsewhere) = nodes();
    let (container, volumes) = agent(&elsewhere, Token::Own);
    let _intruder = run("intruder-node", &here, "kestrel-node-agent", &container, &volumes);
    aggregator_says(&["refused", &here, &elsewhere]);
}

/// Scenario: an agent shows a token that no API server made.
/// Guarantee: it is refused, and the log says so.
#[test]
fn a_forged_token_is_refused() {
    let (here, _) = nodes();
    let (container, volumes) = agent(&here, Token::Forged);
    let _intruder = run("intruder-forged", &here, "kestrel-node-agent", &container, &volumes);
    aggregator_says(&["refused", "token", "not accepted by the API server"]);
}

/// Scenario: an agent without a token.
/// Guarantee: it does not get in, and its own log names the file to mend.
#[test]
fn an_agent_without_a_token_is_told_what_is_missing() {
    let (here, _) = nodes();
    let (container, volumes) = agent(&here, Token::Missing);
    let _intruder = run("intruder-tokenless", &here, "kestrel-node-agent", &container, &volumes);
    eventually("the sentence in its log", 60, || {
        let log = attempt(&["logs", "-n", OPERATOR, "intruder-tokenless"])?;
        if log.contains("/var/run/secrets/kestrel/token") { Ok(()) } else { Err(log) }
    });
}

/// Scenario: plain text is sent to the link's port.
/// Guarantee: it is refused with one clear line.
#[test]
fn plain_text_is_refused() {
    let (here, _) = nodes();
    let script = format!(
        "sleep 1; for i in 1 2 3; do printf 'GET / HTTP/1.1\\r\\n\\r\\n' | timeout 3 nc kestrel-agent-link.{OPERATOR}.svc.cluster.local 8443; sleep 1; done"
    );
    let container = json!({"name": "nc", "image": sample_image(), "command": ["sh", "-c", script]});
    let _intruder = run("intruder-plain", &here, "default", &container, &json!([]));
    aggregator_says(&["plain text"]);
}
