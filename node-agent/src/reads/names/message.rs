//! Messages of the domain name system (RFC 1035), as far as a question needs it. Answers are from who knows
//! whom: every length is checked, and a name ends.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;
/// We take messages of this size (RFC 6891), which reach every place in one piece.
pub(super) const LONGEST: usize = 1232;
/// Records that are shown.
const RECORDS: u16 = 100;
/// No name is longer.
const NAME: usize = 255;

/// Types of records with their numbers.
const KINDS: [(&str, u16); 9] = [
    ("A", A),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", AAAA),
    ("SRV", 33),
];
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u8,
    pub(super) is_cut: bool,
    pub(super) records: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
}

/// The name of a type of records.
pub(super) fn kind(number: u16) -> String {
    let known = KINDS.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
}

/// What a server's code is called.
pub(super) fn code(number: u8) -> String {
    CODES.get(usize::from(number)).map_or_else(|| format!("code {number}"), ToString::to_string)
}

/// A question, and its number.
///
/// # Errors
/// It is no name.
pub(super) fn question(name: &str, record: u16) -> io::Result<(u16, Vec<u8>)> {
    let odd = || io::Error::other(format!("{name} is not a name"));
    let [high, low, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    // Recursion is desired; one question, and one record of options.
    let mut message = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        let length =
            u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length)).ok_or_else(odd)?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    if message.len() > 12 + NAME {
        return Err(odd());
    }
    message.extend(record.to_be_bytes());
    message.extend([0, 1]);
    let [high_size, low_size] = (LONGEST as u16).to_be_bytes();
    message.extend([0, 0, 41, high_size, low_size, 0, 0, 0, 0, 0, 0]);
    Ok((u16::from_be_bytes([high, low]), message))
}

/// The answer to the question of this number; `None`: it is to another.
///
/// # Errors
/// It is none.
pub(super) fn answer(message: &[u8], id: u16) -> io::Result<Option<Answer>> {
    read(message, id).ok_or_else(|| io::Error::other("the name server's answer can't be read"))
}

fn read(message: &[u8], id: u16) -> Option<Option<Answer>> {
    let mut at = 0;
    let [number, flags, questions, answers] = {
        let mut next = || u16_at(message, &mut at);
        [next()?, next()?, next()?, next()?]
    };
    const IS_ANSWER: u16 = 0x8000;
    const IS_CUT: u16 = 0x0200;
    if number != id || flags & IS_ANSWER == 0 {
        return Some(None);
    }
    at = 12;
    for _ in 0..questions {
        name(message, &mut at)?;
        at += 4;
    }
    let mut answer = Answer {
        code: (flags & 15) as u8,
        is_cut: flags & IS_CUT != 0 || answers > RECORDS,
        records: Vec::new(),
        addresses: Vec::new(),
    };
    for _ in 0..answers.min(RECORDS) {
        let owner = name(message, &mut at)?;
        let (record, _class) = (u16_at(message, &mut at)?, u16_at(message, &mut at)?);
        let time = u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?);
        at += 4;
        let length = usize::from(u16_at(message, &mut at)?);
        let data = message.get(at..at + length)?;
        let text = text_of(message, at, record, data)?;
        answer.records.push(format!("{owner}. {time} IN {} {text}", kind(record)));
        match record {
            A => answer.addresses.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
            AAAA => answer.addresses.push(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
            _ => {}
        }
        at += length;
    }
    Some(Some(answer))
}

fn u16_at(message: &[u8], at: &mut usize) -> Option<u16> {
    let bytes = message.get(*at..*at + 2)?;
    *at += 2;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The data of a record, which may name what stands before it in the message.
fn text_of(message: &[u8], begin: usize, record: u16, data: &[u8]) -> Option<String> {
    let mut at = begin;
    Some(match record {
        A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        2 | 5 | 12 => format!("{}.", name(message, &mut at)?),
        15 => {
            let preference = u16_at(message, &mut at)?;
            format!("{preference} {}.", name(message, &mut at)?)
        }
        33 => {
            let mut next = || u16_at(message, &mut at);
            let (priority, weight, port) = (next()?, next()?, next()?);
            format!("{priority} {weight} {port} {}.", name(message, &mut at)?)
        }
        6 => {
            let (primary, contact) = (name(message, &mut at)?, name(message, &mut at)?);
            let serial = u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?);
            format!("{primary}. {contact}. {serial}")
        }
        16 => {
            let (mut texts, mut rest) = (Vec::new(), data);
            while let Some((length, behind)) = rest.split_first() {
                let (text, behind) = behind.split_at_checked(usize::from(*length))?;
                texts.push(format!("\"{}\"", text.escape_ascii()));
                rest = behind;
            }
            texts.join(" ")
        }
        _ => format!("{} bytes", data.len()),
    })
}

/// A name, without the dot behind it. What is no printable character is escaped.
fn name(message: &[u8], at: &mut usize) -> Option<String> {
    const POINTS: u8 = 0xc0;
    let (mut text, mut place, mut end) = (String::new(), *at, None);
    loop {
        let length = *message.get(place)?;
        if length & POINTS == POINTS {
            let low = *message.get(place + 1)?;
            let to = usize::from(u16::from_be_bytes([length & !POINTS, low]));
            end = end.or(Some(place + 2));
            // Only backwards, so that it ends.
            if to >= place {
                return None;
            }
            place = to;
        } else if length == 0 {
            *at = end.unwrap_or(place + 1);
            return Some(text);
        } else {
            let label = message.get(place + 1..place + 1 + usize::from(length))?;
            if length & POINTS != 0 || text.len() > NAME {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(&label.escape_ascii().to_string());
            place += 1 + usize::from(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer with one record, whose data is this.
    fn with_record(record: u16, data: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend(b"\x03web\x04shop\0\0\x01\0\x01");
        message.extend([0xc0, 12]);
        message.extend(record.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 30]);
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
        message
    }

    #[test]
    fn records_are_shown_as_they_are_written() {
        for (record, data, expected) in [
            (1, &[10, 0, 0, 1][..], "web.shop. 30 IN A 10.0.0.1"),
            (28, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "web.shop. 30 IN AAAA fd00::1"),
            (5, b"\x01a\xc0\x10", "web.shop. 30 IN CNAME a.shop."),
            (15, b"\0\x0a\x01m\0", "web.shop. 30 IN MX 10 m."),
            (33, b"\0\x01\0\x02\x01\xbb\x01s\0", "web.shop. 30 IN SRV 1 2 443 s."),
            (16, b"\x03a\"b\x01\x1b", "web.shop. 30 IN TXT \"a\\\"b\" \"\\x1b\""),
            (6, b"\x01p\0\x01c\0\0\0\0\x09", "web.shop. 30 IN SOA p. c. 9"),
            (99, b"xyz", "web.shop. 30 IN TYPE99 3 bytes"),
        ] {
            let answer = answer(&with_record(record, data), 7).unwrap().unwrap();
            assert_eq!(answer.records, [expected]);
            assert_eq!(answer.addresses.len(), usize::from(record == 1 || record == 28));
        }
        assert_eq!(answer(&with_record(1, &[10, 0, 0, 1]), 8).unwrap(), None, "another question's");
    }

    #[test]
    fn what_is_broken_or_would_never_end_is_an_error() {
        for broken in [
            with_record(1, &[10, 0, 0]),
            with_record(5, &[0xc0, 50]),
            with_record(5, &[0xc0, 38]),
            with_record(16, b"\x09a"),
            with_record(33, b"\0"),
            vec![0, 7, 0x81],
        ] {
            assert!(answer(&broken, 7).is_err(), "{broken:?}");
        }
        for name in ["", "a..b", ".a", &"a".repeat(64), &["abcdefg"; 40].join(".")] {
            assert!(question(name, A).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
            places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let _read = read(&bytes, 7);
            let mut message = with_record(5, b"\x01a\xc0\x10");
            for (place, byte) in places {
                let place = place.index(message.len());
                message[place] = byte;
            }
            if let Some(Some(answer)) = read(&message, 7) {
                prop_assert!(answer.records.iter().all(|record| record.is_ascii()));
            }
        }
    }
}
