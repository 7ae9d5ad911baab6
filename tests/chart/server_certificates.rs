//! The servers' certificates: by an authority of the operator's own, by cert-manager, or in a Secret that exists.

use serde_json::{Value, json};

use crate::helm::{self, Objects, list, text};

/// Server, the value's group, its workload, the variable that names the folder.
const SERVERS: [(&str, &str, &str, &str); 2] = [
    ("kestrel-webhook", "webhook", "kestrel-webhook", "KESTREL_WEBHOOK_TLS_DIR"),
    ("kestrel-agent-link", "link", "kestrel-aggregator", "KESTREL_LINK_TLS_DIR"),
];

/// The Secret that is mounted where the variable says, if it says.
fn mounted<'a>(objects: &'a Objects, workload: &str, variable: &str) -> Option<&'a str> {
    let folder = objects.env(workload, variable)?;
    let pod = &objects.get("Deployment", workload)["spec"]["template"]["spec"];
    let mount = list(&pod["containers"][0]["volumeMounts"]).iter().find(|mount| mount["mountPath"] == folder);
    let name = &mount.expect("the folder is mounted")["name"];
    let volume = list(&pod["volumes"]).iter().find(|volume| &volume["name"] == name).unwrap();
    let paths: Vec<_> = list(&volume["secret"]["items"]).iter().map(|item| text(&item["path"])).collect();
    assert_eq!(paths, ["tls.crt", "tls.key", "ca.crt"]);
    Some(text(&volume["secret"]["secretName"]))
}

#[test]
fn by_default_nothing_is_mounted_and_no_certificate_is_rendered() {
    let objects = Objects::with(&[]);
    for (_, _, workload, variable) in SERVERS {
        assert_eq!(mounted(&objects, workload, variable), None);
    }
    assert_eq!(objects.of_kind("Certificate").count() + objects.of_kind("Issuer").count(), 0);
    assert!(!helm::render(&[]).unwrap().contains("-----BEGIN"));
}

#[test]
fn an_existing_secret_is_mounted() {
    for (_, group, workload, variable) in SERVERS {
        let objects = Objects::with(&[&format!("{group}.existingSecret=mine")]);
        assert_eq!(mounted(&objects, workload, variable), Some("mine"));
        assert_eq!(objects.of_kind("Certificate").count(), 0);
    }
}

#[test]
fn cert_manager_fills_a_secret_that_goes_with_the_release() {
    for (server, group, workload, variable) in SERVERS {
        let objects = Objects::with(&[&format!("{group}.certManager.enabled=true")]);
        let secret = format!("{server}-tls");
        assert_eq!(mounted(&objects, workload, variable), Some(&*secret));
        // cert-manager keeps the type of a Secret that it finds, and a Secret for TLS could not be empty.
        assert_eq!(objects.get("Secret", &secret)["type"], "Opaque");
        assert_eq!(objects.get("Secret", &secret)["data"], Value::Null);
        let leaf = &objects.get("Certificate", server)["spec"];
        assert_eq!(leaf["secretName"], *secret);
        assert_eq!(leaf["dnsNames"], json!([format!("{server}.kestrel-ai.svc")]));
        // An authority of the chart's own signs it.
        let issuer = &objects.get("Issuer", text(&leaf["issuerRef"]["name"]))["spec"]["ca"]["secretName"];
        let authority = &objects.get("Certificate", &format!("{server}-authority"))["spec"];
        assert_eq!((&authority["isCA"], &authority["secretName"]), (&true.into(), issuer));
        objects.get("Secret", text(issuer));
        let root = objects.get("Issuer", text(&authority["issuerRef"]["name"]));
        assert_eq!(root["spec"], json!({"selfSigned": {}}));
    }
}

#[test]
fn an_issuer_of_the_clusters_signs_if_it_is_named() {
    for (server, group, ..) in SERVERS {
        let objects = Objects::with(&[
            &format!("{group}.certManager.enabled=true"),
            &format!("{group}.certManager.issuerRef.name=house"),
            &format!("{group}.certManager.issuerRef.kind=ClusterIssuer"),
        ]);
        let issuer = &objects.get("Certificate", server)["spec"]["issuerRef"];
        assert_eq!(issuer, &json!({"kind": "ClusterIssuer", "name": "house"}));
        assert_eq!(objects.of_kind("Issuer").count(), 0);
    }
}

#[test]
fn two_origins_at_a_time_are_refused() {
    for (server, group, ..) in SERVERS {
        let both = format!("{group}.certManager.enabled=true,{group}.existingSecret=mine");
        let refusal = helm::render(&["--set", &both]).expect_err(&both);
        assert!(
            refusal.contains(&format!("{server}: certManager.enabled and existingSecret both")),
            "{refusal}"
        );
    }
}

/// Below 1.30 there is no webhook, and nothing for a certificate of it.
#[test]
fn an_older_api_server_gets_no_certificate_for_the_webhook() {
    let objects = Objects::on("1.29.0", &["webhook.certManager.enabled=true"]);
    assert_eq!(objects.of_kind("Certificate").count(), 0);
}

/// A certificate that somebody else renews needs no right to a Secret.
#[test]
fn a_mounted_certificate_takes_the_rights_away() {
    let objects = Objects::with(&["webhook.existingSecret=mine"]);
    assert_eq!(objects.find("Role", "kestrel-webhook"), None);
    assert_eq!(objects.find("RoleBinding", "kestrel-webhook"), None);
    let reads_authority = |settings: &[&str]| {
        let role = Objects::with(settings).get("Role", "kestrel-aggregator").clone();
        list(&role["rules"]).iter().any(|rule| {
            rule["resources"] == json!(["secrets"]) && rule["resourceNames"] == json!(["kestrel-agent-link"])
        })
    };
    assert!(reads_authority(&[]));
    for mounted in ["link.existingSecret=mine", "link.certManager.enabled=true"] {
        assert!(!reads_authority(&[mounted]), "{mounted}");
    }
}
