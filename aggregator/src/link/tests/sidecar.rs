//! What sidecars are told, and what is made of their end.

use std::time::Instant;

use kestrel_proto::node::v1::{Farewell, LogGap, LogGapReason, Welcome};

use super::*;

/// A pod with a collector, as the API server shows it.
fn collected(phase: &str) -> Pod {
    let mut pod = serde_json::to_value(pod("web-1", "u1", "n1")).unwrap();
    pod["spec"]["initContainers"] = json!([{"name": "kestrel-collector"}]);
    pod["status"] = json!({"phase": phase, "initContainerStatuses": [{
        "name": "kestrel-collector", "state": {"running": {}}, "image": "", "imageID": "", "ready": true,
        "restartCount": 0,
    }]});
    serde_json::from_value(pod).unwrap()
}

impl Server {
    /// What is told of collectors now.
    fn silent(&self) -> usize {
        self.shared.silence().look(&self.pods.collected(), 9, Instant::now()).len()
    }
}

#[tokio::test]
async fn a_sidecar_is_told_whom_to_trust_at_once_and_when_it_changes_and_how_much_it_may_send() {
    let server = serving(Config { pod_bytes_per_second: 5, ..config() }).await;
    let welcomed = async |token| {
        let mut stream = server.open(Some(token)).await.unwrap();
        stream.send(Up::Hello(hello(token))).await;
        let Down::Welcome(welcome) = stream.next().await.unwrap() else { panic!() };
        assert!(matches!(stream.next().await.unwrap(), Down::PodUpdate(_)));
        (stream, welcome)
    };
    let (mut sidecar, Welcome { pod_bytes_per_second, .. }) = welcomed(SIDECAR).await;
    assert_eq!(pod_bytes_per_second, 5);
    let Down::Anchors(now) = sidecar.next().await.unwrap() else { panic!() };
    assert_eq!(now.pem, *server.anchors.borrow());
    server.anchors.send_replace("both".into());
    assert!(matches!(sidecar.next().await.unwrap(), Down::Anchors(both) if both.pem == "both"));

    let (mut agent, Welcome { pod_bytes_per_second, .. }) = welcomed(AGENT).await;
    assert_eq!(pod_bytes_per_second, 0, "it has limits of its own");
    server.anchors.send_replace("one".into());
    agent.batch(1, vec![]).await;
    assert!(matches!(agent.next().await.unwrap(), Down::Credit(_)), "it reads a file");
}

#[tokio::test]
async fn a_farewell_is_a_gap_of_the_log_and_the_end_of_the_stream() {
    let server = server(10).await;
    apply(&server.pods, &collected("Running"));
    assert_eq!(server.silent(), 0);
    let sidecar = server.attached(SIDECAR).await;
    let gap = LogGap {
        pod_namespace: "shop".to_owned(),
        pod_name: "web-1".to_owned(),
        pod_uid: "u1".to_owned(),
        container_name: "app".to_owned(),
        reason: LogGapReason::Ended.into(),
        bytes: 7,
        ..LogGap::default()
    };
    let foreign = LogGap { pod_uid: "u2".to_owned(), ..gap.clone() };
    sidecar.send(Up::Farewell(Farewell { gaps: vec![gap, foreign] })).await;
    let Stream { up, mut down, .. } = sidecar;
    drop(up);
    let end = timeout(DEADLINE, async { while let Ok(Some(_)) = down.message().await {} });
    let (logs, _) = server.logs().await;
    assert_eq!(logs.container_name, "app");
    assert_eq!(
        texts(&logs),
        ["kestrel: 7 bytes of this log are missing: the pod ended before they were read"]
    );
    end.await.unwrap();
    assert_eq!(server.metrics.foreign_lines.get(), 1);
    apply(&server.pods, &collected("Succeeded"));
    assert_eq!((server.silent(), server.silent()), (0, 0), "all is said");

    let mut agent = server.attached(AGENT).await;
    agent.send(Up::Farewell(Farewell::default())).await;
    assert_eq!(agent.next().await.unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_pod_that_ended_without_its_farewell_has_a_gap_that_is_counted() {
    let server = server(10).await;
    apply(&server.pods, &collected("Running"));
    assert_eq!(server.silent(), 0);
    let mut stream = server.open(Some(SIDECAR)).await.unwrap();
    stream.send(Up::Hello(Hello { features: vec!["farewell".to_owned()], ..hello(SIDECAR) })).await;
    assert!(matches!(stream.next().await.unwrap(), Down::Welcome(_)));
    assert!(matches!(stream.next().await.unwrap(), Down::PodUpdate(_)));
    drop(stream);
    apply(&server.pods, &collected("Failed"));
    assert_eq!((server.silent(), server.silent(), server.silent()), (0, 1, 0));
    server.shared.ended_unheard(&server.pods.get("u1").unwrap()).await;
    let (logs, _) = server.logs().await;
    assert_eq!((logs.container_name.as_str(), server.metrics.ended_unheard.get()), ("kestrel-collector", 1));
    assert!(texts(&logs)[0].contains("may be missing"), "{logs:?}");
}
