use serde_json::{Value, json};

use super::*;
use crate::signals::{register::Register, told::Told};

mod any;
mod deployments;
mod sets;
mod wire;

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

fn revisions([current, updated, ready]: [i32; 3], new: &str) -> Value {
    json!({"observedGeneration": 2, "replicas": 3, "currentReplicas": current, "updatedReplicas": updated,
           "readyReplicas": ready, "availableReplicas": ready, "currentRevision": "a", "updateRevision": new})
}

fn daemons([desired, current, updated, ready]: [i32; 4]) -> Value {
    json!({"observedGeneration": 1, "desiredNumberScheduled": desired, "currentNumberScheduled": current,
           "updatedNumberScheduled": updated, "numberReady": ready, "numberAvailable": ready,
           "numberUnavailable": desired - ready, "numberMisscheduled": 2})
}
