//! Whole commands, on a cluster that answers a few paths.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use kube::{Client, client::Body};
use serde_json::json;

use super::*;
use crate::executor::hidden::Hashes;

/// What the API server answers to a path with its query.
type Serve = fn(&str) -> Option<Value>;

/// The kinds of the cluster.
fn groups(uri: &str) -> Option<Value> {
    let resource = |name: &str, kind: &str, short: &[&str], namespaced: bool| {
        let scope = if namespaced { "Namespaced" } else { "Cluster" };
        json!({"resource": name, "responseKind": {"kind": kind}, "scope": scope, "shortNames": short, "verbs": ["get", "list"]})
    };
    let core = [
        resource("pods", "Pod", &["po"], true),
        resource("configmaps", "ConfigMap", &["cm"], true),
        resource("nodes", "Node", &["no"], false),
    ];
    let custom = [resource("widgets", "Widget", &[], true)];
    let items = match uri {
        "/api" => json!([{"metadata": {}, "versions": [{"version": "v1", "resources": core}]}]),
        "/apis" => {
            json!([{"metadata": {"name": "example.com"}, "versions": [{"version": "v1", "resources": custom}]}])
        }
        _ => return None,
    };
    Some(json!({"kind": "APIGroupDiscoveryList", "items": items}))
}

/// What a line prints, where logs and events of the namespace `bank` stay.
async fn run(serve: Serve, line: &str) -> ShellCommandResult {
    run_by(Rules::default(), serve, line).await.0
}

/// The same by other rules, and what the audit says of it.
async fn run_by(rules: Rules, serve: Serve, line: &str) -> (ShellCommandResult, Part) {
    let server = move |request: http::Request<Body>| async move {
        let uri = request.uri().to_string();
        let answer = groups(&uri).or_else(|| serve(&uri));
        let code = if answer.is_some() { 200 } else { 404 };
        let text = match answer {
            Some(Value::String(text)) => text,
            Some(answer) => answer.to_string(),
            None => format!("there is no {uri}"),
        };
        let response = http::Response::builder().status(code);
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(text))).unwrap())
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (trier, excluded) = (client.clone(), Excluded::parse("bank"));
    let cluster = Cluster { client, trier, excluded, hashes: Hashes::new().unwrap() };
    let request = ShellCommandRequest { commands: vec![line.to_owned()], ..Default::default() };
    let mut place = Place::alone(Instant::now() + limit_of(&request));
    let reach = (&cluster, &Kinds::default(), &Nodes::default());
    let (answer, parts) = answer(reach, rules, request, &mut place).await;
    let result = answer.results.into_iter().next().unwrap();
    assert!(!result.stderr.contains("there is no"), "{}", result.stderr);
    (result, parts.into_iter().next().unwrap())
}

/// Objects of 1 MiB each, two a page, as many as there are digits in `all`.
fn many(uri: &str, all: &str, kind: &str) -> Value {
    let begin = uri.split_once("continue=").map_or(0, |(_, next)| next.parse().unwrap());
    let item = |n: usize| {
        let metadata = json!({"name": format!("n{n}"), "namespace": "default", "annotations": {"a": "x ".repeat(1 << 19)}});
        json!({"metadata": metadata, "usage": {"cpu": "1", "memory": "1Mi"}, "containers": []})
    };
    let end = (begin + 2).min(all.len());
    let next = if end < all.len() { end.to_string() } else { String::new() };
    let items: Vec<Value> = (begin..end).map(item).collect();
    json!({"kind": format!("{kind}List"), "apiVersion": "v1", "items": items, "metadata": {"continue": next}})
}

#[tokio::test]
async fn config_maps_of_all_namespaces_keep_their_blobs() {
    let serve: Serve = |_| {
        let map = json!({"metadata": {"name": "m", "namespace": "a"}, "binaryData": {"keystore": "AAEC"}, "data": {
            "release": "H4sIAAAAAAAA".repeat(6) + "9z",
        }});
        Some(json!({"kind": "ConfigMapList", "apiVersion": "v1", "items": [map]}))
    };
    for line in [
        "kubectl get cm -A -o yaml",
        "kubectl get cm -A -o jsonpath='{.items[*]}'",
        "kubectl describe cm -A --show-events=false",
    ] {
        let shown = run(serve, line).await;
        assert!(shown.success, "{}", shown.stderr);
        assert_eq!(shown.stdout.matches("[hidden:").count(), 2, "{line}: {}", shown.stdout);
        assert!(!shown.stdout.contains("AAEC") && !shown.stdout.contains("H4sI"), "{line}: {}", shown.stdout);
    }
}

#[tokio::test]
async fn cells_of_a_column_that_is_named_like_a_secret_are_hidden() {
    let serve: Serve = |_| {
        let columns = ["Name", "Api Token", "Secret", "Secrets", "Age"].map(|name| json!({"name": name}));
        let row =
            json!({"cells": ["w", "hunter2", "web-tls", 1, "5d"], "object": {"metadata": {"name": "w"}}});
        Some(json!({"kind": "Table", "columnDefinitions": columns, "rows": [row]}))
    };
    let shown = run(serve, "kubectl get widgets").await.stdout;
    let cells: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells, ["w", "[hidden]", "web-tls", "1", "5d"]);
}

#[tokio::test]
async fn what_containers_said_at_their_end_stays_where_their_logs_stay() {
    let serve: Serve = |_| {
        let pod = |namespace: &str| {
            let ended = json!({"terminated": {"message": "last words", "reason": "Error"}});
            let waiting = json!({"waiting": {"message": "last words", "reason": "CrashLoopBackOff"}});
            let status = json!({"name": "app", "state": waiting, "lastState": ended});
            json!({"metadata": {"name": "p", "namespace": namespace}, "status": {"containerStatuses": [status], "initContainerStatuses": [status]}})
        };
        Some(json!({"kind": "PodList", "apiVersion": "v1", "items": [pod("shop"), pod("bank")]}))
    };
    let shown = run(serve, "kubectl get pods -A -o json").await.stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let words = |place: usize| shown["items"][place].to_string().matches("last words").count();
    assert_eq!((words(0), words(1)), (4, 0));
    assert_eq!(
        shown["items"][1]["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"],
        "Error"
    );
}

#[tokio::test]
async fn a_log_whose_end_nobody_named_says_where_it_was_bound() {
    let serve: Serve = |uri| match uri.contains("/log") {
        true if uri.contains("/pods/short/") => Some("one line\n".into()),
        true => Some("line\n".repeat(10_000).into()),
        false => Some(
            json!({"kind": "Pod", "metadata": {"name": uri.rsplit('/').next()}, "spec": {"containers": [{"name": "app"}]}}),
        ),
    };
    for (line, is_told) in [
        ("kubectl logs long", true),
        ("kubectl logs short", false),
        ("kubectl logs long --tail=10000", false),
        ("kubectl logs long --tail=-1", true),
    ] {
        let shown = run(serve, line).await;
        assert!(shown.success, "{}", shown.stderr);
        assert_eq!(shown.stderr.contains("the last 10000 lines of"), is_told, "{line}: {}", shown.stderr);
    }
}

#[tokio::test]
async fn a_selector_alone_asks_for_the_ends_of_logs() {
    let serve: Serve = |uri| {
        let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "app"}, {"name": "side"}]}});
        let workload = json!({"kind": "Widget", "spec": {"selector": {"app": "web"}}});
        Some(match uri.split_once('?') {
            Some((path, query)) if path.ends_with("/log") => {
                // How many lines are asked for.
                query.split_once("tailLines=")?.1.split('&').next()?.into()
            }
            Some(_) => json!({"kind": "PodList", "items": [pod]}),
            None if uri.contains("widgets") => workload,
            None => pod,
        })
    };
    for (line, shown) in [
        ("kubectl logs p --all-containers", "1000010000"),
        ("kubectl logs -l app=web", "10"),
        ("kubectl logs -l app=web --all-containers --prefix", "[pod/p/app] 10\n[pod/p/side] 10\n"),
        ("kubectl logs -l app=web --tail=-1", "10000"),
        ("kubectl logs widget/w --all-pods", "[pod/p/app] 10000\n"),
    ] {
        assert_eq!(run(serve, line).await.stdout, shown, "{line}");
    }
}

#[tokio::test]
async fn the_last_filter_has_the_word_unless_the_command_failed() {
    let serve: Serve = |uri| Some(many(uri, "0", "Pod"));
    for (line, code) in [
        ("kubectl get pods -o name | grep none | wc -l", 0),
        ("kubectl get pods -o name | wc -l | grep none", 1),
        ("kubectl get nothing | wc -l", 1),
    ] {
        assert_eq!(run(serve, line).await.exit_code, code, "{line}");
    }
}

#[tokio::test]
async fn every_command_says_that_a_list_was_cut() {
    let serve: Serve = |uri| {
        Some(match uri.split('?').next().unwrap_or_default() {
            path if path.contains("metrics.k8s.io") => many(uri, "0123456789", "PodMetrics"),
            path if path.contains("/log") => "line\n".into(),
            _ => many(uri, "0123456789", "Pod"),
        })
    };
    for line in [
        "kubectl get pods -o name",
        "kubectl describe pods --show-events=false",
        "kubectl top pods",
        "kubectl top nodes",
        "kubectl logs -l app=web",
        "kubectl rollout status pods",
    ] {
        let shown = run(serve, line).await;
        assert!(shown.stderr.contains("was cut after 7 objects"), "{line}: {}", shown.stderr);
    }
}

/// What comes first: that nobody waits, or a minute.
fn until_stopped(work: &work::Work) -> bool {
    let begun = std::time::Instant::now();
    while !work.stop.is_set() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    work.stop.is_set()
}

#[tokio::test]
async fn what_runs_apart_lets_others_run_and_does_not_outlive_who_waits_for_it() {
    let client = Client::new(
        tower::service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::new())))
        }),
        "default",
    );
    let (trier, excluded) = (client.clone(), Excluded::default());
    let cluster = Cluster { client, trier, excluded, hashes: Hashes::new().unwrap() };
    let (kinds, nodes, rules) = (&Kinds::default(), &Nodes::default(), Rules::default());
    let deadline = Instant::now();
    let session = Session { room: Session::room(), cluster: &cluster, rules, kinds, nodes, deadline };
    // This test's runtime has one thread.
    let (says, hears) = std::sync::mpsc::channel();
    let other = tokio::spawn(async move { says.send(()) });
    let heard = session.apart(move |_| hears.recv_timeout(Duration::from_secs(60))).await.unwrap();
    assert_eq!(heard, Ok(()), "another task runs meanwhile");
    other.await.unwrap().unwrap();
    // As at the deadline, and as when the executor is switched off.
    let (says, hears) = std::sync::mpsc::channel();
    let endless = session.apart(move |work| says.send(until_stopped(work)));
    assert!(timeout_at(session.deadline, endless).await.is_err());
    session.ended().await;
    assert_eq!(hears.try_recv(), Ok(true), "it was told to stop, and has ended");
    let failed = session.apart(|_| -> () { panic!("a test of what nobody foresaw") }).await.unwrap_err();
    assert!(failed.line().contains("nobody foresaw"), "{failed:?}");
}

#[tokio::test]
async fn a_filter_reads_so_many_lines_and_says_it() {
    let serve: Serve = |uri| match uri.contains("/log") {
        true => Some("\n".repeat(LINES + 10).into()),
        false => {
            Some(json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "app"}]}}))
        }
    };
    let shown = run(serve, "kubectl logs p --tail=900000 | sort | wc -l").await;
    assert_eq!((shown.stdout.as_str(), shown.exit_code), ("500000\n", 0), "{}", shown.stderr);
    assert_eq!(shown.stderr.matches("500,000 lines").count(), 1, "{}", shown.stderr);
}

#[tokio::test]
async fn one_command_has_room_for_so_much_and_no_more() {
    let serve: Serve = |uri| {
        let path = uri.split('?').next().unwrap_or_default();
        Some(match path.rsplit('/').next().unwrap_or_default() {
            "pods" => many(uri, "012", "Pod"),
            name => {
                let data = json!({"a": {"b": {"c": "x ".repeat(3 << 19)}}});
                json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data})
            }
        })
    };
    let shown = run(serve, "kubectl get po,pods,pod,po -o name").await;
    assert_eq!(shown.stdout, "pod/n0\npod/n1\npod/n2\n", "{}", shown.stderr);
    let shown = run(serve, "kubectl get cm a b c -o name").await;
    assert_eq!(shown.stdout, "configmap/a\nconfigmap/b\n");
    assert!(shown.stderr.contains("larger than 8 MiB together"), "{}", shown.stderr);
    let many = ".data".to_owned() + &",A:.data".repeat(4);
    for line in [
        format!("kubectl get cm a -o jsonpath='{}'", "{.data}".repeat(4)),
        format!("kubectl get cm a -o custom-columns=A:{many}"),
        "kubectl get cm a -o jsonpath-as-json='{..}'".to_owned(),
    ] {
        let shown = run(serve, &line).await;
        assert!(shown.stdout.is_empty() && shown.stderr.contains("large"), "{line}: {}", shown.stderr);
    }
    let columns = vec!["A:.a"; 65].join(",");
    for line in [
        format!("kubectl get po -o custom-columns={columns}"),
        format!("kubectl get po -L {}", vec!["a"; 65].join(",")),
    ] {
        assert_eq!(judge(&line).unwrap_err(), Reason::TooLarge, "{line}");
    }
}

#[tokio::test]
async fn a_row_takes_room_for_what_is_shown_and_sorted_by() {
    // More than there is room for, of which little is shown.
    let serve: Serve = |uri| {
        let begin = uri.split_once("continue=").map_or(0, |(_, next)| next.parse().unwrap());
        let row = |n: usize| {
            let long = "x ".repeat(8 << 10);
            let metadata = json!({"namespace": "shop", "labels": {"app": "web"}, "annotations": {"a": long}});
            let object = json!({"metadata": metadata, "spec": {"size": 600 - n}});
            let object = Some(object).filter(|_| !uri.contains("includeObject=None"));
            json!({"cells": [format!("n{n}"), long], "object": object})
        };
        let rows: Vec<Value> = (begin..begin + 100).map(row).collect();
        let next = if begin < 500 { (begin + 100).to_string() } else { String::new() };
        let columns = json!([{"name": "Name"}, {"name": "Notes", "priority": 1}]);
        Some(
            json!({"kind": "Table", "columnDefinitions": columns, "rows": rows, "metadata": {"continue": next}}),
        )
    };
    for (line, shown) in [
        ("kubectl get widgets --no-headers | wc -l", "600\n"),
        ("kubectl get widgets -A -L app | grep -c '^shop .* web$'", "600\n"),
        ("kubectl get widgets --sort-by=.spec.size --no-headers | head -n 1", "n599\n"),
    ] {
        let answer = run(serve, line).await;
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), (shown, ""), "{line}");
    }
    let cut = run(serve, "kubectl get widgets -o wide | wc -l").await;
    assert!(cut.stderr.contains("widgets was cut after 511 objects"), "{}", cut.stderr);
}

#[tokio::test]
async fn rules_are_taken_apart_as_kubectl_takes_them() {
    let serve: Serve = |_| {
        Some(json!({"status": {
            "incomplete": true,
            "evaluationError": "a webhook does not tell",
            "resourceRules": [
                {"apiGroups": ["", "apps"], "resources": ["pods", "deployments/scale"], "verbs": ["get", "list"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a", "b"], "verbs": ["get"]},
            ],
            "nonResourceRules": [{"nonResourceURLs": ["/healthz", "/version"], "verbs": ["get"]}],
        }}))
    };
    let shown = run(serve, "kubectl auth can-i --list --no-headers").await;
    assert_eq!(shown.stderr, "warning: the list may be incomplete: a webhook does not tell\n");
    let rows: Vec<String> =
        shown.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        rows,
        [
            "pods [] [] [get list watch]",
            "deployments/scale [] [] [get list]",
            "deployments.apps/scale [] [] [get list]",
            "pods.apps [] [] [get list]",
            "[/healthz] [] [get]",
            "[/version] [] [get]",
            "configmaps [] [a] [get]",
            "configmaps [] [b] [get]",
        ]
    );
}

#[tokio::test]
async fn json_that_has_no_end_is_a_failure() {
    let serve: Serve = |_| {
        let deep = (0..60).fold(json!(vec![1; 100_000]), |inner, _| json!({"a": inner}));
        Some(json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "deep"}, "data": deep}))
    };
    let shown = run(serve, "kubectl get cm deep -o json").await;
    assert!(shown.exit_code == 1 && !shown.success && shown.stderr.contains("cut to"), "{}", shown.stderr);
    let shown = run(serve, "kubectl get cm deep -o json | head -n 2").await;
    assert_eq!((shown.exit_code, shown.stdout.as_str()), (0, "{\n    \"apiVersion\": \"v1\",\n"));
}

/// An API server that stores nothing: `old` would be another, `same` stays as it is.
fn tries(uri: &str) -> Option<Value> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let map = |data: Value| {
        let name = path.rsplit('/').next();
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "shop", "managedFields": [uri]}, "data": data})
    };
    let old = map(json!({"colour": "blue", "db_password": "hunter2", "token": "t-1"}));
    Some(match (path.rsplit('/').next()?, query.contains("dryRun=All")) {
        ("kestrel-dry-run", _) if path.contains("bindings") => {
            json!({"spec": {"policyName": dry_run::GUARD, "validationActions": ["Deny"]}})
        }
        ("kestrel-dry-run", _) => {
            let every =
                json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]});
            let account = "request.userInfo.username == 'system:serviceaccount:default:kestrel-dry-run'";
            json!({"spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [every]},
                "matchConditions": [{"expression": account}], "validations": [{"expression": dry_run::DEMAND}]}})
        }
        ("same", _) | ("old", false) => old,
        ("old", true) => map(json!({"colour": "green", "db_password": "hunter2", "token": "t-2"})),
        (_, true) => map(json!({"token": "t-1"})),
        _ => return None,
    })
}

fn diff(names: &[&str]) -> String {
    let document = |name: &&str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
    let manifest = names.iter().map(document).collect::<Vec<_>>().join("---\n");
    format!("kubectl diff -n shop -f - <<'EOF'\n{manifest}EOF\n")
}

#[tokio::test]
async fn a_diff_shows_what_would_change_and_of_a_secret_not_even_that() {
    let rules = Rules { dry_run: true, ..Rules::default() };
    let (shown, part) = run_by(rules, tries, &diff(&["old", "same", "new"])).await;
    assert_eq!((shown.exit_code, shown.stderr.as_str()), (1, ""));
    let [new, old] = shown.stdout.split("diff -u -N ").skip(1).collect::<Vec<_>>()[..] else {
        panic!("{}", shown.stdout)
    };
    assert_eq!(
        new,
        "LIVE/v1.ConfigMap.shop.new MERGED/v1.ConfigMap.shop.new\n--- LIVE/v1.ConfigMap.shop.new\n+++ MERGED/v1.ConfigMap.shop.new\n\
         @@ -0,0 +1,7 @@\n+apiVersion: v1\n+data:\n+  token: '[hidden]'\n+kind: ConfigMap\n+metadata:\n+  name: new\n+  namespace: shop\n"
    );
    let lines: Vec<&str> = old.lines().skip(3).collect();
    assert_eq!(
        lines[..5],
        ["@@ -1,6 +1,6 @@", " apiVersion: v1", " data:", "-  colour: blue", "+  colour: green"]
    );
    assert_eq!(lines[5..7], ["   db_password: '[hidden]'", "   token: '[hidden]'"], "{old}");
    assert_eq!(
        part.what,
        "kubectl diff -n shop -f - <<'EOF': ConfigMap shop/old, ConfigMap shop/same, ConfigMap shop/new"
    );
    assert_eq!((part.decision, part.status), (Decision::Allowed, 1));

    let (shown, _) = run_by(rules, tries, &diff(&["same"])).await;
    assert_eq!((shown.exit_code, shown.stdout.as_str(), shown.success), (0, "", true));
    let (shown, part) = run_by(Rules::default(), tries, &diff(&["same"])).await;
    assert_eq!((shown.exit_code, part.decision), (NOT_EXECUTED, Decision::Refused(Reason::Off)));
}

#[tokio::test]
async fn a_document_that_would_not_be_taken_fails_alone() {
    let rules = Rules { dry_run: true, ..Rules::default() };
    let line = diff(&["gone", "old"]).replacen("ConfigMap", "Gone", 1);
    let (shown, _) = run_by(rules, tries, &line).await;
    assert_eq!(
        (shown.exit_code, shown.stderr.as_str()),
        (2, "document 1, line 1: error: the cluster has no kind Gone in v1\n")
    );
    assert!(shown.stdout.starts_with("diff -u -N LIVE/v1.ConfigMap.shop.old "), "{}", shown.stdout);
}
