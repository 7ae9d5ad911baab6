//! Reads the lines of a chunk, which are written by columns: see
//! `node/v1/link.proto`. Nothing is copied, and memory is spent on lines that
//! are there alone.

use std::str;

use kestrel_proto::node::v1::{LogChunk, LogLevel};
use prost::encoding::decode_varint;

/// A line of a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line<'a> {
    /// When it was written: nanoseconds since 1970; 0: not known.
    pub(super) nanoseconds: u64,
    /// What was written.
    pub(super) text: &'a str,
    /// Class of the error; empty: none.
    pub(super) class: &'a str,
    /// Where it ends in its file, as bytes after the chunk's start; 0 of a chunk
    /// that does not say it.
    pub(super) end: u32,
    /// Its severity.
    pub(super) level: LogLevel,
}

/// Why columns are no lines. Each names the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// What stands there is no varint of 64 bits.
    #[error("something in {0} is no number")]
    Number(&'static str),
    /// Another count than that of the levels.
    #[error("{0} and levels have different counts")]
    Count(&'static str),
    /// Not UTF-8.
    #[error("{0} are not UTF-8")]
    Utf8(&'static str),
    /// A text is longer than what is left, or ends within a character.
    #[error("a length goes beyond {0}, or into a character of them")]
    Length(&'static str),
    /// More text than the lengths say.
    #[error("{0} are longer than their lengths")]
    Rest(&'static str),
    /// A time before 1970 or after 2262.
    #[error("a time is out of range")]
    Time,
    /// An end before its chunk, or 4 GiB after its start.
    #[error("a line's end is out of range")]
    End,
}

/// The lines of `chunk`.
///
/// # Errors
/// Its columns do not fit each other.
pub(super) fn read(chunk: &LogChunk) -> Result<Vec<Line<'_>>, Malformed> {
    let mut levels = Column { name: "levels", rest: &chunk.levels };
    let mut times = Column { name: "times", rest: &chunk.times };
    let mut lengths = Column { name: "text_lengths", rest: &chunk.text_lengths };
    let mut steps = Column { name: "end_steps", rest: &chunk.end_steps };
    let mut class_lengths = Column { name: "class_lengths", rest: &chunk.class_lengths };
    let mut texts = Texts::new("texts", &chunk.texts)?;
    let mut classes = Texts::new("classes", &chunk.classes)?;
    let (has_ends, has_classes) = (!chunk.end_steps.is_empty(), !chunk.class_lengths.is_empty());
    let (mut time, mut end) = (0_i64, 0_i64);
    let mut lines = Vec::with_capacity(levels.count());
    while !levels.rest.is_empty() {
        let level = i32::try_from(levels.next()?).unwrap_or_default();
        time = time.checked_add(times.next_signed()?).ok_or(Malformed::Time)?;
        let nanoseconds = u64::try_from(time).map_err(|_| Malformed::Time)?;
        let text = texts.next(lengths.next()?)?;
        if has_ends {
            // A text has no 4 GiB, so only the step can be too far.
            let after = end + text.len() as i64;
            end = after.checked_add(steps.next_signed()?).ok_or(Malformed::End)?;
        }
        let line = Line {
            nanoseconds,
            text,
            class: if has_classes { classes.next(class_lengths.next()?)? } else { "" },
            end: u32::try_from(end).map_err(|_| Malformed::End)?,
            level: LogLevel::try_from(level).unwrap_or_default(),
        };
        lines.push(line);
    }
    [times, lengths, steps, class_lengths].iter().try_for_each(Column::ends)?;
    [texts, classes].iter().try_for_each(Texts::ends)?;
    Ok(lines)
}

/// The numbers of a column that are left.
struct Column<'a> {
    name: &'static str,
    rest: &'a [u8],
}

impl Column<'_> {
    /// How many there are: the last byte of each, and no other, is below 128.
    fn count(&self) -> usize {
        self.rest.iter().filter(|byte| **byte < 0x80).count()
    }

    fn next(&mut self) -> Result<u64, Malformed> {
        // Most numbers are small.
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        if self.rest.is_empty() {
            return Err(Malformed::Count(self.name));
        }
        decode_varint(&mut self.rest).map_err(|_| Malformed::Number(self.name))
    }

    fn next_signed(&mut self) -> Result<i64, Malformed> {
        let number = self.next()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn ends(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Count(self.name)) }
    }
}

/// The texts that are left.
struct Texts<'a> {
    name: &'static str,
    rest: &'a str,
}

impl<'a> Texts<'a> {
    fn new(name: &'static str, texts: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self { name, rest: str::from_utf8(texts).map_err(|_| Malformed::Utf8(name))? })
    }

    fn next(&mut self, length: u64) -> Result<&'a str, Malformed> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (text, rest) = split.ok_or(Malformed::Length(self.name))?;
        self.rest = rest;
        Ok(text)
    }

    fn ends(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Rest(self.name)) }
    }
}

/// A chunk with these lines, whose ends are left out if all are 0.
#[cfg(test)]
pub(super) fn write(lines: &[Line<'_>]) -> LogChunk {
    use prost::encoding::encode_varint;

    let column = |number: &mut dyn FnMut(&Line<'_>) -> u64| {
        let mut column = Vec::new();
        lines.iter().for_each(|line| encode_varint(number(line), &mut column));
        column.into()
    };
    let signed = |number: i64| ((number << 1) ^ (number >> 63)).cast_unsigned();
    let (mut time, mut end) = (0, 0);
    let mut chunk = LogChunk {
        levels: column(&mut |line| line.level as u64),
        times: column(&mut |line| {
            let before = std::mem::replace(&mut time, line.nanoseconds.cast_signed());
            signed(time - before)
        }),
        text_lengths: column(&mut |line| line.text.len() as u64),
        texts: lines.iter().map(|line| line.text).collect::<String>().into(),
        end_steps: column(&mut |line| {
            let before = std::mem::replace(&mut end, i64::from(line.end));
            signed(end - before - line.text.len() as i64)
        }),
        class_lengths: column(&mut |line| line.class.len() as u64),
        classes: lines.iter().map(|line| line.class).collect::<String>().into(),
        ..LogChunk::default()
    };
    if lines.iter().all(|line| line.end == 0) {
        chunk.end_steps.clear();
    }
    chunk
}

#[cfg(test)]
mod tests {
    use kestrel_link::batch::Builder;
    use kestrel_proto::node::v1::BatchContent;
    use kestrel_tail::{discover::Origin, engine, identity::FileId, severity::Level, time::Timestamp};
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [(Level, LogLevel); 5] = [
        (Level::Debug, LogLevel::Debug),
        (Level::Info, LogLevel::Info),
        (Level::Warn, LogLevel::Warn),
        (Level::Error, LogLevel::Error),
        (Level::Fatal, LogLevel::Fatal),
    ];

    fn line(text: &str) -> Line<'_> {
        Line { nanoseconds: 0, text, class: "", end: 0, level: LogLevel::Info }
    }

    #[test]
    fn a_chunk_without_lines_has_none() {
        assert_eq!(read(&LogChunk::default()), Ok(vec![]));
    }

    #[test]
    fn what_is_of_a_newer_protocol_is_of_no_severity() {
        for level in [vec![6], vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
            let chunk = LogChunk { levels: level.into(), ..write(&[line("one")]) };
            assert_eq!(read(&chunk).unwrap()[0].level, LogLevel::Unspecified);
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_refused() {
        let chunk = write(&[
            Line { class: "A", nanoseconds: 7, end: 9, ..line("ü") },
            Line { class: "B", nanoseconds: 7, end: 5, ..line("two") },
        ]);
        let refused = |change: &dyn Fn(&mut LogChunk)| {
            let mut changed = chunk.clone();
            change(&mut changed);
            read(&changed).unwrap_err().to_string()
        };
        let max = |sign: u8| vec![0xfe | sign, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        for (found, expected) in [
            (refused(&|chunk| chunk.levels = vec![2].into()), "times and levels have different counts"),
            (refused(&|chunk| chunk.levels = vec![].into()), "times and levels have different counts"),
            (refused(&|chunk| chunk.levels = vec![2, 0x80].into()), "something in levels is no number"),
            (refused(&|chunk| chunk.levels = vec![0xff; 11].into()), "something in levels is no number"),
            (refused(&|chunk| chunk.times = vec![0].into()), "times and levels have different counts"),
            (refused(&|chunk| chunk.times = vec![0, 1].into()), "a time is out of range"),
            (refused(&|chunk| chunk.times = [max(0), vec![2]].concat().into()), "a time is out of range"),
            (refused(&|chunk| chunk.times = max(1).into()), "a time is out of range"),
            (
                refused(&|chunk| chunk.text_lengths = vec![2].into()),
                "text_lengths and levels have different counts",
            ),
            (
                refused(&|chunk| chunk.text_lengths = vec![1, 4].into()),
                "a length goes beyond texts, or into a character of them",
            ),
            (
                refused(&|chunk| chunk.text_lengths = vec![2, 4].into()),
                "a length goes beyond texts, or into a character of them",
            ),
            (
                refused(&|chunk| chunk.text_lengths = [vec![2], max(1)].concat().into()),
                "a length goes beyond texts, or into a character of them",
            ),
            (refused(&|chunk| chunk.text_lengths = vec![2, 2].into()), "texts are longer than their lengths"),
            (
                refused(&|chunk| chunk.texts = vec![0xc3, b't', b't', b'w', b'o'].into()),
                "texts are not UTF-8",
            ),
            (
                refused(&|chunk| chunk.end_steps = vec![0].into()),
                "end_steps and levels have different counts",
            ),
            (
                refused(&|chunk| chunk.end_steps = vec![0, 0, 0].into()),
                "end_steps and levels have different counts",
            ),
            (refused(&|chunk| chunk.end_steps = vec![5, 0].into()), "a line's end is out of range"),
            (refused(&|chunk| chunk.end_steps = max(0).into()), "a line's end is out of range"),
            (
                refused(&|chunk| chunk.class_lengths = vec![2].into()),
                "class_lengths and levels have different counts",
            ),
            (refused(&|chunk| chunk.class_lengths = vec![].into()), "classes are longer than their lengths"),
            (refused(&|chunk| chunk.classes = vec![b'A', 0xff].into()), "classes are not UTF-8"),
        ] {
            assert_eq!(found, expected);
        }
    }

    fn column() -> impl Strategy<Value = bytes::Bytes> {
        let byte = prop_oneof![5 => 0..6_u8, 1 => any::<u8>()];
        prop::collection::vec(byte, 0..12).prop_map(Into::into)
    }

    proptest! {
        #[test]
        fn any_columns_are_lines_or_an_error(
            [levels, times, text_lengths, texts, end_steps, class_lengths, classes] in std::array::from_fn::<_, 7, _>(|_| column()),
        ) {
            let count = levels.len();
            let chunk = LogChunk {
                levels, times, text_lengths, texts, end_steps, class_lengths, classes, ..LogChunk::default()
            };
            if let Ok(lines) = read(&chunk) {
                prop_assert!(lines.len() <= count);
                prop_assert_eq!(lines.iter().map(|line| line.text.len()).sum::<usize>(), chunk.texts.len());
                prop_assert_eq!(lines.iter().map(|line| line.class.len()).sum::<usize>(), chunk.classes.len());
            }
        }

        /// What the agent's end writes is what is read here.
        #[test]
        fn what_an_agent_writes_is_read(records in prop::collection::vec((
            prop::option::of((0..9_000_000_000_i64, 0..1_000_000_000_u32)), ".*", 0..5_usize, "[A-Z]{0,9}", any::<u32>(),
        ), 0..20)) {
            let mut builder = Builder::default();
            let mut expected = Vec::new();
            for (time, text, level, class, end) in &records {
                let (level, told) = LEVELS[*level];
                let timestamp = time.map(|(seconds, nanos)| Timestamp { seconds, nanos });
                let class = class.as_str();
                builder.record(&engine::Record {
                    timestamp, text, level: Some(level), class: (!class.is_empty()).then_some(class), end: *end,
                });
                let nanoseconds = time.map_or(0, |(seconds, nanos)| seconds as u64 * 1_000_000_000 + u64::from(nanos));
                expected.push(Line { nanoseconds, text, class, end: *end, level: told });
            }
            let origin = Origin::default();
            let file = FileId { head: 1, inode: 2, generation: 0 };
            builder.close(&engine::Chunk {
                origin: &origin, file, start: 0, end: 9, previous_instance: false, left_out: 0, entries: records.len(),
            });
            let BatchContent { logs, .. } = builder.decode().unwrap();
            prop_assert_eq!(logs.first().map_or(Ok(vec![]), read), Ok(expected.clone()));
            if !records.is_empty() && expected.iter().any(|line| line.end > 0) {
                let columns = write(&expected);
                prop_assert_eq!(read(&columns), Ok(expected));
            }
        }
    }
}
