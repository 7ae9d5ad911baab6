//! The end of a file whose last lines the next one ends.

use std::io;

use super::file::Tracked;
use crate::{
    read::{READ, Reader},
    split::rest,
};

/// The end of a file, and what the next one goes on with.
pub(super) struct Splice {
    /// Where the first byte lies in the file.
    pub(super) base: u64,
    pub(super) bytes: Vec<u8>,
    /// How many of them are the file's.
    pub(super) own: usize,
}

impl Splice {
    /// `bytes`: the file's from `base` on; from `lead` on they hold the lines that have not ended. `None` if `next` does not hold
    /// their ends yet, and `is_over` does not say that none will come.
    pub(super) fn new(
        base: u64,
        mut bytes: Vec<u8>,
        lead: usize,
        next: &Tracked,
        reader: &mut Reader,
        is_over: bool,
    ) -> io::Result<Option<Self>> {
        let window = next.window(reader, 0, READ)?;
        let is_over = is_over || !window.at_end;
        let Some(rest) = rest(&bytes[lead..], window.bytes).or(is_over.then_some(0)) else {
            return Ok(None);
        };
        let own = bytes.len();
        bytes.extend_from_slice(&window.bytes[..rest]);
        Ok(Some(Self { base, bytes, own }))
    }
}
