//! Lines from containers to the cloud: none missing, none repeated without need.

use serde_json::Value;

use crate::{
    kubectl::{OPERATOR, apply, cloud, cloud_post, eventually, kubectl, pods_of, sample_image},
    namespace::Namespace,
};

const LINES: u64 = 20_000;

/// A pod that writes `LINES` numbered lines of about 300 bytes in about 20
/// seconds, which makes the kubelet rotate its file (1 MiB) several times.
fn writer(namespace: &str, name: &str) {
    let script = "pad=$(printf '%0280d' 0); i=1; \
        while [ $i -le 20000 ]; do echo \"line $i $pad\"; i=$((i+1)); [ $((i % 500)) != 0 ] || sleep 0.5; done; \
        exec sleep 100000";
    pod(namespace, name, script);
}

fn pod(namespace: &str, name: &str, script: &str) {
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"kestrel.ai/logs": "all"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "writer", "image": sample_image(), "command": ["sh", "-c", script]}],
        },
    });
    apply(namespace, &manifest.to_string());
}

/// What the cloud has counted of the numbers behind `line `.
fn sequence(namespace: &str, pod: &str) -> Value {
    cloud(&format!("/v1/logs/sequence?namespace={namespace}&pod={pod}&container=writer&prefix=line%20"))
}

fn all_arrived(namespace: &str, pod: &str) -> Value {
    eventually("every numbered line at the cloud", 240, || {
        let seen = sequence(namespace, pod);
        if seen["distinct"] == LINES { Ok(seen) } else { Err(seen.to_string()) }
    })
}

fn rotations(namespace: &str, pod: &str) -> u64 {
    let node = kubectl(&["get", "pod", "-n", namespace, pod, "-o", "jsonpath={.spec.nodeName}"]);
    let path = format!("/api/v1/nodes/{node}/proxy/logs/pods/");
    let listing = kubectl(&["get", "--raw", &path]);
    let folder = listing.split('"').find(|part| part.starts_with(namespace)).unwrap_or_default().to_owned();
    let files = kubectl(&["get", "--raw", &format!("{path}{folder}writer/")]);
    files.matches("<a href").count() as u64
}

/// Scenario: 20,000 lines pass while the kubelet rotates the file.
/// Guarantee: each arrives exactly once.
#[test]
fn lines_written_over_several_rotations_arrive_once_each() {
    let namespace = Namespace::new("rotation");
    writer(&namespace.0, "steady");
    let seen = all_arrived(&namespace.0, "steady");
    assert_eq!((&seen["min"], &seen["max"]), (&1.into(), &LINES.into()), "{seen}");
    assert_eq!(seen["duplicates"], 0, "no restart, so no repeat: {seen}");
    assert!(rotations(&namespace.0, "steady") >= 3, "the kubelet did rotate");
}

/// Scenario: while 20,000 lines pass, the node's agent is deleted once, then the leading aggregator.
/// Guarantee: none is missing; repeats are allowed and reported.
#[test]
fn lines_survive_the_deletion_of_the_agent_and_of_the_aggregator() {
    let namespace = Namespace::new("deletion");
    writer(&namespace.0, "disturbed");
    let progress = |at_least: u64| {
        eventually("some lines at the cloud", 120, || {
            let seen = sequence(&namespace.0, "disturbed");
            if seen["distinct"].as_u64() >= Some(at_least) { Ok(()) } else { Err(seen.to_string()) }
        });
    };
    progress(1_000);
    let node = kubectl(&["get", "pod", "-n", &namespace.0, "disturbed", "-o", "jsonpath={.spec.nodeName}"]);
    kubectl(&[
        "delete",
        "pod",
        "-n",
        OPERATOR,
        "--wait=false",
        "-l",
        "app.kubernetes.io/component=node-agent",
        "--field-selector",
        &format!("spec.nodeName={node}"),
    ]);
    progress(6_000);
    let leader = kubectl(&[
        "get",
        "lease",
        "-n",
        OPERATOR,
        "kestrel-aggregator",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ]);
    assert!(pods_of("aggregator").contains(&leader), "the holder of the Lease is a pod: {leader}");
    kubectl(&["delete", "pod", "-n", OPERATOR, &leader, "--wait=false"]);
    let seen = all_arrived(&namespace.0, "disturbed");
    println!("repeats after two restarts: {}", seen["duplicates"]);
}

/// Scenario: a pod of an excluded namespace asks for all of its lines to be sent, and one of another does.
/// Guarantee: of the one nothing arrives, neither by itself nor when it is asked for.
#[test]
fn what_pods_of_an_excluded_namespace_write_stays_in_the_cluster() {
    let (excluded, other) = (Namespace::excluded(), Namespace::new("beside"));
    for namespace in [&excluded, &other] {
        pod(&namespace.0, "talks", "while true; do echo ERROR line; sleep 1; done");
    }
    let lines = |namespace: &Namespace| {
        let answer = cloud(&format!("/v1/logs?namespace={}&pod=talks&limit=10", namespace.0));
        answer["lines"].as_array().map_or(0, Vec::len)
    };
    kubectl(&["wait", "pod", "talks", "-n", &excluded.0, "--for=condition=Ready", "--timeout=90s"]);
    eventually("lines of the other pod", 90, || match lines(&other) {
        10 => Ok(()),
        some => Err(format!("{some} lines")),
    });
    assert_eq!(lines(&excluded), 0);
    let path = format!("api/v1/namespaces/{}/pods/talks/log", excluded.0);
    let request =
        serde_json::json!({"kubernetes_api_request": {"request_id": "excluded", "api_paths": [path]}});
    let answer = cloud_post("/v1/send?stream=control", &request);
    assert!(answer.to_string().contains("data.namespaces.exclude"), "{answer}");
}

/// Scenario: a log holds invalid UTF-8, NUL bytes and a line of 1 MiB.
/// Guarantee: the bytes are replaced, the rest of the line and all other lines arrive.
#[test]
fn odd_bytes_cost_only_themselves() {
    let namespace = Namespace::new("bytes");
    pod(
        &namespace.0,
        "odd",
        r#"echo before; printf 'bad \377\376 utf8\n'; printf 'a\0b nul\n'; head -c 1048576 /dev/zero | tr '\0' x; echo; echo after; exec sleep 100000"#,
    );
    let lines = eventually("all five lines", 90, || {
        let answer = cloud(&format!("/v1/logs?namespace={}&pod=odd&limit=100", namespace.0));
        let lines: Vec<String> = answer["lines"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| Some(line["message"].as_str()?.to_owned()))
            .collect();
        if lines.iter().any(|line| line == "after") {
            Ok(lines)
        } else {
            Err(format!("{} lines", lines.len()))
        }
    });
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[..3], ["before", "bad \u{fffd}\u{fffd} utf8", "a\u{2400}b nul"]);
    assert!(lines[3].len() == 1_048_576 && lines[3].bytes().all(|byte| byte == b'x'), "{}", lines[3].len());
}
