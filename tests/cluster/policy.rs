//! Network policies that the cloud proposes.

use serde_json::{Value, json};

use crate::{
    kubectl::{OPERATOR, attempt, cloud_post, json, kubectl},
    namespace::Namespace,
};

fn manifest(namespace: &str, ports: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: proposed, namespace: {namespace}}}\n\
         spec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{ports: [{ports}]}}]}}\n"
    )
}

/// The verdict on a policy that is proposed on a stream.
fn verdict(stream: &str, id: &str, policy: &str) -> Value {
    let request = json!({"network_policy": {"network_policy": policy, "policy_id": id}});
    let answer = cloud_post(&format!("/v1/send?stream={stream}"), &request);
    let message = &answer["answer"]["message"];
    assert_eq!(message["policies"].as_array().map(Vec::len), Some(1), "{answer}");
    let verdict = message["policies"][0].clone();
    assert_eq!((&verdict["policy_id"], &verdict["network_policy"]), (&id.into(), &policy.into()));
    verdict
}

/// Scenario: the cloud proposes policies that are good, wrong and for a namespace that does not exist.
/// Guarantee: each gets the API server's verdict, and none is applied.
#[test]
fn a_proposed_policy_gets_a_verdict_and_is_not_applied() {
    let namespace = Namespace::new("policy");
    let id = |name: &str| format!("{}-{name}", namespace.0);
    for stream in ["data", "control"] {
        let good = verdict(stream, &id(stream), &manifest(&namespace.0, "{port: 80}"));
        assert_eq!(good["error_message"], "", "{good}");
    }
    for (name, policy, why) in [
        ("invalid", manifest(&namespace.0, "{port: 70000}"), "ports[0].port: Invalid value: must be between"),
        ("unknown-field", manifest(&namespace.0, "{prot: 80}"), "prot"),
        ("nowhere", manifest("no-such-namespace", "{port: 80}"), "no-such-namespace"),
        ("two", [manifest(&namespace.0, ""), manifest(&namespace.0, "")].join("---\n"), "one YAML document"),
    ] {
        let wrong = verdict("control", &id(name), &policy);
        assert!(wrong["error_message"].as_str().is_some_and(|message| message.contains(why)), "{wrong}");
    }
    let policies = json(&["get", "networkpolicies", "-n", &namespace.0]);
    assert_eq!(policies["items"], json!([]));
}

/// Scenario: somebody uses the account that tries network policies to change them.
/// Guarantee: dry runs pass, and nothing else does.
#[test]
fn the_right_to_a_dry_run_changes_nothing() {
    let namespace = Namespace::new("policy");
    let account = format!("--as=system:serviceaccount:{OPERATOR}:kestrel-dry-run");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, manifest(&namespace.0, "{port: 80}")).unwrap();
    let apply = ["apply", "--server-side", &account, "-f", file.to_str().unwrap()];
    kubectl(&[&apply[..], &["--dry-run=server"]].concat());
    let refusal = attempt(&apply).expect_err("it must not be applied");
    assert!(refusal.contains("must not write it"), "{refusal}");
}
