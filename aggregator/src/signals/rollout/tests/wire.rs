//! What is sent.

use kestrel_proto::cloud::v1::WorkloadCondition;

use super::*;
use crate::{inventory::convert, signals::component::Components};

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
