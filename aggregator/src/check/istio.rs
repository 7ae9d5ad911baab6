//! What Istio lacks for its proxies to send their access logs here, with the commands that give it.

use kestrel_runtime::check::Finding;
use serde_json::json;

use crate::istio::{
    Configuration, Found, Telemetry,
    mesh::{Mesh, PROVIDERS, Provider},
};

const ISTIO: &str = "Istio";

/// A line for each configuration, and for what sends access logs. What is missing is a failure only if access logs are wanted.
pub(super) fn findings(found: &Result<Found, String>, is_wanted: bool) -> Vec<Finding> {
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
                let (missing, mistaken) = (mesh.missing(), mesh.mistaken());
                if missing.is_empty() && mistaken.is_empty() {
                    findings.push(Finding::ok(ISTIO, format!("{name} knows its providers")));
                }
                findings.extend(mistaken.into_iter().map(|(provider, why)| {
                    lacking(format!("{name} has a provider {provider}, but {why}: correct it by hand"))
                }));
                let cautions = mesh.cautions().into_iter().map(|what| format!("{name}: {what}"));
                findings.extend(cautions.map(|what| Finding::caution(ISTIO, what)));
                if !missing.is_empty() {
                    findings.push(lacking(remedy(configuration, mesh, &missing)));
                }
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

/// What names each provider, or that nothing does, and what is not heeded.
fn senders(telemetries: &[Telemetry]) -> Vec<Result<String, String>> {
    let sender = |provider: Provider| {
        let naming = || telemetries.iter().filter(move |telemetry| telemetry.names(provider));
        let heeded: Vec<_> = naming()
            .filter(|telemetry| telemetry.hidden_by.is_none())
            .map(|telemetry| {
                let some = if telemetry.is_selective { " (for some workloads)" } else { "" };
                telemetry.full_name() + some
            })
            .collect();
        if !heeded.is_empty() {
            return Some(Ok(format!("the provider {provider} is named by Telemetry {}", heeded.join(", "))));
        }
        naming().next().is_none().then(|| {
            Err(format!(
                "no Telemetry names the provider {provider}: when the mesh configuration knows it, 'helm upgrade' of this chart makes one \
                 (operator.istio.telemetry; where Helm can't ask the cluster, set it to true); beside a Telemetry of your own add the \
                 provider to that"
            ))
        })
    };
    let is_ours = |telemetry: &&Telemetry| PROVIDERS.into_iter().any(|provider| telemetry.names(provider));
    let hidden = telemetries.iter().filter(is_ours).filter_map(|telemetry| {
        let why = telemetry.hidden()?;
        Some(Err(format!("{why}: add its providers to that one, and set operator.istio.telemetry: false")))
    });
    PROVIDERS.into_iter().filter_map(sender).chain(hidden).collect()
}

/// How the providers get there, without loss of what is there already.
fn remedy(configuration: &Configuration, mesh: &Mesh, missing: &[Provider]) -> String {
    let Configuration { namespace, name, version, .. } = configuration;
    let names: Vec<_> = missing.iter().map(|provider| provider.name).collect();
    // With the version it is refused if somebody else has changed it meanwhile.
    let patch = json!({
        "metadata": {"resourceVersion": version},
        "data": {"mesh": mesh.with(missing)},
    });
    let patch = patch.to_string().replace('\'', r"'\''");
    format!(
        "{namespace}/{name} knows no provider {}. Where Helm or istioctl manage Istio, add below meshConfig.extensionProviders of its values, \
         beside what is there:\n\n{}\nElse this adds it, and keeps all the rest; it is refused if the ConfigMap was changed since:\n\n  \
         kubectl patch configmap {name} -n {namespace} --type merge -p '{patch}'\n",
        names.join(", "),
        mesh.entries(missing, 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::{Scope, mesh::Receiver};

    fn configuration(name: &str, text: &str, has_collectors: bool) -> Configuration {
        let host = "kestrel-operator-als.kestrel-ai.svc.cluster.local".to_owned();
        let (root, receiver) = ("istio-system".to_owned(), Receiver { host, port: 8080 });
        let [namespace, name, version] = ["istio-system", name, "17"].map(str::to_owned);
        let scope = Scope { root, has_collectors, receiver, on_nodes: false, speaks_tls: false };
        let mesh = Mesh::read(text, &scope);
        Configuration { namespace, name, version, mesh }
    }

    /// Text of one that knows the receiver.
    fn whole() -> String {
        let none = configuration("istio", "{}", false).mesh.unwrap();
        format!("extensionProviders:\n{}", none.entries(&PROVIDERS, 0))
    }

    fn said(found: Result<Found, String>, is_wanted: bool) -> Vec<String> {
        findings(&found, is_wanted).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_each_revision_lacks_is_a_command_that_keeps_the_rest() {
        let configurations = vec![
            configuration("istio", &whole(), false),
            configuration("istio-1-24", "extensionProviders:\n- name: it's\n  zipkin: {}\n", false),
            configuration("istio-old", "[", false),
        ];
        let telemetry = Telemetry {
            namespace: "shop".to_owned(),
            name: "als".to_owned(),
            is_selective: true,
            hidden_by: None,
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
        let of_pods = configuration("istio", &whole(), true);
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
    fn what_works_worse_than_it_could_is_a_caution_of_its_configuration() {
        let text = whole().replace("    additionalResponseHeadersToLog: [grpc-status]\n", "");
        let configurations = Ok(vec![configuration("istio", &text, false)]);
        let lines = said(Ok(Found::Istio { configurations, telemetries: Ok(vec![]) }), true);
        assert_eq!(lines[0], "ok      Istio: istio-system/istio knows its providers");
        let told =
            "caution Istio: istio-system/istio: its provider kestrel-operator-als has no grpc-status in ";
        assert!(lines[1].starts_with(told), "{lines:?}");
    }

    /// Scenario: a provider leads to another namespace, and the chart's Telemetry is younger than somebody else's of the mesh.
    /// Guarantee: neither is called good, and what to do is said.
    #[test]
    fn what_leads_elsewhere_or_is_not_heeded_is_told() {
        let elsewhere = whole().replace("als.kestrel-ai.svc", "als.former.svc");
        let telemetry = |hidden_by: Option<&str>| Telemetry {
            namespace: "istio-system".to_owned(),
            name: "kestrel-operator-als".to_owned(),
            is_selective: false,
            hidden_by: hidden_by.map(str::to_owned),
            providers: PROVIDERS.map(|provider| provider.name.to_owned()).to_vec(),
        };
        let found = |telemetry| Found::Istio {
            configurations: Ok(vec![configuration("istio", &elsewhere, false)]),
            telemetries: Ok(vec![telemetry]),
        };
        let lines = said(Ok(found(telemetry(Some("mesh-default")))), true);
        assert_eq!(lines.len(), 3, "{lines:?}");
        for line in &lines[..2] {
            assert!(
                line.starts_with("FAILED  Istio: istio-system/istio has a provider kestrel-operator-als"),
                "{line}"
            );
            assert!(
                line.contains("it sends to kestrel-operator-als.former.svc.cluster.local:8080, and "),
                "{line}"
            );
        }
        assert_eq!(
            lines[2],
            "FAILED  Istio: Telemetry istio-system/kestrel-operator-als is not heeded, as mesh-default of its namespace is older: add its \
             providers to that one, and set operator.istio.telemetry: false"
        );
        assert!(said(Ok(found(telemetry(None))), true)[2].starts_with("ok "));
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
