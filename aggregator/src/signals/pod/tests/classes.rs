//! Each class of incident as a kubelet, a scheduler or a controller writes it.

use super::*;

const NONE: [&str; 0] = [];

fn never() -> Value {
    json!({"spec": {"restartPolicy": "Never"}})
}

/// `object` with changes merged in.
fn with(object: &core::Pod, changes: Value) -> core::Pod {
    let mut object = serde_json::to_value(object).unwrap();
    merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

fn job() -> Value {
    json!({"metadata": {"ownerReferences": [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "report", "uid": "j", "controller": true},
    ]}})
}

/// Phase Failed, as a kubelet leaves it.
fn fallen(changes: Value) -> core::Pod {
    let exit = app(false, 0, exited(1, "Error", 5, 9), json!({}));
    let failed = up(false, 10, exit);
    with(&with(&failed, json!({"status": {"phase": "Failed"}})), changes)
}

#[test]
fn crash_loops() {
    let crashed = |state, restarts, last| up(false, 10, app(false, restarts, state, last));
    let error = || exited(1, "Error", 5, 9);
    for (object, now, expected, why) in [
        (crashed(error(), 0, json!({})), 9, &["CrashLoop(Error,0)"][..], "at once"),
        (crashed(backoff(10), 1, error()), 10, &["CrashLoop(CrashLoopBackOff,1)"], "in back-off"),
        (crashed(running(20), 2, error()), 21, &["CrashLoop(Error,2)"], "again, and runs"),
        (up(true, 22, app(true, 2, running(20), error())), 619, &["CrashLoop(Error,2)"], "not yet stable"),
        (up(true, 22, app(true, 2, running(20), error())), 620, &[], "stable"),
        (crashed(exited(0, "Completed", 5, 9), 0, json!({})), 9, &[], "it ended well, once"),
        (crashed(running(10), 1, exited(0, "Completed", 5, 9)), 11, &[], "and was started again"),
        (crashed(exited(0, "Completed", 10, 11), 1, error()), 11, &["CrashLoop(Completed,1)"], "twice"),
        (
            crashed(backoff(10), 2, exited(0, "Completed", 5, 9)),
            11,
            &["CrashLoop(CrashLoopBackOff,2)"],
            "and again",
        ),
        (crashed(running(3600), 9, exited(0, "Completed", 5, 3599)), 3600, &[], "it ends every hour"),
        (crashed(running(10), 1, exited(255, "Unknown", 5, 9)), 11, &[], "its node was started anew"),
        (crashed(running(10), 1, exited(137, "ContainerStatusUnknown", 5, 9)), 11, &[], "likewise"),
    ] {
        assert_eq!(findings(&object, now), expected, "{why}");
    }
    assert_eq!(
        message(&crashed(backoff(10), 1, error()), 10),
        "container \"app\": running → exit code 1 (Error) after 4s at 2026-11-21T10:00:09Z → waiting \
         (CrashLoopBackOff: back-off 10s restarting failed container=app pod=web-5d9c7b8f6-x2x8k_shop(u1)), 1 \
         restarts"
    );
}

#[test]
fn who_restarts_what() {
    let error = || exited(2, "Error", 5, 9);
    let crashed = |policy: &str, app| with(&up(false, 10, app), json!({"spec": {"restartPolicy": policy}}));
    let ended = |code, reason| app(false, 0, exited(code, reason, 5, 9), json!({}));
    assert_eq!(findings(&crashed("OnFailure", ended(2, "Error")), 10), ["CrashLoop(Error,0)"]);
    assert_eq!(findings(&crashed("OnFailure", ended(0, "Completed")), 10), NONE);
    assert_eq!(findings(&crashed("Never", ended(0, "Completed")), 10), NONE);
    assert_eq!(findings(&crashed("Never", ended(2, "Error")), 10), ["Failed(Error,1)"], "others still run");

    let init = |policy: Value, state, last, restarts| {
        let status = container("setup", false, restarts, state, last);
        web(json!({
            "spec": {"initContainers": [{"name": "setup", "image": "setup", "restartPolicy": policy}]},
            "status": {
                "conditions": conditions("True", "False", 1),
                "initContainerStatuses": [status],
                "containerStatuses": [app(false, 0, waiting("PodInitializing", ""), json!({}))],
            },
        }))
    };
    let none = || json!({});
    assert_eq!(findings(&init(Value::Null, error(), none(), 0), 10), ["CrashLoop(Error,0)"]);
    assert_eq!(findings(&init(Value::Null, exited(0, "Completed", 12, 13), error(), 1), 13), NONE);
    assert_eq!(findings(&init(json!("Always"), running(12), error(), 1), 13), ["CrashLoop(Error,1)"]);
    assert_eq!(findings(&init(Value::Null, running(2), none(), 0), 3600), NONE, "it may take its time");
    assert_eq!(
        findings(&init(json!("Always"), running(2), none(), 0), 122),
        ["Unready(ContainersNotReady,1)"],
        "a sidecar that does not start holds up all others"
    );
}

#[test]
fn want_of_memory() {
    let killed = |code, reason, changes| {
        with(&up(false, 9, app(false, 1, running(10), exited(code, reason, 5, 9))), changes)
    };
    let certain = killed(137, "OOMKilled", json!({}));
    assert_eq!(findings(&certain, 11), ["OutOfMemory(OOMKilled,1)"]);
    assert!(message(&certain, 11).contains("was killed for want of memory; its memory limit is 64Mi"));
    let likely = killed(137, "Error", json!({}));
    assert_eq!(findings(&likely, 11), ["OutOfMemory(Error,1)"]);
    assert!(message(&likely, 11).contains("most likely for want of memory"), "{}", message(&likely, 11));
    assert_eq!(findings(&likely, 610), ["Unready(ContainersNotReady,1)"], "it runs, but is not ready");
    let probed =
        json!({"spec": {"containers": [{"name": "app", "livenessProbe": {"exec": {"command": ["true"]}}}]}});
    assert_eq!(
        findings(&killed(137, "Error", probed), 11),
        ["CrashLoop(Error,1)"],
        "its probe may have failed"
    );
    assert_eq!(findings(&killed(143, "Error", json!({})), 11), ["CrashLoop(Error,1)"]);

    let init = web(json!({
        "spec": {"initContainers": [{"name": "setup", "image": "setup"}]},
        "status": {"initContainerStatuses": [
            container("setup", false, 1, backoff(10), exited(137, "OOMKilled", 5, 9)),
        ]},
    }));
    assert_eq!(findings(&init, 11), ["OutOfMemory(OOMKilled,1)"]);
    let debug = with(
        &up(true, 3, app(true, 0, running(2), json!({}))),
        json!({
            "spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]},
            "status": {"ephemeralContainerStatuses": [container("debug", false, 0, exited(137, "OOMKilled", 50, 60), json!({}))]},
        }),
    );
    assert_eq!(findings(&debug, 61), ["OutOfMemory(OOMKilled,0)"]);
    assert_eq!(findings(&debug, 660), NONE, "nothing starts it again");
    let left = json!({"status": {"ephemeralContainerStatuses": [container("debug", false, 0, exited(130, "Error", 50, 60), json!({}))]}});
    assert_eq!(findings(&with(&debug, left), 61), NONE, "somebody has left the shell");
}

#[test]
fn containers_that_cannot_begin() {
    let waits = |reason: &str, message: &str| {
        web(json!({"status": {
            "conditions": conditions("True", "False", 1),
            "containerStatuses": [app(false, 0, waiting(reason, message), json!({}))],
        }}))
    };
    let not_found =
        "failed to pull and unpack image \"docker.io/shop/web:1\": failed to resolve reference: not found";
    for (reason, message, expected) in [
        ("ErrImagePull", not_found, "ImagePull(ImagePullBackOff,1)"),
        (
            "ImagePullBackOff",
            "Back-off pulling image \"shop/web:1\": ErrImagePull: not found",
            "ImagePull(ImagePullBackOff,1)",
        ),
        ("InvalidImageName", "couldn't parse image name \"shop/Web:1\"", "ImagePull(InvalidImageName,1)"),
        (
            "ErrImageNeverPull",
            "Container image \"shop/web:1\" is not present with pull policy of Never",
            "ImagePull(ErrImageNeverPull,1)",
        ),
        (
            "CreateContainerConfigError",
            "configmap \"web\" not found",
            "CannotStart(CreateContainerConfigError,1)",
        ),
        ("CreateContainerError", "context deadline exceeded", "CannotStart(CreateContainerError,1)"),
        (
            "RunContainerError",
            "exec: \"wrong\": executable file not found in $PATH",
            "CannotStart(RunContainerError,1)",
        ),
    ] {
        let object = waits(reason, message);
        assert_eq!(findings(&object, 2), [expected]);
        assert_eq!(super::message(&object, 2), format!("container \"app\" waits to begin: {message}"));
        assert_eq!(pod(&object).judge(at(2), &Thresholds::default()).findings[0].since, at(1));
    }
    // A command that does not exist: three states, one reason.
    let start = || {
        let mut start = exited(128, "StartError", 0, 9);
        start["terminated"]["startedAt"] = "1970-01-01T00:00:00Z".into();
        start
    };
    let failing = |state, last| up(false, 1, app(false, 2, state, last));
    for state in [waiting("RunContainerError", "no such file"), backoff(20), start()] {
        assert_eq!(findings(&failing(state, start()), 10), ["CannotStart(StartError,2)"]);
    }
}

#[test]
fn pods_without_a_node() {
    let message = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No \
                   preemption victims found for incoming pod.";
    let scheduled = |reason: &str, message: &str| json!([{"type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastTransitionTime": time(100)}]);
    let without = |conditions| web(json!({"spec": {"nodeName": null}, "status": {"conditions": conditions}}));
    let unschedulable = without(scheduled("Unschedulable", message));
    assert_eq!(findings(&unschedulable, 219), NONE);
    assert_eq!(findings(&unschedulable, 220), ["Unschedulable(Unschedulable,1)"]);
    assert_eq!(super::message(&unschedulable, 220), message);
    let gated =
        without(scheduled("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"));
    assert_eq!(findings(&gated, 3600), NONE);
    assert_eq!(findings(&without(Value::Null), 119), NONE);
    assert_eq!(findings(&without(Value::Null), 120), ["Unschedulable(Unseen,1)"]);
}

#[test]
fn containers_that_are_not_ready() {
    let unready = up(false, 50, app(false, 0, running(2), json!({})));
    assert_eq!(findings(&unready, 169), NONE);
    assert_eq!(findings(&unready, 170), ["Unready(ContainersNotReady,1)"]);
    let young = up(false, 1, app(false, 0, running(100), json!({})));
    assert_eq!(findings(&young, 219), NONE, "the pull took its time");
    assert_eq!(findings(&young, 220), ["Unready(ContainersNotReady,1)"]);
    let startup = json!({"failureThreshold": 30, "periodSeconds": 10, "httpGet": {"path": "/", "port": 80}});
    let starting = with(&young, json!({"spec": {"containers": [{"name": "app", "startupProbe": startup}]}}));
    assert_eq!(findings(&starting, 519), NONE);
    assert_eq!(findings(&starting, 520), ["Unready(ContainersNotReady,1)"]);

    let mut lost = conditions("True", "True", 5);
    lost[2]["status"] = "False".into();
    let lost =
        with(&up(true, 5, app(true, 0, running(2), json!({}))), json!({"status": {"conditions": lost}}));
    assert_eq!(findings(&lost, 3600), NONE, "the node's incident");
    let mut gate = conditions("True", "True", 5);
    merge(
        &mut gate[2],
        json!({"status": "False", "reason": "ReadinessGatesNotReady", "message": "the gate"}),
    );
    let gated = with(&lost, json!({"status": {"conditions": gate}}));
    assert_eq!(findings(&gated, 125), ["Unready(ReadinessGatesNotReady,1)"]);
}

#[test]
fn pods_that_do_not_begin() {
    let creating = |sandbox, statuses: Value| {
        web(json!({"status": {"conditions": conditions(sandbox, "False", 1), "containerStatuses": statuses}}))
    };
    let waits = || json!([app(false, 0, waiting("ContainerCreating", ""), json!({}))]);
    let volume = creating("False", waits());
    assert_eq!(findings(&volume, 120), NONE);
    assert_eq!(findings(&volume, 121), ["StuckCreating(ContainerCreating,1)"]);
    assert!(message(&volume, 121).contains("its sandbox, network or volumes are not ready"));
    let pulling = creating("True", waits());
    assert_eq!(findings(&pulling, 600), NONE, "a large image");
    assert_eq!(findings(&pulling, 601), ["StuckCreating(ContainerCreating,1)"]);
    // Kubernetes before 1.29.
    let mut old = conditions("False", "False", 1);
    old.as_array_mut().unwrap().remove(0);
    for (address, network, from) in [("", false, 121), ("10.0.0.9", false, 601), ("10.0.0.9", true, 121)] {
        let status = json!({"conditions": old, "containerStatuses": waits(), "podIP": address});
        let pod = web(json!({"spec": {"hostNetwork": network}, "status": status}));
        assert_eq!(findings(&pod, from - 1), NONE, "{address} {network}");
        assert_eq!(findings(&pod, from), ["StuckCreating(ContainerCreating,1)"], "{address} {network}");
    }
    let silent = web(json!({"status": {"conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": time(3)},
    ]}}));
    assert_eq!(findings(&silent, 122), NONE);
    assert_eq!(findings(&silent, 123), ["StuckCreating(ContainerCreating,1)"]);
    assert!(message(&silent, 123).contains("on node n1 since 2026-11-21T10:00:03Z"));
    let failing = creating(
        "False",
        json!([
            app(false, 0, waiting("ContainerCreating", ""), json!({})),
            container("proxy", false, 0, waiting("ErrImagePull", "not found"), json!({})),
        ]),
    );
    let two = json!({"spec": {"containers": [{"name": "app"}, {"name": "proxy"}]}});
    assert_eq!(findings(&with(&failing, two), 3600), ["ImagePull(ImagePullBackOff,1)"], "that explains it");
}

#[test]
fn pods_that_do_not_end() {
    let deleted = |object: &core::Pod, finalizers: Value| {
        with(
            object,
            json!({"metadata": {
                "deletionTimestamp": time(130), "deletionGracePeriodSeconds": 30, "finalizers": finalizers,
            }}),
        )
    };
    let unready = up(false, 50, app(false, 0, running(2), json!({})));
    let object = deleted(&unready, Value::Null);
    assert_eq!(findings(&object, 189), NONE, "in particular it is not unready");
    assert_eq!(findings(&object, 190), ["StuckTerminating(Terminating,1)"]);
    assert!(message(&object, 190).ends_with("(grace period 30s); its containers app still run"));
    let held = deleted(&fallen(json!({})), json!(["example.com/backup"]));
    assert_eq!(findings(&held, 190), ["StuckTerminating(Finalizers,1)"]);
    assert!(message(&held, 190).ends_with("it waits for its finalizers example.com/backup"));
    let done = deleted(&fallen(json!({"status": {"phase": "Succeeded"}})), json!(["example.com/backup"]));
    assert!(!is_sound(&done));
    assert_eq!(findings(&done, 190), ["StuckTerminating(Finalizers,1)"]);
    let mut lost = conditions("True", "True", 5);
    lost[2]["status"] = "False".into();
    let lost = with(&object, json!({"status": {"conditions": lost}}));
    assert_eq!(findings(&lost, 3600), NONE, "the node's incident");
}

#[test]
fn pods_that_failed() {
    assert_eq!(findings(&fallen(json!({})), 11), ["Failed(Error,1)"]);
    assert_eq!(findings(&fallen(json!({})), 609), ["Failed(Error,1)"]);
    assert_eq!(findings(&fallen(json!({})), 610), NONE, "long replaced");
    let bare = json!({"metadata": {"ownerReferences": null}});
    assert_eq!(findings(&fallen(bare), 1_000_000), ["Failed(Error,1)"], "nothing replaces it");
    assert_eq!(findings(&fallen(job()), 11), NONE, "the Job tells");
    let deadline = json!({"status": {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}});
    assert_eq!(findings(&fallen(deadline), 11), ["Failed(DeadlineExceeded,1)"]);
    let rejected = web(json!({"status": {
        "phase": "Failed", "reason": "OutOfcpu",
        "message": "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000, used: 100, capacity: 2000",
    }}));
    assert_eq!(findings(&rejected, 11), ["Failed(OutOfcpu,1)"]);
    let memory =
        json!({"status": {"containerStatuses": [app(false, 0, exited(137, "OOMKilled", 5, 9), json!({}))]}});
    assert_eq!(
        findings(&with(&fallen(memory), never()), 11),
        ["Failed(OOMKilled,1)", "OutOfMemory(OOMKilled,0)"]
    );
    let ending =
        with(&with(&up(false, 9, app(false, 0, exited(137, "OOMKilled", 5, 9), json!({}))), never()), job());
    assert_eq!(findings(&ending, 11), NONE, "it is Failed in a moment");
    let retried = with(&up(false, 10, app(false, 1, backoff(10), exited(1, "Error", 5, 9))), job());
    assert_eq!(findings(&retried, 11), ["CrashLoop(CrashLoopBackOff,1)"], "in a pod of a Job, which goes on");
}

#[test]
fn pods_that_have_to_go() {
    let target = |reason: &str| {
        let mut all = conditions("False", "False", 60);
        all.as_array_mut().unwrap().push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": reason, "message": "it must", "lastTransitionTime": time(60),
        }));
        all
    };
    let killed = || json!([app(false, 0, exited(137, "Error", 5, 59), json!({}))]);
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 88Mi. Container \
                   app was using 300Mi, request is 64Mi, has larger consumption of memory. ";
    let evicted = fallen(json!({"status": {
        "reason": "Evicted", "message": message, "conditions": target("TerminationByKubelet"), "containerStatuses": killed(),
    }}));
    assert_eq!(findings(&evicted, 61), ["Evicted(Evicted,1)"], "not for want of memory of its own");
    assert!(super::message(&evicted, 61).starts_with(message.trim_end()));
    assert_eq!(findings(&with(&evicted, job()), 61), ["Evicted(Evicted,1)"]);
    let shutdown = json!({"status": {
        "reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown.",
        "conditions": target("TerminationByKubelet"), "containerStatuses": killed(),
    }});
    assert_eq!(findings(&fallen(shutdown), 61), ["Evicted(Terminated,1)"]);
    let sound = up(true, 3, app(true, 0, running(2), json!({})));
    for (reason, expected) in [
        ("PreemptionByScheduler", &["Evicted(PreemptionByScheduler,1)"][..]),
        ("EvictionByEvictionAPI", &[]),
        ("DeletionByTaintManager", &[]),
        ("DeletionByPodGC", &[]),
    ] {
        let object = with(&sound, json!({"status": {"conditions": target(reason)}}));
        assert_eq!(findings(&object, 61), expected, "{reason}");
        let failed = with(&object, json!({"status": {"phase": "Failed", "containerStatuses": killed()}}));
        assert_eq!(findings(&failed, 61), expected, "{reason}");
    }
}

#[test]
fn pods_that_are_well() {
    let sound = up(true, 3, app(true, 0, running(2), json!({})));
    let none = || json!({});
    for (changes, why) in [
        (none(), "as it is"),
        (json!({"status": {"phase": "Succeeded"}}), "succeeded"),
        (json!({"status": {"phase": "Unknown", "reason": "NodeLost"}}), "its node is lost"),
        (json!({"metadata": {"deletionTimestamp": time(30)}}), "deleted a moment ago"),
        (
            json!({"status": {
                "containerStatuses": [app(true, 1, running(2), exited(1, "Error", 0, 1))],
            }}),
            "it has not crashed for long",
        ),
    ] {
        let object = with(&sound, changes);
        assert_eq!(findings(&object, if why.starts_with("deleted") { 31 } else { 3600 }), NONE, "{why}");
    }
    assert!(is_sound(&sound));
    let done = container("setup", true, 0, exited(0, "Completed", 1, 2), none());
    let started = with(&sound, json!({"status": {"initContainerStatuses": [done]}}));
    assert!(is_sound(&started));
    for unsound in [
        json!({"metadata": {"deletionTimestamp": time(30)}}),
        json!({"status": {"containerStatuses": [app(true, 1, running(2), exited(1, "Error", 0, 1))]}}),
        json!({"status": {"conditions": conditions("True", "False", 3)}}),
        json!({"status": {"phase": "Pending"}}),
        json!({"status": {"ephemeralContainerStatuses": [container("debug", false, 0, exited(137, "OOMKilled", 1, 2), none())]}}),
    ] {
        assert!(!is_sound(&with(&sound, unsound.clone())), "{unsound}");
    }
}
