//! One record of a spool's file: a head, then the payload.

use jiff::Timestamp;

use crate::uplink::queue::Number;

/// Bytes before the payload: state, number, time, length of the payload, its
/// checksum, and the checksum of all of these but the state.
pub(super) const HEAD_BYTES: usize = 1 + 8 + 8 + 4 + 4 + 4;

/// The first byte of a record that is to be sent …
const LIVE: u8 = 0xA5;
/// … and of one that was removed. One byte is written whole or not at all.
pub(super) const REMOVED: u8 = 0;

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub is_live: bool,
    pub number: Number,
    /// When it came, in whole microseconds.
    pub time: Timestamp,
    /// Bytes of the payload.
    pub length: u32,
    checksum: u32,
}

/// A whole record with `payload`, which comes in two parts.
pub(super) fn encode(number: Number, time: Timestamp, payload: [&[u8]; 2]) -> Vec<u8> {
    let length = payload[0].len() + payload[1].len();
    let mut checksum = crc32fast::Hasher::new();
    payload.iter().for_each(|part| checksum.update(part));
    let mut record = Vec::with_capacity(HEAD_BYTES + length);
    record.push(LIVE);
    record.extend(number.to_le_bytes());
    record.extend(time.as_microsecond().to_le_bytes());
    // No message is larger than the wire allows.
    record.extend((length as u32).to_le_bytes());
    record.extend(checksum.finalize().to_le_bytes());
    record.extend(crc32fast::hash(&record[1..]).to_le_bytes());
    payload.iter().for_each(|part| record.extend_from_slice(part));
    record
}

/// Reads a head; `None`: it is none.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    let (state, rest) = bytes.split_first()?;
    let (fields, checksum) = rest.get(..HEAD_BYTES - 1)?.split_last_chunk::<4>()?;
    if crc32fast::hash(fields) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (number, fields) = fields.split_first_chunk()?;
    let (time, fields) = fields.split_first_chunk()?;
    let (length, checksum) = fields.split_first_chunk()?;
    Some(Head {
        // At least once: what was not removed for certain is sent.
        is_live: *state != REMOVED,
        number: u64::from_le_bytes(*number),
        time: Timestamp::from_microsecond(i64::from_le_bytes(*time)).ok()?,
        length: u32::from_le_bytes(*length),
        checksum: u32::from_le_bytes(*checksum.first_chunk()?),
    })
}

impl Head {
    /// Bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.length)
    }

    /// Whether `payload` is what was written.
    pub(super) fn is_of(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.checksum
    }
}
