//! Log records in their wire form, written once and never held as objects: a
//! record costs no allocation.

use kestrel_proto::node::v1::{BatchContent, LogChunk, LogGap, LogGapReason, LogLevel};
use kestrel_tail::{
    discover::Origin,
    engine::{Chunk, Gap, Reason, Record},
    severity::Level,
    time::Timestamp,
};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};

/// A `BatchContent` that grows by chunks.
///
/// The lines of the chunk that is being read come first; where they come from
/// is known when it is closed.
#[derive(Debug, Default)]
pub struct Builder {
    content: Vec<u8>,
    columns: Columns,
    lines: u64,
}

/// The columns of `LogChunk`, and where its last line was.
#[derive(Debug, Default)]
struct Columns {
    levels: Vec<u8>,
    times: Vec<u8>,
    text_lengths: Vec<u8>,
    texts: Vec<u8>,
    end_steps: Vec<u8>,
    class_lengths: Vec<u8>,
    classes: Vec<u8>,
    time: i64,
    end: u32,
}

/// Field numbers of `node/v1/link.proto`.
mod field {
    pub(super) const CONTENT_LOGS: u32 = 1;
    pub(super) const CONTENT_FLOWS: u32 = 2;
    pub(super) const CONTENT_REQUESTS: u32 = 3;
    pub(super) const CONTENT_GAPS: u32 = 8;
    pub(super) const LEVELS: u32 = 12;
    pub(super) const TIMES: u32 = 13;
    pub(super) const TEXT_LENGTHS: u32 = 14;
    pub(super) const TEXTS: u32 = 15;
    pub(super) const END_STEPS: u32 = 16;
    pub(super) const CLASS_LENGTHS: u32 = 17;
    pub(super) const CLASSES: u32 = 18;
}

impl Columns {
    fn add(&mut self, record: &Record<'_>) {
        let Record { text, end, .. } = *record;
        let level = match record.level.unwrap_or(Level::Info) {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
            Level::Fatal => LogLevel::Fatal,
        };
        self.levels.push(level as u8);
        let time = record.timestamp.and_then(nanoseconds).unwrap_or(0);
        // Both lie from 0 up, so their difference is no larger.
        encode_varint(zigzag(time - self.time), &mut self.times);
        self.time = time;
        encode_varint(text.len() as u64, &mut self.text_lengths);
        self.texts.extend_from_slice(text.as_bytes());
        let step = i64::from(end) - i64::from(self.end) - text.len() as i64;
        encode_varint(zigzag(step), &mut self.end_steps);
        self.end = end;
        let class = record.class.unwrap_or_default();
        encode_varint(class.len() as u64, &mut self.class_lengths);
        self.classes.extend_from_slice(class.as_bytes());
    }

    fn by_field(&self) -> [(u32, &[u8]); 7] {
        // Mostly nothing: then the column of zeros says nothing either.
        let class_lengths: &[u8] = if self.classes.is_empty() { &[] } else { &self.class_lengths };
        [
            (field::LEVELS, &self.levels),
            (field::TIMES, &self.times),
            (field::TEXT_LENGTHS, &self.text_lengths),
            (field::TEXTS, &self.texts),
            (field::END_STEPS, &self.end_steps),
            (field::CLASS_LENGTHS, class_lengths),
            (field::CLASSES, &self.classes),
        ]
    }

    fn parts(&mut self) -> [&mut Vec<u8>; 7] {
        [
            &mut self.levels,
            &mut self.times,
            &mut self.text_lengths,
            &mut self.texts,
            &mut self.end_steps,
            &mut self.class_lengths,
            &mut self.classes,
        ]
    }

    fn clear(&mut self) {
        self.parts().into_iter().for_each(Vec::clear);
        (self.time, self.end) = (0, 0);
    }
}

impl Builder {
    /// Adds a record to the open chunk. A record that names no severity counts
    /// as [`Level::Info`]; a time before 1970 or after 2262 is none.
    pub fn record(&mut self, record: &Record<'_>) {
        self.columns.add(record);
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
                ..LogChunk::default()
            };
            let columns = self.columns.by_field();
            let columns = columns.iter().filter(|(_, column)| !column.is_empty());
            let lengths = columns.clone().map(|(field, column)| delimited_length(*field, column.len()));
            let length = prost::Message::encoded_len(&head) + lengths.sum::<usize>();
            delimited(&mut self.content, field::CONTENT_LOGS, length);
            prost::Message::encode_raw(&head, &mut self.content);
            for (field, column) in columns {
                delimited(&mut self.content, *field, column.len());
                self.content.extend_from_slice(column);
            }
            self.lines += chunk.entries as u64;
        }
        self.columns.clear();
    }

    /// Adds a gap.
    pub fn gap(&mut self, gap: &Gap) {
        message::encode(field::CONTENT_GAPS, &log_gap(gap), &mut self.content);
    }

    /// Adds an encoded report of flows.
    pub fn flows(&mut self, report: &[u8]) {
        delimited(&mut self.content, field::CONTENT_FLOWS, report.len());
        self.content.extend_from_slice(report);
    }

    /// Adds an encoded report of requests.
    pub fn requests(&mut self, report: &[u8]) {
        delimited(&mut self.content, field::CONTENT_REQUESTS, report.len());
        self.content.extend_from_slice(report);
    }

    /// The encoded [`BatchContent`] of all closed chunks.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Bytes of the content and of the open chunk.
    pub fn bytes(&self) -> usize {
        let columns = self.columns.by_field();
        self.content.len() + columns.iter().map(|(_, column)| column.len()).sum::<usize>()
    }

    /// Records in the content.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Forgets everything; keeps the memory of an ordinary batch.
    pub fn clear(&mut self) {
        self.content.clear();
        self.columns.clear();
        for part in self.columns.parts().into_iter().chain([&mut self.content]) {
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

/// A gap in its wire form.
pub(crate) fn log_gap(Gap { origin, reason, lost }: &Gap) -> LogGap {
    let reason = match reason {
        Reason::Emptied => LogGapReason::Emptied,
        Reason::Removed => LogGapReason::Removed,
        Reason::Damaged => LogGapReason::Damaged,
        Reason::Unattended => LogGapReason::Unattended,
    };
    let lost =
        LogGap { bytes: lost.bytes, lines: lost.lines, uncounted_bytes: lost.uncounted, ..LogGap::default() };
    of(origin, LogGap { reason: reason.into(), ..lost })
}

/// So many bytes of a container's files that were not read when all was over.
pub(crate) fn ended(origin: &Origin, bytes: u64) -> LogGap {
    let reason = LogGapReason::Ended.into();
    of(origin, LogGap { reason, bytes, uncounted_bytes: bytes, ..LogGap::default() })
}

fn of(origin: &Origin, gap: LogGap) -> LogGap {
    LogGap {
        pod_namespace: origin.namespace.clone(),
        pod_name: origin.pod.clone(),
        pod_uid: origin.uid.clone(),
        container_name: origin.container.clone(),
        ..gap
    }
}

/// Key and length of a field that is a message, text or column.
fn delimited(out: &mut Vec<u8>, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Bytes of such a field.
fn delimited_length(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

/// Nanoseconds since 1970, if they can be told.
fn nanoseconds(time: Timestamp) -> Option<i64> {
    let nanoseconds = time.seconds.checked_mul(1_000_000_000)?.checked_add(time.nanos.into())?;
    (nanoseconds > 0).then_some(nanoseconds)
}

/// A number so that small ones are short, whatever their sign.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

#[cfg(test)]
#[path = "../tests/support/columns.rs"]
mod columns;

#[cfg(test)]
mod tests {
    use kestrel_tail::identity::FileId;
    use proptest::prelude::*;

    use super::{
        columns::{Line, lines},
        *,
    };

    const LEVELS: [(Option<Level>, LogLevel); 6] = [
        (None, LogLevel::Info),
        (Some(Level::Debug), LogLevel::Debug),
        (Some(Level::Info), LogLevel::Info),
        (Some(Level::Warn), LogLevel::Warn),
        (Some(Level::Error), LogLevel::Error),
        (Some(Level::Fatal), LogLevel::Fatal),
    ];

    proptest! {
        #[test]
        fn the_written_form_is_the_protocols(
            records in prop::collection::vec((
                prop::option::of((prop_oneof![any::<i64>(), -1..2_i64, 1_795_000_000..1_795_000_009_i64], 0_u32..1_000_000_000)),
                ".*", 0_usize..6, prop::option::of(".{1,200}"), any::<u32>(),
            ), 0..20),
            start in any::<u64>(), previous in any::<bool>(),
        ) {
            let origin = Origin { namespace: "ns".into(), pod: "p".into(), uid: "u".into(), container: "c".into() };
            let file = FileId { head: 1, inode: 2, generation: 0 };
            let mut builder = Builder::default();
            let mut expected = Vec::new();
            // The same records as one chunk, as none, and as one again.
            for entries in [records.len(), 0, records.len()] {
                let mut chunk = Vec::new();
                for (time, text, level, class, end) in &records[..entries] {
                    let timestamp = time.map(|(seconds, nanos)| Timestamp { seconds, nanos });
                    let (level, told) = LEVELS[*level];
                    builder.record(&Record { timestamp, text, level, class: class.as_deref(), end: *end });
                    chunk.push(Line {
                        nanoseconds: timestamp.and_then(nanoseconds).unwrap_or(0),
                        level: told,
                        text: text.clone(),
                        class: class.clone().unwrap_or_default(),
                        end: Some(*end),
                    });
                }
                builder.close(&Chunk { origin: &origin, file, start, end: 9, previous_instance: previous, left_out: 3, entries });
                if entries > 0 {
                    expected.push(chunk);
                }
            }
            prop_assert_eq!(builder.lines(), 2 * records.len() as u64);
            let found = builder.decode().unwrap();
            prop_assert_eq!(found.logs.iter().map(lines).collect::<Vec<_>>(), expected);
            let head = LogChunk {
                pod_namespace: "ns".into(), pod_name: "p".into(), pod_uid: "u".into(), container_name: "c".into(),
                file_id: file.to_string(), start_offset: start, end_offset: 9, previous_container: previous,
                lines_left_out: 3, ..LogChunk::default()
            };
            for chunk in found.logs {
                let without_columns = LogChunk {
                    levels: vec![].into(), times: vec![].into(), text_lengths: vec![].into(), texts: vec![].into(),
                    end_steps: vec![].into(), class_lengths: vec![].into(), classes: vec![].into(), ..chunk
                };
                prop_assert_eq!(&without_columns, &head);
            }
            builder.clear();
            prop_assert_eq!(builder.bytes(), 0);
        }
    }
}
