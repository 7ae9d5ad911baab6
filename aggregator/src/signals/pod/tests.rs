use std::time::Duration;

use kestrel_proto::node::v1::LogPolicy;
use serde_json::{Value, json};

use super::*;
use crate::{
    excluded::Excluded,
    inventory::pods::Policies,
    signals::{
        component::Components,
        note::{Note, Voice},
        told::Told,
    },
};

mod any;
mod classes;
mod stories;
mod wire;

/// Where the pods here begin.
fn at(seconds: i64) -> Timestamp {
    "2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(seconds.try_into().unwrap())
}

/// The same as an object shows it.
fn time(seconds: i64) -> String {
    at(seconds).to_string()
}

/// A pod of a ReplicaSet with one container, `app`, on node `n1`; `changes` are
/// merged into it.
fn web(changes: Value) -> core::Pod {
    let mut pod = json!({
        "metadata": {
            "name": "web-5d9c7b8f6-x2x8k", "namespace": "shop", "uid": "u1", "creationTimestamp": time(0),
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9c7b8f6", "uid": "rs",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": "n1", "schedulerName": "default-scheduler", "restartPolicy": "Always",
            "containers": [{
                "name": "app", "image": "shop/web:1",
                "resources": {"limits": {"memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
            }],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    });
    merge(&mut pod, changes);
    serde_json::from_value(pod).unwrap()
}

/// A JSON merge patch.
fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(into.entry(key).or_insert(Value::Null), change);
            }
        }
        (into, changes) => *into = changes,
    }
}

/// The five conditions of a kubelet: scheduled and initialized at second 0 and 1,
/// the others turned at `since`.
fn conditions(sandbox: &str, ready: &str, since: i64) -> Value {
    let unready = |kind: &str| {
        let mut condition = json!({
            "type": kind, "status": ready, "lastProbeTime": null, "lastTransitionTime": time(since),
        });
        if ready == "False" {
            let message = "containers with unready status: [app]";
            merge(&mut condition, json!({"reason": "ContainersNotReady", "message": message}));
        }
        condition
    };
    json!([
        {"type": "PodReadyToStartContainers", "status": sandbox, "lastProbeTime": null, "lastTransitionTime": time(1)},
        {"type": "Initialized", "status": "True", "lastProbeTime": null, "lastTransitionTime": time(1)},
        unready("Ready"),
        unready("ContainersReady"),
        {"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time(0)},
    ])
}

/// The status of `app`, as part of a list.
fn app(ready: bool, restarts: u32, state: Value, last: Value) -> Value {
    container("app", ready, restarts, state, last)
}

fn container(name: &str, ready: bool, restarts: u32, state: Value, last: Value) -> Value {
    let started = state.get("running").is_some();
    json!({
        "name": name, "image": "docker.io/shop/web:1", "imageID": "docker.io/shop/web@sha256:0f",
        "containerID": "containerd://7d", "ready": ready, "started": started, "restartCount": restarts,
        "state": state, "lastState": last,
    })
}

fn running(since: i64) -> Value {
    json!({"running": {"startedAt": time(since)}})
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

fn exited(code: i32, reason: &str, started: i64, finished: i64) -> Value {
    json!({"terminated": {
        "exitCode": code, "reason": reason, "startedAt": time(started), "finishedAt": time(finished),
        "containerID": "containerd://7d",
    }})
}

fn backoff(seconds: u32) -> Value {
    let message =
        format!("back-off {seconds}s restarting failed container=app pod=web-5d9c7b8f6-x2x8k_shop(u1)");
    waiting("CrashLoopBackOff", &message)
}

/// Phase Running with this `app`, not ready since `since`.
fn up(ready: bool, since: i64, app: Value) -> core::Pod {
    let ready = if ready { "True" } else { "False" };
    web(json!({"status": {
        "phase": "Running", "podIP": "10.0.0.9", "startTime": time(0),
        "conditions": conditions("True", ready, since), "containerStatuses": [app],
    }}))
}

/// Signals and what they tell.
struct World {
    signals: PodSignals,
    pods: Pods,
    lines: Lines,
    far: Told,
}

impl World {
    fn new() -> Self {
        Self::after("")
    }

    /// Begins at 0, after an earlier leader has left these open.
    fn after(left: &str) -> Self {
        Self::of(Pods::new(LogPolicy::Errors), left)
    }

    fn of(pods: Pods, left: &str) -> Self {
        let (lines, far) = (Lines::default(), Told::new());
        let note = Note::default();
        note.left(left, at(0));
        let voice = Voice { lane: far.lane(), note };
        let register = Register::with_components(Thresholds::default(), voice, Components::new(far.lane()));
        let signals = PodSignals::new(register, pods.clone(), lines.clone(), networkless());
        Self { signals, pods, lines, far }
    }

    /// The pod is so at second `now`.
    fn seen(&self, object: &core::Pod, now: i64) -> Vec<String> {
        self.pods.apply(object, convert::pod(object).encode_to_vec().into());
        self.signals.seen(object, at(now));
        self.told()
    }

    fn tick(&self, now: i64) -> Vec<String> {
        self.signals.tick(at(now));
        self.told()
    }

    /// Such as `Create CrashLoop(Error,1) !Unready`: what is open with reason and
    /// count, and what has ended.
    fn told(&self) -> Vec<String> {
        self.records().iter().map(|record| format!("{:?}{}", record.action(), ours(record))).collect()
    }

    fn records(&self) -> Vec<PodStatusChange> {
        let record = |request| match request {
            Request::PodStatusChange(record) => record,
            other => panic!("{other:?}"),
        };
        self.far.next().into_iter().map(record).collect()
    }
}

fn ours(record: &PodStatusChange) -> String {
    let ours = record.conditions.iter().filter_map(|condition| {
        let kind = condition.r#type.strip_prefix(PREFIX)?;
        Some(if condition.status == "True" {
            format!(" {kind}({})", condition.reason)
        } else {
            format!(" !{kind}")
        })
    });
    ours.collect()
}

/// What is wrong with the pod at second `now`: kind, reason and count.
fn findings(object: &core::Pod, now: i64) -> Vec<String> {
    let judgement = pod(object).judge(at(now), &Thresholds::default());
    let text = |finding: &Finding| format!("{}({},{})", finding.kind, finding.reason, finding.count);
    judgement.findings.iter().map(text).collect()
}

/// The one message of what is wrong at second `now`.
fn message(object: &core::Pod, now: i64) -> String {
    let judgement = pod(object).judge(at(now), &Thresholds::default());
    judgement.findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>().join("|")
}

fn pod(object: &core::Pod) -> Pod {
    let (pods, lines) = (Pods::new(LogPolicy::Errors), Lines::default());
    Pod::new(object, Around { pods, lines, networkless: networkless() }, Timestamp::MAX)
}

#[test]
fn of_an_excluded_namespace_nothing_is_told_that_its_containers_said() {
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "password=hunter2"}});
    let status = json!([{"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 1,
        "state": ended, "lastState": ended}]);
    let object = web(json!({"status": {"phase": "Running", "containerStatuses": status}}));
    for (excluded, says_it) in [("other", true), ("shop", false)] {
        let excluded = Excluded::parse(excluded);
        let world = World::of(Pods::new(Policies { default: LogPolicy::Errors, excluded }), "");
        world.signals.seen(&object, at(1));
        let told = format!("{:?}", world.records());
        assert!(told.contains("kestrel.ai/CrashLoop"), "{told}");
        assert_eq!(told.contains("hunter2"), says_it, "{told}");
    }
}

/// No node.
fn networkless() -> Networkless {
    Networkless::new(Thresholds::default().creating)
}
