//! The level in a line of text.

use memchr::memchr_iter;

use super::{FIELDS, LONGEST, Level, is_level_key, is_word, leading_word};

/// How much of a line's beginning is looked at for a word.
const HEAD: usize = 112;

/// The most fields of a logfmt line that are looked at.
const MOST_FIELDS: usize = 64;

/// The byte before the sequences that give text a colour.
const ESCAPE: u8 = 0x1B;

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
    .or_else(|| words(&line[..line.len().min(HEAD)]))
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
    let colon = line.iter().take(8).position(|byte| *byte == b':')?;
    let [b'M' | b'S' | b'C' | b'X', b' ', rest @ ..] = &line[colon + 1..] else { return None };
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
fn value(key: &[u8], value: &[u8]) -> Option<Level> {
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    is_level_key(key).then(|| Level::named(leading_word(value))).flatten()
}

/// A level as a word of its own near the beginning. In capitals it counts
/// anywhere there; else only as the first word, before a colon, or in brackets,
/// because sentences talk of errors too.
fn words(head: &[u8]) -> Option<Level> {
    let mut at = 0;
    let mut first = true;
    while at < head.len() {
        if !is_word(head[at]) {
            at += if head[at] == ESCAPE { escape(&head[at..]) } else { 1 };
            continue;
        }
        let start = at;
        while at < head.len() && is_word(head[at]) {
            at += 1;
        }
        let word = &head[start..at];
        if word[0].is_ascii_digit() {
            // Of a time.
            continue;
        }
        if (3..=LONGEST).contains(&word.len())
            && (first || stands_out(head, start, at))
            && let Some(level) = marked(head, start, word, first)
        {
            return Some(level);
        }
        // Names of months and days are short, and so are letters of a time.
        first &= word.len() <= 3;
    }
    None
}

/// Whether the word from `start` to `end` may stand for a level although others came before it: by its
/// capitals, or by what is around it. Most words have neither, and need no closer look.
#[inline]
fn stands_out(head: &[u8], start: usize, end: usize) -> bool {
    let is_marked = matches!(head.get(end), Some(b'=' | b']' | b':' | b'|' | b'\t'));
    is_marked || head[start + 1].is_ascii_uppercase() || (start > 0 && head[start - 1] == b'[')
}

/// The level that the word at `start` stands for, by itself and by what is around it.
fn marked(head: &[u8], start: usize, word: &[u8], first: bool) -> Option<Level> {
    // The letters that names of levels begin with.
    if !matches!(
        word[0] | 0x20,
        b'a' | b'c' | b'd'..=b'f' | b'i' | b'l' | b'n' | b'p' | b's' | b't' | b'v' | b'w'
    ) {
        return None;
    }
    let before = start.checked_sub(1).map(|at| head[at]);
    let rest = &head[start + word.len()..];
    let after = rest.first().copied();
    if after == Some(b'=') {
        return value(word, &rest[1..]);
    }
    let is_loud = word.iter().all(u8::is_ascii_uppercase);
    let is_in_brackets = after == Some(b']') || (before == Some(b'[') && after != Some(b'-'));
    let Some(level) = Level::named(word) else {
        return match word {
            // PostgreSQL, MySQL and the console of .NET.
            b"LOG" if after == Some(b':') => Some(Level::Info),
            b"Note" | b"System" if before == Some(b'[') && after == Some(b']') => Some(Level::Info),
            b"fail" if first && after == Some(b':') => Some(Level::Error),
            _ => None,
        };
    };
    if is_in_brackets || (before == Some(b'\t') && after == Some(b'\t')) {
        return Some(level);
    }
    let is_quoted = |byte: Option<u8>| matches!(byte, Some(b'"' | b'\'' | b'(' | b'<' | b'>'));
    if is_quoted(before) || is_quoted(after) {
        return None;
    }
    // A part of a path, of a name, or of a longer word; `production.ERROR: ` and `ERROR/Worker-1` are not.
    let is_inside = match before {
        Some(b'/' | b'-' | b'=') => true,
        Some(b'.') => !(is_loud && after == Some(b':')),
        _ => after == Some(b'-') || (after == Some(b'/') && !is_loud),
    };
    if is_inside {
        return None;
    }
    let counts = match after {
        Some(b':') => !is_nothing(rest[1..].trim_ascii_start()),
        Some(b'|') => true,
        // An alert, a panic or something critical may be what a sentence is about.
        _ => is_loud || (first && (level < Level::Fatal || word.eq_ignore_ascii_case(b"fatal"))),
    };
    counts.then_some(level)
}

/// What stands for no error: `error: null`.
fn is_nothing(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"<").unwrap_or(value);
    matches!(leading_word(value), b"null" | b"nil" | b"none" | b"None" | b"0" | b"false" | b"undefined")
}

/// The length of a sequence that gives text a colour.
fn escape(text: &[u8]) -> usize {
    match text {
        [ESCAPE, b'[', codes @ ..] => {
            let length = codes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b';')).count();
            (3 + length).min(text.len())
        }
        _ => 1,
    }
}
