//! What is told of a pod in the course of its life.

use super::*;

const NOTHING: [&str; 0] = [];

fn crashed(restarts: u32, at: i64) -> core::Pod {
    up(false, at, app(false, restarts, exited(1, "Error", at - 4, at), json!({})))
}

fn restarted(restarts: u32, at: i64) -> core::Pod {
    up(true, at + 1, app(true, restarts, running(at), exited(1, "Error", at - 9, at - 5)))
}

/// As a pod of CoreDNS.
fn of_dns(mut object: core::Pod) -> core::Pod {
    object.metadata.namespace = Some("kube-system".to_owned());
    object.metadata.labels = Some([("k8s-app".to_owned(), "kube-dns".to_owned())].into());
    object
}

fn deleted(object: &core::Pod, at: i64) -> core::Pod {
    let mut object = object.clone();
    object.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(super::at(at)));
    object.metadata.deletion_grace_period_seconds = Some(30);
    object
}

#[test]
fn a_node_whose_clock_is_wrong_makes_nothing_early_or_late() {
    for ahead in [-60, 0, 60] {
        let world = World::new();
        world.signals.register.begin();
        world.signals.register.finish(at(0));
        let unready = up(false, 300 + ahead, app(false, 0, running(100 + ahead), json!({})));
        assert_eq!(world.seen(&unready, 300), NOTHING, "{ahead}");
        assert_eq!(world.seen(&unready, 330), NOTHING, "{ahead}");
        assert_eq!(world.tick(419), NOTHING, "{ahead}");
        world.signals.tick(at(420));
        let records = world.records();
        let [record] = &records[..] else { panic!("{ahead}: {records:?}") };
        let since = record.conditions.last().and_then(|condition| condition.last_transition_time);
        assert_eq!(since, Some(convert::timestamp(at(300))), "{ahead}");
    }
}

#[test]
fn a_deletion_is_late_by_the_api_servers_clock() {
    for ahead in [-60, 60] {
        let world = World::new();
        world.signals.register.begin();
        world.signals.register.finish(at(0));
        let unready = up(false, 300 + ahead, app(false, 0, running(100 + ahead), json!({})));
        assert_eq!(world.seen(&unready, 300), NOTHING);
        assert_eq!(world.seen(&deleted(&unready, 340), 310), NOTHING);
        assert_eq!(world.tick(399), NOTHING, "{ahead}");
        assert_eq!(world.tick(400), ["Create StuckTerminating(Terminating)"], "{ahead}");
    }
}

#[test]
fn a_pod_that_recovered_while_nobody_watched_is_told_as_over() {
    let healthy = up(true, 0, app(true, 0, running(0), json!({})));
    let world = World::after(healthy.metadata.uid.as_deref().unwrap());
    assert_eq!(world.seen(&healthy, 1), NOTHING);
    assert_eq!(world.tick(60), ["Update"]);
    assert_eq!(world.seen(&healthy, 61), NOTHING);
    let unknown = World::new();
    unknown.seen(&healthy, 1);
    assert_eq!(unknown.tick(60), NOTHING, "nobody was told of it");
}

#[test]
fn a_crash_loop_is_told_step_by_step_until_it_is_over() {
    let world = World::new();
    assert_eq!(world.seen(&up(true, 3, app(true, 0, running(2), json!({}))), 3), NOTHING);
    assert_eq!(world.seen(&crashed(0, 9), 9), ["Create CrashLoop(Error)"]);
    assert_eq!(world.seen(&restarted(1, 14), 14), ["Update CrashLoop(Error)"]);
    assert_eq!(world.seen(&restarted(1, 14), 15), NOTHING, "the same again");
    assert_eq!(world.seen(&crashed(1, 20), 20), NOTHING, "it is known to crash");
    let waits = up(false, 20, app(false, 1, backoff(10), exited(1, "Error", 16, 20)));
    assert_eq!(world.seen(&waits, 21), ["Update CrashLoop(CrashLoopBackOff)"]);
    assert_eq!(world.seen(&restarted(2, 30), 31), ["Update CrashLoop(Error)"]);
    assert_eq!(world.tick(629), NOTHING);
    assert_eq!(world.tick(630), ["Update !CrashLoop"]);
    assert!(!world.signals.register.knows("u1"));
    assert_eq!(world.seen(&restarted(2, 30), 631), NOTHING);
}

#[test]
fn the_message_of_the_end_has_the_healthy_snapshot() {
    let world = World::new();
    let pull = |reason| {
        let status = app(false, 0, waiting(reason, "not found"), json!({}));
        web(json!({"status": {"conditions": conditions("True", "False", 1), "containerStatuses": [status]}}))
    };
    assert_eq!(world.seen(&pull("ErrImagePull"), 2), ["Create ImagePull(ImagePullBackOff)"]);
    for second in 3..60 {
        let reason = if second % 2 == 0 { "ErrImagePull" } else { "ImagePullBackOff" };
        assert_eq!(world.seen(&pull(reason), second), NOTHING);
    }
    world.signals.seen(&up(true, 61, app(true, 0, running(60), json!({}))), at(61));
    let [record] = &world.records()[..] else { panic!() };
    assert_eq!((record.action(), record.phase.as_str()), (Action::Update, "Running"));
    assert!(record.container_statuses[0].ready);
    let condition = record.conditions.last().unwrap();
    assert_eq!((condition.r#type.as_str(), condition.status.as_str()), ("kestrel.ai/ImagePull", "False"));
    assert_eq!(condition.last_transition_time, Some(convert::timestamp(at(61))));
    assert_eq!(record.status_timestamp, Some(convert::timestamp(at(61))));
}

#[test]
fn a_roll_out_of_thirty_replicas_that_goes_well_is_no_incident() {
    let world = World::new();
    for replica in 0..30 {
        let as_replica = |mut object: core::Pod| {
            object.metadata.uid = Some(format!("u{replica}"));
            object
        };
        let steps = [
            web(json!({"spec": {"nodeName": null}})),
            web(json!({"status": {"conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": time(0)},
            ]}})),
            web(json!({"status": {
                "conditions": conditions("False", "False", 1),
                "containerStatuses": [app(false, 0, waiting("ContainerCreating", ""), json!({}))],
            }})),
            up(false, 1, app(false, 0, running(20), json!({}))),
            up(true, 40, app(true, 0, running(20), json!({}))),
            deleted(&up(true, 40, app(true, 0, running(20), json!({}))), 130),
            // Killed by its deletion, with an error, as many programs are.
            deleted(&up(false, 101, app(false, 0, exited(143, "Error", 20, 101), json!({}))), 130),
        ];
        for (step, second) in steps.into_iter().zip([0, 1, 2, 20, 40, 100, 101]) {
            assert_eq!(world.seen(&as_replica(step), second), NOTHING);
            assert_eq!(world.tick(second), NOTHING);
        }
        world.signals.register.gone(&format!("u{replica}"), at(102));
        assert_eq!(world.told(), NOTHING);
    }
    assert_eq!(world.tick(100_000), NOTHING);
}

#[test]
fn what_was_wrong_before_a_deletion_is_wrong_until_the_pod_is_gone() {
    let world = World::new();
    let waits = up(false, 20, app(false, 1, backoff(10), exited(1, "Error", 16, 20)));
    assert_eq!(world.seen(&waits, 20), ["Create CrashLoop(CrashLoopBackOff)"]);
    assert_eq!(world.seen(&deleted(&waits, 60), 30), NOTHING);
    let killed = up(false, 31, app(false, 1, exited(137, "ContainerStatusUnknown", 16, 31), json!({})));
    assert_eq!(world.seen(&deleted(&killed, 60), 31), NOTHING);
    assert_eq!(world.tick(119), NOTHING);
    assert_eq!(world.tick(120), ["Update CrashLoop(CrashLoopBackOff) StuckTerminating(Terminating)"]);
    world.signals.register.gone("u1", at(121));
    assert_eq!(world.told(), ["Delete CrashLoop(CrashLoopBackOff) StuckTerminating(Terminating)"]);
    assert_eq!(
        world.seen(&deleted(&killed, 60), 121),
        ["Create StuckTerminating(Terminating)"],
        "as seen anew"
    );
}

#[test]
fn a_deletion_is_no_recovery_of_what_was_late() {
    let waits = |node: Value| {
        web(json!({"spec": {"nodeName": node}, "status": {
            "conditions": [{
                "type": "PodScheduled", "status": if node.is_null() { "False" } else { "True" },
                "reason": "Unschedulable", "lastTransitionTime": time(0),
            }],
        }}))
    };
    let unready = up(false, 2, app(false, 0, running(2), json!({})));
    for (object, kind) in [
        (waits(Value::Null), "Unschedulable(Unschedulable)"),
        (waits(json!("n1")), "StuckCreating(ContainerCreating)"),
        (unready, "Unready(ContainersNotReady)"),
    ] {
        let world = World::new();
        world.seen(&object, 2);
        assert_eq!(world.tick(3600), [format!("Create {kind}")]);
        assert_eq!(world.seen(&deleted(&object, 3640), 3610), NOTHING);
        assert_eq!(world.tick(3640), NOTHING);
        world.signals.register.gone("u1", at(3641));
        assert_eq!(world.told(), [format!("Delete {kind}")]);

        let world = World::new();
        world.seen(&object, 2);
        world.seen(&deleted(&object, 40), 10);
        assert_eq!(world.tick(99), NOTHING, "nobody waits for it any more");
    }
}

#[test]
fn a_pod_that_ends_well_because_it_is_deleted_has_not_recovered() {
    let world = World::new();
    let waits = up(false, 20, app(false, 1, backoff(10), exited(1, "Error", 16, 20)));
    assert_eq!(world.seen(&waits, 20), ["Create CrashLoop(CrashLoopBackOff)"]);
    let mut ended = up(false, 31, app(false, 1, exited(0, "Completed", 30, 31), json!({})));
    ended.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    assert_eq!(world.seen(&deleted(&ended, 60), 31), NOTHING);
    world.signals.register.gone("u1", at(32));
    assert_eq!(world.told(), ["Delete CrashLoop(CrashLoopBackOff)"]);
}

#[test]
fn the_restart_of_a_components_pod_is_not_its_recovery() {
    let (world, now) = (World::new(), 3600);
    let object = of_dns(up(false, 2, app(false, 0, running(2), json!({}))));
    world.signals.seen(&object, at(2));
    world.signals.tick(at(now));
    assert_eq!(world.far.next().len(), 1);
    world.signals.seen(&deleted(&object, now + 30), at(now));
    world.signals.register.gone("u1", at(now + 1));
    assert!(world.far.next().is_empty(), "the next pod may be in the same trouble");
}

#[test]
fn what_a_list_does_not_mention_is_gone() {
    let world = World::new();
    world.seen(&crashed(0, 9), 9);
    world.signals.register.begin();
    world.signals.register.finish(at(10));
    assert_eq!(world.told(), ["Delete CrashLoop(Error)"]);
}

#[test]
fn a_component_tells_of_its_pods_itself() {
    let world = World::new();
    world.signals.seen(&of_dns(crashed(0, 9)), at(9));
    let [Request::KubernetesEvent(event)] = &world.far.next()[..] else { panic!() };
    assert!(event.message.contains("Pod web-5d9c7b8f6-x2x8k"), "{}", event.message);
}

#[test]
fn a_component_tells_the_last_lines_of_its_pods() {
    let world = World::new();
    world.lines.keep("u1", "app", [(None, "cannot bind port 53")]);
    world.signals.seen(&of_dns(crashed(0, 9)), at(9));
    let [Request::KubernetesEvent(event)] = &world.far.next()[..] else { panic!() };
    let lines = "\nlast lines of container \"app\":\ncannot bind port 53";
    assert!(event.message.ends_with(lines), "{}", event.message);
}

#[test]
fn who_began_to_tell_of_a_pod_tells_its_end() {
    let world = World::new();
    world.signals.seen(&of_dns(crashed(0, 9)), at(9));
    assert_eq!(world.far.next().len(), 1);
    // Its workload was deleted and the pod left behind.
    let mut left = of_dns(up(true, 3, app(true, 0, running(2), json!({}))));
    left.metadata.owner_references = None;
    world.signals.seen(&left, at(20));
    let [Request::KubernetesEvent(event)] = &world.far.next()[..] else { panic!() };
    assert_eq!((event.action(), event.reason.as_str()), (Action::Update, "DNSRecovered"));
}

#[test]
fn of_a_pod_with_an_incident_all_lines_are_asked_for() {
    let world = World::new();
    let mut follower = world.pods.follow("n1", None);
    let mut policy = || follower.update().map(|update| update.pods[0].log_policy());
    world.seen(&up(true, 3, app(true, 0, running(2), json!({}))), 3);
    assert_eq!(policy(), Some(LogPolicy::Errors));
    world.seen(&crashed(0, 9), 9);
    assert_eq!(policy(), Some(LogPolicy::All));
    world.seen(&restarted(1, 14), 14);
    assert_eq!(policy(), None);
    world.tick(614);
    assert_eq!(policy(), None, "it has only just ended");
    let calm = || world.pods.calm(Instant::now() + Duration::from_mins(5));
    calm();
    assert_eq!(policy(), Some(LogPolicy::Errors));
    world.seen(&crashed(1, 700), 700);
    assert_eq!(policy(), Some(LogPolicy::All));
    world.signals.register.gone("u1", at(701));
    calm();
    assert_eq!(policy(), Some(LogPolicy::Errors));
}

#[test]
fn how_a_container_ended_is_told_with_its_last_lines() {
    let world = World::new();
    let lines = [(8, "cannot reach db"), (9, "giving up"), (12, "starting")];
    world.lines.keep("u1", "app", lines.map(|(second, text)| (Some(at(second)), text)));
    world.lines.keep("u1", "proxy", [(Some(at(9)), "another container")]);
    world.signals.seen(&up(false, 9, app(false, 1, running(12), exited(137, "OOMKilled", 2, 9))), at(12));
    let [record] = &world.records()[..] else { panic!() };
    let ours: Vec<_> =
        record.conditions.iter().filter(|condition| condition.r#type.starts_with(PREFIX)).collect();
    let [memory] = &ours[..] else { panic!("{ours:?}") };
    let lines = "\nlast lines of container \"app\":\ncannot reach db\ngiving up";
    assert!(memory.message.ends_with(lines), "{}", memory.message);
    assert_eq!(memory.last_transition_time, Some(convert::timestamp(at(9))), "the object's time");
}
