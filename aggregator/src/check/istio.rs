//! What Istio lacks for its proxies to send their access logs here, with the commands that give it.

use kestrel_runtime::check::Finding;
use serde_json::json;

use crate::istio::{
    Configuration, Found, Telemetry,
    mesh::{Mesh, PROVIDERS, Provider, Receiver, entries},
};

const ISTIO: &str = "Istio";

/// A line for each configuration, and for what sends access logs. What is missing is a failure only if access logs are wanted.
pub(super) fn findings(found: &Result<Found, String>, receiver: &Receiver, is_wanted: bool) -> Vec<Finding> {
    let lacking =
        |what: String| if is_wanted { Finding::failed(ISTIO, what) } else { Finding::caution(ISTIO, what) };
    let (configurations, telemetries) = match found {
        Err(why) => return vec![lacking(format!("it can't be looked for: {why}"))],
        Ok(Found::Nothing) => {
            let note = "not found: the API server serves no networking.istio.io";
            return vec![Finding::note(ISTIO, note)];
        }
        Ok(Found::Istio { configurations, telemetries }) => (configurations, telemetries),
    };
    let mut findings = Vec::new();
    match configurations {
        Err(why) => findings.push(lacking(format!("its mesh configuration can't be read: {why}"))),
        Ok(all) if all.is_empty() => findings.push(lacking(
            "there is no ConfigMap istio or istio-REVISION with a mesh configuration in its root namespace (Helm: \
             operator.istio.rootNamespace)"
                .to_owned(),
        )),
        Ok(all) => {
            for configuration in all {
                let name = configuration.full_name();
                let mesh = match &configuration.mesh {
                    Ok(mesh) => mesh,
                    Err(why) => {
                        findings.push(lacking(format!("{name} can't be read: {why}")));
                        continue;
                    }
                };
                for (provider, why) in mesh.mistaken() {
                    findings.push(lacking(format!("{name} has a provider {provider}, but {why}: correct it by hand")));
                }
                let missing = mesh.missing();
                findings.push(if missing.is_empty() {
                    Finding::ok(ISTIO, format!("{name} knows its providers"))
                } else {
                    lacking(remedy(configuration, mesh, &missing, receiver))
                });
            }
        }
    }
    findings.extend(match telemetries {
        Err(why) => vec![lacking(format!("its Telemetries can't be read: {why}"))],
        Ok(all) => senders(all)
            .into_iter()
            .map(|sender| sender.map_or_else(lacking, |ok| Finding::ok(ISTIO, ok)))
            .collect(),
    });
    findings
}

/// What names each provider, or that nothing does.
fn senders(telemetries: &[Telemetry]) -> Vec<Result<String, String>> {
    let sender = |provider: &Provider| {
        let senders: Vec<_> = telemetries
            .iter()
            .filter(|telemetry| telemetry.names(*provider))
            .map(|Telemetry { namespace, name, is_selective, .. }| {
                let some = if *is_selective { " (for some workloads)" } else { "" };
                format!("{namespace}/{name}{some}")
            })
            .collect();
        if senders.is_empty() {
            return Err(format!(
                "no Telemetry names the provider {provider}: when the mesh configuration knows it, 'helm upgrade' of this chart makes one \
                 (operator.istio.telemetry; where Helm can't ask the cluster, set it to true); beside a Telemetry of your own add the \
                 provider to that"
            ));
        }
        Ok(format!("the provider {provider} is named by Telemetry {}", senders.join(", ")))
    };
    PROVIDERS.iter().map(sender).collect()
}

/// How the providers get there, without loss of what is there already.
fn remedy(configuration: &Configuration, mesh: &Mesh, missing: &[Provider], receiver: &Receiver) -> String {
    let Configuration { namespace, name, version, .. } = configuration;
    let names: Vec<_> = missing.iter().map(|provider| provider.name).collect();
    // With the version it is refused if somebody else has changed it meanwhile.
    let patch = json!({
        "metadata": {"resourceVersion": version},
        "data": {"mesh": mesh.with(missing, receiver)},
    });
    let patch = patch.to_string().replace('\'', r"'\''");
    format!(
        "{namespace}/{name} knows no provider {}. Where Helm or istioctl manage Istio, add below meshConfig.extensionProviders of its values, \
         beside what is there:\n\n{}\nElse this adds it, and keeps all the rest; it is refused if the ConfigMap was changed since:\n\n  \
         kubectl patch configmap {name} -n {namespace} --type merge -p '{patch}'\n",
        names.join(", "),
        entries(missing, receiver, 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver() -> Receiver {
        Receiver { host: "kestrel-operator-als.kestrel-ai.svc.cluster.local".to_owned(), port: 8080 }
    }

    fn configuration(name: &str, text: &str) -> Configuration {
        let [namespace, name, version] = ["istio-system", name, "17"].map(str::to_owned);
        Configuration { namespace, name, version, mesh: Mesh::read(text) }
    }

    fn said(found: Result<Found, String>, is_wanted: bool) -> Vec<String> {
        findings(&found, &receiver(), is_wanted).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_each_revision_lacks_is_a_command_that_keeps_the_rest() {
        let whole = format!("extensionProviders:\n{}", entries(&PROVIDERS, &receiver(), 0));
        let configurations = vec![
            configuration("istio", &whole),
            configuration("istio-1-24", "extensionProviders:\n- name: it's\n  zipkin: {}\n"),
            configuration("istio-old", "["),
        ];
        let telemetry = Telemetry {
            namespace: "shop".to_owned(),
            name: "als".to_owned(),
            is_selective: true,
            providers: vec!["kestrel-operator-als".to_owned()],
        };
        let found = || {
            let telemetries = Ok(vec![telemetry.clone()]);
            Ok(Found::Istio { configurations: Ok(configurations.clone()), telemetries })
        };
        let lines = said(found(), true);
        assert_eq!(lines[0], "ok      Istio: istio-system/istio knows its providers");
        assert!(lines[1].starts_with("FAILED  Istio: istio-system/istio-1-24 knows no provider kestrel-operator-als, kestrel-operator-als-tcp."));
        assert!(
            lines[1]
                .contains("kubectl patch configmap istio-1-24 -n istio-system --type merge -p '{\"data\":"),
            "{}",
            lines[1]
        );
        assert!(
            lines[1].contains(r#""resourceVersion":"17""#)
                && lines[1].contains(r"- name: it'\''s\n  zipkin: {}\n"),
            "{}",
            lines[1]
        );
        assert!(lines[2].starts_with("FAILED  Istio: istio-system/istio-old can't be read"), "{}", lines[2]);
        assert_eq!(
            lines[3],
            "ok      Istio: the provider kestrel-operator-als is named by Telemetry shop/als (for some workloads)"
        );
        assert!(
            lines[4].starts_with("FAILED  Istio: no Telemetry names the provider kestrel-operator-als-tcp"),
            "{}",
            lines[4]
        );
        assert!(said(found(), false)[4].starts_with("caution Istio: "), "nobody asked for access logs");
    }

    /// Scenario: some namespaces' proxies are to send to their pods' collectors, which the mesh does not know.
    /// Guarantee: both are named, with where they receive, and the command adds them.
    #[test]
    fn collectors_that_are_missing_are_named_where_they_are_wanted() {
        let whole = format!("extensionProviders:\n{}", entries(&PROVIDERS, &receiver(), 0));
        let mut of_pods = configuration("istio", &whole);
        of_pods.mesh = of_pods.mesh.map(|mesh| mesh.with_collectors(true));
        let found = Found::Istio { configurations: Ok(vec![of_pods]), telemetries: Ok(vec![]) };
        let line = said(Ok(found), true).remove(0);
        assert!(
            line.contains("knows no provider kestrel-collector-als, kestrel-collector-als-tcp."),
            "{line}"
        );
        assert!(
            line.contains("    service: kestrel-collector-als.kestrel.internal\n      port: 14080\n"),
            "{line}"
        );
        assert!(
            line.contains(r#"service: kestrel-collector-als.kestrel.internal\n    port: 14080\n"#),
            "{line}"
        );
    }

    #[test]
    fn what_is_not_there_or_not_to_be_seen_is_said() {
        assert!(said(Ok(Found::Nothing), true)[0].starts_with("note    Istio: not found"));
        assert!(
            said(Err("away".to_owned()), true)[0].starts_with("FAILED  Istio: it can't be looked for: away")
        );
        let hidden = Found::Istio {
            configurations: Err("forbidden".to_owned()),
            telemetries: Err("forbidden".to_owned()),
        };
        assert_eq!(said(Ok(hidden), true).len(), 2);
        let empty = Found::Istio { configurations: Ok(vec![]), telemetries: Ok(vec![]) };
        assert_eq!(said(Ok(empty), true).len(), 3);
    }
}
