//! From a batch on the wire to the log chunks in it. Everything in a batch is
//! a claim of somebody who may be hostile: sizes are checked before memory is
//! spent on them.

use std::mem::size_of;

use bytes::{Buf, Bytes};
use kestrel_proto::node::v1::{
    Batch, BatchContent, Compression, Flow, FlowReport, LogChunk, LogGap, NameFailure, RequestProxy,
    RequestReport, RequestRow,
};
use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::columns::{self, Line, Malformed};

/// No batch is larger, before or after decompression.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// No batch needs more memory when it is decoded: one that is full of empty
/// lines with all that is known of them needs less.
pub(super) const MAX_DECODED_BYTES: usize = 64 * 1024 * 1024;

/// No batch has more chunks: each is looked up, and may become a message.
const MAX_CHUNKS: usize = 4096;

/// Why a batch is no batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Invalid {
    /// It is, or says that it will be, larger than allowed.
    #[error("has {0} bytes of the {MAX_BYTES} that are allowed")]
    TooLarge(usize),
    /// It is not compressed in a way we know, or damaged.
    #[error("can't be decompressed: {0}")]
    Compression(String),
    /// It is not as long as it says.
    #[error("should have {expected} bytes of content and has {found}")]
    Length {
        /// what it says
        expected: usize,
        /// what was found
        found: usize,
    },
    /// It is no `BatchContent`.
    #[error("can't be decoded: {0}")]
    Content(#[from] DecodeError),
    /// The columns of a chunk are no lines.
    #[error("can't be decoded: {0}")]
    Columns(#[from] Malformed),
    /// A field of it is longer than the whole.
    #[error("can't be decoded: it ends within a field")]
    Truncated,
    /// It holds so many empty things that it would fill the memory.
    #[error("would need {0} bytes of memory of the {MAX_DECODED_BYTES} that are allowed")]
    TooMany(usize),
    /// It has too many chunks.
    #[error("has {0} chunks of the {MAX_CHUNKS} that are allowed")]
    Chunks(usize),
}

/// Decompressed content whose cost in memory is known.
pub(super) struct Content {
    bytes: Bytes,
    /// Bytes of memory that [`Content::decode`] and then [`lines`] take, at most.
    pub(super) decoded_bytes: usize,
}

impl Content {
    /// Decompresses and measures the content of a batch.
    ///
    /// # Errors
    /// The batch is damaged, or larger than allowed.
    pub(super) fn of(batch: Batch) -> Result<Self, Invalid> {
        let expected = usize::try_from(batch.content_bytes).unwrap_or(usize::MAX);
        let largest = expected.max(batch.payload.len());
        if largest > MAX_BYTES {
            return Err(Invalid::TooLarge(largest));
        }
        let bytes = match Compression::try_from(batch.compression) {
            Ok(Compression::None) => batch.payload,
            Ok(Compression::Zstd) => zstd::bulk::decompress(&batch.payload, expected)
                .map_err(|error| Invalid::Compression(error.to_string()))?
                .into(),
            Err(unknown) => return Err(Invalid::Compression(unknown.to_string())),
        };
        if bytes.len() != expected {
            return Err(Invalid::Length { expected, found: bytes.len() });
        }
        let decoded_bytes = decoded_bytes(&bytes)?;
        if decoded_bytes > MAX_DECODED_BYTES {
            return Err(Invalid::TooMany(decoded_bytes));
        }
        Ok(Self { bytes, decoded_bytes })
    }

    /// What it holds.
    ///
    /// # Errors
    /// The content is damaged.
    pub(super) fn decode(self) -> Result<BatchContent, Invalid> {
        Ok(BatchContent::decode(self.bytes)?)
    }
}

/// The lines of each of `chunks`.
///
/// # Errors
/// Those of one do not fit together, so that its sender can't be trusted with the others.
pub(super) fn lines(chunks: &[LogChunk]) -> Result<Vec<Vec<Line<'_>>>, Invalid> {
    chunks.iter().map(|chunk| Ok(columns::read(chunk)?)).collect()
}

/// What the decoded content takes at most: its own bytes, which columns are
/// slices of, the names, its lines, and twice the elements of its lists, as
/// lists grow by doubling.
fn decoded_bytes(content: &[u8]) -> Result<usize, Invalid> {
    const LOGS: u32 = 1;
    const FLOWS: u32 = 2;
    const REQUESTS: u32 = 3;
    const GAPS: u32 = 8;
    /// In a report of flows, what is no longer than one of them.
    const FLOW: u32 = 3;
    const NAME_FAILURE: u32 = 4;
    const _: () = assert!(size_of::<NameFailure>() <= size_of::<Flow>());
    /// In a report of requests.
    const PROXY: u32 = 3;
    const ROW: u32 = 4;
    /// The first of the columns, and the only one that says how many lines there are.
    const LEVELS: u32 = 12;
    let (mut chunks, mut gaps, mut reports, mut flows) = (0, 0, 0, 0);
    let (mut proxies, mut rows) = (0, 0);
    let (mut names, mut lines) = (0, 0);
    fields(content, |field, value| {
        if field == GAPS {
            gaps += 1;
            names += value.len();
        }
        if field == FLOWS {
            reports += 1;
            names += value.len();
            return fields(value, |field, _| {
                flows += usize::from(field == FLOW || field == NAME_FAILURE);
                Ok(())
            });
        }
        if field == REQUESTS {
            reports += 1;
            return fields(value, |field, value| {
                match field {
                    PROXY => {
                        proxies += 1;
                        names += value.len();
                    }
                    ROW => rows += 1,
                    _ => {}
                }
                Ok(())
            });
        }
        if field != LOGS {
            return Ok(());
        }
        chunks += 1;
        fields(value, |field, value| {
            match field {
                ..LEVELS => names += value.len(),
                LEVELS => lines += value.len(),
                _ => {}
            }
            Ok(())
        })
    })?;
    if chunks + gaps > MAX_CHUNKS {
        return Err(Invalid::Chunks(chunks + gaps));
    }
    const _: () = assert!(size_of::<RequestReport>() <= size_of::<FlowReport>());
    let elements = reports * size_of::<FlowReport>() + flows * size_of::<Flow>();
    let elements = elements + proxies * size_of::<RequestProxy>() + rows * size_of::<RequestRow>();
    let elements =
        elements + gaps * size_of::<LogGap>() + chunks * (size_of::<LogChunk>() + size_of::<Vec<Line<'_>>>());
    Ok(content.len() + names + lines * size_of::<Line<'_>>() + 2 * elements)
}

/// Calls `found` with the number and the value of every field.
fn fields(
    mut message: &[u8],
    mut found: impl FnMut(u32, &[u8]) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    while message.has_remaining() {
        let (field, wire_type) = decode_key(&mut message)?;
        let length = if wire_type == WireType::LengthDelimited {
            usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX)
        } else {
            let mut rest = message;
            skip_field(wire_type, field, &mut rest, DecodeContext::default())?;
            message.len() - rest.len()
        };
        let (value, rest) = message.split_at_checked(length).ok_or(Invalid::Truncated)?;
        found(field, value)?;
        message = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kestrel_proto::node::v1::LogLevel;
    use proptest::prelude::*;

    use super::*;

    fn content(lines: usize) -> BatchContent {
        let line = Line { nanoseconds: 1, text: "hello", class: "", end: 9, level: LogLevel::Info };
        let chunk = LogChunk { end_offset: 7, ..columns::write(&vec![line; lines]) };
        BatchContent {
            logs: vec![chunk.clone(), chunk],
            gaps: vec![LogGap::default(); 3],
            ..Default::default()
        }
    }

    fn zstd(content: &[u8], says: usize) -> Batch {
        let payload = zstd::bulk::compress(content, 1).unwrap().into();
        Batch {
            id: 1,
            compression: Compression::Zstd.into(),
            payload,
            content_bytes: says as u64,
            nacks_seen: 0,
        }
    }

    fn plain(content: Vec<u8>) -> Batch {
        let content_bytes = content.len() as u64;
        Batch {
            id: 1,
            compression: Compression::None.into(),
            payload: content.into(),
            content_bytes,
            nacks_seen: 0,
        }
    }

    #[test]
    fn what_was_packed_comes_out() {
        let expected = content(1000);
        let bytes = expected.encode_to_vec();
        for batch in [zstd(&bytes, bytes.len()), plain(bytes.clone())] {
            let content = Content::of(batch).unwrap();
            assert!(content.decoded_bytes >= 2000 * size_of::<Line<'_>>());
            let decoded = content.decode().unwrap();
            assert_eq!(decoded, expected);
            assert_eq!(lines(&decoded.logs).unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000]);
        }
        assert!(Content::of(plain(vec![])).unwrap().decode().unwrap().logs.is_empty());
    }

    #[test]
    fn what_is_too_large_or_not_what_it_says_is_refused() {
        let bytes = content(10).encode_to_vec();
        let bomb = vec![0; MAX_BYTES + 1];
        let levels_alone = LogChunk { levels: vec![1; 1_400_000].into(), ..Default::default() };
        let many = BatchContent {
            logs: vec![LogChunk::default(); MAX_CHUNKS],
            gaps: vec![LogGap::default()],
            ..Default::default()
        };
        let flows = FlowReport { flows: vec![Flow::default(); 400_000], ..Default::default() };
        let mut damaged = zstd(&bytes, bytes.len());
        damaged.payload = damaged.payload.slice(1..);
        let other = Batch { compression: 9, ..plain(bytes.clone()) };
        for (batch, words) in [
            (zstd(&bomb, MAX_BYTES + 1), "has 4194305 bytes"),
            (zstd(&bomb, 1000), "can't be decompressed"),
            (zstd(&bomb, usize::MAX), "has 18446744073709551615 bytes"),
            (plain(bomb), "has 4194305 bytes"),
            (zstd(&bytes, bytes.len() + 1), "bytes of content and has"),
            (damaged, "can't be decompressed"),
            (other, "can't be decompressed"),
            (plain(vec![0x0a, 0x7f]), "ends within a field"),
            (plain(b"no protobuf at all".to_vec()), "can't be decoded"),
            (
                plain(BatchContent { logs: vec![levels_alone], ..Default::default() }.encode_to_vec()),
                "bytes of memory",
            ),
            (
                plain(BatchContent { flows: vec![flows], ..Default::default() }.encode_to_vec()),
                "bytes of memory",
            ),
            (plain(many.encode_to_vec()), "has 4097 chunks"),
        ] {
            let refusal = Content::of(batch).and_then(Content::decode).unwrap_err();
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = Content::of(plain(bytes.clone())).and_then(Content::decode);
            let _any = Content::of(Batch { compression: 1, ..plain(bytes) });
        }

        /// What is measured is what the decoder finds.
        #[test]
        fn all_elements_are_counted(chunks in prop::collection::vec((0..20_usize, "[a-z]{0,20}"), 0..5)) {
            let line = Line { nanoseconds: 1, text: "", class: "", end: 9, level: LogLevel::Info };
            let logs: Vec<_> = chunks.iter().map(|(lines, name)| LogChunk {
                pod_name: name.clone(),
                ..columns::write(&vec![line; *lines])
            }).collect();
            let gaps: Vec<_> = chunks.iter().map(|(_, name)| LogGap { pod_name: name.clone(), ..Default::default() }).collect();
            let flows: Vec<_> = chunks.iter().map(|(flows, _)| FlowReport {
                flows: vec![Flow::default(); *flows],
                name_failures: vec![NameFailure::default(); *flows],
                ..Default::default()
            }).collect();
            let requests: Vec<_> = chunks.iter().map(|(items, name)| RequestReport {
                proxies: vec![RequestProxy { id: name.clone(), ..Default::default() }; *items],
                rows: vec![RequestRow::default(); *items],
                ..Default::default()
            }).collect();
            let least: usize = chunks.iter().map(|(items, name)| {
                2 * (size_of::<LogChunk>() + size_of::<LogGap>() + size_of::<FlowReport>() + size_of::<RequestReport>() + name.len())
                    + items * (size_of::<Line<'_>>() + size_of::<Flow>() + size_of::<NameFailure>())
                    + items * (size_of::<RequestProxy>() + name.len() + size_of::<RequestRow>())
            }).sum();
            let content = BatchContent { logs, flows, requests, gaps };
            prop_assert!(Content::of(plain(content.encode_to_vec())).unwrap().decoded_bytes >= least);
        }
    }
}
