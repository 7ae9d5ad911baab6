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
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if field == 0 {
            return Err(Malformed);
        }
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.fixed(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let (value, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
                self.0 = rest;
                Value::Bytes(value)
            }
            5 => self.fixed(4)?,
            _ => return Err(Malformed),
        };
        Ok(Some((field, value)))
    }

    fn fixed(&mut self, length: usize) -> Result<Value<'a>, Malformed> {
        self.0 = self.0.get(length..).ok_or(Malformed)?;
        Ok(Value::Fixed)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match *self.0 {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.0 = rest;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
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

#[cfg(test)]
mod tests {
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
