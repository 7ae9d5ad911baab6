//! Whatever an object goes through.

use proptest::prelude::*;

use super::*;

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
