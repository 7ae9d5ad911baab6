//! The end of a file whose last lines the next one ends.

use super::file::Tracked;
use crate::{
    read::{READ, Reader, WINDOW},
    split::{Raw, Rest, rest},
};

/// The end of a file, and what the next one goes on with.
pub(super) struct Splice {
    /// Where the first byte lies in the file.
    pub(super) base: u64,
    pub(super) bytes: Vec<u8>,
    /// How many of them are the file's.
    pub(super) own: usize,
    /// Up to here the next file was read before.
    pub(super) known: u64,
}

impl Splice {
    /// `bytes`: the file's from `base` on; from `begun` on they hold the lines that have not ended. `None` if `next` does not hold
    /// their ends yet, and `is_over` does not say that they are waited for no longer.
    pub(super) fn new(
        base: u64,
        mut bytes: Vec<u8>,
        begun: usize,
        next: &Tracked,
        reader: &mut Reader,
        is_over: bool,
    ) -> Option<Self> {
        let own = bytes.len();
        for want in [READ, WINDOW] {
            // That it cannot be read is told in its own turn.
            let window = next.window(reader, 0, want).ok();
            let (head, at_end) = window.map_or((&[][..], true), |window| (window.bytes, window.at_end));
            let Rest { bytes: length, is_awaited } = rest(bytes.get(begun..).unwrap_or_default(), head);
            if is_awaited && !at_end && want < WINDOW {
                continue;
            }
            if is_awaited && at_end && !is_over {
                return None;
            }
            bytes.extend_from_slice(&head[..length]);
            break;
        }
        Some(Self { base, bytes, own, known: next.ledger.read() })
    }

    /// Whether a record lies in the next file, and was read there. `own`: how many bytes before it are not of that.
    pub(super) fn has_known(&self, raw: &Raw<'_>, own: usize) -> bool {
        raw.begin >= own && (raw.end - own) as u64 <= self.known
    }
}
