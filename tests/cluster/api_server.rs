//! The operator when the API server is started again.

use std::{env, fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    injection::profile::Profile,
    kubectl::eventually,
    namespace::Namespace,
    process,
    webhook::{created, has_sidecar, pod},
};

/// The process of the API server of `hack/cluster`, if that is the cluster.
fn api_server() -> Option<String> {
    let is_it = |process: &Path| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"kube-apiserver"))
            && words.any(|word| word.starts_with(b"--service-cluster-ip-range="))
            && command.windows(21).any(|part| part == b"http://127.0.0.1:2379")
    };
    process::find(is_it)
}

/// Scenario: the API server is killed and started again while annotated pods are created.
/// Guarantee: every pod that it takes carries the sidecar, from the first one on, and what is changed afterwards
/// (a profile) counts.
#[test]
fn every_pod_that_an_api_server_takes_after_a_restart_has_its_sidecar() {
    let namespace = Namespace::new("restart");
    let annotations = json!({"kestrel.ai/inject": "true"});
    let create = |number: u32| created(&namespace.0, &pod(&format!("pod-{number}"), &annotations));
    assert!(has_sidecar(&create(0).unwrap()));
    match api_server() {
        Some(process) => {
            process::signal("KILL", &process);
            let refused = create(1).unwrap_err();
            assert!(
                refused.contains("refused") || refused.contains("EOF") || refused.contains("reset"),
                "{refused}"
            );
            let dev_cloud = env::var("dev_cloud").expect("hack/test names the development cloud's command");
            let cluster = Path::new(&dev_cloud).with_file_name("cluster");
            assert!(Command::new(cluster).arg("up").status().unwrap().success());
        }
        None => println!("the API server is on another machine and was not started again"),
    }
    let (mut taken, mut refused) = (0, 0);
    eventually("twenty pods", 120, || {
        match create(taken + refused + 2) {
            Ok(stored) => {
                assert!(has_sidecar(&stored), "pod {taken} after the restart has no sidecar: {stored}");
                taken += 1;
            }
            Err(_) => refused += 1,
        }
        if taken == 20 { Ok(()) } else { Err(format!("{taken} taken, {refused} refused")) }
    });
    println!("{taken} pods were taken and {refused} refused after the restart");

    let _off = Profile::of_namespace("a", &namespace.0, &json!({"enabled": false}));
    eventually("the profile to count", 60, || {
        let stored = create(1_000)?;
        let status = stored["metadata"]["annotations"]["kestrel.ai/status"].as_str().unwrap_or_default();
        if !has_sidecar(&stored) { Ok(()) } else { Err(format!("still injected: {status}")) }
    });
}
