//! What becomes of a StatefulSet and of a DaemonSet.

use super::*;

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
    for (why, spec, told) in [
        ("the last pod begins", three(), None),
        (
            "the roll-out went as far as it may, and a pod is gone",
            held(1),
            Some("CREATE Failed +Degraded:PodsNotReady"),
        ),
    ] {
        let mut db = Story::of("StatefulSet");
        assert_eq!(db.sees(2, spec, revisions([0, 3, 2], "b")), NOTHING);
        assert_eq!(db.waits(120), told.into_iter().collect::<Vec<_>>(), "{why}");
    }
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
