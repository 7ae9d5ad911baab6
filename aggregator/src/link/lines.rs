//! From the lines of an agent's chunk to the messages of the logs stream. Each
//! is written once, as it is sent, and never held as an object.

use jiff::Timestamp;
use kestrel_proto::{
    cloud::v1::PodLogs,
    node::v1::{LogChunk, LogLevel},
};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use super::columns::Line;
use crate::inventory::{convert, pods::Known};

/// No message on the logs stream is larger, unless a single line is.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// Field numbers of `cloud/v1/logs.proto`.
mod field {
    pub(super) const LOG_ENTRIES: u32 = 5;
    pub(super) const TIMESTAMP: u32 = 1;
    pub(super) const MESSAGE: u32 = 2;
    pub(super) const LEVEL: u32 = 3;
    pub(super) const LINE_NUMBER: u32 = 4;
    pub(super) const ERROR_INFO: u32 = 5;
    pub(super) const ERROR_TYPE: u32 = 1;
    pub(super) const SECONDS: u32 = 1;
    pub(super) const NANOS: u32 = 2;
}

/// The encoded messages for the lines of one chunk: one, or more where one would be too
/// large. Lines are counted on from `number`, the number of lines that came
/// before from the same container.
pub(super) fn pod_logs(
    chunk: &LogChunk,
    lines: &[Line<'_>],
    known: Option<&Known>,
    node: &str,
    number: &mut i64,
    now: Timestamp,
) -> Vec<Vec<u8>> {
    split(chunk, lines, known, node, number, now, MAX_MESSAGE_BYTES)
}

fn split(
    chunk: &LogChunk,
    mut lines: &[Line<'_>],
    known: Option<&Known>,
    node: &str,
    number: &mut i64,
    now: Timestamp,
    most: usize,
) -> Vec<Vec<u8>> {
    // All but the lines.
    let mut rest = PodLogs {
        pod_name: chunk.pod_name.clone(),
        namespace: chunk.pod_namespace.clone(),
        pod_uid: known.map_or_else(|| chunk.pod_uid.clone(), |known| known.api_uid.to_string()),
        container_name: chunk.container_name.clone(),
        log_entries: vec![],
        previous_container: chunk.previous_container,
        collection_timestamp: Some(convert::timestamp(now)),
        total_lines: 0,
        stream_complete: false,
        stream_offset: 0,
        owner_references: known.map(|known| known.owners.to_vec()).unwrap_or_default(),
        node_name: node.to_owned(),
    };
    /// The two counters that are set at the end.
    const COUNTERS: usize = 22;
    let least = rest.encoded_len() + COUNTERS;
    let mut messages = Vec::new();
    while !lines.is_empty() {
        let (mut bytes, mut count) = (least, 0);
        for line in lines {
            let more = field_bytes(Entry::new(line, *number + count as i64 + 1).bytes);
            if bytes + more > most && count > 0 {
                break;
            }
            bytes += more;
            count += 1;
        }
        let (these, later) = lines.split_at(count);
        let mut message = Vec::with_capacity(bytes);
        for line in these {
            *number += 1;
            Entry::new(line, *number).write(&mut message);
        }
        (rest.total_lines, rest.stream_offset) = (count as i64, *number);
        rest.encode_raw(&mut message);
        messages.push(message);
        lines = later;
    }
    messages
}

/// A line on its way to being a `LogEntry`.
struct Entry<'a> {
    seconds: u64,
    nanos: u64,
    text: &'a str,
    level: &'static str,
    number: u64,
    class: &'a str,
    time_bytes: usize,
    /// Bytes of the whole.
    bytes: usize,
}

impl<'a> Entry<'a> {
    fn new(line: &Line<'a>, number: i64) -> Self {
        const SECOND: u64 = 1_000_000_000;
        let Line { nanoseconds, text, class, level, .. } = *line;
        let level = match level {
            LogLevel::Unspecified => "",
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warn => "WARN",
            LogLevel::Error => "ERROR",
            LogLevel::Fatal => "FATAL",
        };
        let (seconds, nanos, number) = (nanoseconds / SECOND, nanoseconds % SECOND, number.cast_unsigned());
        let number_bytes = |number| if number == 0 { 0 } else { 1 + encoded_len_varint(number) };
        let text_bytes = |text: &str| if text.is_empty() { 0 } else { field_bytes(text.len()) };
        let time_bytes = number_bytes(seconds) + number_bytes(nanos);
        let mut bytes = text_bytes(text) + text_bytes(level) + number_bytes(number);
        if nanoseconds > 0 {
            bytes += field_bytes(time_bytes);
        }
        if !class.is_empty() {
            bytes += field_bytes(text_bytes(class));
        }
        Self { seconds, nanos, text, level, number, class, time_bytes, bytes }
    }

    fn write(&self, out: &mut Vec<u8>) {
        key(out, field::LOG_ENTRIES, self.bytes);
        if self.time_bytes > 0 {
            key(out, field::TIMESTAMP, self.time_bytes);
            number(out, field::SECONDS, self.seconds);
            number(out, field::NANOS, self.nanos);
        }
        text(out, field::MESSAGE, self.text);
        text(out, field::LEVEL, self.level);
        number(out, field::LINE_NUMBER, self.number);
        if !self.class.is_empty() {
            key(out, field::ERROR_INFO, field_bytes(self.class.len()));
            text(out, field::ERROR_TYPE, self.class);
        }
    }
}

/// Bytes of a text or message, with its key, which is one byte, and its length.
fn field_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn key(out: &mut Vec<u8>, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        key(out, field, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

fn number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number > 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(number, out);
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::{
        cloud::v1::{LogEntry, LogErrorInfo, OwnerReference},
        node::v1::PodInfo,
    };
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Line<'_> {
        Line { nanoseconds: 0, text, class: "", end: 0, level: LogLevel::Unspecified }
    }

    fn chunk() -> LogChunk {
        LogChunk {
            pod_namespace: "shop".to_owned(),
            pod_name: "web-1".to_owned(),
            pod_uid: "at-node".to_owned(),
            container_name: "app".to_owned(),
            previous_container: true,
            ..Default::default()
        }
    }

    fn decoded(messages: &[Vec<u8>]) -> Vec<PodLogs> {
        messages.iter().map(|message| PodLogs::decode(&message[..]).unwrap()).collect()
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
        let (mut number, now) = (10, "2026-11-21T10:00:00Z".parse().unwrap());
        let full = Line {
            nanoseconds: 1_795_269_000_000_000_007,
            text: "one",
            class: "TypeError",
            end: 9,
            level: LogLevel::Error,
        };
        let messages =
            decoded(&pod_logs(&chunk(), &[full, line("two")], Some(&known), "n1", &mut number, now));
        let one = LogEntry {
            timestamp: Some(prost_types::Timestamp { seconds: 1_795_269_000, nanos: 7 }),
            message: "one".to_owned(),
            level: "ERROR".to_owned(),
            line_number: 11,
            error_info: Some(LogErrorInfo { error_type: "TypeError".to_owned(), ..Default::default() }),
        };
        let two = LogEntry { line_number: 12, message: "two".to_owned(), ..Default::default() };
        let expected = PodLogs {
            pod_name: "web-1".to_owned(),
            namespace: "shop".to_owned(),
            pod_uid: "at-api".to_owned(),
            container_name: "app".to_owned(),
            log_entries: vec![one, two],
            previous_container: true,
            collection_timestamp: Some(convert::timestamp(now)),
            total_lines: 2,
            stream_complete: false,
            stream_offset: 12,
            owner_references: vec![owner],
            node_name: "n1".to_owned(),
        };
        assert_eq!(messages, [expected]);
        let unknown = decoded(&pod_logs(&chunk(), &[line("three")], None, "n1", &mut number, now));
        assert_eq!((unknown[0].pod_uid.as_str(), unknown[0].stream_offset), ("at-node", 13));
        assert!(unknown[0].owner_references.is_empty());
        assert!(pod_logs(&chunk(), &[], None, "n1", &mut number, now).is_empty());
    }

    proptest! {
        #[test]
        fn a_split_loses_nothing_and_no_message_is_too_large(
            lines in prop::collection::vec((0..300_usize, any::<u64>(), 0..6, 0..40_usize), 0..40), first in 0..1_i64 << 40,
        ) {
            const MOST: usize = 500;
            let long = "x".repeat(300);
            let lines: Vec<_> = lines.into_iter().map(|(length, nanoseconds, level, class)| Line {
                nanoseconds: if level == 0 { 0 } else { nanoseconds / 2 },
                text: &long[..length],
                class: &long[..class],
                end: 0,
                level: LogLevel::try_from(level).unwrap(),
            }).collect();
            let mut number = first;
            let messages = split(&chunk(), &lines, None, "n1", &mut number, Timestamp::UNIX_EPOCH, MOST);
            let mut at = 0;
            for (message, encoded) in decoded(&messages).into_iter().zip(&messages) {
                prop_assert!(encoded.len() <= MOST);
                // Nothing is written that the generated code would leave out.
                prop_assert_eq!(message.encoded_len(), encoded.len());
                prop_assert_eq!(message.total_lines, message.log_entries.len() as i64);
                for entry in &message.log_entries {
                    let Line { nanoseconds, text, class, .. } = lines[at];
                    prop_assert_eq!(&entry.message, text);
                    let time = entry.timestamp.map_or(0, |time| time.seconds as u64 * 1_000_000_000 + time.nanos as u64);
                    prop_assert_eq!(time, nanoseconds);
                    prop_assert_eq!(entry.error_info.as_ref().map_or("", |info| &info.error_type), class);
                    at += 1;
                    prop_assert_eq!(entry.line_number, first + at as i64);
                }
                prop_assert_eq!(message.stream_offset, first + at as i64);
            }
            prop_assert_eq!((at, number), (lines.len(), first + lines.len() as i64));
        }
    }
}
