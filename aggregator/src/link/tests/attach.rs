//! Who attaches, what it is told, and how it ends.

use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::Code;

use super::*;

#[tokio::test]
async fn an_agent_is_welcomed_told_its_pods_and_their_changes() {
    let server = server(10).await;
    let mut stream = server.open(Some(AGENT)).await.unwrap();
    stream.send(Up::Hello(hello(AGENT))).await;
    let Down::Welcome(welcome) = stream.next().await.unwrap() else { panic!() };
    assert_eq!(welcome.protocol_version, 1, "the greatest that both speak");
    assert!(welcome.credit_bytes >= welcome.max_batch_bytes && welcome.max_batch_bytes >= 4 * 1024 * 1024);
    let Down::PodUpdate(pods) = stream.next().await.unwrap() else { panic!() };
    assert!(pods.snapshot);
    assert_eq!(pods.pods.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(), ["u1"]);
    apply(&server.pods, &pod("web-3", "u3", "n1"));
    let Down::PodUpdate(pods) = stream.next().await.unwrap() else { panic!() };
    assert_eq!((pods.snapshot, pods.pods[0].name.as_str()), (false, "web-3"));
    let attached = |role| server.metrics.attached.get_or_create(&metrics::RoleLabel { role }).get();
    assert_eq!((attached(metrics::Role::Agent), attached(metrics::Role::Sidecar)), (1, 0));
}

#[tokio::test]
async fn an_incident_asks_its_node_for_all_lines_and_for_those_before() {
    let server = server(10).await;
    let mut agent = server.attached(AGENT).await;
    server.pods.turned("u1", true);
    let Down::PodUpdate(update) = agent.next().await.unwrap() else { panic!() };
    let info = &update.pods[0];
    assert_eq!((info.uid.as_str(), info.log_policy(), update.snapshot), ("u1", LogPolicy::All, false));
    assert!(info.look_back_from.is_some());
}

#[tokio::test]
async fn a_host_report_becomes_a_signal_of_its_node() {
    let server = server(10).await;
    let mut stream = server.attached(AGENT).await;
    let kind = "kestrel.ai/DiskPressure".to_owned();
    let condition = NodeCondition { r#type: kind, status: "True".to_owned(), ..Default::default() };
    stream.send(Up::HostReport(HostReport { conditions: vec![condition], events: vec![] })).await;
    let told = async {
        loop {
            let changed = server.lanes.changed();
            if server.lanes.take(Lane::Signals).is_some() {
                return;
            }
            changed.await;
        }
    };
    timeout(DEADLINE, told).await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Down::Clock(_)), "it compares its node's clock");
}

#[tokio::test]
async fn whoever_cannot_say_who_it_is_is_refused() {
    let server = server(10).await;
    let refused = async |token| server.open(token).await.err().unwrap();
    let none = refused(None).await;
    assert_eq!(
        (none.code(), none.message()),
        (Code::Unauthenticated, "it sends no token (metadata authorization, Bearer)")
    );
    let wrong = refused(Some("stolen")).await;
    assert_eq!(wrong.code(), Code::Unauthenticated);
    assert_eq!(wrong.message(), "its token is not accepted by the API server: not genuine");
    assert_eq!(server.refused(Refused::Token), 2);

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let said = async {
        while server.refused(Refused::Tls) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, said).await.unwrap();

    for (claim, code) in [
        (hello("kestrel-ai:kestrel-node-agent p u n2"), Code::PermissionDenied),
        (hello(SIDECAR), Code::PermissionDenied),
        (Hello { protocol_version: 0, ..hello(AGENT) }, Code::InvalidArgument),
    ] {
        let mut stream = server.open(Some(AGENT)).await.unwrap();
        stream.send(Up::Hello(claim)).await;
        assert_eq!(stream.next().await.unwrap_err().code(), code);
    }
    let mut stream = server.open(Some(AGENT)).await.unwrap();
    stream.send(Up::HostReport(HostReport::default())).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument, "no Hello");
    assert_eq!(server.refused(Refused::Claim), 4);
}

#[tokio::test]
async fn a_full_link_says_when_to_come_back_and_a_newer_stream_replaces_the_older() {
    let server = server(2).await;
    let mut agent = server.attached(AGENT).await;
    let sidecar = server.attached(SIDECAR).await;
    let third = "shop:default web-9 u9 n1";
    let mut refused = server.open(Some(third)).await.unwrap();
    refused.send(Up::Hello(hello(third))).await;
    let full = refused.next().await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    let wait: u64 = full.metadata().get("retry-after-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!(wait <= 30_000);
    let mut impostor = server.open(Some(AGENT)).await.unwrap();
    impostor.send(Up::Hello(hello(third))).await;
    assert_eq!(impostor.next().await.unwrap_err().code(), Code::PermissionDenied);
    agent.batch(1, vec![]).await;
    assert!(agent.next().await.is_ok(), "an impostor takes nobody's place");
    let newer = server.attached(AGENT).await;
    let status = loop {
        if let Err(status) = agent.next().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Aborted);
    drop((newer, sidecar));
}

#[tokio::test]
async fn the_drain_ends_streams_with_a_reason_to_come_back_at_once() {
    let server = server(10).await;
    let mut stream = server.attached(AGENT).await;
    server.drain.cancel();
    let status = stream.next().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the leader is changing: attach again")
    );
    assert_eq!(status.metadata().get("retry-after-ms").unwrap(), "0");
    timeout(DEADLINE, server.task).await.unwrap().unwrap();
}
