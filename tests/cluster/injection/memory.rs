//! What the webhook keeps in memory of the pods that it watches.

use kestrel_runtime::tls;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use tokio::task::JoinSet;

use super::inject;
use crate::{
    kubectl::{OPERATOR, attempt, eventually, kubectl, metric, pods_of, rolled_out, sample_image},
    namespace::Namespace,
    webhook::{has_sidecar, pod},
};

const PODS: usize = 1000;
/// Of one process: its own memory and what is mapped of its program.
const MOST_KIB: u64 = 16 * 1024;

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

/// What a replica has in memory, in KiB, read by a container that sees its processes.
fn resident(pod: &str) -> u64 {
    let image = format!("--image={}", sample_image());
    kubectl(&[
        "debug",
        "-n",
        OPERATOR,
        pod,
        "-c",
        "look",
        &image,
        "--image-pull-policy=IfNotPresent",
        "--profile=restricted",
        "--target=webhook",
        "--attach=false",
        "--",
        "cat",
        "/proc/1/status",
    ]);
    eventually("the process's status", 60, || {
        let log = attempt(&["logs", "-n", OPERATOR, pod, "-c", "look"])?;
        let line = log.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).ok_or_else(|| line.to_owned())
    })
}

/// Scenario: a namespace has 1,000 pods with the sidecar.
/// Guarantee: each replica of the webhook knows them all and has at most 16 MiB in memory.
#[test]
fn a_thousand_injected_pods_take_little_of_the_webhooks_memory() {
    let namespace = Namespace::new("thousand");
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
    tokio::runtime::Runtime::new().unwrap().block_on(create(namespace.0.clone()));
    for replica in pods_of("webhook") {
        eventually("all pods known", 60, || {
            let known = metric(&replica, "kestrel_webhook_pods");
            if known >= PODS as f64 { Ok(()) } else { Err(format!("{known} pods")) }
        });
        let resident = resident(&replica);
        println!("{replica}: {resident} KiB resident with {PODS} pods");
        assert!(resident <= MOST_KIB, "{resident} KiB");
    }
    // The containers that looked stay in their pods until these go.
    kubectl(&["rollout", "restart", "-n", OPERATOR, "deployment/kestrel-webhook"]);
    rolled_out(OPERATOR, "deployment/kestrel-webhook");
}
