//! What holds for pods however they come.

use proptest::prelude::*;

use super::*;

/// Whatever a kubelet may write of a container, at seconds up to 1500.
fn any_state() -> impl Strategy<Value = Value> {
    let second = 0..1500_i64;
    prop_oneof![
        second.clone().prop_map(running),
        prop::sample::select(vec![
            "ContainerCreating",
            "PodInitializing",
            "CrashLoopBackOff",
            "ErrImagePull",
            "ImagePullBackOff",
            "CreateContainerConfigError",
            "RunContainerError",
            "",
        ])
        .prop_map(|reason| waiting(reason, "message")),
        any_exit(),
        Just(json!({})),
    ]
}

fn any_exit() -> impl Strategy<Value = Value> {
    let how = prop::sample::select(vec![
        (0, "Completed"),
        (1, "Error"),
        (137, "OOMKilled"),
        (137, "Error"),
        (143, "Error"),
        (128, "StartError"),
        (255, "Unknown"),
        (137, "ContainerStatusUnknown"),
    ]);
    (how, 0..1500_i64, 0..1500_i64)
        .prop_map(|((code, reason), started, ran)| exited(code, reason, started, started + ran))
}

fn any_status(name: &'static str) -> impl Strategy<Value = Value> {
    let last = prop_oneof![Just(json!({})), any_exit()];
    (any::<bool>(), 0..5_u32, any_state(), last)
        .prop_map(move |(ready, restarts, state, last)| container(name, ready, restarts, state, last))
}

fn any_condition(kind: &'static str) -> impl Strategy<Value = Value> {
    let reason = prop::sample::select(vec![
        Value::Null,
        "ContainersNotReady".into(),
        "ReadinessGatesNotReady".into(),
        "Unschedulable".into(),
        "SchedulingGated".into(),
        "TerminationByKubelet".into(),
        "DeletionByTaintManager".into(),
    ]);
    (any::<bool>(), reason, 0..1500_i64).prop_map(move |(is_true, reason, since)| {
        let status = if is_true { "True" } else { "False" };
        json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": time(since)})
    })
}

/// A pod at any moment of any life, with an init container, a sidecar, two
/// containers and one to debug, each of which may be missing in its status.
fn any_pod() -> impl Strategy<Value = core::Pod> {
    let some = |name| prop::option::of(any_status(name));
    let kinds = [
        "PodScheduled",
        "Initialized",
        "PodReadyToStartContainers",
        "ContainersReady",
        "Ready",
        "DisruptionTarget",
    ];
    let conditions: Vec<_> = kinds.map(|kind| prop::option::weighted(0.7, any_condition(kind))).into();
    (
        (some("setup"), some("mesh"), some("app"), some("helper"), some("debug")),
        conditions,
        prop::sample::select(vec!["Pending", "Running", "Running", "Failed", "Succeeded", "Unknown"]),
        prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        prop::option::weighted(0.2, 0..1500_i64),
        prop::sample::select(vec![json!("n1"), json!("n1"), Value::Null]),
        prop::sample::select(vec!["ReplicaSet", "Job"]),
    )
        .prop_map(|((setup, mesh, app, helper, debug), conditions, phase, policy, deleted, node, owner)| {
            let list = |statuses: Vec<Option<Value>>| Value::Array(statuses.into_iter().flatten().collect());
            web(json!({
                "metadata": {
                    "deletionTimestamp": deleted.map(time),
                    "ownerReferences": [{"apiVersion": "v1", "kind": owner, "name": "owner", "uid": "o", "controller": true}],
                },
                "spec": {
                    "nodeName": node, "restartPolicy": policy,
                    "initContainers": [{"name": "setup"}, {"name": "mesh", "restartPolicy": "Always"}],
                    "containers": [
                        {"name": "app", "startupProbe": {"periodSeconds": 7, "failureThreshold": 9}},
                        {"name": "helper"},
                    ],
                    "ephemeralContainers": [{"name": "debug"}],
                },
                "status": {
                    "phase": phase,
                    "conditions": list(conditions),
                    "initContainerStatuses": list(vec![setup, mesh]),
                    "containerStatuses": list(vec![app, helper]),
                    "ephemeralContainerStatuses": list(vec![debug]),
                },
            }))
        })
}

proptest! {
    #[test]
    fn a_judgement_holds_until_it_is_due(object in any_pod(), steps in prop::collection::vec(1..400_i64, 1..12)) {
        let (pod, thresholds) = (pod(&object), Thresholds::default());
        let mut second = 0;
        let mut before = pod.judge(at(second), &thresholds);
        for step in steps {
            second += step;
            let now = pod.judge(at(second), &thresholds);
            prop_assert_eq!(&now, &pod.judge(at(second), &thresholds), "the same whenever it is asked");
            prop_assert!(now.due.is_none_or(|due| due > at(second)));
            prop_assert!(now.findings.is_sorted_by(|one, next| one.kind < next.kind), "one a kind, in order");
            match before.due {
                Some(due) if due <= at(second) => {
                    let just_before = due - Duration::from_nanos(1);
                    prop_assert_eq!(&pod.judge(just_before, &thresholds), &before);
                }
                _ => prop_assert_eq!(&now, &before),
            }
            before = now;
        }
    }

    #[test]
    fn nothing_is_wrong_with_a_pod_that_is_passed_over(object in any_pod(), second in 0..5000_i64) {
        if is_sound(&object) {
            prop_assert_eq!(pod(&object).judge(at(second), &Thresholds::default()), Judgement::default());
        }
    }

    #[test]
    fn a_pod_that_succeeded_is_no_incident(mut object in any_pod(), second in 0..5000_i64) {
        object.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
        object.metadata.deletion_timestamp = None;
        prop_assert_eq!(pod(&object).judge(at(second), &Thresholds::default()), Judgement::default());
    }

    #[test]
    fn every_incident_opens_once_and_ends(objects in prop::collection::vec((any_pod(), 1..300_i64), 1..8)) {
        let world = World::new();
        let (mut now, mut open) = (0, Vec::<String>::new());
        let mut check = |records: Vec<PodStatusChange>| {
            for record in records {
                let of = |status: &str| {
                    let ours = record.conditions.iter().filter(|it| it.r#type.starts_with(PREFIX));
                    ours.filter(|it| it.status == status).map(|it| it.r#type.clone()).collect::<Vec<_>>()
                };
                let (holds, ended) = (of("True"), of("False"));
                match record.action() {
                    Action::Create => prop_assert!(open.is_empty() && ended.is_empty() && !holds.is_empty()),
                    Action::Update => prop_assert!(!open.is_empty()),
                    _ => prop_assert_eq!(&open, &holds),
                }
                let missing: Vec<_> = open.iter().filter(|kind| !holds.contains(kind)).cloned().collect();
                prop_assert_eq!(missing, ended, "all that is no longer wrong is told so");
                open = if record.action() == Action::Delete { Vec::new() } else { holds };
            }
            Ok(())
        };
        for (object, pause) in objects {
            world.signals.seen(&object, at(now));
            check(world.records())?;
            for _ in 0..pause / 60 {
                now += 60;
                world.signals.tick(at(now));
                check(world.records())?;
            }
            now += pause % 60;
        }
        world.signals.seen(&up(true, 3, app(true, 0, running(2), json!({}))), at(now));
        check(world.records())?;
        prop_assert!(open.is_empty(), "a pod that is well");
        prop_assert!(!world.signals.register.knows("u1"), "nothing is kept of it");
    }
}
