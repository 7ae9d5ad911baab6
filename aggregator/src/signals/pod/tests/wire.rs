use kestrel_proto::cloud::v1::{self, ResourceUsage, container_state};

use super::*;

#[test]
fn the_record_has_every_field_of_the_contract() {
    let object = web(json!({
        "spec": {
            "initContainers": [
                {"name": "migrate", "image": "shop/migrate:1", "resources": {"requests": {"cpu": "4"}}},
            ],
            "containers": [
                {"name": "app", "image": "shop/web:1", "resources": {
                    "requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"},
                }},
                {"name": "proxy", "image": "shop/proxy:1", "resources": {"requests": {"cpu": "0.1", "memory": "1M"}}},
            ],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.9", "conditions": conditions("True", "False", 20),
            "containerStatuses": [
                app(false, 2, backoff(20), exited(1, "Error", 10, 12)),
                container("proxy", true, 0, running(2), json!({})),
            ],
            "initContainerStatuses": [
                container("migrate", true, 1, exited(0, "Completed", 1, 2), exited(3, "Error", 0, 1)),
            ],
        },
    }));
    let record = record::pod_status_change(&object);
    assert_eq!(
        (record.name.as_str(), record.namespace.as_str(), record.uid.as_str(), record.node_name.as_str()),
        ("web-5d9c7b8f6-x2x8k", "shop", "u1", "n1")
    );
    assert_eq!(
        (
            record.pod_ip.as_str(),
            record.phase.as_str(),
            record.qos_class.as_str(),
            record.total_restart_count
        ),
        ("10.0.0.9", "Running", "Burstable", 3)
    );
    assert_eq!(
        record.resource_usage,
        Some(ResourceUsage {
            cpu_usage_nano_cores: 0,
            memory_usage_bytes: 0,
            cpu_limit_nano_cores: 1_000_000_000,
            memory_limit_bytes: 128 << 20,
            cpu_request_nano_cores: 350_000_000,
            memory_request_bytes: (64 << 20) + 1_000_000,
        })
    );
    assert_eq!(
        (record.owner_references[0].uid.as_str(), record.created_at),
        ("rs", Some(convert::timestamp(at(0))))
    );
    assert_eq!(record.conditions.len(), 5);
    assert_eq!(
        record.conditions[2],
        v1::PodCondition {
            r#type: "Ready".to_owned(),
            status: "False".to_owned(),
            last_probe_time: None,
            last_transition_time: Some(convert::timestamp(at(20))),
            reason: "ContainersNotReady".to_owned(),
            message: "containers with unready status: [app]".to_owned(),
        }
    );
    let waiting = v1::ContainerStateWaiting {
        reason: "CrashLoopBackOff".to_owned(),
        message: "back-off 20s restarting failed container=app pod=web-5d9c7b8f6-x2x8k_shop(u1)".to_owned(),
    };
    let terminated = v1::ContainerStateTerminated {
        exit_code: 1,
        signal: 0,
        reason: "Error".to_owned(),
        message: String::new(),
        started_at: Some(convert::timestamp(at(10))),
        finished_at: Some(convert::timestamp(at(12))),
        container_id: "containerd://7d".to_owned(),
    };
    let state = |state| Some(v1::ContainerState { state: Some(state) });
    assert_eq!(
        record.container_statuses[0],
        v1::ContainerStatus {
            name: "app".to_owned(),
            image: "docker.io/shop/web:1".to_owned(),
            image_id: "docker.io/shop/web@sha256:0f".to_owned(),
            container_id: "containerd://7d".to_owned(),
            ready: false,
            restart_count: 2,
            state: state(container_state::State::Waiting(waiting)),
            last_termination_state: state(container_state::State::Terminated(terminated)),
            started: false,
        }
    );
    let proxy = &record.container_statuses[1];
    assert!(proxy.started && proxy.ready && proxy.last_termination_state.is_none());
    assert_eq!(record.init_container_statuses[0].name, "migrate");
    assert_eq!((record.status_timestamp, record.action), (None, 0));
}
