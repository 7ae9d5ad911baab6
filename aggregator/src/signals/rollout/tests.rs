use kestrel_proto::cloud::v1::WorkloadCondition;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    inventory::convert,
    signals::{component::Components, register::Register, told::Told},
};

/// Any time, as seconds since 1970.
const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

/// The roll-out of an object of `kind` as it is seen `now`.
fn seen(kind: &str, object: Value, now: i64) -> Rollout {
    let now = at(now);
    match kind {
        "Deployment" => deployment(&serde_json::from_value(object).unwrap(), now),
        "StatefulSet" => stateful_set(&serde_json::from_value(object).unwrap(), now),
        _ => daemon_set(&serde_json::from_value(object).unwrap(), now),
    }
}

/// Everything that one object goes through, and what is told of it.
struct Story {
    kind: &'static str,
    far: Told,
    register: Register<Rollout>,
    now: i64,
}

impl Story {
    fn of(kind: &'static str) -> Self {
        let far = Told::new();
        let register = Register::new(Thresholds::default(), far.lane());
        Self { kind, far, register, now: 0 }
    }

    /// A second later the object is so, with `spec` and `status` and `generation`
    /// in one. Returns what is told.
    fn sees(&mut self, generation: i64, spec: Value, status: Value) -> Vec<String> {
        self.now += 1;
        let meta = json!({"name": "web", "namespace": "shop", "uid": "u", "generation": generation});
        let object = json!({"metadata": meta, "spec": spec, "status": status});
        self.register.seen("u", seen(self.kind, object, self.now), at(self.now));
        self.told()
    }

    /// Time goes by. Returns what is told.
    fn waits(&mut self, seconds: i64) -> Vec<String> {
        self.now += seconds;
        self.register.tick(at(self.now));
        self.told()
    }

    /// Action, state, and what is open (+) and ended (-) in short.
    fn told(&self) -> Vec<String> {
        let short = |request| {
            let Request::WorkloadRolloutStatus(status) = request else { panic!("{request:?}") };
            let findings = status.conditions.iter().filter_map(|condition| {
                let kind = condition.r#type.strip_prefix("kestrel.ai/")?;
                let sign = if condition.status == "True" { '+' } else { '-' };
                Some(format!(" {sign}{kind}:{}", condition.reason))
            });
            let findings: String = findings.collect();
            let action = status.action().as_str_name().trim_start_matches("ACTION_").to_owned();
            format!("{action} {}{findings}", status.rollout_status)
        };
        self.far.next().into_iter().map(short).collect()
    }
}

const NOTHING: Vec<String> = Vec::new();

fn progressing(status: &str, reason: &str) -> Value {
    json!({"type": "Progressing", "status": status, "reason": reason, "message": "ReplicaSet \"web-5\" …",
           "lastTransitionTime": at(0).to_string(), "lastUpdateTime": at(0).to_string()})
}

fn available(status: &str, since: i64) -> Value {
    json!({"type": "Available", "status": status, "lastTransitionTime": at(since).to_string()})
}

fn counts(generation: i64, [replicas, updated, ready]: [i32; 3], conditions: Value) -> Value {
    json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated,
           "readyReplicas": ready, "availableReplicas": ready, "conditions": conditions})
}

fn three() -> Value {
    json!({"replicas": 3})
}

#[test]
fn a_deployment_that_exceeds_its_deadline_and_is_mended() {
    let mut web = Story::of("Deployment");
    let complete = || json!([progressing("True", "NewReplicaSetAvailable")]);
    assert_eq!(web.sees(4, three(), counts(4, [3, 3, 3], complete())), NOTHING, "healthy");
    assert_eq!(web.sees(5, three(), counts(4, [3, 3, 3], complete())), NOTHING, "a new image");
    let rolling = || json!([progressing("True", "ReplicaSetUpdated")]);
    assert_eq!(web.sees(5, three(), counts(5, [4, 1, 3], rolling())), NOTHING);
    assert_eq!(web.waits(3600), NOTHING, "Kubernetes watches it");
    let late = || json!([progressing("False", "ProgressDeadlineExceeded")]);
    assert_eq!(
        web.sees(5, three(), counts(5, [4, 1, 3], late())),
        ["CREATE TimedOut +RolloutStalled:ProgressDeadlineExceeded"]
    );
    assert_eq!(web.sees(6, three(), counts(5, [4, 1, 3], late())), NOTHING, "mended, but not seen to be");
    assert_eq!(
        web.sees(6, three(), counts(6, [4, 1, 3], rolling())),
        ["UPDATE Progressing -RolloutStalled:ProgressDeadlineExceeded"]
    );
    assert_eq!(web.sees(6, three(), counts(6, [3, 3, 3], complete())), NOTHING);
}

#[test]
fn a_deployment_whose_pods_can_not_be_created() {
    let mut web = Story::of("Deployment");
    let refused = |since| {
        let failure = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": "exceeded quota.", "lastTransitionTime": at(since).to_string()});
        counts(1, [0, 0, 0], json!([progressing("True", "NewReplicaSetCreated"), failure]))
    };
    let rolling = || counts(1, [0, 0, 0], json!([progressing("True", "NewReplicaSetCreated")]));
    let patience = Thresholds::default().unschedulable.as_secs().cast_signed();
    assert_eq!(web.sees(1, three(), refused(1)), NOTHING, "it is tried again");
    assert_eq!(web.sees(1, three(), rolling()), NOTHING, "with success");
    assert_eq!(web.waits(patience), NOTHING);
    let since = web.now;
    assert_eq!(web.sees(1, three(), refused(since)), NOTHING);
    assert_eq!(web.waits(patience - 2), NOTHING);
    assert_eq!(web.waits(1), ["CREATE Failed +ReplicaFailure:FailedCreate"]);
    assert_eq!(
        web.sees(1, three(), counts(1, [3, 3, 3], json!([progressing("True", "NewReplicaSetAvailable")]))),
        ["UPDATE Complete -ReplicaFailure:FailedCreate"]
    );
}

#[test]
fn a_complete_deployment_whose_pods_die() {
    let mut web = Story::of("Deployment");
    let complete = |since| json!([available("True", since), progressing("True", "NewReplicaSetAvailable")]);
    assert_eq!(web.sees(1, three(), counts(1, [3, 3, 2], complete(0))), NOTHING);
    assert_eq!(web.waits(119), NOTHING);
    assert_eq!(web.waits(1), ["CREATE Failed +Degraded:PodsNotReady"]);
    assert_eq!(web.sees(1, three(), counts(1, [3, 3, 1], complete(0))), NOTHING, "no news");
    assert_eq!(
        web.sees(1, three(), counts(1, [3, 3, 0], complete(0))),
        ["UPDATE Failed +Degraded:NoPodReady"]
    );
    assert_eq!(
        web.sees(2, json!({"replicas": 4}), counts(1, [3, 3, 0], complete(0))),
        NOTHING,
        "scaled up, which mends nothing"
    );
    assert_eq!(
        web.sees(2, json!({"replicas": 0}), counts(2, [0, 0, 0], complete(0))),
        ["UPDATE Complete -Degraded:NoPodReady"],
        "scaled to 0"
    );
    let since_long = json!([available("False", -3600), progressing("True", "NewReplicaSetAvailable")]);
    let mut old = Story::of("Deployment");
    assert_eq!(old.sees(9, three(), counts(9, [3, 3, 1], since_long)), NOTHING, "better news may follow");
    assert_eq!(old.waits(1), ["CREATE Failed +Degraded:PodsNotReady"], "the object says since when");
}

/// A Deployment of 30 pods of which so many are ready, and that is available since
/// the start or, with `since`, is not.
fn of_thirty(ready: i32, unavailable: Option<i64>) -> Value {
    let available = unavailable.map_or_else(|| available("True", 0), |since| available("False", since));
    counts(1, [30, 30, ready], json!([available, progressing("True", "NewReplicaSetAvailable")]))
}

#[test]
fn a_drain_that_takes_one_pod_after_another_is_no_incident() {
    let thirty = || json!({"replicas": 30});
    let mut web = Story::of("Deployment");
    for _ in 0..30 {
        assert_eq!(web.sees(1, thirty(), of_thirty(29, None)), NOTHING);
        assert_eq!(web.waits(55), NOTHING);
        assert_eq!(web.sees(1, thirty(), of_thirty(28, None)), NOTHING, "the next, before the first is back");
        assert_eq!(web.waits(5), NOTHING);
    }
    assert_eq!(web.sees(1, thirty(), of_thirty(29, None)), NOTHING);
    assert_eq!(web.waits(113), NOTHING);
    assert_eq!(web.waits(1), ["CREATE Failed +Degraded:PodsNotReady"], "the last one is not replaced");

    let mut web = Story::of("Deployment");
    assert_eq!(web.sees(1, thirty(), of_thirty(20, None)), NOTHING);
    assert_eq!(web.waits(120), ["CREATE Failed +Degraded:PodsNotReady"]);
    for ready in 21..30 {
        assert_eq!(web.sees(1, thirty(), of_thirty(ready, None)), NOTHING, "some are back, not all");
    }
    assert_eq!(web.sees(1, thirty(), of_thirty(30, None)), ["UPDATE Complete -Degraded:PodsNotReady"]);

    let mut web = Story::of("Deployment");
    for _ in 0..2 {
        assert_eq!(web.sees(1, thirty(), of_thirty(15, Some(1))), NOTHING);
        assert_eq!(web.waits(30), NOTHING);
        assert_eq!(web.sees(1, thirty(), of_thirty(20, Some(1))), NOTHING);
        assert_eq!(web.waits(27), NOTHING);
    }
    assert_eq!(
        web.waits(3),
        ["CREATE Failed +Degraded:PodsNotReady"],
        "Kubernetes says that they are too few"
    );
}

#[test]
fn a_change_hides_no_dead_pods() {
    let complete = || json!([progressing("True", "NewReplicaSetAvailable")]);
    let ten = |replicas: i32| json!({"replicas": replicas});
    let mut web = Story::of("Deployment");
    assert_eq!(web.sees(1, ten(10), counts(1, [10, 10, 0], complete())), NOTHING);
    assert_eq!(web.waits(60), NOTHING);
    assert_eq!(web.sees(2, ten(12), counts(1, [10, 10, 0], complete())), NOTHING, "scaled up");
    assert_eq!(web.waits(57), NOTHING);
    assert_eq!(web.sees(3, ten(11), counts(2, [12, 12, 2], complete())), NOTHING, "two are new or back");
    assert_eq!(web.waits(1), ["CREATE Failed +Degraded:PodsNotReady"]);
    assert_eq!(
        web.sees(3, ten(11), counts(3, [11, 11, 10], complete())),
        ["UPDATE Progressing -Degraded:PodsNotReady"],
        "what is missing was asked for since"
    );

    let mut net = Story::of("DaemonSet");
    net.sees(1, json!({}), daemons([5, 5, 5, 5]));
    assert_eq!(net.sees(1, json!({}), daemons([5, 5, 5, 4])), NOTHING, "a pod died");
    assert_eq!(net.sees(1, json!({}), daemons([6, 5, 5, 4])), NOTHING, "a new node");
    assert_eq!(net.waits(119), ["CREATE Failed +Degraded:PodsNotReady"]);
}

#[test]
fn a_roll_out_that_is_scaled_down_now_and_then_has_stalled_all_the_same() {
    let mut db = Story::of("StatefulSet");
    let mut told = Vec::new();
    for step in 0..6 {
        // As many as before are missing: those that go are the ready ones.
        let spec = json!({"replicas": 20 - step});
        let generation = 2 + i64::from(step);
        let mut status = revisions([10 - 2 * step, 0, 10 - 2 * step], "b");
        status["observedGeneration"] = generation.into();
        told.extend(db.sees(generation, spec, status));
        told.extend(db.waits(200));
    }
    assert_eq!(told, ["CREATE TimedOut +RolloutStalled:NoProgress"]);
}

#[test]
fn what_a_deployment_may_do() {
    let complete = json!([progressing("True", "NewReplicaSetAvailable")]);
    let mut web = Story::of("Deployment");
    assert_eq!(web.sees(2, json!({"replicas": 9}), counts(1, [3, 3, 3], complete.clone())), NOTHING);
    assert_eq!(web.sees(2, json!({"replicas": 9}), counts(2, [9, 9, 3], complete.clone())), NOTHING);
    assert_eq!(web.waits(500), NOTHING, "a scale-up takes its time");
    assert_eq!(web.sees(2, json!({"replicas": 9}), counts(2, [9, 9, 4], complete.clone())), NOTHING);
    assert_eq!(web.waits(629), NOTHING, "and a pod its grace period");
    assert_eq!(web.waits(1), ["CREATE TimedOut +RolloutStalled:NoProgress"]);
    assert_eq!(
        web.sees(2, json!({"replicas": 9}), counts(2, [9, 9, 8], complete.clone())),
        NOTHING,
        "a step"
    );
    assert_eq!(
        web.sees(2, json!({"replicas": 9}), counts(2, [9, 9, 9], complete)),
        ["UPDATE Complete -RolloutStalled:NoProgress"]
    );
    for (why, spec, status) in [
        ("created paused", json!({"replicas": 3, "paused": true}), counts(1, [0, 0, 0], json!([]))),
        (
            "paused on its way",
            json!({"replicas": 3, "paused": true}),
            counts(1, [4, 1, 3], json!([progressing("Unknown", "DeploymentPaused")])),
        ),
        ("scaled to 0", json!({"replicas": 0}), counts(1, [0, 0, 0], json!([]))),
    ] {
        let mut web = Story::of("Deployment");
        assert_eq!(web.sees(1, spec, status), NOTHING, "{why}");
        assert_eq!(web.waits(7200), NOTHING, "{why}");
    }
}

#[test]
fn a_deployment_without_a_deadline_and_one_that_nobody_looks_at() {
    let mut web = Story::of("Deployment");
    assert_eq!(web.sees(5, three(), counts(5, [4, 1, 3], json!([]))), NOTHING);
    assert_eq!(web.waits(629), NOTHING);
    assert_eq!(web.waits(1), ["CREATE TimedOut +RolloutStalled:NoProgress"]);
    let mut web = Story::of("Deployment");
    let complete = || json!([progressing("True", "NewReplicaSetAvailable")]);
    assert_eq!(web.sees(5, three(), counts(4, [3, 3, 3], complete())), NOTHING);
    assert_eq!(web.waits(300), NOTHING);
    assert_eq!(web.sees(6, three(), counts(4, [3, 3, 3], complete())), NOTHING, "changed again");
    assert_eq!(web.waits(298), NOTHING);
    assert_eq!(web.waits(1), ["CREATE Unknown +NotObserved:GenerationNotObserved"]);
    assert_eq!(
        web.sees(6, three(), counts(6, [3, 3, 3], complete())),
        ["UPDATE Complete -NotObserved:GenerationNotObserved"]
    );
}

#[test]
fn an_object_that_is_deleted_loses_its_pods_and_is_no_incident() {
    let mut web = Story::of("Deployment");
    let complete = json!([progressing("True", "NewReplicaSetAvailable")]);
    let meta = json!({"name": "web", "namespace": "shop", "uid": "u", "generation": 2,
                      "deletionTimestamp": at(0).to_string()});
    let going = json!({"metadata": meta, "spec": three(), "status": counts(1, [3, 3, 0], complete.clone())});
    web.register.seen("u", seen("Deployment", going.clone(), 0), at(0));
    assert_eq!(web.waits(3600), NOTHING);
    assert_eq!(web.sees(1, three(), counts(1, [3, 3, 2], complete)), NOTHING);
    assert_eq!(web.waits(120), ["CREATE Failed +Degraded:PodsNotReady"]);
    web.register.seen("u", seen("Deployment", going, web.now), at(web.now));
    assert_eq!(web.told(), ["UPDATE Failed +Degraded:NoPodReady"], "no recovery");
    web.register.gone("u", at(web.now));
    assert_eq!(web.told(), ["DELETE Failed +Degraded:NoPodReady"]);
}

fn revisions([current, updated, ready]: [i32; 3], new: &str) -> Value {
    json!({"observedGeneration": 2, "replicas": 3, "currentReplicas": current, "updatedReplicas": updated,
           "readyReplicas": ready, "availableReplicas": ready, "currentRevision": "a", "updateRevision": new})
}

#[test]
fn a_stateful_set() {
    let mut db = Story::of("StatefulSet");
    for step in [[3, 0, 3], [2, 0, 2], [2, 1, 2], [2, 1, 3], [1, 1, 2], [1, 2, 2], [1, 2, 3]] {
        assert_eq!(db.sees(2, three(), revisions(step, "b")), NOTHING);
        assert_eq!(db.waits(200), NOTHING, "pod after pod");
    }
    assert_eq!(db.waits(429), NOTHING);
    assert_eq!(db.waits(1), ["CREATE TimedOut +RolloutStalled:NoProgress"]);
    assert_eq!(
        db.sees(2, three(), revisions([3, 3, 3], "a")),
        ["UPDATE Complete -RolloutStalled:NoProgress"]
    );
    let held = |partition| json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    let on_delete = json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}});
    let late = json!({"replicas": 3, "ordinals": {"start": 5}, "updateStrategy": {"rollingUpdate": {"partition": 7}}});
    for (why, spec, step, is_told) in [
        ("two are held back", held(2), [2, 1, 3], false),
        ("one is held back", held(1), [2, 1, 3], true),
        ("all are held back", held(9), [3, 0, 3], false),
        ("two of 5 to 7 are held back", late, [2, 1, 3], false),
        ("nobody deleted a pod", on_delete, [3, 0, 3], false),
    ] {
        let mut db = Story::of("StatefulSet");
        db.sees(2, spec, revisions(step, "b"));
        assert_eq!(!db.waits(7200).is_empty(), is_told, "{why}");
    }
    let mut db = Story::of("StatefulSet");
    db.sees(2, three(), revisions([2, 2, 2], "a"));
    assert_eq!(db.waits(120), ["CREATE Failed +Degraded:PodsNotReady"], "a pod is gone");
}

fn daemons([desired, current, updated, ready]: [i32; 4]) -> Value {
    json!({"observedGeneration": 1, "desiredNumberScheduled": desired, "currentNumberScheduled": current,
           "updatedNumberScheduled": updated, "numberReady": ready, "numberAvailable": ready,
           "numberUnavailable": desired - ready, "numberMisscheduled": 2})
}

#[test]
fn a_daemon_set() {
    let mut net = Story::of("DaemonSet");
    assert_eq!(net.sees(1, json!({}), daemons([3, 3, 3, 3])), NOTHING, "healthy");
    assert_eq!(net.sees(1, json!({}), daemons([4, 3, 3, 3])), NOTHING, "a new node");
    assert_eq!(net.waits(300), NOTHING);
    assert_eq!(net.sees(1, json!({}), daemons([5, 4, 4, 3])), NOTHING, "another one");
    assert_eq!(net.waits(629), NOTHING);
    assert_eq!(net.waits(1), ["CREATE TimedOut +RolloutStalled:NoProgress"]);
    assert_eq!(net.sees(1, json!({}), daemons([5, 5, 5, 5])), ["UPDATE Complete -RolloutStalled:NoProgress"]);
    assert_eq!(net.sees(1, json!({}), daemons([5, 5, 5, 4])), NOTHING, "a pod died");
    assert_eq!(net.waits(120), ["CREATE Failed +Degraded:PodsNotReady"]);
    assert_eq!(
        net.sees(1, json!({}), daemons([4, 4, 4, 4])),
        ["UPDATE Complete -Degraded:PodsNotReady"],
        "with its node"
    );
    let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
    assert_eq!(net.sees(1, on_delete, daemons([4, 4, 0, 4])), NOTHING, "nobody deleted a pod");
    assert_eq!(net.waits(7200), NOTHING);
    assert_eq!(net.sees(1, json!({}), daemons([4, 4, 1, 3])), NOTHING);
    assert_eq!(net.waits(629), NOTHING);
    assert_eq!(net.waits(1), ["CREATE TimedOut +RolloutStalled:NoProgress"]);
}

#[test]
fn a_signal_in_full() {
    let meta = json!({"name": "web", "namespace": "shop", "uid": "u", "generation": 7,
                      "creationTimestamp": "2026-11-21T10:00:05Z"});
    let failed = json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet \"web-5\" has timed out progressing.",
        "lastUpdateTime": "2026-11-21T10:10:00Z", "lastTransitionTime": "2026-11-21T10:10:00Z"});
    let status = json!({"observedGeneration": 7, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 3,
        "availableReplicas": 2, "unavailableReplicas": 2, "conditions": [failed]});
    let web = seen("Deployment", json!({"metadata": meta, "spec": three(), "status": status}), 5);
    let Judgement { findings, due: None } = web.judge(at(5), &Thresholds::default()) else { panic!() };
    let Request::WorkloadRolloutStatus(told) = web.request(Action::Create, &findings, &[], at(6)) else {
        panic!()
    };
    let moment = |text: &str| Some(convert::timestamp(text.parse().unwrap()));
    let began = moment("2026-11-21T10:10:00Z");
    let said = "ReplicaSet \"web-5\" has timed out progressing.";
    let judged = format!("The roll-out of Deployment shop/web does not get on: {said}");
    let condition = |kind: &str, status: &str, message: &str, updated| WorkloadCondition {
        r#type: kind.to_owned(),
        status: status.to_owned(),
        last_update_time: updated,
        last_transition_time: began,
        reason: "ProgressDeadlineExceeded".to_owned(),
        message: message.to_owned(),
    };
    let expected = WorkloadRolloutStatus {
        name: "web".to_owned(),
        namespace: "shop".to_owned(),
        uid: "u".to_owned(),
        kind: "Deployment".to_owned(),
        rollout_status: "TimedOut".to_owned(),
        rollout_reason: "ProgressDeadlineExceeded".to_owned(),
        rollout_message: judged.clone(),
        desired_replicas: 3,
        current_replicas: 4,
        ready_replicas: 3,
        available_replicas: 2,
        updated_replicas: 1,
        unavailable_replicas: 2,
        conditions: vec![
            condition("Progressing", "False", said, began),
            condition("kestrel.ai/RolloutStalled", "True", &judged, Some(convert::timestamp(at(6)))),
        ],
        observed_generation: 7,
        metadata_generation: 7,
        created_at: moment("2026-11-21T10:00:05Z"),
        status_timestamp: Some(convert::timestamp(at(6))),
        action: Action::Create.into(),
    };
    assert_eq!(told, expected);
}

#[test]
fn what_is_wrong_with_a_component_is_its_own_signal() {
    let meta =
        json!({"name": "coredns", "namespace": "kube-system", "uid": "u", "labels": {"k8s-app": "kube-dns"}});
    let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                         "lastTransitionTime": at(-3600).to_string()}]);
    let object = json!({"metadata": meta, "spec": three(), "status": counts(0, [0, 0, 0], failure)});
    let far = Told::new();
    let components = Components::new(far.lane());
    let register = Register::with_components(Thresholds::default(), far.lane(), components);
    register.seen("u", seen("Deployment", object, 0), at(0));
    register.tick(at(0));
    let told = far.next();
    assert!(matches!(&told[..], [Request::KubernetesEvent(_)]), "{told:?}");
}

/// What an object may show next, wild or not, and after how many seconds.
#[derive(Clone, Debug)]
struct Sight {
    after: i64,
    object: Value,
}

fn sights(kind: &'static str) -> impl Strategy<Value = Vec<Sight>> {
    let reasons: [&str; 3] = ["NewReplicaSetAvailable", "ReplicaSetUpdated", "ProgressDeadlineExceeded"];
    let condition = prop_oneof![
        Just(json!([])),
        (prop::sample::select(vec!["True", "False", "Unknown"]), prop::sample::select(reasons.to_vec()))
            .prop_map(|(status, reason)| json!([progressing(status, reason)])),
        Just(json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}])),
        Just(json!([available("False", -200)])),
    ];
    let numbers = prop::array::uniform5(0..4_i32);
    let sight = (0..500_i64, 1..4_i64, 0..2_i64, numbers, condition, any::<bool>()).prop_map(
        move |(after, generation, behind, [desired, current, updated, ready, held], conditions, paused)| {
            let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": held}});
            let spec = json!({"replicas": desired, "paused": paused, "updateStrategy": rolling});
            let mut status = match kind {
                "DaemonSet" => daemons([desired, current, updated, ready]),
                "StatefulSet" => revisions([current, updated, ready], if paused { "a" } else { "b" }),
                _ => counts(0, [current, updated, ready], conditions),
            };
            status["observedGeneration"] = (generation - behind).into();
            let meta = json!({"name": "web", "namespace": "shop", "uid": "u", "generation": generation});
            Sight { after, object: json!({"metadata": meta, "spec": spec, "status": status}) }
        },
    );
    prop::collection::vec(sight, 1..12)
}

fn kinds_and_sights() -> impl Strategy<Value = (&'static str, Vec<Sight>)> {
    let kinds = prop::sample::select(vec!["Deployment", "StatefulSet", "DaemonSet"]);
    kinds.prop_flat_map(|kind| (Just(kind), sights(kind)))
}

proptest! {
    /// Between two sights, a judgement changes when it said that it would and at
    /// no other time.
    #[test]
    fn a_judgement_knows_when_it_is_due((kind, sights) in kinds_and_sights(), waits in prop::collection::vec(0..2000_i64, 8)) {
        let (thresholds, mut now, mut before) = (Thresholds::default(), 0, None);
        for Sight { after, object } in sights {
            now += after;
            let mut rollout = seen(kind, object, now);
            if let Some(before) = &before {
                rollout.follows(before);
            }
            let judgement = rollout.judge(at(now), &thresholds);
            let until = judgement.due.unwrap_or(Timestamp::MAX);
            prop_assert!(until > at(now));
            for wait in &waits {
                let later = rollout.judge(at(now + wait), &thresholds);
                prop_assert_eq!(later.findings.len() > judgement.findings.len(), at(now + wait) >= until);
            }
            before = Some(rollout);
        }
    }

    /// Whatever an object goes through: one CREATE, any UPDATEs, an end; and a whole
    /// object has nothing open.
    #[test]
    fn opens_and_ends_match((kind, sights) in kinds_and_sights()) {
        let mut story = Story::of(kind);
        let mut is_open = false;
        let mut check = |told: Vec<String>| {
            for signal in told {
                prop_assert_eq!(signal.starts_with("CREATE"), !is_open, "{}", signal);
                is_open = signal.contains('+');
            }
            Ok(is_open)
        };
        for Sight { after, object } in sights {
            check(story.waits(after))?;
            story.register.seen("u", seen(kind, object, story.now), at(story.now));
            check(story.told())?;
        }
        let whole = match kind {
            "DaemonSet" => daemons([3, 3, 3, 3]),
            "StatefulSet" => revisions([3, 3, 3], "a"),
            _ => counts(1, [3, 3, 3], json!([progressing("True", "NewReplicaSetAvailable")])),
        };
        prop_assert!(!check(story.sees(1, three(), whole))?);
    }

    /// A Deployment of 30 pods is created, changed and scaled, and its pods start in
    /// any order and at any pace that the deadline allows.
    #[test]
    fn a_healthy_roll_out_is_not_told(paces in prop::collection::vec((0..6_i32, 0..6_i32, 0..500_i64), 400), scaled in 1..60_i32) {
        let mut story = Story::of("Deployment");
        let mut paces = paces.into_iter();
        let (mut old, mut old_ready) = (0, 0);
        for (generation, desired) in [(1, 30), (2, 30), (3, scaled)] {
            let spec = json!({"replicas": desired});
            let (mut new, mut new_ready) = (0, 0);
            let is_scaling = generation == 3;
            if is_scaling {
                (new, new_ready, old, old_ready) = (old, old_ready, 0, 0);
            }
            let complete = json!([progressing("True", "NewReplicaSetAvailable")]);
            let before = counts(generation - 1, [old + new, old + new, old_ready + new_ready], complete.clone());
            prop_assert_eq!(story.sees(generation, spec.clone(), before), NOTHING);
            loop {
                let Some((created, became_ready, pause)) = paces.next() else { return Ok(()) };
                let room = desired + 8 - old - new;
                new = (new + created.max(1).min(room).max(0)).min(desired);
                new_ready = (new_ready + became_ready + i32::from(new > new_ready)).min(new);
                let spare = (old_ready + new_ready - (desired - 8)).max(0).min(old_ready);
                (old, old_ready) = (old - spare, old_ready - spare);
                let is_complete = new == desired && new_ready == desired && old == 0;
                let reason = if is_complete || is_scaling { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" };
                let conditions = json!([progressing("True", reason)]);
                let status = counts(generation, [old + new, new, old_ready + new_ready], conditions);
                prop_assert_eq!(story.sees(generation, spec.clone(), status), NOTHING);
                if is_complete {
                    break;
                }
                prop_assert_eq!(story.waits(pause), NOTHING);
            }
            (old, old_ready) = (new, new_ready);
        }
    }
}
