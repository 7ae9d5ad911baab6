//! Certificates of the webhook and the agent link that somebody else renews, in Secrets or by cert-manager, while pods
//! are created and a collector runs.

use std::time::Duration;

use kestrel_runtime::tls::{self, authority::Authority};
use serde_json::json;

use super::{collector, file_writer, inject, messages, trouble::restart_collector};
use crate::{
    kubectl::{OPERATOR, apply, attempt, eventually, json, kubectl, log_of, pods_of, rolled_out},
    namespace::Namespace,
    upgrade::set_values,
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
fn upgrade(values: &str) {
    set_values(values);
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

/// What goes on while certificates change: a pod with a collector that was there before, and pods that are created.
struct Meanwhile {
    namespace: Namespace,
    count: usize,
}

impl Meanwhile {
    /// From when on the webhook gives this authority of the link to collectors: only what is in use when a collector
    /// starts can it learn the next one from.
    fn new(subject: &str, link_authority: &str) -> Self {
        let namespace = Namespace::new(subject);
        let mut pod = file_writer(&inject(), "exec sleep 100000");
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = "before".into();
        pod["spec"]["shareProcessNamespace"] = true.into();
        eventually("a collector that knows the link's authority", 180, || {
            apply(&namespace.0, &pod.to_string());
            let stored = json(&["get", "pod", "-n", &namespace.0, "before"]);
            let env = collector(&stored)["env"].as_array().into_iter().flatten();
            let known = env.filter_map(|variable| variable["value"].as_str()).collect::<String>();
            if known.contains(link_authority.trim()) {
                return Ok(());
            }
            kubectl(&["delete", "pod", "-n", &namespace.0, "before", "--force", "--grace-period=0"]);
            Err(known)
        });
        kubectl(&["wait", "-n", &namespace.0, "--for=condition=Ready", "pod/before", "--timeout=60s"]);
        let meanwhile = Self { namespace, count: 0 };
        meanwhile.collector_sends("before-the-change");
        meanwhile
    }

    /// Creates an annotated pod, which has to get the sidecar.
    fn create_one(&mut self) {
        self.count += 1;
        let annotated = pod(&format!("pod-{}", self.count), &inject());
        let stored = created(&self.namespace.0, &annotated).unwrap();
        assert!(has_sidecar(&stored), "pod {} was created without the sidecar", self.count);
    }

    /// Waits until both servers use certificates of new authorities: every replica of the webhook has shown one more
    /// than at its start, and of the link only the new authority is known. The collector from before is heard then,
    /// also after a restart.
    fn until_in_use(&mut self, link_authority: &str) {
        // The kubelet takes its time, and the link makes the new authority known three minutes before it uses it.
        eventually("certificates of the new authority in use", 420, || {
            self.create_one();
            let logs = pods_of("webhook").into_iter().map(|pod| kubectl(&["logs", "-n", OPERATOR, &pod]));
            let shown: Vec<_> = logs.map(|log| log.matches("shows a certificate").count()).collect();
            let link = link_authorities();
            let only_new = link.trim() == link_authority.trim();
            if shown.iter().all(|&times| times >= 2) && only_new {
                Ok(())
            } else {
                Err(format!("{shown:?}, {link}"))
            }
        });
        self.collector_sends("after-the-change");
        restart_collector(&self.namespace.0, "before", "shop");
        self.collector_sends("after-its-restart");
    }

    fn collector_sends(&self, line: &str) {
        let write = format!("echo {line} >> /data/orders.log");
        kubectl(&["exec", "-n", &self.namespace.0, "before", "-c", "shop", "--", "sh", "-c", &write]);
        eventually("a line of the pod that was there before", 120, || {
            let count = messages(&self.namespace.0, "shop", line).len();
            if count > 0 { Ok(()) } else { Err(log_of("aggregator").lines().rev().take(3).collect()) }
        });
    }

    /// Guarantee: the servers' own authorities are back without a failed call, and node agents are attached.
    fn end(mut self) {
        for _ in 0..20 {
            self.create_one();
        }
        println!("{} pods were created around the changes, all with the sidecar", self.count);
        let nodes = json(&["get", "nodes"])["items"].as_array().map_or(0, Vec::len);
        eventually("all node agents attached", 240, || {
            let up = pods_of("node-agent").into_iter().filter(|pod| {
                let path = format!("/api/v1/namespaces/{OPERATOR}/pods/{pod}:8081/proxy/metrics");
                attempt(&["get", "--raw", &path])
                    .is_ok_and(|metrics| metrics.contains("kestrel_agent_link_up 1"))
            });
            if up.count() == nodes { Ok(()) } else { Err(log_of("node-agent")) }
        });
    }
}

/// Scenario: certificates of an authority of one's own are given in Secrets, then renewed by another authority,
/// then taken away again; pods are created all the while.
/// Guarantee: every annotated pod carries the sidecar, a collector from before the renewal stays attached, and node
/// agents are attached in the end.
#[test]
fn certificates_in_secrets_are_used_and_renewed_without_a_failed_call() {
    tls::install_provider();
    let [first, second] = ["first", "second"].map(|name| Authority::generate(name).unwrap());
    issue(&first);
    let [webhook, link] = SECRETS.map(|(secret, _)| secret);
    upgrade(&format!("webhook.existingSecret={webhook},link.existingSecret={link}"));
    let mut meanwhile = Meanwhile::new("secrets", first.certificate_pem());
    meanwhile.create_one();
    assert!(webhook_authorities().contains(first.certificate_pem().trim()));

    issue(&second);
    meanwhile.until_in_use(second.certificate_pem());

    upgrade("webhook.existingSecret=,link.existingSecret=");
    for secret in [webhook, link] {
        kubectl(&["delete", "secret", "-n", OPERATOR, secret]);
    }
    meanwhile.end();
}

/// Has cert-manager issue anew, as `cmctl renew` does, and waits until it has.
fn renew(certificate: &str) {
    let look = || json(&["get", "certificate", "-n", OPERATOR, certificate])["status"]["revision"].as_u64();
    let before = look();
    let issuing = json!({"status": {"conditions": [
        {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "a test"},
    ]}});
    kubectl(&[
        "patch",
        "certificate",
        "-n",
        OPERATOR,
        certificate,
        "--subresource=status",
        "--type=merge",
        "-p",
        &issuing.to_string(),
    ]);
    eventually("a new certificate", 60, || {
        let now = look();
        if now > before { Ok(()) } else { Err(format!("{certificate} {now:?}")) }
    });
}

/// `ca.crt` of a Secret.
fn authority_in(secret: &str) -> String {
    let template = "go-template={{index .data \"ca.crt\" | base64decode}}";
    kubectl(&["get", "secret", "-n", OPERATOR, secret, "-o", template])
}

/// Scenario: cert-manager makes the authorities and certificates; then it renews all of them; then they are ours
/// again. Pods are created all the while.
/// Guarantee: every annotated pod carries the sidecar, a collector from before the renewal stays attached, and node
/// agents are attached in the end.
#[test]
fn cert_manager_issues_and_renews_without_a_failed_call() {
    upgrade("webhook.certManager.enabled=true,link.certManager.enabled=true");
    let (first, first_of_link) =
        (authority_in("kestrel-webhook-tls"), authority_in("kestrel-agent-link-tls"));
    let mut meanwhile = Meanwhile::new("cert-manager", &first_of_link);
    meanwhile.create_one();
    assert!(webhook_authorities().contains(first.trim()));

    for certificate in ["kestrel-webhook", "kestrel-agent-link"] {
        renew(&format!("{certificate}-authority"));
        renew(certificate);
        meanwhile.create_one();
    }
    let (second, second_of_link) =
        (authority_in("kestrel-webhook-tls"), authority_in("kestrel-agent-link-tls"));
    assert!(first != second && first_of_link != second_of_link, "the authorities are new");
    meanwhile.until_in_use(&second_of_link);
    assert!(webhook_authorities().contains(second.trim()));

    upgrade("webhook.certManager.enabled=false,link.certManager.enabled=false");
    meanwhile.end();
}
