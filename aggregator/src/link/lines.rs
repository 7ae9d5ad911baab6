//! From an agent's log chunks to the messages of the logs stream.

use jiff::Timestamp;
use kestrel_proto::{
    cloud::v1::{LogEntry, PodLogs},
    node::v1::LogChunk,
};
use prost::Message as _;

use crate::inventory::{convert, pods::Known};

/// No message on the logs stream is larger.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// The messages for one chunk: one, or more where one would be too large.
/// Lines are counted on from `lines`, the number of lines that came before from
/// the same container.
pub(super) fn pod_logs(
    chunk: LogChunk,
    known: Option<&Known>,
    node: &str,
    lines: &mut i64,
    now: Timestamp,
) -> Vec<PodLogs> {
    split(chunk, known, node, lines, now, MAX_MESSAGE_BYTES)
}

fn split(
    chunk: LogChunk,
    known: Option<&Known>,
    node: &str,
    lines: &mut i64,
    now: Timestamp,
    most: usize,
) -> Vec<PodLogs> {
    let empty = PodLogs {
        pod_name: chunk.pod_name,
        namespace: chunk.pod_namespace,
        pod_uid: known.map_or(chunk.pod_uid, |known| known.api_uid.to_string()),
        container_name: chunk.container_name,
        log_entries: vec![],
        previous_container: chunk.previous_container,
        collection_timestamp: Some(convert::timestamp(now)),
        total_lines: 0,
        stream_complete: false,
        stream_offset: 0,
        owner_references: known.map(|known| known.owners.to_vec()).unwrap_or_default(),
        node_name: node.to_owned(),
    };
    // Tag and length of an entry, and the two counters that are set at the end.
    const PER_ENTRY: usize = 6;
    const COUNTERS: usize = 22;
    let empty_bytes = empty.encoded_len() + COUNTERS;
    let mut messages = Vec::new();
    let (mut message, mut bytes) = (empty.clone(), empty_bytes);
    let mut finish = |mut message: PodLogs, lines: i64| {
        message.total_lines = message.log_entries.len() as i64;
        message.stream_offset = lines;
        messages.push(message);
    };
    for entry in chunk.entries {
        let entry = LogEntry { line_number: *lines + 1, ..entry };
        let more = entry.encoded_len() + PER_ENTRY;
        if bytes + more > most && !message.log_entries.is_empty() {
            finish(std::mem::replace(&mut message, empty.clone()), *lines);
            bytes = empty_bytes;
        }
        *lines += 1;
        bytes += more;
        message.log_entries.push(entry);
    }
    if !message.log_entries.is_empty() {
        finish(message, *lines);
    }
    messages
}

#[cfg(test)]
mod tests {
    use kestrel_proto::{cloud::v1::OwnerReference, node::v1::PodInfo};
    use proptest::prelude::*;

    use super::*;

    fn chunk(messages: &[&str]) -> LogChunk {
        let entry = |message: &&str| LogEntry { message: (*message).to_owned(), ..Default::default() };
        LogChunk {
            pod_namespace: "shop".to_owned(),
            pod_name: "web-1".to_owned(),
            pod_uid: "at-node".to_owned(),
            container_name: "app".to_owned(),
            previous_container: true,
            entries: messages.iter().map(entry).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_chunk_becomes_a_message_in_full() {
        let owner =
            OwnerReference { kind: "ReplicaSet".to_owned(), uid: "rs".to_owned(), ..Default::default() };
        let known = Known {
            info: PodInfo::default(),
            owners: [owner.clone()].into(),
            api_uid: "at-api".into(),
            node: "n1".into(),
        };
        let (mut lines, now) = (10, "2026-11-21T10:00:00Z".parse().unwrap());
        let messages = pod_logs(chunk(&["one", "two"]), Some(&known), "n1", &mut lines, now);
        let entry = |line_number, message: &str| LogEntry {
            line_number,
            message: message.to_owned(),
            ..Default::default()
        };
        let expected = PodLogs {
            pod_name: "web-1".to_owned(),
            namespace: "shop".to_owned(),
            pod_uid: "at-api".to_owned(),
            container_name: "app".to_owned(),
            log_entries: vec![entry(11, "one"), entry(12, "two")],
            previous_container: true,
            collection_timestamp: Some(convert::timestamp(now)),
            total_lines: 2,
            stream_complete: false,
            stream_offset: 12,
            owner_references: vec![owner],
            node_name: "n1".to_owned(),
        };
        assert_eq!(messages, [expected]);
        let unknown = pod_logs(chunk(&["three"]), None, "n1", &mut lines, now);
        assert_eq!((unknown[0].pod_uid.as_str(), unknown[0].stream_offset), ("at-node", 13));
        assert!(unknown[0].owner_references.is_empty());
        assert!(pod_logs(chunk(&[]), None, "n1", &mut lines, now).is_empty());
    }

    proptest! {
        #[test]
        fn a_split_loses_nothing_and_no_message_is_too_large(lengths in prop::collection::vec(0..300_usize, 0..40)) {
            const MOST: usize = 500;
            let texts: Vec<_> = lengths.iter().map(|length| "x".repeat(*length)).collect();
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let mut lines = 0;
            let messages = split(chunk(&texts), None, "n1", &mut lines, Timestamp::UNIX_EPOCH, MOST);
            let mut at = 0;
            for message in &messages {
                prop_assert!(message.encoded_len() <= MOST);
                prop_assert_eq!(message.total_lines, message.log_entries.len() as i64);
                for entry in &message.log_entries {
                    prop_assert_eq!(&entry.message, texts[at]);
                    at += 1;
                    prop_assert_eq!(entry.line_number, at as i64);
                }
                prop_assert_eq!(message.stream_offset, at as i64);
            }
            prop_assert_eq!((at, lines), (texts.len(), texts.len() as i64));
        }
    }
}
