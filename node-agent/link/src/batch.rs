//! Log records in their wire form, written once and never held as objects: a
//! record costs no allocation.

use kestrel_proto::node::v1::{BatchContent, LogChunk, LogGap, LogGapReason};
use kestrel_tail::{
    engine::{Chunk, Gap, Reason, Record},
    severity::Level,
    time::Timestamp,
};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, message};

/// A `BatchContent` that grows by chunks.
///
/// The entries of the chunk that is being read come first; where they come
/// from is known when it is closed.
#[derive(Debug, Default)]
pub struct Builder {
    content: Vec<u8>,
    entries: Vec<u8>,
    ends: Vec<u8>,
    lines: u64,
}

/// Field numbers of `node/v1/link.proto` and `cloud/v1/logs.proto`.
mod field {
    pub(super) const CONTENT_LOGS: u32 = 1;
    pub(super) const CONTENT_GAPS: u32 = 8;
    pub(super) const CHUNK_ENTRIES: u32 = 10;
    pub(super) const CHUNK_ENTRY_ENDS: u32 = 11;
    pub(super) const ENTRY_TIMESTAMP: u32 = 1;
    pub(super) const ENTRY_MESSAGE: u32 = 2;
    pub(super) const ENTRY_LEVEL: u32 = 3;
    pub(super) const ENTRY_ERROR_INFO: u32 = 5;
    pub(super) const ERROR_TYPE: u32 = 1;
    pub(super) const TIMESTAMP_SECONDS: u32 = 1;
    pub(super) const TIMESTAMP_NANOS: u32 = 2;
}

impl Builder {
    /// Adds a record to the open chunk. A record that names no severity counts
    /// as [`Level::Info`].
    pub fn record(&mut self, record: &Record<'_>) {
        let level = record.level.unwrap_or(Level::Info).as_str();
        let time = record.timestamp.map(|time| (time, timestamp_length(time)));
        let length = time.map_or(0, |(_, length)| delimited_length(length))
            + delimited_length(record.text.len())
            + delimited_length(level.len())
            + record.class.map_or(0, |class| delimited_length(delimited_length(class.len())));
        let out = &mut self.entries;
        delimited(out, field::CHUNK_ENTRIES, length);
        if let Some((time, length)) = time {
            delimited(out, field::ENTRY_TIMESTAMP, length);
            timestamp(out, time);
        }
        for (number, text) in [(field::ENTRY_MESSAGE, record.text), (field::ENTRY_LEVEL, level)] {
            delimited(out, number, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        if let Some(class) = record.class {
            delimited(out, field::ENTRY_ERROR_INFO, delimited_length(class.len()));
            delimited(out, field::ERROR_TYPE, class.len());
            out.extend_from_slice(class.as_bytes());
        }
        encode_varint(record.end.into(), &mut self.ends);
    }

    /// Closes the chunk of the records added since the last one; one without
    /// records leaves no trace.
    pub fn close(&mut self, chunk: &Chunk<'_>) {
        if chunk.entries > 0 {
            let head = LogChunk {
                pod_namespace: chunk.origin.namespace.clone(),
                pod_name: chunk.origin.pod.clone(),
                pod_uid: chunk.origin.uid.clone(),
                container_name: chunk.origin.container.clone(),
                file_id: chunk.file.to_string(),
                start_offset: chunk.start,
                end_offset: chunk.end,
                previous_container: chunk.previous_instance,
                lines_left_out: chunk.left_out,
                entries: Vec::new(),
                entry_ends: Vec::new(),
            };
            let length =
                prost::Message::encoded_len(&head) + self.entries.len() + delimited_length(self.ends.len());
            delimited(&mut self.content, field::CONTENT_LOGS, length);
            prost::Message::encode_raw(&head, &mut self.content);
            self.content.extend_from_slice(&self.entries);
            delimited(&mut self.content, field::CHUNK_ENTRY_ENDS, self.ends.len());
            self.content.extend_from_slice(&self.ends);
            self.lines += chunk.entries as u64;
        }
        self.entries.clear();
        self.ends.clear();
    }

    /// Adds a gap.
    pub fn gap(&mut self, Gap { origin, reason, lost }: &Gap) {
        let reason = match reason {
            Reason::Emptied => LogGapReason::Emptied,
            Reason::Removed => LogGapReason::Removed,
            Reason::Damaged => LogGapReason::Damaged,
        };
        let gap = LogGap {
            pod_namespace: origin.namespace.clone(),
            pod_name: origin.pod.clone(),
            pod_uid: origin.uid.clone(),
            container_name: origin.container.clone(),
            reason: reason.into(),
            bytes: lost.bytes,
            lines: lost.lines,
            uncounted_bytes: lost.uncounted,
        };
        message::encode(field::CONTENT_GAPS, &gap, &mut self.content);
    }

    /// The encoded [`BatchContent`] of all closed chunks.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Bytes of the content and of the open chunk.
    pub fn bytes(&self) -> usize {
        self.content.len() + self.entries.len() + self.ends.len()
    }

    /// Records in the content.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Forgets everything; keeps the memory of an ordinary batch.
    pub fn clear(&mut self) {
        for part in [&mut self.content, &mut self.entries, &mut self.ends] {
            part.clear();
            part.shrink_to(2 * crate::ship::FLUSH_BYTES);
        }
        self.lines = 0;
    }

    /// The content as messages, for tests and tools.
    ///
    /// # Errors
    /// Never for what this builder wrote.
    pub fn decode(&self) -> Result<BatchContent, prost::DecodeError> {
        prost::Message::decode(self.content())
    }
}

/// Key and length of a field that is a message, text or packed list.
fn delimited(out: &mut Vec<u8>, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Bytes of such a field with a number below 16.
fn delimited_length(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn timestamp_length(time: Timestamp) -> usize {
    let varint = |value: u64| if value == 0 { 0 } else { 1 + encoded_len_varint(value) };
    varint(time.seconds.cast_unsigned()) + varint(time.nanos.into())
}

fn timestamp(out: &mut Vec<u8>, time: Timestamp) {
    let fields = [
        (field::TIMESTAMP_SECONDS, time.seconds.cast_unsigned()),
        (field::TIMESTAMP_NANOS, time.nanos.into()),
    ];
    for (number, value) in fields.into_iter().filter(|(_, value)| *value != 0) {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::cloud::v1::{LogEntry, LogErrorInfo};
    use kestrel_tail::{discover::Origin, identity::FileId};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_written_form_is_the_protocols(
            records in prop::collection::vec((prop::option::of((any::<i64>(), 0_u32..1_000_000_000)), ".*", 0_usize..6, any::<u32>()), 0..20),
            start in any::<u64>(), previous in any::<bool>(),
        ) {
            const LEVELS: [Option<Level>; 6] =
                [None, Some(Level::Debug), Some(Level::Info), Some(Level::Warn), Some(Level::Error), Some(Level::Fatal)];
            let origin = Origin { namespace: "ns".into(), pod: "p".into(), uid: "u".into(), container: "c".into() };
            let file = FileId { head: 1, inode: 2, generation: 0 };
            let mut builder = Builder::default();
            let mut expected = Vec::new();
            // The same records as one chunk, as none, and as one again.
            for entries in [records.len(), 0, records.len()] {
                let mut chunk = LogChunk {
                    pod_namespace: "ns".into(), pod_name: "p".into(), pod_uid: "u".into(), container_name: "c".into(),
                    file_id: file.to_string(), start_offset: start, end_offset: 9, previous_container: previous,
                    lines_left_out: 3, ..LogChunk::default()
                };
                for (time, text, level, end) in &records[..entries] {
                    let timestamp = time.map(|(seconds, nanos)| Timestamp { seconds, nanos });
                    let class = (*level > 3).then_some(text.as_str());
                    builder.record(&Record { timestamp, text, level: LEVELS[*level], class, end: *end });
                    chunk.entries.push(LogEntry {
                        timestamp: time.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos: nanos as i32 }),
                        message: text.clone(),
                        level: LEVELS[*level].unwrap_or(Level::Info).as_str().into(),
                        error_info: class.map(|class| LogErrorInfo {
                            error_type: class.to_owned(),
                            ..LogErrorInfo::default()
                        }),
                        ..LogEntry::default()
                    });
                    chunk.entry_ends.push(*end);
                }
                builder.close(&Chunk { origin: &origin, file, start, end: 9, previous_instance: previous, left_out: 3, entries });
                if entries > 0 {
                    expected.push(chunk);
                }
            }
            prop_assert_eq!(builder.lines(), 2 * records.len() as u64);
            prop_assert_eq!(builder.decode().unwrap(), BatchContent { logs: expected, gaps: vec![] });
            builder.clear();
            prop_assert_eq!(builder.bytes(), 0);
        }
    }
}
