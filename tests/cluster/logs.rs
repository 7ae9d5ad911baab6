//! Lines from containers to the cloud: none missing, none repeated without need.

use serde_json::Value;

use crate::{
    kubectl::{OPERATOR, apply, cloud, cloud_post, eventually, json, kubectl, metric, pods_of, sample_image},
    namespace::Namespace,
};

const LINES: u64 = 20_000;

/// Lines of about 300 bytes that one container writes as fast as it can.
const FLOOD: u64 = 300_000;

/// A pod that writes `LINES` numbered lines of about 300 bytes in about 20
/// seconds, on the node that rotates its file soonest.
fn writer(namespace: &str, name: &str) {
    let script = "pad=$(printf '%0280d' 0); i=1; \
        while [ $i -le 20000 ]; do echo \"line $i $pad\"; i=$((i+1)); [ $((i % 500)) != 0 ] || sleep 0.5; done; \
        exec sleep 100000";
    let (_, node) = nodes().into_iter().min().unwrap();
    apply(namespace, &manifest(name, script, Some(&node), &every_line()).to_string());
}

/// The nodes, each with the size at which its kubelet rotates a log, as the kubelet itself says.
pub(crate) fn nodes() -> Vec<(u64, String)> {
    let nodes = kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    let rotates_at = |node: &str| {
        let config = kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/configz")]);
        let config: Value = serde_json::from_str(&config).unwrap();
        let size = config["kubeletconfig"]["containerLogMaxSize"].as_str().unwrap().to_owned();
        size.strip_suffix("Mi").unwrap_or_else(|| panic!("{size} on {node}")).parse().unwrap()
    };
    nodes.split_whitespace().map(|node| (rotates_at(node), node.to_owned())).collect()
}

pub(crate) fn every_line() -> Value {
    serde_json::json!({"kestrel.ai/logs": "all"})
}

/// A pod all of whose lines are wanted.
fn pod(namespace: &str, name: &str, script: &str) {
    apply(namespace, &manifest(name, script, None, &every_line()).to_string());
}

pub(crate) fn manifest(name: &str, script: &str, node: Option<&str>, annotations: &Value) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "writer", "image": sample_image(), "command": ["sh", "-c", script]}],
        },
    })
}

/// What the cloud has counted of the numbers behind `line `.
pub(crate) fn sequence(namespace: &str, pod: &str) -> Value {
    cloud(&format!("/v1/logs/sequence?namespace={namespace}&pod={pod}&container=writer&prefix=line%20"))
}

fn all_arrived(namespace: &str, pod: &str) -> Value {
    lines_arrived(namespace, pod, LINES)
}

fn lines_arrived(namespace: &str, pod: &str, lines: u64) -> Value {
    eventually("every numbered line at the cloud", 240, || {
        let seen = sequence(namespace, pod);
        if seen["distinct"] == lines { Ok(seen) } else { Err(seen.to_string()) }
    })
}

/// Numbers `lines` lines of about 300 bytes as fast as it can.
fn flood(lines: u64) -> String {
    format!(
        r#"awk 'BEGIN {{ for (i = 0; i < 28; i++) pad = pad "0123456789"; for (i = 1; i <= {lines}; i++) print "line " i " " pad }}'"#
    )
}

/// What the cloud has of a pod's lines.
fn messages(namespace: &str, pod: &str, limit: usize) -> Vec<String> {
    let answer = cloud(&format!("/v1/logs?namespace={namespace}&pod={pod}&limit={limit}"));
    let lines = answer["lines"].as_array().into_iter().flatten();
    lines.filter_map(|line| Some(line["message"].as_str()?.to_owned())).collect()
}

/// The node on which a pod runs.
fn node_of(namespace: &str, pod: &str) -> String {
    kubectl(&["get", "pod", "-n", namespace, pod, "-o", "jsonpath={.spec.nodeName}"])
}

/// The agent of that node.
pub(crate) fn agent_of(namespace: &str, pod: &str) -> Option<String> {
    let node = node_of(namespace, pod);
    let selector = "app.kubernetes.io/component=node-agent";
    let field = format!("spec.nodeName={node},status.phase=Running");
    let agents = json(&["get", "pods", "-n", OPERATOR, "-l", selector, "--field-selector", &field]);
    Some(agents["items"].get(0)?["metadata"]["name"].as_str()?.to_owned())
}

fn rotations(namespace: &str, pod: &str) -> u64 {
    let node = node_of(namespace, pod);
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
    let agent = agent_of(&namespace.0, "disturbed").unwrap();
    kubectl(&["delete", "pod", "-n", OPERATOR, &agent, "--wait=false"]);
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

/// Scenario: on every node a container writes as fast as it can, and the kubelet rotates and packs what it
/// wrote, soon or late.
/// Guarantee: each line arrives exactly once.
#[test]
fn a_flood_arrives_whole() {
    let namespace = Namespace::new("flood");
    let script = format!("{}; exec sleep 100000", flood(FLOOD));
    for (_, node) in nodes() {
        apply(&namespace.0, &manifest(&node, &script, Some(&node), &every_line()).to_string());
    }
    for (size, node) in nodes() {
        let seen = lines_arrived(&namespace.0, &node, FLOOD);
        assert_eq!(seen["duplicates"], 0, "no restart, so no repeat: {seen}");
        assert!(rotations(&namespace.0, &node) >= 2, "the kubelet did rotate at {size} MiB");
    }
}

/// Scenario: the node's agent is killed again and again while a container writes.
/// Guarantee: none of its lines is missing.
#[test]
fn lines_survive_an_agent_that_is_killed_every_few_seconds() {
    let namespace = Namespace::new("kills");
    writer(&namespace.0, "disturbed");
    eventually("the first lines", 120, || {
        let seen = sequence(&namespace.0, "disturbed");
        if seen["distinct"].as_u64() > Some(0) { Ok(()) } else { Err(seen.to_string()) }
    });
    let mut killed = String::new();
    for _ in 0..4 {
        killed = eventually("the next agent", 60, || {
            agent_of(&namespace.0, "disturbed").filter(|agent| *agent != killed).ok_or_else(|| killed.clone())
        });
        kubectl(&["delete", "pod", "-n", OPERATOR, &killed, "--force", "--grace-period=0"]);
    }
    let seen = all_arrived(&namespace.0, "disturbed");
    println!("repeats after four kills: {}", seen["duplicates"]);
}

/// Scenario: pods are deleted as soon as they have written their last line.
/// Guarantee: none of their lines is missing.
#[test]
fn the_last_lines_of_a_deleted_pod_arrive() {
    let namespace = Namespace::new("deleted");
    let names = ["first", "second", "third"];
    for name in names {
        pod(&namespace.0, name, &flood(5_000));
    }
    for name in names {
        let ended = "--for=jsonpath={.status.phase}=Succeeded";
        kubectl(&["wait", "-n", &namespace.0, ended, "--timeout=120s", &format!("pod/{name}")]);
        kubectl(&["delete", "pod", "-n", &namespace.0, name, "--force", "--grace-period=0"]);
    }
    for name in names {
        lines_arrived(&namespace.0, name, 5_000);
    }
}

/// Scenario: a pod without annotations writes harmless lines, and an error among them.
/// Guarantee: the error arrives with five lines before and five after, nothing else does, and the rest is counted.
#[test]
fn by_default_errors_arrive_with_what_was_around_them() {
    let namespace = Namespace::new("default");
    let script = r#"i=1; while [ $i -le 1000 ]; do echo "INFO line $i "; [ $i != 500 ] || echo "ERROR line 0 "; i=$((i+1)); done; exec sleep 100000"#;
    let left_out = |agent: &str| metric(agent, "kestrel_agent_lines_left_out_total");
    let before: f64 = pods_of("node-agent").iter().map(|agent| left_out(agent)).sum();
    apply(&namespace.0, &manifest("plain", script, None, &serde_json::json!({})).to_string());
    let lines = eventually("what follows the error", 120, || {
        let lines: Vec<_> =
            messages(&namespace.0, "plain", 2000).iter().map(|line| line.trim().to_owned()).collect();
        if lines.iter().any(|line| line.ends_with("line 505")) {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        }
    });
    let info = |number: u32| format!("INFO line {number}");
    let error = std::iter::once("ERROR line 0".to_owned());
    let expected: Vec<_> = (496..=500).map(info).chain(error).chain((501..=505).map(info)).collect();
    assert_eq!(lines, expected);
    eventually("the rest is counted", 60, || {
        let after: f64 = pods_of("node-agent").iter().map(|agent| left_out(agent)).sum();
        if after - before >= 985.0 { Ok(()) } else { Err(format!("{before} {after}")) }
    });
}

/// Scenario: a pod of an excluded namespace asks for all of its lines to be sent, and one of another does.
/// Guarantee: of the one nothing arrives, neither by itself nor when it is asked for.
#[test]
fn what_pods_of_an_excluded_namespace_write_stays_in_the_cluster() {
    let (excluded, other) = (Namespace::excluded(), Namespace::new("beside"));
    for namespace in [&excluded, &other] {
        pod(&namespace.0, "talks", "while true; do echo ERROR line; sleep 1; done");
    }
    let lines = |namespace: &Namespace| messages(&namespace.0, "talks", 10).len();
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
        let lines = messages(&namespace.0, "odd", 100);
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
