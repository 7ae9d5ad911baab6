//! What becomes of a Deployment.

use super::*;

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

/// The clock by which Kubernetes says since when is a minute wrong.
#[test]
fn a_wrong_clock_makes_nothing_early_or_late() {
    let complete = || progressing("True", "NewReplicaSetAvailable");
    let refused = |since: i64| {
        json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                                      "lastTransitionTime": at(since).to_string()})
    };
    for ahead in [-60, 0, 60] {
        let watched = || {
            let web = Story { now: 100, ..Story::of("Deployment") };
            web.register.begin();
            web.register.finish(at(100));
            web
        };
        let (mut down, mut held, mut later) = (watched(), watched(), watched());
        let unavailable = || counts(1, [3, 3, 1], json!([available("False", 101 + ahead), complete()]));
        let failing = || counts(1, [2, 2, 2], json!([refused(101 + ahead), complete()]));
        for (web, status) in [(&mut down, unavailable()), (&mut held, failing())] {
            assert_eq!(web.sees(1, three(), status.clone()), NOTHING, "{ahead}");
            assert_eq!(web.waits(30), NOTHING, "{ahead}");
            assert_eq!(web.sees(1, three(), status), NOTHING, "{ahead}");
            assert_eq!(web.waits(88), NOTHING, "{ahead}");
            assert_eq!(web.waits(1).len(), 1, "{ahead}");
        }
        // One of three pods is missing for a while, then creation is refused.
        let one_less = counts(1, [3, 3, 2], json!([available("True", 0), complete()]));
        assert_eq!(later.sees(1, three(), one_less.clone()), NOTHING);
        assert_eq!(later.waits(100), NOTHING);
        assert_eq!(later.sees(1, three(), one_less), NOTHING);
        let conditions = json!([available("True", 0), complete(), refused(203 + ahead)]);
        assert_eq!(later.sees(1, three(), counts(1, [2, 2, 2], conditions)), NOTHING, "{ahead}");
        assert_eq!(later.waits(18), ["CREATE Failed +Degraded:PodsNotReady"], "{ahead}");
        assert_eq!(later.waits(100), NOTHING, "{ahead}");
        assert_eq!(later.waits(2).len(), 1, "{ahead}");
    }
}

#[test]
fn a_controller_that_is_always_one_change_behind_is_looking() {
    let complete = || json!([progressing("True", "NewReplicaSetAvailable")]);
    let mut web = Story::of("Deployment");
    for generation in 2..20 {
        assert_eq!(web.sees(generation, three(), counts(generation - 1, [3, 3, 3], complete())), NOTHING);
        assert_eq!(web.waits(60), NOTHING);
    }
    assert_eq!(web.waits(540), ["CREATE Unknown +NotObserved:GenerationNotObserved"], "now it has stopped");
}
