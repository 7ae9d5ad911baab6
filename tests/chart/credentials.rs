//! Token and certificates: given by value, or in Secrets that exist already.

use serde_json::Value;

use crate::helm::{self, Objects, list, text};

const PEM: &str = "-----BEGIN CERTIFICATE-----";

/// Secret, key and file name of each credential in the aggregator's pod.
fn mounted(objects: &Objects) -> Vec<(&str, &str, &str)> {
    let pod = &objects.get("Deployment", "kestrel-aggregator")["spec"]["template"]["spec"];
    list(&pod["volumes"])
        .iter()
        .map(|volume| &volume["secret"])
        .filter(|secret| secret.is_object())
        .inspect(|secret| assert_eq!(secret["optional"], true, "a missing Secret must not hold the pod back"))
        .flat_map(|secret| list(&secret["items"]).iter().map(move |item| (secret, item)))
        .map(|(secret, item)| (text(&secret["secretName"]), text(&item["key"]), text(&item["path"])))
        .collect()
}

fn keys(secret: &Value) -> Vec<&String> {
    secret["data"].as_object().expect("data").keys().collect()
}

#[test]
fn values_become_secrets_named_after_the_release() {
    let pem = [
        "auth.token=header.payload.signature",
        &format!("certificates.client.cert={PEM}"),
        "certificates.client.key=-----BEGIN PRIVATE KEY-----",
        &format!("certificates.ca.cert={PEM}"),
    ];
    let objects = Objects::with(&pem);
    let token = objects.get("Secret", "kestrel-operator-jwt");
    assert_eq!(token["data"]["token"], "aGVhZGVyLnBheWxvYWQuc2lnbmF0dXJl");
    let tls = objects.get("Secret", "kestrel-operator-client-tls");
    assert_eq!(tls["type"], "kubernetes.io/tls");
    assert_eq!(keys(tls), ["ca.crt", "client.crt", "client.key", "tls.crt", "tls.key"]);
    assert_eq!(
        mounted(&objects),
        [
            ("kestrel-operator-jwt", "token", "token"),
            ("kestrel-operator-client-tls", "tls.crt", "client.crt"),
            ("kestrel-operator-client-tls", "tls.key", "client.key"),
            ("kestrel-operator-client-tls", "ca.crt", "ca.crt"),
        ]
    );
}

#[test]
fn existing_secrets_win_and_nothing_is_rendered() {
    let objects = Objects::with(&[
        "auth.token=ignored",
        "auth.existingSecret=my-token",
        "auth.existingSecretKey=jwt",
        "certificates.client.cert=ignored",
        "certificates.existingSecret=my-tls",
    ]);
    assert_eq!(objects.of_kind("Secret").count(), 0);
    assert_eq!(
        mounted(&objects),
        [
            ("my-token", "jwt", "token"),
            ("my-tls", "tls.crt", "client.crt"),
            ("my-tls", "tls.key", "client.key"),
            ("my-tls", "ca.crt", "ca.crt"),
        ]
    );
}

#[test]
fn without_credentials_the_chart_still_renders() {
    assert_eq!(Objects::with(&[]).of_kind("Secret").count(), 0);
}

#[test]
fn half_a_certificate_is_refused_with_what_to_do() {
    for (setting, missing) in [
        (format!("certificates.client.cert={PEM}"), "certificates.ca.cert"),
        (format!("certificates.client.cert={PEM},certificates.ca.cert={PEM}"), "certificates.client.key"),
        (format!("certificates.client.cert=x,certificates.ca.cert={PEM}"), "certificates.client.cert"),
    ] {
        let refusal = helm::render(&["--set", &setting]).expect_err(&setting);
        assert!(refusal.contains(&format!("{missing} holds no PEM text")), "{setting}: {refusal}");
        assert!(refusal.contains(&format!("--set-file {missing}=FILE")), "{setting}: {refusal}");
    }
}

#[test]
fn credentials_never_enter_the_environment() {
    let secret = "header.payload.signature";
    let objects = Objects::with(&[&format!("auth.token={secret}")]);
    for (workload, pod) in objects.pods() {
        assert!(!pod.to_string().contains(secret), "{workload}");
        assert!(!pod.to_string().contains("secretKeyRef"), "{workload}");
    }
}
