//! What the webhook keeps in memory of the pods that it watches, and a collector that has nothing to do.

use kestrel_runtime::tls;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{inject, messages};
use crate::{
    kubectl::{OPERATOR, apply, attempt, eventually, kubectl, metric, pods_of, rolled_out, sample_image},
    namespace::Namespace,
    webhook::{has_sidecar, pod},
};

const PODS: usize = 1000;
/// Of one replica: its own memory and what is mapped of its program.
const MOST_KIB: u64 = 16 * 1024;
/// The same of an idle collector, and of it its own memory.
const MOST_OF_COLLECTOR_KIB: u64 = 8 * 1024;
const MOST_ANONYMOUS_KIB: u64 = 1536;

/// Creates pods that no scheduler looks at, a few at a time.
async fn create(namespace: String) {
    tls::install_provider();
    let client = Client::try_default().await.unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
    let mut creations = JoinSet::new();
    for number in 0..PODS {
        if creations.len() >= 16 {
            creations.join_next().await.unwrap().unwrap();
        }
        let mut pod = pod(&format!("pod-{number}"), &inject());
        pod["spec"]["schedulerName"] = "nobody".into();
        let pods = pods.clone();
        creations.spawn(async move {
            let pod = serde_json::from_value(pod).unwrap();
            let stored = pods.create(&PostParams::default(), &pod).await.unwrap();
            assert!(has_sidecar(&serde_json::to_value(stored).unwrap()), "pod-{number} has no sidecar");
        });
    }
    creations.join_all().await;
}

/// What the first process of a container has in memory, and of it anonymous, in KiB: read by another container that
/// sees its processes.
fn resident(namespace: &str, pod: &str, container: &str) -> [u64; 2] {
    let target = format!("--target={container}");
    let image = format!("--image={}", sample_image());
    kubectl(&[
        "debug",
        "-n",
        namespace,
        pod,
        "-c",
        "look",
        &image,
        "--image-pull-policy=IfNotPresent",
        "--profile=restricted",
        &target,
        "--attach=false",
        "--",
        "cat",
        "/proc/1/status",
    ]);
    eventually("the process's status", 60, || {
        let log = attempt(&["logs", "-n", namespace, pod, "-c", "look"])?;
        let kib = |name: &str| {
            let line = log.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        match ["VmRSS:", "RssAnon:"].map(kib) {
            [Some(resident), Some(anonymous)] => Ok([resident, anonymous]),
            _ => Err(log),
        }
    })
}

/// Scenario: a namespace has 1,000 pods with the sidecar; replicas that have listed and watched them, and such that have
/// just started and listed them at once.
/// Guarantee: each knows them all and has at most 16 MiB in memory.
#[test]
fn a_thousand_injected_pods_take_little_of_the_webhooks_memory() {
    let namespace = Namespace::new("thousand");
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    tokio::runtime::Runtime::new().unwrap().block_on(create(namespace.0.clone()));
    for has in ["watched", "listed"] {
        for replica in pods_of("webhook") {
            eventually("all pods known", 60, || {
                let known = metric(&replica, "kestrel_webhook_pods");
                if known >= PODS as f64 { Ok(()) } else { Err(format!("{known} pods")) }
            });
            let [resident, anonymous] = resident(OPERATOR, &replica, "webhook");
            println!("{replica}: {resident} KiB resident, {anonymous} anonymous, with {PODS} pods {has}");
            assert!(resident <= MOST_KIB, "{resident} KiB");
        }
        // The containers that looked stay in their pods until these go.
        kubectl(&["rollout", "restart", "-n", OPERATOR, "deployment/kestrel-webhook"]);
        rolled_out(OPERATOR, "deployment/kestrel-webhook");
    }
}

/// Scenario: a pod with the sidecar writes nothing.
/// Guarantee: the sidecar is attached and has at most 8 MiB in memory, at most 1.5 MiB of it its own.
#[test]
fn an_idle_sidecar_takes_little_memory() {
    let namespace = Namespace::new("idle");
    let mut pod = pod("idle", &inject());
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000});
    // A line that arrives shows that it is attached.
    pod["spec"]["containers"][0]["command"] =
        json!(["sh", "-c", "echo first-1 >> /data/a.log && exec sleep 100000"]);
    apply(&namespace.0, &pod.to_string());
    eventually("attached", 90, || {
        let lines = messages(&namespace.0, "app", "first-1");
        if lines.is_empty() { Err("no line".to_owned()) } else { Ok(()) }
    });
    let [resident, anonymous] = resident(&namespace.0, "idle", "kestrel-collector");
    println!("an idle sidecar: {resident} KiB resident, {anonymous} anonymous");
    assert!(resident <= MOST_OF_COLLECTOR_KIB && anonymous <= MOST_ANONYMOUS_KIB, "{resident} {anonymous}");
}
