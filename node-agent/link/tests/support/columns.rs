//! Reads the lines of a chunk as `node/v1/link.proto` says, and fails where a sender does not
//! keep to it.

#![allow(dead_code, unreachable_pub)] // not every test uses all of it
#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use kestrel_proto::node::v1::{LogChunk, LogLevel};
use prost::encoding::decode_varint;

/// A line of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Since 1970; 0: not known.
    pub nanoseconds: i64,
    pub level: LogLevel,
    pub text: String,
    /// Empty: none.
    pub class: String,
    /// Bytes after the chunk's start.
    pub end: Option<u32>,
}

/// The lines of `chunk`.
pub fn lines(chunk: &LogChunk) -> Vec<Line> {
    let levels = numbers(&chunk.levels);
    let (times, lengths) = (numbers(&chunk.times), numbers(&chunk.text_lengths));
    let (steps, classes) = (numbers(&chunk.end_steps), numbers(&chunk.class_lengths));
    let count = levels.len();
    assert_eq!((times.len(), lengths.len()), (count, count));
    assert!([0, count].contains(&steps.len()) && [0, count].contains(&classes.len()));
    let (mut texts, mut class_texts) = (&chunk.texts[..], &chunk.classes[..]);
    let (mut time, mut end) = (0_i64, 0_i64);
    let lines = (0..count).map(|at| {
        time = time.checked_add(signed(times[at])).filter(|time| *time >= 0).unwrap();
        let text = take(&mut texts, lengths[at]);
        let end = steps.get(at).map(|step| {
            end = end + text.len() as i64 + signed(*step);
            u32::try_from(end).unwrap()
        });
        let class = classes.get(at).map(|length| take(&mut class_texts, *length));
        let level = LogLevel::try_from(levels[at] as i32).unwrap();
        Line { nanoseconds: time, level, text, class: class.unwrap_or_default(), end }
    });
    let lines = lines.collect();
    assert!(texts.is_empty() && class_texts.is_empty());
    lines
}

fn numbers(mut column: &[u8]) -> Vec<u64> {
    std::iter::from_fn(|| (!column.is_empty()).then(|| decode_varint(&mut column).unwrap())).collect()
}

fn signed(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn take(texts: &mut &[u8], length: u64) -> String {
    String::from_utf8(texts.split_off(..length as usize).unwrap().to_vec()).unwrap()
}
