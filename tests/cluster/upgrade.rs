//! What an uninstall leaves, and the upgrade of a release of chart 0.1.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::kubectl::{OPERATOR, apply, attempt, cloud, eventually, json, kubectl, rolled_out, sample_image};

const RELEASE: &str = "kestrel-operator";
const OTHER: &str = "kestrel-again";
const RENEWED: &str = "kestrel-operator-jwt-runtime";

/// Kinds of which an operator may leave something where it was, and outside of any namespace.
const OWN: &str = "leases,secrets,configmaps,endpointslices,pods,roles,rolebindings,services";
const CLUSTER: &str = "mutatingwebhookconfigurations,validatingadmissionpolicies,\
    validatingadmissionpolicybindings,clusterroles,clusterrolebindings,priorityclasses";

fn helm(args: &[&str]) -> String {
    let output = Command::new("helm").args(args).args(["--namespace", OPERATOR]).output();
    let output = output.expect("helm is on the PATH (hack/cluster tools)");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "helm {}: {}", args.join(" "), text(&output.stderr));
    text(&output.stdout)
}

/// Changes values of the release, as a person does.
pub(crate) fn set_values(values: &str) {
    let chart = repository("charts/kestrel-operator");
    helm(&["upgrade", RELEASE, &chart, "--reuse-values", "--set", values, "--wait", "--timeout", "3m"]);
}

fn repository(path: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path).to_str().unwrap().to_owned()
}

/// Names of what is left of the operator.
fn left() -> Vec<String> {
    let of_the_cluster = kubectl(&["get", CLUSTER, "-o", "name"]);
    let own = kubectl(&["get", OWN, "-n", OPERATOR, "-o", "name"]);
    let names = of_the_cluster.lines().chain(own.lines()).filter(|name| name.contains("kestrel"));
    names.map(str::to_owned).collect()
}

fn connections() -> usize {
    cloud("/v1/connections")["open"].as_array().map_or(0, Vec::len)
}

/// Scenario: the operator is uninstalled, and installed under another name; then a release with the objects of chart 0.1, whose program had
/// renewed its token, is upgraded to this chart with the values that were in use.
/// Guarantee: an uninstall leaves nothing but the definition of profiles, which the other release uses and says so; the upgrade needs nothing but the values, takes the old objects
/// away, keeps the renewed token and makes it part of what the next uninstall removes.
#[test]
fn an_uninstall_leaves_nothing_in_the_way_and_a_release_of_chart_0_1_becomes_one_of_this_chart() {
    let values: Value = serde_json::from_str(&helm(&["get", "values", RELEASE, "-o", "json"])).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values.to_string()).unwrap();
    let file = file.path().to_str().unwrap();

    helm(&["uninstall", RELEASE, "--wait", "--timeout", "3m"]);
    eventually("nothing left", 120, || {
        let left = left();
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });

    let chart = repository("charts/kestrel-operator");
    helm(&["install", OTHER, &chart, "--values", file, "--wait", "--timeout", "3m"]);
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    let notes = helm(&["get", "notes", OTHER]);
    assert!(notes.contains(&format!("left by {OPERATOR}/{RELEASE}")), "{notes}");
    helm(&["uninstall", OTHER, "--wait", "--timeout", "3m"]);

    let image = sample_image();
    let (repository_of_image, tag) = image.rsplit_once(':').unwrap();
    let (old, image, tag) = (
        repository("tests/chart/release-0.1"),
        format!("image.repository={repository_of_image}"),
        format!("image.tag={tag}"),
    );
    helm(&["install", RELEASE, &old, "--values", file, "--set", &image, "--set", &tag, "--wait"]);
    let token = values["auth"]["token"].as_str().expect("the suite's values hold the token");
    let renewed = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": RENEWED}, "stringData": {"token": token}});
    apply(OPERATOR, &renewed.to_string());

    helm(&["upgrade", RELEASE, &chart, "--values", file, "--wait", "--timeout", "3m"]);
    for workload in
        ["deployment/kestrel-aggregator", "deployment/kestrel-webhook", "daemonset/kestrel-node-agent"]
    {
        rolled_out(OPERATOR, workload);
    }
    for gone in ["deployment", "serviceaccount", "role", "service/kestrel-operator-otel", "clusterrole"] {
        let name = if gone.contains('/') { vec![gone] } else { vec![gone, RELEASE] };
        let args: Vec<_> = ["get", "-n", OPERATOR].into_iter().chain(name).collect();
        assert!(
            attempt(&args).is_err_and(|why| why.contains("NotFound")),
            "{gone} of the old release is there"
        );
    }
    eventually("a connection to the cloud", 60, || match connections() {
        0 => Err("none".to_owned()),
        open => Ok(open),
    });
    eventually("an owner of the renewed token", 90, || {
        let metadata = json(&["get", "secret", "-n", OPERATOR, RENEWED])["metadata"].take();
        let owner = &metadata["ownerReferences"][0]["name"];
        if owner == "kestrel-aggregator" { Ok(()) } else { Err(metadata.to_string()) }
    });
    println!("{}", helm(&["test", RELEASE, "--timeout", "2m"]));
}
