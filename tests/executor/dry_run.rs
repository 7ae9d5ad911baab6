//! Manifests that the cloud proposes, tried on a real API server with the rights of the chart.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{corpus::MARKER, installed::NAMESPACE, rig::Rig, seed};

const LIMIT: Duration = Duration::from_secs(30);

fn account() -> String {
    format!("--as=system:serviceaccount:{NAMESPACE}:kestrel-dry-run")
}

/// The verdicts on some manifests.
async fn verdicts(rig: &Rig, manifests: &[&str]) -> Vec<Value> {
    let manifests: Vec<Value> = manifests
        .iter()
        .map(|text| json!({"manifest_id": "m", "yaml_content": text, "namespace": "shop"}))
        .collect();
    let answer = rig.ask(json!({"yaml_dry_run_request": {"yaml_manifests": manifests}})).await;
    answer["results"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

/// Every object of the kinds that are tried, with its version.
pub(crate) fn everything(rig: &Rig) -> String {
    let kinds = "ns,cm,svc,sa,secrets,pods,deploy,sts,ds,rs,jobs,hpa,pdb,netpol,ing,widgets";
    let fields = "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
    rig.kubectl(&["get", kinds, "-A", "-o", fields]).unwrap()
}

/// An API server takes a moment to know a new policy.
pub(crate) async fn guarded(rig: &Rig) {
    let probe = ["create", "configmap", "probe", "-n", "default", &account()];
    let deadline = Instant::now() + LIMIT;
    while let Ok(created) = rig.kubectl(&probe) {
        assert!(Instant::now() < deadline, "writes pass: {created}");
        rig.kubectl(&["delete", "configmap", "probe", "-n", "default"]).unwrap();
    }
}

const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
  namespace: shop
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: app
          image: registry.example/web:2.0
";

fn web(name: &str) -> String {
    WEB.replace("NAME", name)
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_tried_where_they_would_be_and_nothing_is_stored() {
    let rig = Rig::start(&["operator.executor.dryRun=true"]).await;
    let folder = tempfile::tempdir().unwrap();
    seed(&rig.server, folder.path());
    guarded(&rig).await;
    let before = everything(&rig);

    let several = format!(
        "# a new one, and what it needs\n{}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: of-the-new}}\ndata: {{a: b}}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: new}}\nspec: {{podSelector: {{}}}}\n",
        web("new")
    );
    let good = [&several, &web("web"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n"];
    let results = verdicts(&rig, &good).await;
    for result in &results {
        assert!(
            result["valid"] == true && result["status_code"] == 200 && result["error_message"] == "",
            "{result}"
        );
    }
    // Made with kubectl, which therefore owns its image.
    let advice = results[1]["suggested_fix"].as_str().unwrap();
    assert!(advice.starts_with("line 14 (") && advice.contains("kubectl-create"), "{advice}");

    let selector = web("web")
        .replace("{matchLabels: {app: web}}", "{matchLabels: {app: db}}")
        .replace("{app: web}", "{app: db}");
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: blue, namespace: shop}\nspec:\n  colour: green\n";
    for (text, code, parts) in [
        (web("new").replace("replicas: 2", "replicas: -1"), 422, &["line 7 (spec.replicas)"][..]),
        (web("new").replace("image:", "imag:"), 0, &["imag", "line 1"]),
        (web("new").replace("          image: registry.example/web:2.0\n", ""), 422, &["line 13 (spec.template.spec.containers[0].image)", "Required"]),
        (selector, 422, &["immutable", "line 8 (spec.selector)"]),
        (web("new").replace("shop", "nowhere"), 404, &["nowhere"]),
        (web("new").replace("apps/v1", "apps/v2"), 404, &["the cluster has no kind Deployment in apps/v2; it has one in apps/v1"]),
        (widget.to_owned(), 403, &["cannot patch resource"]),
        (format!("{}---\n{}", web("new"), web("new").replace("replicas: 2", "replicas: -1")), 422, &["document 2, line 22 (spec.replicas)"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: default}\nstringData: {password: guess}\n".to_owned(), 403, &["refused (secret)"]),
        ("a: [".to_owned(), 400, &["refused (malformed): this is not YAML"]),
        (format!("a: {}", "[".repeat(5000)), 400, &["refused (malformed)"]),
        ("a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n".to_owned()
            + &('d'..'m').map(|n| format!("{n}: &{n} [{}]\n", vec![format!("*{}", char::from(n as u8 - 1)); 8].join(", "))).collect::<String>(),
            400, &["refused (malformed)"]),
    ] {
        let result = verdicts(&rig, &[&text]).await.remove(0);
        let message = result["error_message"].as_str().unwrap();
        assert!(result["valid"] == false && (code == 0 || result["status_code"] == code), "{text}\n{result}");
        for part in parts {
            assert!(message.contains(part), "{part} in: {message}\n{text}");
        }
    }
    // The API server says what differs from the object that there is, of which the account may read nothing.
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: leaks, namespace: vault}\nspec:\n  template:\n    metadata: {labels: {a: LABEL}}\n    spec:\n      \
               restartPolicy: Never\n      containers:\n        - {name: app, image: registry.example/app:1ENV}\n";
    let file = folder.path().join("job.yaml");
    let env = format!(", env: [{{name: DB_PASSWORD, value: {MARKER}}}]");
    std::fs::write(&file, job.replace("LABEL", "b").replace("ENV", &env)).unwrap();
    assert_eq!(everything(&rig), before, "nothing was stored");
    rig.kubectl(&["create", "-f", file.to_str().unwrap()]).unwrap();
    let before = everything(&rig);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: leaks, namespace: vault}\nspec:\n  containers:\n    - {name: app, env: [{name: DB_PASSWORD, value: x}]}\n";
    for (text, why) in
        [(pod, "may not change fields"), (&job.replace("LABEL", "c").replace("ENV", ""), "immutable")]
    {
        let result = verdicts(&rig, &[text]).await.remove(0);
        let message = result["error_message"].as_str().unwrap();
        assert!(
            result["status_code"] == 422 && message.contains(why) && message.contains("is invalid: spec"),
            "{result}"
        );
        assert!(!result.to_string().contains(MARKER), "{result}");
    }
    // The owner may add a kind.
    for arguments in [
        &["create", "clusterrole", "widgets", "--verb=create,patch", "--resource=widgets.example.com"][..],
        &[
            "create",
            "clusterrolebinding",
            "widgets",
            "--clusterrole=widgets",
            "--serviceaccount=kestrel-ai:kestrel-dry-run",
        ],
    ] {
        rig.kubectl(arguments).unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let result = verdicts(&rig, &[widget]).await.remove(0);
        if result["status_code"] != 403 {
            let message = result["error_message"].as_str().unwrap();
            assert!(
                message.contains("line 5 (spec.colour)") && message.contains("Unsupported value"),
                "{result}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "{result}");
    }
    assert_eq!(everything(&rig), before, "nothing was stored");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_can_do_nothing_but_dry_runs_whatever_rights_it_has() {
    let rig = Rig::start(&["operator.executor.dryRun=true"]).await;
    let folder = tempfile::tempdir().unwrap();
    seed(&rig.server, folder.path());
    guarded(&rig).await;
    let (account, file) = (account(), folder.path().join("web.yaml"));
    std::fs::write(&file, web("web").replace("replicas: 2", "replicas: 3")).unwrap();
    let apply = ["apply", "--server-side", "--force-conflicts", &account, "-f", file.to_str().unwrap()];
    rig.kubectl(&[&apply[..], &["--dry-run=server"]].concat()).unwrap();
    // By its rights: neither Secrets nor anything else is read.
    for reads in [["get", "secrets"], ["get", "configmaps"], ["get", "pods"]] {
        let refusal = rig.kubectl(&[&reads[..], &["-A", &account]].concat()).unwrap_err();
        assert!(refusal.contains("Forbidden"), "{refusal}");
    }
    rig.kubectl(&[
        "create",
        "clusterrolebinding",
        "too-much",
        "--clusterrole=cluster-admin",
        "--serviceaccount=kestrel-ai:kestrel-dry-run",
    ])
    .unwrap();
    let before = everything(&rig);
    let patch = r#"{"spec": {"replicas": 3}}"#;
    let writes = [
        &apply[..],
        &["create", "configmap", "new", "-n", "shop", &account],
        &["patch", "deployment", "web", "-n", "shop", "-p", patch, &account],
        &[
            "patch",
            "deployment",
            "web",
            "-n",
            "shop",
            "--subresource=scale",
            "--type=merge",
            "-p",
            patch,
            &account,
        ],
        &["delete", "deployment", "web", "-n", "shop", &account],
        &["delete", "pods", "--all", "-n", "shop", "--wait=false", &account],
        &["create", "token", "default", "-n", "shop", &account],
        &["exec", "web-1", "-n", "shop", "-c", "app", &account, "--", "true"],
    ];
    let deadline = Instant::now() + LIMIT;
    for write in writes {
        // Its new rights are known after a moment.
        let refusal = loop {
            let refusal = rig.kubectl(write).expect_err("it must not be written");
            if !refusal.contains("cannot ") || Instant::now() > deadline {
                break refusal;
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert!(refusal.contains("must not write it"), "{write:?}: {refusal}");
    }
    assert_eq!(everything(&rig), before);

    // Without the policy nothing is tried, and the switch is one too.
    let good = web("web");
    assert_eq!(verdicts(&rig, &[&good]).await[0]["valid"], true);
    let patch = r#"{"spec": {"validationActions": ["Warn"]}}"#;
    let binding = ["patch", "validatingadmissionpolicybinding", "kestrel-dry-run", "--type=merge", "-p"];
    rig.kubectl(&[&binding[..], &[patch]].concat()).unwrap();
    let refused = verdicts(&rig, &[&good]).await.remove(0);
    assert!(refused["error_message"].as_str().unwrap().contains("was changed"), "{refused}");
    rig.kubectl(&[&binding[..], &[r#"{"spec": {"validationActions": ["Deny"]}}"#]].concat()).unwrap();
    assert_eq!(verdicts(&rig, &[&good]).await[0]["valid"], true);
    rig.kubectl(&[
        "patch",
        "configmap",
        "kestrel-executor",
        "-n",
        NAMESPACE,
        "-p",
        r#"{"data": {"dryRun": "false"}}"#,
    ])
    .unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        let result = verdicts(&rig, &[&good]).await.remove(0);
        if result["error_message"].as_str().unwrap().contains("has not switched dry runs on") {
            break;
        }
        assert!(Instant::now() < deadline, "{result}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unless_the_owner_wants_it_there_is_neither_the_account_nor_a_dry_run() {
    let rig = Rig::start(&[]).await;
    rig.kubectl(&["get", "serviceaccount", "kestrel-dry-run", "-n", NAMESPACE]).unwrap_err();
    let result = verdicts(&rig, &[&web("web")]).await.remove(0);
    assert!(result["error_message"].as_str().unwrap().starts_with("refused (off): "), "{result}");
    let allowed = rig.ask(json!({"kubernetes_api_request": {"api_paths": ["api/v1/namespaces"]}})).await;
    assert_eq!(allowed["results"][0]["success"], true, "{allowed}");
    rig.stop().await;
}
