//! Access logs of proxies, through the receivers of the aggregator, of a node's agent and of a pod's collector. What an Envoy
//! would send, a client with go-control-plane's types sends from within the pods: the program that `KESTREL_ALS_CLIENT` names
//! (`tests/bench/als`).

use std::{
    collections::BTreeMap,
    env, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    injection::profile::Profile,
    kubectl::{OPERATOR, apply, cloud, eventually, feed, json, kubectl, rolled_out, sample_image},
    leadership::leader,
    namespace::Namespace,
};

/// A service, whom it calls, and where its proxy sends what it logs.
struct Service {
    name: &'static str,
    calls: &'static str,
    receiver: &'static str,
}

const SERVICES: [Service; 3] = [
    Service { name: "web", calls: "api", receiver: "kestrel-operator-als.kestrel-ai.svc:8080" },
    Service { name: "api", calls: "db", receiver: "kestrel-operator-als-node.kestrel-ai.svc:8080" },
    Service { name: "db", calls: "web", receiver: "127.0.0.1:14080" },
];

/// The proxy of this one logs also what it is asked for, by the one before: to its node's agent, while that one's proxy logs the same
/// to the aggregator.
const AT_BOTH_ENDS: [&str; 2] = ["web", "api"];

/// How often, with which code, in how many milliseconds each calls the next one.
const CALLS: [(u64, u64, f64); 2] = [(40, 200, 20.0), (3, 503, 300.0)];

fn pod(service: &Service) -> Value {
    // Only the last one's proxy logs to a collector.
    let annotations =
        if service.receiver.starts_with("127.") { json!({"kestrel.ai/inject": "true"}) } else { json!({}) };
    let container =
        |name: &str| json!({"name": name, "image": sample_image(), "command": ["sleep", "100000"]});
    let mut proxy = container("proxy");
    proxy["volumeMounts"] = json!([{"name": "program", "mountPath": "/program"}]);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": service.name, "annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [container("app"), proxy],
            "volumes": [{"name": "program", "emptyDir": {}}],
        },
    })
}

/// Address of a pod whose containers run.
fn address(namespace: &str, name: &str) -> String {
    eventually("the pod", 120, || {
        let pod = json(&["get", "pod", "-n", namespace, name]);
        let status = &pod["status"];
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let is_ready =
            conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        match status["podIP"].as_str() {
            Some(address) if is_ready => Ok(address.to_owned()),
            _ => Err(status.to_string()),
        }
    })
}

/// By who called whom and the code: how often, and the median of the times.
type Edges = BTreeMap<(String, String, u64), (u64, f64)>;

fn told(namespace: &str) -> Edges {
    let mut edges = Edges::new();
    let arrivals = cloud("/v1/flows?limit=10000");
    for arrival in arrivals.as_array().unwrap() {
        let log = &arrival["message"];
        let http = &log["http_data"];
        if log["source"]["namespace"] != *namespace || http.is_null() {
            continue;
        }
        assert_eq!(http["path"], "/items/:id", "{log}");
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap();
        let [from, to] = ["source", "destination"].map(|end| log[end]["name"].as_str().unwrap().to_owned());
        let median = http["response_headers"]["x-kestrel-latency-p50-ms"].as_str().unwrap().parse().unwrap();
        let edge = edges.entry((from, to, number(&http["response_code"]))).or_insert((0, median));
        edge.0 += number(&log["count"]);
    }
    edges
}

/// Has every proxy send what it logs of the calls of its service. What both ends log ends within the same ten seconds.
fn call(namespace: &str, addresses: &BTreeMap<&str, String>) {
    eventually("ten seconds that begin", 30, || {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 10;
        if second < 3 { Ok(()) } else { Err(format!("second {second} of ten")) }
    });
    for Service { name, calls, receiver } in &SERVICES {
        let node = format!("sidecar~{}~{name}.{namespace}~{namespace}.svc.cluster.local", addresses[name]);
        let mut words =
            vec!["/program/als".to_owned(), "-to".into(), (*receiver).into(), "-node".into(), node];
        let mut logged = vec![([*name, *calls], "client")];
        if *name == AT_BOTH_ENDS[1] {
            logged.push((AT_BOTH_ENDS, "server"));
        }
        for ([client, server], side) in &logged {
            for (count, code, ms) in CALLS {
                let service = format!("{server}.{namespace}.svc.cluster.local");
                let (client, server) = (&addresses[client], &addresses[server]);
                words.push("-call".to_owned());
                words.push(format!(
                    "client={client},server={server},service={service},count={count},code={code},ms={ms},side={side}"
                ));
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let sent = kubectl(&[&["exec", "-n", namespace, name, "-c", "proxy", "--"][..], &words].concat());
        let all: u64 = CALLS.iter().map(|(count, ..)| count).sum();
        assert_eq!(sent.trim(), (all * logged.len() as u64).to_string());
    }
}

/// The calls at the cloud are those that were made, so often.
fn expect_calls(namespace: &str, times: u64) {
    let expected: BTreeMap<_, _> = SERVICES
        .iter()
        .flat_map(|service| {
            let key = |code| (service.name.to_owned(), service.calls.to_owned(), code);
            CALLS.map(|(count, code, ms)| (key(code), (count * times, ms)))
        })
        .collect();
    let found = eventually("every call at the cloud", 180, || {
        let found = told(namespace);
        let count = |edges: &Edges| edges.values().map(|(count, _)| count).sum::<u64>();
        if count(&found) >= count(&expected) { Ok(found) } else { Err(format!("{found:?}")) }
    });
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (edge, (count, ms)) in &expected {
        let (counted, median) = found[edge];
        assert_eq!(counted, *count, "{edge:?}");
        assert!((median - ms).abs() <= ms / 32.0, "{edge:?}: {median} ms");
    }
}

/// Scenario: three services call each other; the proxy of one logs to the aggregator, of one to its node's agent, of one to its
/// pod's collector; one edge is logged by both ends' proxies, through two of these. They call again, and the leading aggregator ends
/// before the agent and the collector have sent what they counted; and again, when another leads.
/// Guarantee: the cloud shows the three edges, with every call once, its code and how long it took.
#[test]
fn calls_are_edges_at_the_cloud_through_all_three_receivers() {
    let program =
        env::var("KESTREL_ALS_CLIENT").expect("KESTREL_ALS_CLIENT names the program of tests/bench/als");
    let program = BASE64_STANDARD.encode(fs::read(program).unwrap());
    let namespace = Namespace::new("als");
    let profile = Profile::of_namespace("als", &namespace.0, &json!({"collect": {"accessLogs": true}}));
    eventually("the profile", 30, || profile.condition("Ready", "True", "Ready"));
    for service in &SERVICES {
        apply(&namespace.0, &pod(service).to_string());
    }
    let addresses: BTreeMap<&str, String> =
        SERVICES.iter().map(|service| (service.name, address(&namespace.0, service.name))).collect();
    let collected = json(&["get", "pod", "-n", &namespace.0, "db"]);
    assert!(
        collected["metadata"]["annotations"]["kestrel.ai/status"].as_str().unwrap().contains("access logs")
    );
    for Service { name, .. } in &SERVICES {
        let unpack = "base64 -d >/program/als && chmod +x /program/als";
        feed(&["exec", "-i", "-n", &namespace.0, name, "-c", "proxy", "--", "sh", "-c", unpack], &program);
    }
    call(&namespace.0, &addresses);
    expect_calls(&namespace.0, 1);

    call(&namespace.0, &addresses);
    let former = leader();
    kubectl(&["delete", "pod", "-n", OPERATOR, &former, "--wait=false"]);
    expect_calls(&namespace.0, 2);
    eventually("another leader", 120, || if leader() == former { Err(former.clone()) } else { Ok(()) });
    rolled_out(OPERATOR, "deployment/kestrel-aggregator");
    call(&namespace.0, &addresses);
    expect_calls(&namespace.0, 3);
}
