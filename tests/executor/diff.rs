//! `kubectl diff` beside the real one, which gets the same here-documents from a real shell.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    dry_run::{everything, guarded},
    rig::Rig,
    seed,
};

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\ndata: {a: $HOME, b: '`id`'}\n";
const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: app
          image: registry.example/web:2.0
          env: [{name: MODE, value: fast}, {name: HOST, value: db}]
        - {name: side, image: registry.example/side:1}
";
const SAME: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}}\n";

/// What is asked for, with a manifest.
fn diff(manifest: &str, filters: &str) -> String {
    format!("kubectl diff -n shop -f - <<'EOF'{filters}\n{manifest}EOF\n")
}

/// Without what is of the moment: names of folders, times, ids.
fn normal(text: &str) -> String {
    let line = |line: &str| {
        let named = ["diff -u -N ", "--- ", "+++ "].iter().any(|sign| line.starts_with(sign));
        if !named {
            let of_the_moment = ["+  uid: ", "+  creationTimestamp: "];
            let sign = of_the_moment.iter().find(|sign| line.starts_with(**sign));
            return sign.map_or(line, |sign| sign).to_owned();
        }
        let words = line.split('\t').next().unwrap_or_default().split(' ');
        words.map(|word| word.rsplit('/').next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

async fn ours(rig: &Rig, command: &str) -> Value {
    rig.ask(json!({"shell_command_request": {"commands": [command]}})).await["results"][0].clone()
}

/// The exit code and the output of the real one.
fn theirs(rig: &Rig, command: &str) -> (Option<i32>, String) {
    let as_ours = "kubectl diff --server-side --force-conflicts --field-manager=kestrel-operator";
    let bin = rig.server.kubeconfig.with_file_name("bin");
    let output = Command::new("bash")
        .args(["-c", &command.replacen("kubectl diff", as_ours, 1)])
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .env("KUBECONFIG", &rig.server.kubeconfig)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_is_that_of_kubectl_and_stores_nothing() {
    let rig = Rig::start(&["operator.executor.dryRun=true"]).await;
    let folder = tempfile::tempdir().unwrap();
    seed(&rig.server, folder.path());
    guarded(&rig).await;
    // Hundreds of lines, of which some are changed, moved, doubled or gone.
    let lines: Vec<String> = (0..400).map(|n| format!("line {} of {n}", n % 7)).collect();
    let mut changed = lines.clone();
    changed.drain(300..310);
    changed.splice(200..201, ["one".to_owned(), "two".to_owned()]);
    changed.insert(100, lines[99].clone());
    changed.swap(20, 25);
    changed.push("last".to_owned());
    let text = |lines: &[String]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    let book = |lines: &[String]| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: book, namespace: shop}}\ndata:\n  text: |\n{}",
            text(lines)
        )
    };
    let file = folder.path().join("book.yaml");
    std::fs::write(&file, book(&lines)).unwrap();
    rig.kubectl(&["create", "-f", file.to_str().unwrap()]).unwrap();
    let before = everything(&rig);

    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n";
    let several = [WEB, namespace, MAP, SAME].join("---\n");
    for (manifest, filters, code) in [
        (MAP, "", 1),
        (WEB, "", 1),
        (SAME, "", 0),
        (&several, "", 1),
        (&book(&changed), "", 1),
        (&book(&changed[..350]), "", 1),
        (WEB, " | grep '^[-+] ' | tail -n 4", 1),
    ] {
        let command = diff(manifest, filters);
        let (ours, theirs) = (ours(&rig, &command).await, theirs(&rig, &command));
        assert_eq!(normal(ours["stdout"].as_str().unwrap()), normal(&theirs.1), "{command}\n{ours}");
        assert_eq!(ours["exit_code"], code, "{command}\n{ours}");
        assert!(!filters.is_empty() || theirs.0 == Some(code), "{command}\n{theirs:?}");
    }
    // The owner of an image is told.
    let told = ours(&rig, &diff(WEB, "")).await;
    assert!(told["stderr"].as_str().unwrap().contains("others own what it changes"), "{told}");
    let wrong = diff(&format!("{SAME}---\n{}", WEB.replace("replicas: 3", "replicas: -3")), "");
    let refused = ours(&rig, &wrong).await;
    let error = refused["stderr"].as_str().unwrap();
    assert!(
        error.contains("document 2, line 10 (spec.replicas): Error from server (Invalid): "),
        "{refused}"
    );
    assert_eq!((refused["exit_code"].as_i64(), theirs(&rig, &wrong).0), (Some(2), Some(2)));
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: default}\nstringData: {password: guess}\n";
    let refused = ours(&rig, &diff(secret, "")).await;
    assert!(refused["stderr"].as_str().unwrap().starts_with("refused (secret): line 1: "), "{refused}");
    assert_eq!(everything(&rig), before, "nothing was stored");
    rig.stop().await;
}
