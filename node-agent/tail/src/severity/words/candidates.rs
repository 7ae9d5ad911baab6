//! Which words of a text may name a level, by a bit for each of its bytes: nearly all of them have nothing
//! that a level's name has, and are never visited.

use std::{iter, ops::Range};

use wide::u8x16;

use crate::severity::LONGEST;

/// Bytes that are looked at together.
pub(super) const BLOCK: usize = 16;

/// The byte before the sequences that give text a colour.
const ESCAPE: u8 = 0x1B;

/// A word that may name a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Those before it are short or numbers: of a time, or names of months and days.
    pub(super) is_first: bool,
}

/// What the bytes of a text's beginning are: the lowest bits are those of the first.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Letters, digits and `_`.
    words: u128,
    digits: u128,
    capitals: u128,
    /// What may stand next to a level, and is no space.
    marks: u128,
    escapes: u128,
}

impl Candidates {
    /// Looks at the `blocks` of a text from `begin` on.
    #[inline]
    pub(super) fn read<const N: usize>(&mut self, begin: usize, blocks: &[[u8; BLOCK]; N]) {
        let mut bits = [0_u64; 5];
        for (at, block) in blocks.iter().enumerate() {
            for (bits, block) in bits.iter_mut().zip(look_at(block)) {
                *bits |= u64::from(block) << (at * BLOCK);
            }
        }
        let [words, digits, capitals, marks, escapes] = bits.map(|bits| u128::from(bits) << begin);
        self.words |= words;
        self.digits |= digits;
        self.capitals |= capitals;
        self.marks |= marks;
        self.escapes |= escapes;
    }

    /// The candidates of `text` that end within `range`, in order.
    #[inline]
    pub(super) fn words(&self, text: &[u8], range: Range<usize>) -> impl Iterator<Item = Word> + use<> {
        let words = if self.escapes == 0 { self.words } else { self.words & !colours(text, self.escapes) };
        let starts = words & !(words << 1);
        // Adding its first bit to a word clears it and sets the bit after it. Numbers name nothing.
        let words = words & (words + (starts & self.digits));
        let starts = starts & words;
        let ends = words + starts;
        let three = words << 1 & words << 2 & words << 3;
        let long = ends & three & words << 4;
        let first = ends & (long ^ long.wrapping_sub(1));
        let is_loud = self.capitals << 1 & self.capitals << 2 & self.capitals << 3;
        let after_mark = words + (starts & self.marks << 1);
        let below = |bit: usize| (1_u128 << bit) - 1;
        let within = below(range.end) & !below(range.start);
        let mut left = ends & three & within & (first | is_loud | self.marks | after_mark);
        iter::from_fn(move || {
            while left != 0 {
                let end = left.trailing_zeros();
                left &= left - 1;
                let length = (starts << (u128::BITS - end)).leading_zeros() + 1;
                if length as usize <= LONGEST {
                    let is_first = first >> end & 1 == 1;
                    return Some(Word { start: (end - length) as usize, end: end as usize, is_first });
                }
            }
            None
        })
    }
}

/// For each byte of the block a bit that says whether it is a part of a word, a digit, a capital, a mark, an escape.
#[inline]
fn look_at(block: &[u8; BLOCK]) -> [u32; 5] {
    let block = u8x16::new(*block);
    // The ends of a range are one comparison with unsigned numbers.
    let within = |block: u8x16, first: u8, last: u8| {
        let from_first = block - u8x16::splat(first);
        from_first.min(u8x16::splat(last - first)).simd_eq(from_first)
    };
    let small = block | u8x16::splat(0x20);
    let digits = within(block, b'0', b'9');
    let words = within(small, b'a', b'z') | digits | block.simd_eq(u8x16::splat(b'_'));
    let capitals = within(block, b'A', b'Z');
    // More than the marks: `[`, `]` and `|` with what differs from them by the bit of small letters, `:` to `=`.
    let marks = within(small, b'{', b'}') | within(block, b':', b'=') | block.simd_eq(u8x16::splat(b'\t'));
    let escapes = block.simd_eq(u8x16::splat(ESCAPE));
    [words, digits, capitals, marks, escapes].map(u8x16::to_bitmask)
}

/// The bytes of the sequences that give `text` a colour, by their first bytes.
#[cold]
fn colours(text: &[u8], escapes: u128) -> u128 {
    let (mut colours, mut left) = (0, escapes);
    while left != 0 {
        let at = left.trailing_zeros();
        let begun = u128::MAX << at;
        let rest = begun << escape(&text[at as usize..]);
        colours |= begun & !rest;
        left &= rest;
    }
    colours
}

/// The length of a sequence that gives text a colour.
pub(super) fn escape(text: &[u8]) -> usize {
    match text {
        [ESCAPE, b'[', codes @ ..] => {
            let length = codes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b';')).count();
            (3 + length).min(text.len())
        }
        _ => 1,
    }
}
