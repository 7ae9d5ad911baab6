//! `kubectl`, and waiting for what a cluster does in its own time.

use std::{
    env,
    io::Write as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Where `hack/test` installs the operator.
pub(crate) const OPERATOR: &str = "kestrel-ai";

/// Runs `kubectl ARGS` with `input` on standard input: what it printed, results and warnings.
fn run_both(args: &[&str], input: &str) -> Result<(String, String), String> {
    let mut child = Command::new("kubectl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl is on the PATH (hack/cluster tools)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok((text(&output.stdout), text(&output.stderr)))
    } else {
        Err(text(&output.stderr))
    }
}

fn run(args: &[&str], input: &str) -> Result<String, String> {
    run_both(args, input).map(|(results, _)| results)
}

/// What `kubectl ARGS`, which has to succeed, warns of.
pub(crate) fn warnings(args: &[&str]) -> String {
    run_both(args, "").unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" "))).1
}

/// What `kubectl ARGS` prints, or its complaint.
pub(crate) fn attempt(args: &[&str]) -> Result<String, String> {
    run(args, "")
}

/// What `kubectl ARGS` prints; it has to succeed.
pub(crate) fn kubectl(args: &[&str]) -> String {
    attempt(args).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
}

/// What `kubectl ARGS -o json` prints.
pub(crate) fn json(args: &[&str]) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_str(&kubectl(&args)).unwrap()
}

/// Creates the objects of a manifest; what `kubectl` prints.
pub(crate) fn apply(namespace: &str, manifest: &str) -> String {
    run(&["apply", "--namespace", namespace, "-f", "-"], manifest)
        .unwrap_or_else(|error| panic!("kubectl apply: {error}\n{manifest}"))
}

/// What `kubectl ARGS` prints, with `input` on its standard input; it has to succeed.
pub(crate) fn feed(args: &[&str], input: &str) -> String {
    run(args, input).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
}

/// The image that test pods run: a shell and the usual small tools.
pub(crate) fn sample_image() -> String {
    env::var("sample_image").expect("hack/test names the sample image")
}

/// The image with the operator's programs.
pub(crate) fn operator_image() -> String {
    env::var("operator_image").expect("hack/test names the operator's image")
}

/// Asks the development cloud, through the API server.
pub(crate) fn cloud(path: &str) -> Value {
    serde_json::from_str(&kubectl(&["get", "--raw", &cloud_path(path)])).unwrap()
}

/// Posts to the development cloud, through the API server.
pub(crate) fn cloud_post(path: &str, body: &Value) -> Value {
    let answer = run(&["create", "--raw", &cloud_path(path), "-f", "-"], &body.to_string())
        .unwrap_or_else(|error| panic!("POST {path}: {error}"));
    serde_json::from_str(&answer).unwrap()
}

fn cloud_path(path: &str) -> String {
    format!("/api/v1/namespaces/kestrel-cloud/services/kestrel-cloud:50052/proxy{path}")
}

/// A counter of a pod's `/metrics`, summed over its labels.
pub(crate) fn metric(pod: &str, name: &str) -> f64 {
    let path = format!("/api/v1/namespaces/{OPERATOR}/pods/{pod}:8081/proxy/metrics");
    kubectl(&["get", "--raw", &path])
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Names of the operator's running pods of one component.
pub(crate) fn pods_of(component: &str) -> Vec<String> {
    let selector = format!("app.kubernetes.io/component={component}");
    let list =
        json(&["get", "pods", "-n", OPERATOR, "-l", &selector, "--field-selector=status.phase=Running"]);
    let live = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().filter(live).map(name).collect()
}

/// The log of the agent on a node.
pub(crate) fn agent_log(node: &str) -> String {
    kubectl(&["logs", "-n", OPERATOR, &agent_on(node)])
}

/// The pod of a node's agent.
pub(crate) fn agent_on(node: &str) -> String {
    let mut agents = pods_of("node-agent").into_iter();
    let is_there = |agent: &String| json(&["get", "pod", "-n", OPERATOR, agent])["spec"]["nodeName"] == *node;
    agents.find(is_there).expect("an agent runs on the node")
}

/// The log of all pods of one component, those that have ended excepted.
pub(crate) fn log_of(component: &str) -> String {
    pods_of(component).iter().map(|pod| attempt(&["logs", "-n", OPERATOR, pod]).unwrap_or_default()).collect()
}

/// Waits until a workload is rolled out.
pub(crate) fn rolled_out(namespace: &str, workload: &str) {
    kubectl(&["rollout", "status", "-n", namespace, workload, "--timeout=120s"]);
}

/// Repeats `probe` until it gives a value; at the deadline it panics with what was last seen.
pub(crate) fn eventually<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("{what}: not within {seconds} s; last seen: {seen}")
            }
            Err(_) => thread::sleep(Duration::from_millis(250)),
        }
    }
}
