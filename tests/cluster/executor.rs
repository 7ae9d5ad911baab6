//! What the cloud asks for, asked of the installed operator with the rights that it has.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    corpus::{ENCODED, HONEST, MARKER, SEED, adversarial, commands, comparable, differs},
    kubectl::{OPERATOR, apply, attempt, cloud_post, eventually, json, kubectl, sample_image},
    namespace::Namespace,
};

const PATHS: &str = include_str!("../../aggregator/tests/policy/api.jsonl");
/// The files of any host or container, and what is in every container's environment.
const OUTSIDE: [&str; 4] = ["root:x:0:0", "KUBERNETES_SERVICE_HOST=", "PRIVATE KEY-----", "eyJhbGciOi"];

/// What the cloud gets as an answer.
fn ask(request: &Value) -> Value {
    cloud_post("/v1/send?stream=control", request)["answer"]["message"].clone()
}

/// The objects of the corpora, with canaries in whatever can hold a secret. They are never scheduled, so that nothing of them changes.
struct Seeded;

impl Seeded {
    fn new() -> Self {
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(SEED).unwrap();
        objects.retain(|object| object["kind"] != "Node");
        for object in &mut objects {
            if object["kind"] == "Pod" {
                object["spec"]["nodeName"].take();
                object["spec"]["schedulerName"] = "nobody".into();
            }
            if let Some(template) = object.pointer_mut("/spec/template/spec") {
                template["schedulerName"] = "nobody".into();
            }
        }
        // A ServiceAccount of that name comes with each namespace.
        objects.retain(|object| object["kind"] != "ServiceAccount");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seed.json");
        // The kind before what is of it, and namespaces first, as they stand there.
        std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
            .unwrap();
        let seeded = Self;
        kubectl(&["create", "-f", file.to_str().unwrap()]);
        kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/widgets.example.com"]);
        seeded
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        for arguments in [
            &["delete", "namespace", "shop", "vault", "work", "--timeout=90s"][..],
            &["delete", "event", "node-1.one", "-n", "default"],
            &["delete", "secret", "x", "-n", "default"],
            &["delete", "crd", "widgets.example.com"],
        ] {
            let _best_effort = attempt(arguments);
        }
    }
}

/// Every text of an answer that came from the cluster: what was asked is echoed beside it.
fn told(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    results
        .iter()
        .map(|result| {
            let asked = text(&result["command"]) + &text(&result["api_path"]);
            let told = ["stdout", "stderr", "response_data", "error_message"]
                .map(|field| text(&result[field]))
                .concat();
            (asked, told)
        })
        .collect()
}

/// Scenario: the cloud sends every request of the adversarial corpora, and some that go straight for the canaries.
/// Guarantee: each is answered, and no answer has the value of a Secret, a token, or anything of a container or host in it.
#[test]
fn no_request_gets_a_secret_a_token_or_a_file() {
    let _seeded = Seeded::new();
    let mut lines = adversarial();
    lines.push("kubectl logs -n kestrel-ai deploy/kestrel-aggregator --tail=500".to_owned());
    let mut paths: Vec<String> = PATHS
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["kubernetes_api_request"]["api_paths"][0].as_str().unwrap().to_owned()
        })
        .collect();
    paths.extend(
        [
            "api/v1/namespaces/vault/secrets/db",
            "api/v1/namespaces/vault/configmaps",
            "api/v1/namespaces/vault/pods",
            "api/v1/configmaps",
        ]
        .map(str::to_owned),
    );
    assert!(lines.len() + paths.len() >= 600);
    let asked = lines
        .chunks(50)
        .map(|lines| json!({"shell_command_request": {"commands": lines}}))
        .chain(paths.chunks(50).map(|paths| json!({"kubernetes_api_request": {"api_paths": paths}})));
    let (mut answered, mut hidden) = (0, 0);
    for request in asked {
        for (asked, told) in told(&ask(&request)) {
            answered += 1;
            assert!(!told.is_empty() || asked.contains("grep"), "{asked}: no answer");
            hidden += told.matches("[hidden:").count();
            for canary in [MARKER, ENCODED].iter().chain(&OUTSIDE) {
                assert!(!told.contains(canary), "{canary} in the answer to {asked}");
            }
        }
    }
    assert_eq!(answered, lines.len() + paths.len());
    assert!(hidden > 5, "{hidden}");
}

/// Scenario: the cloud sends every command of incident work.
/// Guarantee: each is answered, and as the real kubectl answers it on this cluster with the same rights.
#[test]
fn honest_commands_are_answered_as_kubectl_answers_them() {
    let _seeded = Seeded::new();
    let account = format!("system:serviceaccount:{OPERATOR}:kestrel-executor");
    let (mut compared, mut wrong) = (0, Vec::new());
    let honest = commands(HONEST);
    for command in &honest {
        // What the cluster does meanwhile may stand in one of both.
        let mut difference = None;
        for _ in 0..5 {
            let answer = ask(&json!({"shell_command_request": {"commands": [command]}}));
            let ours = &answer["results"][0];
            let (own, complaint) = (ours["stdout"].as_str().unwrap(), ours["stderr"].as_str().unwrap());
            // The suite keeps the events of a namespace in the cluster, and so those of all.
            let is_kept = complaint.starts_with("refused (kept)") && command.contains("-A");
            assert!(is_kept || !complaint.starts_with("refused"), "{command}: {ours}");
            if is_kept || differs(command) {
                break;
            }
            // Nothing here is ever rolled out, for which kubectl would wait.
            let script = format!(
                "kubectl() {{ [[ \"$1 $2\" != 'rollout status' ]] || set -- \"$@\" --watch=false; \
                 command kubectl --as={account} \"$@\"; }}; {command}"
            );
            let theirs = Command::new("bash").args(["-c", &script]).output().unwrap();
            let stdout = String::from_utf8(theirs.stdout).unwrap();
            // Hidden values, and kubectl's copies of what it applied, are not told.
            if own.contains("[hidden:") || stdout.contains("last-applied-configuration") {
                break;
            }
            let stderr = String::from_utf8_lossy(&theirs.stderr);
            // kubectl finds nothing where no object has the field; docs/commands.md says what is done here.
            if command.contains("--sort-by") && stderr.starts_with("No resources found") {
                break;
            }
            let is_success = theirs.status.success();
            let rows = |text: &str| {
                let mut rows = comparable(text);
                // Of those of one second kubectl's order is anybody's: Go's sort is not stable.
                if command.contains("events") {
                    rows.sort();
                }
                rows
            };
            if rows(&stdout) == rows(own) && is_success == (ours["success"] == true) {
                (compared, difference) = (compared + 1, None);
                break;
            }
            difference = Some(format!("--- {command}\nkubectl:\n{stdout}{stderr}\nours: {ours}\n"));
        }
        wrong.extend(difference);
    }
    println!("{compared} of {} commands equal kubectl's", honest.len());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(honest.len() >= 150 && compared >= 120, "{compared}");
}

/// Scenario: the cloud asks in many ways for the logs of a pod with two containers.
/// Guarantee: they are those that kubectl shows, to the byte; of several containers kubectl's order is anybody's.
#[test]
fn logs_are_those_of_kubectl() {
    let namespace = Namespace::new("kubectl-logs");
    let container = |name: &str| {
        let script = format!("for i in $(seq 30); do echo \"line $i of {name}\"; done; exec sleep 100000");
        json!({"name": name, "image": sample_image(), "command": ["sh", "-c", script]})
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talk", "labels": {"app": "talk"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container("app"), container("side")]}});
    apply(&namespace.0, &pod.to_string());
    eventually("all lines of both containers", 120, || {
        let told = attempt(&["logs", "-n", &namespace.0, "talk", "--all-containers"])?;
        if told.lines().count() == 60 { Ok(()) } else { Err(told) }
    });
    for asked in [
        "talk",
        "talk -c app",
        "talk side --tail=3",
        "talk -c nothing",
        "talk -c side --since=1h --timestamps",
        "talk --all-containers",
        "talk --all-containers --tail=2 --prefix",
        "-l app=talk",
        "-l app=talk --prefix --tail=-1",
        "-l app=talk --all-containers --prefix --timestamps",
        "-l app=nothing",
        "talk -c app | grep -c 'line 1'",
        "talk -c side | tail -n 2 | cut -d' ' -f2",
    ] {
        let command = format!("kubectl logs -n {} {asked}", namespace.0);
        let answer = ask(&json!({"shell_command_request": {"commands": [command]}}));
        let ours = &answer["results"][0];
        let theirs = Command::new("bash").args(["-c", &command]).output().unwrap();
        let lines = |text: &str| {
            let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
            if asked.contains("--all-containers") {
                lines.sort();
            }
            lines
        };
        let stdout = String::from_utf8(theirs.stdout).unwrap();
        assert_eq!(lines(ours["stdout"].as_str().unwrap()), lines(&stdout), "{command}: {ours}");
        assert_eq!(ours["success"], theirs.status.success(), "{command}: {ours}");
    }
}

/// Scenario: the owner switches off what the cloud asks for, and on again; the cloud asks on.
/// Guarantee: within seconds it is refused, also to who asks in the owner's place, no pod restarts, and the owner finds Events of it.
#[test]
fn the_switch_holds_within_seconds_and_events_tell_of_it() {
    let read = json!({"kubernetes_api_request": {"api_paths": ["version"]}});
    let turn = |on: bool| {
        let patch = format!(r#"{{"data": {{"enabled": "{on}"}}}}"#);
        kubectl(&["patch", "configmap", "kestrel-executor", "-n", OPERATOR, "-p", &patch]);
        eventually("the switch", 10, || {
            let result = ask(&read)["results"][0].clone();
            if (result["success"] == true) == on { Ok(()) } else { Err(result.to_string()) }
        });
    };
    let pods = || kubectl(&["get", "pods", "-n", OPERATOR, "-o", "jsonpath={.items[*].metadata.uid}"]);
    let program = ["exec", "-n", OPERATOR, "deployment/kestrel-aggregator", "--", "/kestrel-aggregator"];
    let owner = || attempt(&[&program[..], &["ask", "kubectl get namespaces -o name"]].concat());
    let before = pods();
    turn(false);
    let refused = owner().expect_err("it is switched off");
    assert!(refused.contains("refused (off)"), "{refused}");
    turn(true);
    let answered = owner().expect("it is switched on");
    assert!(answered.contains("namespace/kube-system"), "{answered}");
    assert_eq!(pods(), before);
    for reason in ["CloudAnswered", "CloudRefused"] {
        eventually(reason, 150, || {
            let field = format!("reason={reason},involvedObject.name=kestrel-aggregator");
            let events = json(&["get", "events", "-n", OPERATOR, "--field-selector", &field]);
            let notes: Vec<_> =
                events["items"].as_array().unwrap().iter().map(|event| event["message"].clone()).collect();
            if notes.is_empty() { Err(events.to_string()) } else { Ok(()) }
        });
    }
}

/// Scenario: the cloud proposes a new Deployment, a change to it and a wrong one.
/// Guarantee: each gets its verdict by the installed operator's own account, and nothing is stored.
#[test]
fn manifests_are_tried_and_nothing_is_stored() {
    let namespace = Namespace::new("dry-run");
    let manifest = |replicas: i32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: {}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  \
             template:\n    metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: app, image: registry.example/web}}]}}\n",
            namespace.0
        )
    };
    let verdict = |text: String| {
        ask(&json!({"yaml_dry_run_request": {"yaml_manifests": [{"manifest_id": "m", "yaml_content": text}]}}))["results"][0].clone()
    };
    let good = verdict(manifest(0));
    assert_eq!(good["valid"], true, "{good}");
    let wrong = verdict(manifest(-1));
    assert!(wrong["error_message"].as_str().unwrap().starts_with("line 5 (spec.replicas): "), "{wrong}");
    assert_eq!(json(&["get", "deployments", "-n", &namespace.0])["items"], json!([]));
    crate::kubectl::apply(&namespace.0, &manifest(0));
    let version = || json(&["get", "deployment", "web", "-n", &namespace.0])["spec"]["replicas"].clone();
    let change = verdict(manifest(0).replace("registry.example/web", "registry.example/web:2"));
    assert!(
        change["valid"] == true && change["suggested_fix"].as_str().unwrap().contains("others own"),
        "{change}"
    );
    assert_eq!(version(), 0);
}
