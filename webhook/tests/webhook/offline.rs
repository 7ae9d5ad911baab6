//! The program itself, without an API server.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use hyper::{Method, StatusCode};
use kestrel_runtime::tls;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    caller::{Caller, Protocol},
    review::{self, Answer},
};

const PROFILE: &str = "apiVersion: kestrel.ai/v1alpha1\nkind: InjectionProfile\nmetadata: {name: shop}\n\
                       spec: {env: [{name: KESTREL_LOG, value: debug}], secretRef: {name: keys}}\n";

fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kestrel-webhook"));
    command.args(words).env_clear().env("KESTREL_COLLECTOR_IMAGE", "registry/collector:1");
    command
}

fn output(words: &[&str]) -> Output {
    program(words).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A folder with a certificate that is its own authority, and that as PEM.
pub(crate) fn certificate() -> (TempDir, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tls.crt"), made.cert.pem()).unwrap();
    fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    (folder, made.cert.pem())
}

/// A program that is killed with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn served_without_a_cluster_a_pod_gets_the_patch_of_its_profile() {
    tls::install_provider();
    let (folder, bundle) = certificate();
    let profiles = folder.path().join("profiles");
    fs::create_dir(&profiles).unwrap();
    fs::write(profiles.join("shop.yaml"), PROFILE).unwrap();
    let [chain, key, profiles] = ["tls.crt", "tls.key", "profiles"].map(|name| path(folder.path(), name));
    let words = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        &chain,
        "--tls-key",
        &key,
        "--profiles",
        &profiles,
    ];
    let mut running = Running(program(&words).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let line = log.by_ref().map(Result::unwrap).find(|line| line.contains("serves POST")).unwrap();
    let address = line.split("on 127.0.0.1:").nth(1).unwrap_or_else(|| panic!("{line}"));
    let port = address.split(' ').next().unwrap().parse().unwrap();
    assert!(line.ends_with("with 1 profiles"), "{line}");

    let pod = json!({"metadata": {"annotations": {"kestrel.ai/inject": "true"}}, "spec": {"containers": []}});
    let question = review::question(&pod, "shop").to_string();
    let caller = Caller { port, bundle, protocol: Protocol::Http2 };
    let reply = caller.call(Method::POST, "/mutate", &question).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    let patch = Answer::read(&reply.body).patch.to_string();
    for part in [
        "registry/collector:1",
        "KESTREL_LOG",
        r#"{"name":"keys","optional":true}"#,
        "by InjectionProfile shop",
    ] {
        assert!(patch.contains(part), "{part} in {patch}");
    }

    let id = running.0.id().to_string();
    assert!(Command::new("kill").arg(&id).status().unwrap().success());
    assert!(running.0.wait().unwrap().success(), "it ends well when it is asked to");
}

#[test]
fn an_explanation_is_printed_with_the_patch() {
    let folder = tempfile::tempdir().unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: {kestrel.ai/inject: 'true'}}\n\
               spec: {containers: [{name: app}]}\n";
    fs::write(folder.path().join("pod.yaml"), pod).unwrap();
    fs::write(folder.path().join("profile.yaml"), PROFILE).unwrap();
    fs::write(folder.path().join("off.yaml"), PROFILE.replace("spec: {", "spec: {enabled: false, ")).unwrap();
    let [pod, profile, off] = ["pod.yaml", "profile.yaml", "off.yaml"].map(|name| path(folder.path(), name));

    let explained = output(&["explain", "-f", &pod, "--profile", &profile]);
    assert!(explained.status.success());
    let printed = text(&explained.stdout);
    assert!(
        printed.starts_with("Pod default/web: injected by InjectionProfile shop: no log files"),
        "{printed}"
    );
    let patch: serde_json::Value = serde_json::from_str(printed.split_once("patch:\n").unwrap().1).unwrap();
    assert_eq!(patch[0]["path"], "/metadata/labels");

    let skipped = output(&["explain", "-f", &pod, "--profile", &off]);
    assert!(
        text(&skipped.stdout).starts_with(
            "Pod default/web: skipped (profile-disabled): InjectionProfile shop, which covers the pod, is disabled\n"
        )
    );
}

#[test]
fn what_only_a_cluster_knows_is_taken_from_the_environment_or_for_granted() {
    let folder = tempfile::tempdir().unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: {kestrel.ai/inject: 'true'}}\n\
               spec: {containers: [{name: app}]}\n";
    fs::write(folder.path().join("pod.yaml"), pod).unwrap();
    let profile = PROFILE.replace("spec: {", "spec: {image: 'private/collector:1', ");
    fs::write(folder.path().join("profile.yaml"), profile).unwrap();
    let [pod, profile] = ["pod.yaml", "profile.yaml"].map(|name| path(folder.path(), name));
    let explained = |selector: &str| {
        let mut command = program(&["explain", "-f", &pod, "--profile", &profile]);
        let output = command.env("KESTREL_NAMESPACE_SELECTOR", selector).output().unwrap();
        text(&output.stdout).to_owned()
    };
    let printed = explained("{}");
    assert!(printed.starts_with("Pod default/web: injected by InjectionProfile shop"), "{printed}");
    assert!(printed.contains("note: private/collector:1 of InjectionProfile shop counts as"), "{printed}");
    let printed = explained(r#"{"matchLabels": {"team": "shop"}}"#);
    assert!(printed.starts_with("Pod default/web: skipped (namespace): "), "{printed}");
}

#[test]
fn versions_help_and_mistakes_have_the_codes_that_scripts_expect() {
    let version = output(&["--version"]);
    assert_eq!(text(&version.stdout), concat!("kestrel-webhook ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = output(&["--help"]);
    assert!(help.status.success() && text(&help.stdout).starts_with("usage: kestrel-webhook"));
    let mistake = output(&["explain"]);
    assert_eq!(mistake.status.code(), Some(2));
    assert!(text(&mistake.stderr).starts_with("-f is missing"));
    let missing = output(&["explain", "-f", "/nowhere.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).starts_with("/nowhere.yaml cannot be read: "), "{:?}", missing);
}
