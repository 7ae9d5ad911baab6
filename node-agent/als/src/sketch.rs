//! How times are distributed, in few bytes.
//!
//! A value's bucket is its highest bits: its octave and the next four. So a quantile is off by at most a 32nd of itself, two
//! sketches are merged by adding, and no logarithm is taken.

use prost::encoding::{decode_varint, encode_varint};

/// Bits of a value beside its octave.
const BITS: u32 = 4;
/// As many as there are: those of all 64 bits.
const BUCKETS: u16 = 16 * 61;

/// Counts of values by size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// By bucket, ascending; most rows need a few.
    counts: Vec<(u16, u32)>,
}

impl Sketch {
    /// Adds a value, such as microseconds.
    #[inline]
    pub fn add(&mut self, value: u64) {
        self.count(bucket(value), 1, true);
    }

    /// Adds all values of another one.
    pub fn merge(&mut self, other: &Self) {
        self.merge_within(other, true);
    }

    /// Adds a value; where there is no room for more, to the nearest bucket that there is.
    #[inline]
    pub(crate) fn add_within(&mut self, value: u64, has_room: bool) {
        self.count(bucket(value), 1, has_room);
    }

    /// Likewise all values of another one.
    pub(crate) fn merge_within(&mut self, other: &Self, has_room: bool) {
        other.counts.iter().for_each(|(bucket, count)| self.count(*bucket, *count, has_room));
    }

    #[inline]
    fn count(&mut self, bucket: u16, count: u32, has_room: bool) {
        let at = match self.counts.binary_search_by_key(&bucket, |(of, _)| *of) {
            Ok(at) => at,
            // The first few cost what one does.
            Err(at) if has_room || self.counts.is_empty() || self.counts.len() < self.counts.capacity() => {
                return self.counts.insert(at, (bucket, count));
            }
            Err(at) => self.nearest(bucket, at),
        };
        if let Some((_, known)) = self.counts.get_mut(at) {
            *known = known.saturating_add(count);
        }
    }

    /// Where the bucket nearest to one is that belongs `at` this place; there is one.
    #[cold]
    fn nearest(&self, bucket: u16, at: usize) -> usize {
        let far = |at: usize| self.counts.get(at).map_or(u16::MAX, |(of, _)| of.abs_diff(bucket));
        let before = at.saturating_sub(1);
        if far(before) <= far(at) { before } else { at }
    }

    /// The value that this share (0 to 1) of all is not above; 0 if there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        let all: u64 = self.counts.iter().map(|(_, count)| u64::from(*count)).sum();
        // Exact for as many as anybody counts in a window.
        let mut rank = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        for (bucket, count) in &self.counts {
            match rank.checked_sub((*count).into()) {
                None | Some(0) => return middle(*bucket),
                Some(rest) => rank = rest,
            }
        }
        0
    }

    /// In the form of `RequestRow.times` of the agent link.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (mut bytes, mut last) = (Vec::with_capacity(self.counts.len() * 3), 0);
        for (bucket, count) in &self.counts {
            encode_varint(u64::from(bucket - last), &mut bytes);
            encode_varint((*count).into(), &mut bytes);
            last = *bucket;
        }
        bytes
    }

    /// From that form; `None`: it is none.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let (mut sketch, mut last) = (Self::default(), 0);
        while !bytes.is_empty() {
            let step = decode_varint(&mut bytes).ok()?;
            let count = u32::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            last += u16::try_from(step).ok().filter(|step| *step < BUCKETS)?;
            if last >= BUCKETS {
                return None;
            }
            sketch.count(last, count, true);
        }
        Some(sketch)
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        self.counts.capacity() * size_of::<(u16, u32)>()
    }
}

#[inline]
fn bucket(value: u64) -> u16 {
    let octave = value.checked_ilog2().unwrap_or(0);
    match octave.checked_sub(BITS) {
        // All of the value.
        None => value as u16,
        // Below 61 octaves of 16.
        Some(shift) => ((shift << BITS) as u64 + (value >> shift)) as u16,
    }
}

/// Halfway between the least and the greatest value of a bucket.
fn middle(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let Some(shift) = (bucket >> BITS).checked_sub(1) else { return bucket };
    let least = ((bucket & ((1 << BITS) - 1)) + (1 << BITS)) << shift;
    least + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_is_near_the_middle_of_its_bucket(value: u64, shift in 0..64u32) {
            let value = value >> shift;
            let off = middle(bucket(value)).abs_diff(value);
            prop_assert!(off <= value / 32, "{value}: {off}");
        }

        #[test]
        fn any_bytes_are_a_sketch_or_none(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(sketch) = Sketch::decode(&bytes) {
                prop_assert_eq!(Sketch::decode(&sketch.encode()), Some(sketch));
            }
        }

        #[test]
        fn quantiles_are_near_the_true_ones_and_merging_is_adding(
            mut values in prop::collection::vec(0..10_000_000u64, 1..300), split: prop::sample::Index,
        ) {
            let sketch = |values: &[u64]| {
                let mut sketch = Sketch::default();
                values.iter().for_each(|value| sketch.add(*value));
                sketch
            };
            let (one, other) = values.split_at(split.index(values.len()));
            let mut merged = sketch(one);
            merged.merge(&sketch(other));
            prop_assert_eq!(&merged, &sketch(&values));
            prop_assert_eq!(Sketch::decode(&merged.encode()), Some(merged.clone()));
            values.sort_unstable();
            for share in [0.5, 0.9, 0.99, 1.0] {
                let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
                let expected = values[rank - 1];
                prop_assert!(merged.quantile(share).abs_diff(expected) <= expected / 32);
            }
        }
    }

    #[test]
    fn without_room_values_are_counted_as_the_nearest_ones() {
        let mut sketch = Sketch::default();
        [100, 1000, 10_000, 100_000].into_iter().for_each(|value| sketch.add_within(value, false));
        let heap = sketch.heap();
        (0..100_000).for_each(|value| sketch.add_within(value, false));
        assert_eq!(
            (sketch.heap(), sketch.counts.iter().map(|(_, count)| *count).sum::<u32>()),
            (heap, 100_004)
        );
        assert!((8000..130_000).contains(&sketch.quantile(0.5)), "{}", sketch.quantile(0.5));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), 0);
        assert_eq!((bucket(u64::MAX), bucket(0)), (BUCKETS - 1, 0));
    }
}
