//! Protocol buffers, read where they lie.

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed size: nothing here uses it.
    Fixed,
}

impl<'a> Value<'a> {
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) | Self::Fixed => &[],
        }
    }

    #[inline]
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) | Self::Fixed => 0,
        }
    }
}

/// The fields of a message, one after another.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[inline]
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The next one's number and value; `None` at the end.
    ///
    /// In place at each caller, and without a table of jumps: which kind of field comes next is then foreseen by the processor
    /// from those before, as messages of a kind look alike.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if field == 0 {
            return Err(Malformed);
        }
        let kind = key & 7;
        let value = if kind == 2 {
            let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
            let (value, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
            self.0 = rest;
            Value::Bytes(value)
        } else if kind == 0 {
            Value::Number(self.varint()?)
        } else {
            self.fixed(kind)?
        };
        Ok(Some((field, value)))
    }

    #[cold]
    fn fixed(&mut self, kind: u64) -> Result<Value<'a>, Malformed> {
        let length = match kind {
            1 => 8,
            5 => 4,
            _ => return Err(Malformed),
        };
        self.0 = self.0.get(length..).ok_or(Malformed)?;
        Ok(Value::Fixed)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match *self.0 {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.0 = rest;
                Ok(byte.into())
            }
            // Keys of fields from 16 on, and lengths of most messages.
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.0 = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        if let Some(bytes) = self.0.first_chunk() {
            let word = u64::from_le_bytes(*bytes);
            // The first byte without its highest bit is the last one.
            let length = ((!word & 0x8080_8080_8080_8080).trailing_zeros() + 1) / 8;
            if let Some(rest) = self.0.get(length as usize..).filter(|_| length < 8) {
                self.0 = rest;
                return Ok(sevens(word & ((1 << (8 * length)) - 1)));
            }
        }
        for (at, byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            number |= bits << (7 * at);
            if *byte < 0x80 {
                // Of the tenth byte there is room for one bit.
                if at == 9 && *byte > 1 {
                    return Err(Malformed);
                }
                self.0 = self.0.get(at + 1..).unwrap_or_default();
                return Ok(number);
            }
        }
        Err(Malformed)
    }
}

/// The lower seven bits of each byte, together.
fn sevens(word: u64) -> u64 {
    let pairs = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::encoding::encode_varint;

    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, u64, usize)>, Malformed> {
        let (mut fields, mut found) = (Fields::new(message), Vec::new());
        while let Some((field, value)) = fields.next()? {
            found.push((field, value.number(), value.bytes().len()));
        }
        Ok(found)
    }

    #[test]
    fn every_kind_of_field_is_read_or_passed_over() {
        let message = [
            8, 0x96, 1, // 1: 150
            0x12, 2, b'a', b'b', // 2: two bytes
            0x1d, 0, 0, 0, 0, // 3: 32 bits
            0x21, 0, 0, 0, 0, 0, 0, 0, 0, // 4: 64 bits
            0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, // 5: all bits
        ];
        assert_eq!(all(&message), Ok(vec![(1, 150, 0), (2, 0, 2), (3, 0, 0), (4, 0, 0), (5, u64::MAX, 0)]));
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written(numbers in vec((any::<u64>(), 0..64u32), 1..20)) {
            let numbers: Vec<u64> = numbers.into_iter().map(|(number, shift)| number >> shift).collect();
            let mut message = Vec::new();
            for number in &numbers {
                message.push(8);
                encode_varint(*number, &mut message);
            }
            let expected: Vec<_> = numbers.into_iter().map(|number| (1, number, 0)).collect();
            prop_assert_eq!(all(&message), Ok(expected));
        }
    }

    #[test]
    fn what_ends_too_early_or_makes_no_sense_is_malformed() {
        let bad: [&[u8]; 8] = [
            &[8],
            &[8, 0x80],
            &[0x12, 3, b'a'],
            &[0x1d, 0],
            &[0x21, 0],
            &[0, 1],
            &[0x0b],
            &[0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ];
        for message in bad {
            assert_eq!(all(message), Err(Malformed), "{message:?}");
        }
    }
}
