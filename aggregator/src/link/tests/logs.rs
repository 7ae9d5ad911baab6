//! What becomes of batches.

use std::sync::atomic::{AtomicU64, Ordering};

use kestrel_proto::node::v1::LogGap;
use tonic::Code;

use super::*;

#[tokio::test]
async fn logs_pass_with_their_owner_and_are_answered_in_order_when_they_left() {
    let server = server(10).await;
    let mut stream = server.attached(AGENT).await;
    let bytes = stream.batch(1, vec![chunk("web-1", "u1", &["one", "two"])]).await;
    assert!(matches!(stream.next().await.unwrap(), Down::Credit(credit) if credit.bytes == bytes));
    for (id, line) in [(2, "three"), (3, "four")] {
        stream.batch(id, vec![chunk("web-1", "u1", &[line])]).await;
        assert!(matches!(stream.next().await.unwrap(), Down::Credit(_)));
    }
    let (logs, first) = server.logs().await;
    assert_eq!((texts(&logs), logs.node_name.as_str()), (vec!["one", "two"], "n1"));
    assert_eq!(logs.owner_references[0].uid, "rs");
    let (_, second) = server.logs().await;
    let (logs, third) = server.logs().await;
    assert_eq!((logs.log_entries[0].line_number, logs.stream_offset), (4, 4));
    assert_eq!(server.lines.last("u1", "app", None), ["one", "two", "three", "four"], "kept for signals");
    server.lanes.left(Lane::Logs, first);
    server.lanes.again(Lane::Logs, second);
    server.lanes.again(Lane::Logs, third);
    assert!(matches!(stream.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 1));
    let Down::Nack(nack) = stream.next().await.unwrap() else { panic!() };
    assert_eq!(nack.reason, "the stream to the cloud ended too soon after");

    // What was under way is not taken; its credit comes back.
    let bytes = stream.batch(4, vec![chunk("web-1", "u1", &["five"])]).await;
    assert!(matches!(stream.next().await.unwrap(), Down::Credit(credit) if credit.bytes == bytes));
    stream.nacks_seen = 1;
    stream.batch(5, vec![chunk("web-1", "u1", &["three", "four", "five"])]).await;
    let (logs, again) = server.logs().await;
    assert_eq!(texts(&logs), ["three", "four", "five"]);
    server.lanes.left(Lane::Logs, again);
    while !matches!(stream.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 5) {}
}

#[tokio::test]
async fn what_an_agent_reads_again_after_a_restart_is_not_sent_twice_and_is_answered_with_the_first() {
    let server = server(10).await;
    let read = |lines: &[&str], ends: &[u32]| of_file("web-1", "u1", lines, ends);
    let before = server.attached(AGENT).await;
    before.batch(1, vec![read(&["one", "two"], &[4, 8])]).await;
    let (_, under_way) = server.logs().await;
    drop(before);
    let mut stream = server.attached(AGENT).await;
    stream.batch(1, vec![read(&["one"], &[4])]).await;
    stream.batch(2, vec![read(&["two", "three"], &[8, 14])]).await;
    for _ in 0..2 {
        assert!(matches!(stream.next().await.unwrap(), Down::Credit(_)));
    }
    let (logs, rest) = server.logs().await;
    assert_eq!((texts(&logs), server.metrics.repeated_lines.get()), (vec!["three"], 2));
    server.lanes.left(Lane::Logs, rest);
    server.lanes.left(Lane::Logs, under_way);
    let mut acked = 0;
    while acked < 2 {
        let Down::Ack(ack) = stream.next().await.unwrap() else { panic!() };
        acked = ack.up_to_id;
    }
}

#[tokio::test]
async fn what_a_peer_may_not_speak_of_is_dropped_and_the_rest_of_its_batch_is_not() {
    let server = server(10).await;
    let (mut agent, mut sidecar) = (server.attached(AGENT).await, server.attached(SIDECAR).await);
    let (own, other) = (chunk("web-1", "u1", &["own"]), chunk("web-2", "u2", &["another node's"]));
    agent.batch(1, vec![other.clone(), own.clone()]).await;
    assert!(matches!(agent.next().await.unwrap(), Down::Credit(_)));
    let (logs, number) = server.logs().await;
    assert_eq!(texts(&logs), ["own"]);
    server.lanes.left(Lane::Logs, number);
    assert!(matches!(agent.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 1));
    sidecar.batch(1, vec![chunk("web-1", "other-uid", &["x", "y"]), other]).await;
    let mut answers = [sidecar.next().await.unwrap(), sidecar.next().await.unwrap()];
    answers.sort_by_key(|answer| matches!(answer, Down::Ack(_)));
    assert!(matches!(answers, [Down::Credit(_), Down::Ack(_)]), "{answers:?}");
    assert_eq!((server.metrics.foreign_lines.get(), server.metrics.lines.get()), (4, 1));
    sidecar.send(Up::HostReport(HostReport::default())).await;
    assert_eq!(sidecar.next().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn lines_of_an_excluded_namespace_end_here_and_its_pods_are_not_asked_for_any() {
    let server = server(10).await;
    let mut of_the_bank = pod("vault-0", "u9", "n1");
    of_the_bank.metadata.namespace = Some("bank".to_owned());
    of_the_bank.metadata.annotations = Some([("kestrel.ai/logs".to_owned(), "all".to_owned())].into());
    let mut agent = server.attached(AGENT).await;
    apply(&server.pods, &of_the_bank);
    let Down::PodUpdate(update) = agent.next().await.unwrap() else { panic!() };
    assert_eq!((update.pods[0].name.as_str(), update.pods[0].log_policy()), ("vault-0", LogPolicy::Off));
    let [known, unknown] = [("vault-0", "u9"), ("vault-1", "u10")]
        .map(|(name, uid)| LogChunk { pod_namespace: "bank".to_owned(), ..chunk(name, uid, &["a secret"]) });
    agent.batch(1, vec![known, unknown, chunk("web-1", "u1", &["own"])]).await;
    assert!(matches!(agent.next().await.unwrap(), Down::Credit(_)));
    let (logs, number) = server.logs().await;
    assert_eq!(texts(&logs), ["own"]);
    server.lanes.left(Lane::Logs, number);
    assert!(matches!(agent.next().await.unwrap(), Down::Ack(ack) if ack.up_to_id == 1));
    assert_eq!((server.metrics.kept_lines.get(), server.metrics.lines.get()), (2, 1));
    assert!(server.lines.last("u9", "app", None).is_empty());
}

#[tokio::test]
async fn a_gap_is_a_line_of_its_log_and_only_of_a_log_that_the_peer_may_speak_of() {
    let server = server(10).await;
    let agent = server.attached(AGENT).await;
    let gap = |pod: &str, uid: &str| LogGap {
        pod_namespace: "shop".to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: uid.to_owned(),
        container_name: "app".to_owned(),
        bytes: 7,
        ..LogGap::default()
    };
    let logs = vec![chunk("web-1", "u1", &["after"])];
    agent
        .content(
            1,
            BatchContent { logs, gaps: vec![gap("web-2", "u2"), gap("web-1", "u1")], ..Default::default() },
        )
        .await;
    let (logs, _) = server.logs().await;
    assert_eq!(
        (&*logs.pod_name, &*logs.container_name, &*logs.log_entries[0].level),
        ("web-1", "app", "WARN")
    );
    assert!(texts(&logs)[0].starts_with("kestrel: 7 bytes of this log are missing"));
    assert_eq!(texts(&server.logs().await.0), ["after"]);
    assert_eq!(server.metrics.foreign_lines.get(), 1);
}

#[tokio::test]
async fn a_batch_that_breaks_the_protocol_ends_the_stream_with_the_reason() {
    let server = server(10).await;
    let plain = |id, content: &[u8]| Batch {
        id,
        compression: Compression::None.into(),
        payload: Bytes::copy_from_slice(content),
        content_bytes: content.len() as u64,
        nacks_seen: 0,
    };
    let logs =
        vec![chunk("web-1", "u1", &["fits"]), LogChunk { levels: vec![1].into(), ..LogChunk::default() }];
    let misfit = BatchContent { logs, ..Default::default() }.encode_to_vec();
    let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 1).unwrap();
    let bomb = Batch { id: 1, compression: 1, payload: bomb.into(), content_bytes: 1000, nacks_seen: 0 };
    for (batch, code, words) in [
        (plain(0, b""), Code::InvalidArgument, "ids must increase"),
        (plain(1, b"nonsense"), Code::InvalidArgument, "can't be decoded"),
        (
            plain(1, &misfit),
            Code::InvalidArgument,
            "can't be decoded: times and levels have different counts",
        ),
        (bomb, Code::InvalidArgument, "can't be decompressed"),
        (plain(1, &vec![0; batch::MAX_BYTES + 1]), Code::InvalidArgument, "has 4194305 bytes"),
        (plain(1, &vec![0; batch::MAX_BYTES + 1000]), Code::OutOfRange, "too large"),
    ] {
        let mut stream = server.attached(AGENT).await;
        stream.send(Up::Batch(batch)).await;
        let status = stream.next().await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    assert_eq!(server.metrics.lines.get(), 0, "nothing of such a batch is taken");
}

#[tokio::test]
async fn a_peer_that_ignores_its_credit_is_held_by_the_transport() {
    const BATCHES: u64 = 40;
    let server = server(10).await;
    let stream = server.attached(AGENT).await;
    // Does not compress: what is sent is what has to be held.
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(1024 * 1024).collect();
    let sent = AtomicU64::new(0);
    let flood = async {
        for id in 1..=BATCHES {
            stream.batch(id, vec![chunk("web-1", "u1", &[&noise])]).await;
            sent.store(id, Ordering::Relaxed);
        }
    };
    let drain = async {
        for taken in 0..BATCHES {
            let (lines, sent) = (server.metrics.lines.get(), sent.load(Ordering::Relaxed));
            assert!(lines <= taken + 9, "the lane holds 8, and one waits: {lines} after {taken}");
            assert!(sent <= lines + 8, "the sender's own queues hold the rest: {sent} after {lines}");
            let (_, number) = server.logs().await;
            server.lanes.left(Lane::Logs, number);
        }
    };
    tokio::join!(flood, drain);
    assert_eq!(server.metrics.lines.get(), BATCHES);
}
