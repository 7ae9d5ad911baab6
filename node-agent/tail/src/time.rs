//! Times of log lines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment as the wire carries it: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanos: u32,
}

impl Timestamp {
    /// How long after `earlier` it is; nothing if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = |time: Self| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let between = (nanos(self) - nanos(earlier)).max(0);
        Duration::from_nanos(between.try_into().unwrap_or(u64::MAX))
    }
}

impl From<SystemTime> for Timestamp {
    /// A clock before 1970 counts as 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs().try_into().unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }
}

/// Reads times one after the other. Most lines are of the same second as the one before, which is then
/// not worked out again.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What was read last, to its seconds.
    text: [u8; 19],
    /// Its seconds since 1970, before its offset.
    seconds: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { text: *b"1970-01-01T00:00:00", seconds: 0 }
    }
}

impl Clock {
    /// Reads an RFC 3339 time with up to nine digits of a second's fraction, `Z`
    /// or an offset, at the very beginning of `text`; returns it and its length.
    /// Container runtimes leave out trailing zeros, so the length varies.
    #[inline]
    pub fn read(&mut self, text: &[u8]) -> Option<(Timestamp, usize)> {
        let to_second: &[u8; 19] = text.first_chunk()?;
        if *to_second != self.text {
            *self = Self { text: *to_second, seconds: seconds(to_second)? };
        }
        // Nearly all of them.
        if let Some([b'.', fraction @ .., b'Z']) = text[to_second.len()..].first_chunk::<11>()
            && let Some(nanos) = nine_digits(fraction)
        {
            return Some((Timestamp { seconds: self.seconds, nanos }, to_second.len() + 11));
        }
        let mut seconds = self.seconds;
        let mut at = to_second.len();
        let mut nanos = 0;
        if text.get(at) == Some(&b'.') {
            at += 1;
            let begin = at;
            while let Some(digit) =
                text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9)
            {
                if at == begin + 9 {
                    return None;
                }
                nanos = nanos * 10 + u32::from(digit);
                at += 1;
            }
            if at == begin {
                return None;
            }
            nanos *= POWERS[at - begin];
        }
        match text.get(at)? {
            b'Z' => at += 1,
            sign @ (b'+' | b'-') => {
                let [h1, h2, b':', m1, m2] = text.get(at + 1..at + 6)? else { return None };
                let offset = i64::from(digits(&[*h1, *h2])?) * 3_600 + i64::from(digits(&[*m1, *m2])?) * 60;
                seconds += if *sign == b'-' { offset } else { -offset };
                at += 6;
            }
            _ => return None,
        }
        Some((Timestamp { seconds, nanos }, at))
    }
}

/// A date and a time of day, in seconds since 1970.
fn seconds(text: &[u8; 19]) -> Option<i64> {
    let [_, _, _, _, b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _] = text else { return None };
    let two = |at: usize| digits(&text[at..at + 2]);
    let year = two(0)? * 100 + two(2)?;
    let (month, day, hour, minute, second) = (two(5)?, two(8)?, two(11)?, two(14)?, two(17)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let of_day = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    Some(days_since_1970(year, month, day) * 86_400 + of_day)
}

/// What a fraction of so many digits is multiplied by to be nanoseconds.
const POWERS: [u32; 10] = [0, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];

/// Nine decimal digits as a number.
fn nine_digits([eight @ .., last]: &[u8; 9]) -> Option<u32> {
    let last = last.wrapping_sub(b'0');
    eight_digits(eight).filter(|_| last <= 9).map(|eight| eight * 10 + u32::from(last))
}

/// Eight decimal digits as a number: pairs of them, then pairs of pairs, in one word.
fn eight_digits(text: &[u8; 8]) -> Option<u32> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    let word = u64::from_le_bytes(*text);
    // Of a digit the upper half is 3, also with 6 added.
    if word & HIGH != ZEROS || (word + 0x0606_0606_0606_0606) & HIGH != ZEROS {
        return None;
    }
    let pair = |word: u64, tens: u64, width: u32, mask: u64| (word * tens + (word >> width)) & mask;
    let twos = pair(word - ZEROS, 10, 8, 0x00FF_00FF_00FF_00FF);
    let fours = pair(twos, 100, 16, 0x0000_FFFF_0000_FFFF);
    let eight = pair(fours, 10_000, 32, 0xFFFF_FFFF);
    u32::try_from(eight).ok()
}

/// At most nine decimal digits as a number.
fn digits(text: &[u8]) -> Option<u32> {
    text.iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

/// Days of the proleptic Gregorian calendar, counted in eras of 400 years that
/// begin on a 1st of March, so that the leap day is the last of its year.
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runtimes_forms_are_read_and_others_are_not() {
        let mut clock = Clock::default();
        let mut read =
            |text: &str| clock.read(text.as_bytes()).map(|(t, length)| (t.seconds, t.nanos, length));
        assert_eq!(read("1970-01-01T00:00:00Z x"), Some((0, 0, 20)));
        assert_eq!(read("2026-11-21T13:50:00.5Z"), Some((1_795_269_000, 500_000_000, 22)));
        assert_eq!(read("2026-11-21T15:50:00.000000001+02:00 "), Some((1_795_269_000, 1, 35)));
        for wrong in
            ["", "2026-11-21", "2026-11-21 13:50:00Z", "2026-13-21T13:50:00Z", "2026-11-21T13:50:00.Z"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_is_read_as_a_calendar_library_reads_it(
            seconds in -62_000_000_000_i64..253_000_000_000, nanos in 0_i32..1_000_000_000,
        ) {
            let time = jiff::Timestamp::new(seconds, nanos).unwrap();
            let text = time.to_string();
            if text.starts_with('-') {
                return Ok(());
            }
            let (read, length) = Clock::default().read(text.as_bytes()).unwrap();
            prop_assert_eq!(length, text.len());
            let expected = jiff::Timestamp::new(read.seconds, read.nanos.try_into().unwrap()).unwrap();
            prop_assert_eq!(expected, time);
        }

        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Clock::default().read(&text);
        }

        #[test]
        fn what_was_read_before_makes_no_difference(
            texts in proptest::collection::vec("2026-1[0-3]-2[01]T13:5[0-2]:00(\\.[0-9]{1,10})?(Z|[+-]02:00)?", 0..20),
        ) {
            let mut clock = Clock::default();
            for text in texts.iter().map(String::as_bytes) {
                prop_assert_eq!(clock.read(text), Clock::default().read(text));
            }
        }
    }
}
