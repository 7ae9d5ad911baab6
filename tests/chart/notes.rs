//! What a person reads after the install.

use std::fs;

use crate::helm::{self, Objects};

/// The notes as `helm install` would print them. `helm template` leaves them out, so a copy of the chart gets one more
/// template, which includes them.
fn notes(kubernetes: &str, settings: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    helm::copy(&helm::chart(), folder.path());
    let extra = r#"notes: {{ include (print $.Template.BasePath "/NOTES.txt") . | toJson }}"#;
    fs::write(folder.path().join("templates/notes.yaml"), extra).unwrap();
    let mut arguments = vec!["--show-only", "templates/notes.yaml"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let rendered = helm::render_chart(folder.path(), kubernetes, &arguments).expect("the notes render");
    helm::text(&Objects::parse(&rendered).0[0]["notes"]).to_owned()
}

#[test]
fn the_notes_say_what_to_do_next() {
    let notes = notes(helm::NEWEST, &["auth.existingSecret=a", "certificates.existingSecret=b"]);
    for part in [
        "grpc.platform.usekestrel.ai:443",
        "kubectl -n kestrel-ai rollout status deployment/kestrel-aggregator",
        "helm -n kestrel-ai test kestrel-operator",
        "kubectl -n kestrel-ai exec deployment/kestrel-aggregator -- /kestrel-aggregator status",
        "kubectl -n kestrel-ai logs -l app.kubernetes.io/component=aggregator",
        "kubectl -n kestrel-ai exec POD -- /kestrel-node-agent check",
        r#""kestrel.ai/inject":"true""#,
    ] {
        assert!(notes.contains(part), "{part} is not in:\n{notes}");
    }
    for part in ["MISSING", "NOTE", "no effect", "1.30"] {
        assert!(!notes.contains(part), "{part} is in:\n{notes}");
    }
}

#[test]
fn steps_are_counted_as_they_are_there() {
    for (settings, expected) in [(&[][..], "123"), (&["nodeAgent.enabled=false"], "12")] {
        let notes = notes(helm::NEWEST, settings);
        let step = |line: &str| line.split_once(". ")?.0.parse::<char>().ok().filter(char::is_ascii_digit);
        assert_eq!(notes.lines().filter_map(step).collect::<String>(), expected, "{notes}");
    }
}

#[test]
fn missing_credentials_are_named_with_the_command_that_makes_them() {
    let notes = notes(helm::NEWEST, &[]);
    assert!(notes.contains("create secret generic kestrel-operator-jwt --from-file=token=FILE"), "{notes}");
    assert!(notes.contains("create secret generic kestrel-operator-client-tls"), "{notes}");
}

#[test]
fn a_kubernetes_without_native_sidecars_is_told_so() {
    let notes = notes("1.27.3", &["operator.executor.dryRun=true"]);
    assert!(notes.contains("Kubernetes v1.27.3 has no native sidecars (1.30 or newer is needed)"), "{notes}");
    assert!(!notes.contains("custom-columns"), "{notes}");
    assert!(notes.contains("operator.executor.dryRun: nothing holds an account to dry runs"), "{notes}");
}

#[test]
fn what_gives_power_away_is_said() {
    let settings = [
        "nodeAgent.runtimeSocket=/run/containerd/containerd.sock",
        "nodeAgent.kernelLog=true",
        "nodeAgent.firewallRules=true",
        "nodeAgent.bpfObjects=true",
        "server.tls.insecureSkipVerify=true",
        "operator.cilium.disableFlows=false",
    ];
    let notes = notes(helm::NEWEST, &settings);
    assert!(notes.contains("gives root on every node"), "{notes}");
    assert!(notes.contains("has the capability SYSLOG"), "{notes}");
    assert!(notes.contains("SYS_ADMIN: who takes it over is root on its node"), "{notes}");
    assert!(notes.contains("nodeAgent.firewallRules does nothing without nodeAgent.hostNetwork"), "{notes}");
    assert!(notes.contains("power over the node's network"), "{notes}");
    let label = "kubectl label namespace kestrel-ai pod-security.kubernetes.io/enforce=privileged";
    assert!(notes.contains(label), "{notes}");
    assert!(notes.contains("The token goes to whoever answers"), "{notes}");
}

/// Each accepted value without effect is named when it is set, and only then.
#[test]
fn values_without_effect_are_listed() {
    for setting in [
        "fullnameOverride=x",
        "hubble.cidr=192.0.2.0/24",
        "image.repository=ghcr.io/kestrelai/kestrel-operator",
        "image.tag=latest",
        "k8sApiServer.cidr=192.0.2.1/32",
        "nameOverride=x",
        "operator.argocd.enabled=true",
        "operator.cilium.hubble.tls.forceDisable=true",
        "operator.datadog.enabled=true",
        "operator.otel.enabled=true",
        "operator.safeApply.enabled=true",
        "serviceAccount.create=false",
        "serviceAccount.name=x",
        "useCiliumNetworkPolicy=true",
    ] {
        let (name, _) = setting.split_once('=').unwrap();
        let notes = notes(helm::NEWEST, &[setting]);
        let listed: Vec<_> =
            notes.lines().skip_while(|line| !line.starts_with("These values are set")).skip(1).collect();
        assert!(
            matches!(listed[..], [line] if line.trim_start().starts_with(&format!("{name}: "))),
            "{notes}"
        );
    }
}

/// A values file that clears a group is no reason to fail.
#[test]
fn cleared_groups_of_values_are_no_error() {
    let notes =
        notes(helm::NEWEST, &["operator=null", "hubble=null", "k8sApiServer=null", "networkPolicy=null"]);
    assert!(!notes.contains("no effect"), "{notes}");
}
