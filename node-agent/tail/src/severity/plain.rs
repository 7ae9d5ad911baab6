//! The level in a line of text.

use memchr::memchr_iter;

use super::{FIELDS, Level, is_level_key, is_word, leading_word, words};

/// The most fields of a logfmt line that are looked at.
const MOST_FIELDS: usize = 64;

pub(super) fn level(line: &[u8]) -> Option<Level> {
    match line {
        [b'I' | b'W' | b'E' | b'F', b'0'..=b'9', ..] => klog(line),
        [b'D' | b'I' | b'W' | b'E' | b'F' | b'A', b',', b' ', b'[', ..] => Some(ruby(line[0])),
        [b'p', ..] if line.starts_with(b"panic: ") => Some(Level::Fatal),
        [b'f', ..] if line.starts_with(b"fatal error: ") => Some(Level::Fatal),
        [b'0'..=b'9', ..] => redis(line),
        [b'a'..=b'z' | b'A'..=b'Z' | b'@', ..] if is_logfmt(line) => return logfmt(line),
        _ => None,
    }
    .or_else(|| words::level(line))
}

/// `E1121 13:50:00.123456`: klog's letter, month and day.
fn klog(line: &[u8]) -> Option<Level> {
    let head: &[u8; 9] = line.first_chunk()?;
    let [letter, d1, d2, d3, d4, b' ', h1, h2, b':'] = head else { return None };
    [d1, d2, d3, d4, h1, h2].iter().all(|byte| byte.is_ascii_digit()).then_some(())?;
    Some(ruby(*letter))
}

/// `E, [2026-11-21T13:50:00.123456 #1] ERROR -- : …`.
fn ruby(letter: u8) -> Level {
    match letter {
        b'D' => Level::Debug,
        b'I' => Level::Info,
        b'W' => Level::Warn,
        b'E' => Level::Error,
        _ => Level::Fatal,
    }
}

/// `1:M 21 Nov 2026 13:50:00.123 # …`: process, role, time, and a sign for the level.
fn redis(line: &[u8]) -> Option<Level> {
    let digits = line.iter().take(8).position(|byte| !byte.is_ascii_digit())?;
    let [b':', b'M' | b'S' | b'C' | b'X', b' ', rest @ ..] = &line[digits..] else { return None };
    let [b' ', sign, b' '] = rest.get(24..27)? else { return None };
    match sign {
        b'.' | b'-' => Some(Level::Debug),
        b'*' => Some(Level::Info),
        b'#' => Some(Level::Warn),
        _ => None,
    }
}

/// It begins with a field.
fn is_logfmt(line: &[u8]) -> bool {
    let is_key = |byte: &u8| is_word(*byte) || matches!(byte, b'.' | b'-' | b'@');
    let length = line.iter().take(32).take_while(|byte| is_key(byte)).count();
    line.get(length) == Some(&b'=')
}

/// `level=error`, at the beginning or after a space.
fn logfmt(line: &[u8]) -> Option<Level> {
    let line = &line[..line.len().min(FIELDS)];
    let mut from = 0;
    memchr_iter(b'=', line).take(MOST_FIELDS).find_map(|at| {
        let key = line[from..at].rsplit(|byte| *byte == b' ').next()?;
        from = at + 1;
        value(key, &line[from..])
    })
}

/// The level of a field.
pub(super) fn value(key: &[u8], value: &[u8]) -> Option<Level> {
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    is_level_key(key).then(|| Level::named(leading_word(value))).flatten()
}
