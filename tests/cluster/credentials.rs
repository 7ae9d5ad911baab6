//! Wrong credentials and a missing server, as a person meets them: one sentence that names the
//! setting, and a process that goes on trying.

use std::{env, fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    kubectl::{apply, attempt, eventually, json, kubectl, operator_image},
    namespace::Namespace,
};

/// Files of the development cloud's `credentials` command.
struct Credentials {
    folder: PathBuf,
}

impl Credentials {
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn dev_cloud(arguments: &[&str]) -> String {
    let program = env::var("dev_cloud").expect("hack/test names the development cloud's command");
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Starts an aggregator with these files and settings; its log must come to hold all of `sentence`,
/// and it must go on running.
fn complains(namespace: &Namespace, name: &str, files: &Value, env: &Value, sentence: &[&str]) {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": files});
    apply(&namespace.0, &secret.to_string());
    let mut settings = json!({
        "SERVER_HOST": "kestrel-cloud.kestrel-cloud.svc", "SERVER_PORT": "50051",
        "CLIENT_CERT_FILE": "/credentials/client.crt", "CLIENT_KEY_FILE": "/credentials/client.key",
        "CA_CERT_FILE": "/credentials/ca.crt", "AUTH_TOKEN_FILE": "/credentials/token",
        "KESTREL_LEADER_ELECTION": "false", "POD_NAMESPACE": namespace.0,
    });
    settings.as_object_mut().unwrap().extend(env.as_object().cloned().unwrap());
    let env: Vec<_> = settings
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "aggregator", "image": operator_image(), "imagePullPolicy": "IfNotPresent",
                "command": ["/kestrel-aggregator"], "env": env,
                "volumeMounts": [{"name": "credentials", "mountPath": "/credentials"}],
            }],
            "volumes": [{"name": "credentials", "secret": {"secretName": name}}],
        },
    });
    apply(&namespace.0, &pod.to_string());
    eventually(&format!("{name}: the sentence {sentence:?}"), 60, || {
        let log = attempt(&["logs", "-n", &namespace.0, name])?;
        let found = log.lines().find(|line| sentence.iter().all(|part| line.contains(part)));
        found.map(|line| println!("{name}: {line}")).ok_or(log.clone())
    });
    let status = json(&["get", "pod", "-n", &namespace.0, name]);
    let container = &status["status"]["containerStatuses"][0];
    assert_eq!(
        (&container["restartCount"], container["state"]["running"].is_object()),
        (&0.into(), true),
        "{container}"
    );
}

/// Scenario: one credential or address is wrong at a time.
/// Guarantee: the log names the setting to mend; the process goes on trying.
#[test]
fn every_wrong_credential_is_named_in_a_sentence() {
    let namespace = Namespace::new("credentials");
    kubectl(&["label", "namespace", &namespace.0, "purpose=faults"]);
    let state = env::var("KESTREL_CLOUD_STATE").expect("hack/test names the development cloud's state");
    let good = Credentials { folder: state.clone().into() };
    let files = |changes: Value| {
        let mut files = json!({
            "client.crt": good.read("client.crt"), "client.key": good.read("client.key"),
            "ca.crt": good.read("ca.crt"), "token": good.read("token"),
        });
        files.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap());
        files.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        files
    };
    let expired = dev_cloud(&["credentials", "token", "--state", &state, "--lifetime", "-1h"]);
    let other = tempfile::tempdir().unwrap();
    let other_state = other.path().to_str().unwrap();
    dev_cloud(&["credentials", "--state", other_state]);
    let foreign = Credentials { folder: other.path().into() };

    complains(
        &namespace,
        "expired-token",
        &files(json!({"token": expired})),
        &json!({}),
        &["AUTH_TOKEN_FILE", "expired"],
    );
    complains(
        &namespace,
        "wrong-token",
        &files(json!({"token": foreign.read("token")})),
        &json!({}),
        &["AUTH_TOKEN_FILE"],
    );
    complains(
        &namespace,
        "wrong-ca",
        &files(json!({"ca.crt": foreign.read("ca.crt")})),
        &json!({}),
        &["CA_CERT_FILE"],
    );
    complains(
        &namespace,
        "missing-key",
        &files(json!({"client.key": null})),
        &json!({}),
        &["CLIENT_KEY_FILE", "/credentials/client.key"],
    );
    complains(&namespace, "unreachable", &files(json!({})), &json!({"SERVER_PORT": "9"}), &["SERVER_PORT"]);
    complains(
        &namespace,
        "unknown-host",
        &files(json!({})),
        &json!({"SERVER_HOST": "no-such-cloud.kestrel-cloud.svc"}),
        &["SERVER_HOST"],
    );
}
