//! Commands beside the real kubectl, on an API server of their own; and what of a cluster's secrets they show.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../api_server.rs"]
mod api_server;
mod corpus;
#[path = "../credentials.rs"]
mod credentials;
mod diff;
mod dry_run;
#[path = "../installed.rs"]
mod installed;
mod rig;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kestrel_aggregator::{
    excluded::Excluded,
    executor::{Asker, rules::Rules, switch::Switch},
};
use serde_json::json;

use api_server::ApiServer;
use corpus::{ENCODED, HONEST, MARKER, SEED, adversarial, commands, comparable, differs};
use installed::kubectl;
use rig::Rig;

/// Creates the objects, and their statuses, which no controller writes here.
fn seed(server: &ApiServer, folder: &Path) {
    let file = folder.join("seed.yaml");
    // Custom objects after their kind.
    std::fs::write(&file, SEED).unwrap();
    let created = kubectl(server, &["create", "-f", file.to_str().unwrap()]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let established =
        kubectl(server, &["wait", "--for=condition=Established", "--timeout=30s", "crd/widgets.example.com"]);
    assert!(established.status.success());
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "blue", "namespace": "shop", "labels": {"a": "b"}},
        "spec": {"colour": "blue", "sizes": [1, 2]}});
    let deployment_uid = uid(server, "shop", "deployment/web");
    let replica_set = |name: &str, revision: &str, replicas: u32, image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"},
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": deployment_uid, "controller": true}]},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web", "pod-template-hash": name}},
                "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": name}}, "spec": {"containers": [{"name": "app", "image": image}]}}}})
    };
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "web.one", "namespace": "shop"}, "reason": "ScalingReplicaSet", "type": "Normal",
        "involvedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "namespace": "shop", "uid": deployment_uid},
        "message": "Scaled up replica set web-5d from 0 to 2", "count": 1, "source": {"component": "deployment-controller"},
        "firstTimestamp": "2026-01-02T02:00:00Z", "lastTimestamp": "2026-01-02T02:00:00Z"});
    let stateful_set_uid = uid(server, "work", "statefulset/queue");
    let queue = |number: u32| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("queue-{number}"), "namespace": "work", "labels": {"app": "queue"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "queue", "uid": stateful_set_uid, "controller": true}]},
            "spec": {"automountServiceAccountToken": false, "resources": {"limits": {"cpu": "1"}}, "containers": [{"name": "queue", "image": "registry.example/queue:1"}]}})
    };
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "node-1", "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": "node-1", "renewTime": "2026-01-02T03:04:05.000006Z"}});
    let exists = kubectl(server, &["wait", "--for=create", "--timeout=30s", "namespace/kube-node-lease"]);
    assert!(exists.status.success());
    let (old, new) = ("registry.example/web:0.9", "registry.example/web:1.0");
    let sets = [
        replica_set("web-5d", "2", 2, new),
        replica_set("web-4c", "1", 0, old),
        replica_set("web-3b", "0", 1, old),
    ];
    for object in [widget, event, lease, queue(0), queue(1), queue(2)].into_iter().chain(sets) {
        let file = folder.join("more.json");
        std::fs::write(&file, object.to_string()).unwrap();
        let created = kubectl(server, &["create", "-f", file.to_str().unwrap()]);
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    }
    let running = |pod_ip: &str, restarts: u32, container: &str| {
        json!({"status": {"phase": "Running", "podIP": pod_ip, "podIPs": [{"ip": pod_ip}], "hostIP": "10.0.0.1", "startTime": "2026-01-02T03:04:05Z",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": container, "ready": true, "restartCount": restarts, "image": "i", "imageID": "sha", "containerID": "containerd://1",
                "state": {"running": {"startedAt": "2026-01-02T03:04:06Z"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-01-02T03:00:00Z", "finishedAt": "2026-01-02T03:01:00Z"}}}]}})
    };
    for (what, namespace, status) in [
        ("pod/web-1", "shop", running("10.1.0.5", 2, "app")),
        ("pod/web-2", "shop", running("10.1.0.6", 0, "app")),
        ("pod/done", "work", json!({"status": {"phase": "Succeeded"}})),
        ("pod/queue-0", "work", running("10.1.0.7", 0, "queue")),
        ("pod/queue-2", "work", json!({"status": {"phase": "Failed"}})),
        (
            "deployment/web",
            "shop",
            json!({"status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2, "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}, {"type": "Progressing", "status": "Unknown"}]}}),
        ),
        (
            "replicaset/web-5d",
            "shop",
            json!({"status": {"replicas": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]}}),
        ),
        (
            "statefulset/db",
            "shop",
            json!({"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "currentReplicas": 1, "readyReplicas": 0}}),
        ),
        (
            "daemonset/agent",
            "shop",
            json!({"status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 1,
            "numberMisscheduled": 0, "numberReady": 1, "numberAvailable": 1}}),
        ),
        (
            "node/node-1",
            "",
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "node-1"}],
                "conditions": [{"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory", "message": "kubelet has sufficient memory available",
                    "lastHeartbeatTime": "2026-01-02T03:04:05Z", "lastTransitionTime": "2026-01-02T01:04:05Z"}, {"type": "Ready", "status": "True"}],
                "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "allocatable": {"cpu": "3920m", "memory": "7868Mi", "ephemeral-storage": "94477937300", "hugepages-2Mi": "256Mi", "pods": "110", "example.com/gpu": "4"},
                "nodeInfo": {"machineID": "m", "systemUUID": "s", "bootID": "b", "kernelVersion": "6.1.0", "osImage": "Linux 12", "containerRuntimeVersion": "containerd://2.0.0",
                    "kubeletVersion": "v1.35.4", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"}}}),
        ),
        (
            "job/report",
            "work",
            json!({"status": {"startTime": "2026-01-02T03:04:05Z", "active": 1, "ready": 1, "succeeded": 31, "failed": 2,
                "completedIndexes": "0-2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34,36,38,39"}}),
        ),
        ("job/once", "work", json!({"status": {"active": 0}})),
        (
            "cronjob/nightly",
            "work",
            json!({"status": {"lastScheduleTime": "2026-01-02T03:05:00Z", "active": [{"kind": "Job", "name": "nightly-1"}, {"kind": "Job", "name": "nightly-2"}]}}),
        ),
        (
            "persistentvolumeclaim/data",
            "work",
            json!({"status": {"phase": "Bound", "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "capacity": {"storage": "12Gi"},
                "conditions": [{"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z", "message": "waits for a node"}]}}),
        ),
        (
            "resourcequota/all",
            "work",
            json!({"status": {"hard": {"services": "100", "configmaps": "50"}, "used": {"services": "5"}}}),
        ),
        (
            "horizontalpodautoscaler/web",
            "shop",
            json!({"status": {"currentReplicas": 2, "desiredReplicas": 3,
            "conditions": [{"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "recommended size matches current size"}],
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 95, "averageValue": "95m"}}},
                {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "300Mi"}}},
                {"type": ""},
                {"type": "Pods", "pods": {"metric": {"name": "requests"}, "current": {"averageValue": "120"}}},
                {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Ingress", "name": "web"}, "current": {"value": "1500"}}},
                {"type": ""},
                {"type": "External", "external": {"metric": {"name": "queue"}, "current": {"averageValue": "31500m"}}},
            ]}}),
        ),
        ("node/node-2", "", json!({"status": {"capacity": {"cpu": "2", "memory": "4Gi"}}})),
        (
            "service/lb",
            "shop",
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}, {"hostname": "lb.example"}]}}}),
        ),
        (
            "ingress/web",
            "shop",
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "lb.example"}, {"ip": "192.0.2.10"}]}}}),
        ),
    ] {
        let patch = status.to_string();
        let mut arguments = vec!["patch", what, "--subresource=status", "--type=merge", "-p", &patch];
        if !namespace.is_empty() {
            arguments.extend(["-n", namespace]);
        }
        let patched = kubectl(server, &arguments);
        assert!(patched.status.success(), "{what}: {}", String::from_utf8_lossy(&patched.stderr));
    }
}

fn uid(server: &ApiServer, namespace: &str, what: &str) -> String {
    let output = kubectl(server, &["get", what, "-n", namespace, "-o", "jsonpath={.metadata.uid}"]);
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_answered_as_kubectl_answers_them_and_sooner() {
    let (server, folder) = (ApiServer::start(), tempfile::tempdir().unwrap());
    seed(&server, folder.path());
    let client = server.client().await;
    let asker = Asker::new(client.clone(), Switch::fixed(Rules::default()), Excluded::default()).unwrap();
    let bin = server.kubeconfig.with_file_name("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());

    let (mut wrong, mut exact, mut compared) = (Vec::new(), 0, 0);
    let (mut own_times, mut their_times): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    let honest = commands(HONEST);
    assert!(honest.len() >= 150);
    for command in &honest {
        let begun = Instant::now();
        let ours = asker.command(command).await;
        own_times.push(begun.elapsed());
        let begun = Instant::now();
        // The real one needs a shell for its pipes.
        let theirs = Command::new("bash")
            .args(["-c", command])
            .env("PATH", &path)
            .env("KUBECONFIG", &server.kubeconfig)
            .env("HOME", folder.path())
            .output()
            .unwrap();
        their_times.push(begun.elapsed());
        if differs(command) {
            continue;
        }
        compared += 1;
        let stdout = String::from_utf8(theirs.stdout).unwrap();
        exact += u32::from(stdout == ours.stdout);
        if comparable(&stdout) != comparable(&ours.stdout) || (theirs.status.success() != ours.success) {
            wrong.push(format!(
                "--- {command}\nkubectl ({:?}):\n{stdout}{}\nours ({}):\n{}{}\n",
                theirs.status.code(),
                String::from_utf8_lossy(&theirs.stderr),
                ours.exit_code,
                ours.stdout,
                ours.stderr
            ));
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (own, their) = (median(&mut own_times), median(&mut their_times));
    let ratio = their.as_secs_f64() / own.as_secs_f64();
    println!(
        "{compared} of {} commands compared, {exact} equal to the byte; median {own:?}, of kubectl {their:?}: {ratio:.1} times",
        honest.len()
    );
    if std::env::var_os("KESTREL_BENCH").is_some() {
        assert!(ratio >= 5.0, "only {ratio:.1} times as fast as kubectl");
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// With an administrator's rights, so that nothing but the policy keeps a secret.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_shows_a_secret_whoever_it_runs_as() {
    let (server, folder) = (ApiServer::start(), tempfile::tempdir().unwrap());
    seed(&server, folder.path());
    let client = server.client().await;
    for secret_hashes in [false, true] {
        let rules = Rules { secret_hashes, ..Rules::default() };
        let asker = Asker::new(client.clone(), Switch::fixed(rules), Excluded::default()).unwrap();
        let mut hidden = 0;
        for line in adversarial() {
            let answer = asker.command(&line).await;
            for text in [&answer.stdout, &answer.stderr] {
                // What was asked is echoed in errors; no command of the corpus has the marker in it.
                assert!(!text.contains(MARKER) && !text.contains(ENCODED), "{line}: {text}");
            }
            hidden += answer.stdout.matches("[hidden:").count();
        }
        assert!(hidden > 10, "{hidden}");
        // What was asked comes back in errors, and must not be one more way to a hash.
        let guess = asker.command(&format!("kubectl get pods password={MARKER} -n vault")).await;
        assert!(
            guess.stderr.contains("password=[hidden]") && !guess.stderr.contains("[hidden:"),
            "{}",
            guess.stderr
        );
        // Filters see what is shown.
        let guess = format!(
            "kubectl get pods -n vault -o jsonpath='{{.items[*].spec.containers[*].env[?(@.value==\"{MARKER}\")].name}}'"
        );
        assert_eq!(asker.command(&guess).await.stdout, "");
        let guess = asker.command(&format!("kubectl get pods -n vault -l db-password={MARKER}")).await;
        assert!(guess.exit_code == 126 && guess.stderr.starts_with("refused (secret)"), "{}", guess.stderr);
        let same = asker.command("kubectl get secret x -o jsonpath='{.data.password}'").await.stdout;
        let map =
            asker.command("kubectl get cm keys -n vault -o jsonpath='{.data.db_password}'").await.stdout;
        assert_eq!(secret_hashes, same == map, "equal secrets have equal hashes: {same} {map}");
    }
}

/// Scenario: the cloud asks for parts of objects, by path and by kubectl's flag, with the rights of the chart's account.
/// Guarantee: they are read, and of a kind that the account may not read no part is either.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_objects_are_read_with_the_rights_of_the_chart() {
    let rig = Rig::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    seed(&rig.server, folder.path());
    let web = "apis/apps/v1/namespaces/shop/deployments/web";
    let paths = [
        &format!("{web}/status"),
        &format!("{web}/scale"),
        "api/v1/namespaces/shop/pods/web-1/status",
        "api/v1/namespaces/shop/status",
        "apis/example.com/v1/namespaces/shop/widgets/blue/status",
    ];
    let answer = rig.ask(json!({"kubernetes_api_request": {"api_paths": paths}})).await;
    let results = answer["results"].as_array().unwrap();
    let codes: Vec<_> = results.iter().map(|result| result["status_code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [200, 200, 200, 200, 403], "{answer}");
    assert!(results[1]["response_data"].as_str().unwrap().contains(r#""kind":"Scale""#), "{answer}");
    let commands =
        ["status", "scale"].map(|part| format!("kubectl get deploy web -n shop --subresource={part}"));
    let answer = rig.ask(json!({"shell_command_request": {"commands": commands}})).await;
    for result in answer["results"].as_array().unwrap() {
        assert!(result["success"] == true && result["stdout"].as_str().unwrap().contains("web"), "{result}");
    }
    rig.stop().await;
}
