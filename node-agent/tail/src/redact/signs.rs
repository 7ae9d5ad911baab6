//! Where the signs `:` and `=` stand, of which many lines have dozens.

use wide::u8x16;

/// Bytes that are looked at together, of which so many make a register.
const BLOCK: usize = 64;
const LANES: usize = 16;

/// The places of `:` and `=`, in order.
#[derive(Clone, Debug)]
pub(super) struct Signs<'a> {
    /// What is not looked at yet, and where it begins.
    rest: &'a [u8],
    next: usize,
    /// Where the block begins whose signs are in `found`: a bit for every sign that was not given yet.
    block: usize,
    found: u64,
}

impl<'a> Signs<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, next: 0, block: 0, found: 0 }
    }
}

impl Iterator for Signs<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            self.block = self.next;
            if let Some((block, rest)) = self.rest.split_first_chunk() {
                self.found = signs(block);
                self.rest = rest;
            } else if self.rest.is_empty() {
                return None;
            } else {
                let mut block = [0; BLOCK];
                block[..self.rest.len()].copy_from_slice(self.rest);
                self.found = signs(&block);
                self.rest = &[];
            }
            self.next += BLOCK;
        }
        let sign = self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(self.block + sign)
    }
}

/// A bit for every sign, the lowest for the first byte.
#[inline]
fn signs(block: &[u8; BLOCK]) -> u64 {
    let (lanes, _) = block.as_chunks::<LANES>();
    lanes.iter().enumerate().fold(0, |found, (at, lanes)| {
        let lanes = u8x16::new(*lanes);
        let is_sign = lanes.simd_eq(u8x16::splat(b':')) | lanes.simd_eq(u8x16::splat(b'='));
        found | u64::from(is_sign.to_bitmask()) << (at * LANES)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sign_is_found(text in "[:=;<a]{0,200}") {
            let plain = text.match_indices([':', '=']).map(|(at, _)| at);
            prop_assert!(Signs::of(text.as_bytes()).eq(plain));
        }
    }
}
