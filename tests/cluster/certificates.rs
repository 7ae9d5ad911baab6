//! The webhook's and the agent link's certificates in Secrets that somebody else renews.

use std::{process::Command, time::Duration};

use kestrel_runtime::tls::{self, authority::Authority};
use serde_json::{Value, json};

use crate::{
    kubectl::{OPERATOR, apply, attempt, eventually, json, kubectl, log_of, pods_of, rolled_out},
    namespace::Namespace,
    webhook::{created, has_sidecar, pod},
};

const SECRETS: [(&str, &str); 2] =
    [("test-webhook-tls", "kestrel-webhook"), ("test-link-tls", "kestrel-agent-link")];

/// A new certificate of `authority` in both Secrets.
fn issue(authority: &Authority) {
    for (secret, service) in SECRETS {
        let names = [format!("{service}.{OPERATOR}.svc")];
        let (chain, key) = authority.server_pem(&names, Duration::from_secs(3600)).unwrap();
        let files = json!({"tls.crt": chain, "tls.key": key, "ca.crt": authority.certificate_pem()});
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": files});
        apply(OPERATOR, &secret.to_string());
    }
}

/// Changes where the certificates come from, as a person does.
fn upgrade(webhook: &str, link: &str) {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/kestrel-operator");
    let (webhook, link) =
        (format!("webhook.existingSecret={webhook}"), format!("link.existingSecret={link}"));
    let output = Command::new("helm")
        .args(["upgrade", "kestrel-operator", chart, "--namespace", OPERATOR, "--reuse-values"])
        .args(["--set", &webhook, "--set", &link, "--wait", "--timeout", "3m"])
        .output()
        .expect("helm is on the PATH (hack/cluster tools)");
    assert!(output.status.success(), "helm upgrade: {}", String::from_utf8_lossy(&output.stderr));
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    rolled_out(OPERATOR, "deployment/kestrel-aggregator");
}

fn link_authorities() -> String {
    let map = json(&["get", "configmap", "-n", OPERATOR, "kestrel-agent-link-ca"]);
    map["data"]["ca.crt"].as_str().unwrap_or_default().to_owned()
}

/// The caBundle that the API server has, as PEM text.
fn webhook_authorities() -> String {
    let template = "go-template={{range .webhooks}}{{.clientConfig.caBundle | base64decode}}{{end}}";
    kubectl(&["get", "mutatingwebhookconfiguration", "kestrel-webhook", "-o", template])
}

/// Scenario: certificates of an authority of one's own are given in Secrets, then renewed by another authority,
/// then taken away again; pods are created all the while.
/// Guarantee: every annotated pod carries the sidecar, and node agents are attached in the end.
#[test]
fn certificates_in_secrets_are_used_and_renewed_without_a_failed_call() {
    tls::install_provider();
    let namespace = Namespace::new("certificates");
    let [first, second] = ["first", "second"].map(|name| Authority::generate(name).unwrap());
    issue(&first);
    upgrade(SECRETS[0].0, SECRETS[1].0);

    let mut count = 0;
    let mut create_one = || {
        count += 1;
        let annotated: Value = pod(&format!("pod-{count}"), &json!({"kestrel.ai/inject": "true"}));
        let stored = created(&namespace.0, &annotated).unwrap();
        assert!(has_sidecar(&stored), "pod {count} was created without the sidecar");
    };
    create_one();
    assert!(webhook_authorities().contains(first.certificate_pem().trim()));
    eventually("the given authority for agents", 60, || {
        let known = link_authorities();
        if known.contains(first.certificate_pem().trim()) { Ok(()) } else { Err(known) }
    });

    issue(&second);
    // The kubelet takes its time, and the link makes the new authority known three minutes before it uses it.
    eventually("certificates of the new authority in use", 420, || {
        create_one();
        let logs = pods_of("webhook").into_iter().map(|pod| kubectl(&["logs", "-n", OPERATOR, &pod]));
        let shown: Vec<_> = logs.map(|log| log.matches("shows a certificate").count()).collect();
        let link = link_authorities();
        let only_new = link.trim() == second.certificate_pem().trim();
        if shown.iter().all(|&times| times >= 2) && only_new {
            Ok(())
        } else {
            Err(format!("{shown:?}, {link}"))
        }
    });

    upgrade("", "");
    for (secret, _) in SECRETS {
        kubectl(&["delete", "secret", "-n", OPERATOR, secret]);
    }
    for _ in 0..20 {
        create_one();
    }
    println!("{count} pods were created around the changes, all with the sidecar");
    let nodes = json(&["get", "nodes"])["items"].as_array().map_or(0, Vec::len);
    eventually("all node agents attached", 240, || {
        let up = pods_of("node-agent").into_iter().filter(|pod| {
            let path = format!("/api/v1/namespaces/{OPERATOR}/pods/{pod}:8081/proxy/metrics");
            attempt(&["get", "--raw", &path]).is_ok_and(|metrics| metrics.contains("kestrel_agent_link_up 1"))
        });
        if up.count() == nodes { Ok(()) } else { Err(log_of("node-agent")) }
    });
}
