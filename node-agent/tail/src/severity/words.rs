//! The level as a word of a line's beginning.

mod candidates;

use self::candidates::{BLOCK, Candidates, Word};
use super::{Level, leading_word, plain::value};

/// How much of a line's beginning is looked at.
const HEAD: usize = 7 * BLOCK;

/// How much of it is looked at first, because in most lines the level comes early.
const EARLY: usize = 3 * BLOCK;

/// A level as a word of its own near the beginning. In capitals it counts
/// anywhere there; else only as the first word, before a colon, or in brackets,
/// because sentences talk of errors too.
pub(super) fn level(line: &[u8]) -> Option<Level> {
    let mut padded = [0; HEAD];
    let head: &[_; HEAD] = line.first_chunk().unwrap_or_else(|| {
        padded[..line.len()].copy_from_slice(line);
        &padded
    });
    let (blocks, _) = head.as_chunks();
    let mut candidates = Candidates::default();
    candidates.read(0, blocks.first_chunk::<3>()?);
    let found = candidates.words(head, 0..EARLY).find_map(|word| marked(head, word));
    if found.is_some() || line.len() < EARLY {
        return found;
    }
    candidates.read(EARLY, blocks.last_chunk::<4>()?);
    candidates.words(head, EARLY..HEAD + 1).find_map(|word| marked(head, word))
}

/// The level that the word stands for, by itself and by what is around it.
fn marked(head: &[u8], Word { start, end, is_first }: Word) -> Option<Level> {
    let word = &head[start..end];
    // The letters that names of levels begin with.
    if !matches!(
        word[0] | 0x20,
        b'a' | b'c' | b'd'..=b'f' | b'i' | b'l' | b'n' | b'p' | b's' | b't' | b'v' | b'w'
    ) {
        return None;
    }
    let before = start.checked_sub(1).map(|at| head[at]);
    let rest = &head[end..];
    let after = rest.first().copied();
    if after == Some(b'=') {
        return value(word, &rest[1..]);
    }
    let Some(level) = Level::named(word) else {
        return match word {
            // PostgreSQL, MySQL and the console of .NET.
            b"LOG" if after == Some(b':') => Some(Level::Info),
            b"Note" | b"System" if before == Some(b'[') && after == Some(b']') => Some(Level::Info),
            b"fail" if is_first && after == Some(b':') => Some(Level::Error),
            _ => None,
        };
    };
    let is_loud = word.iter().all(u8::is_ascii_uppercase);
    let is_in_brackets = after == Some(b']') || (before == Some(b'[') && after != Some(b'-'));
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
        _ => is_loud || (is_first && (level < Level::Fatal || word.eq_ignore_ascii_case(b"fatal"))),
    };
    counts.then_some(level)
}

/// What stands for no error: `error: null`.
fn is_nothing(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"<").unwrap_or(value);
    matches!(leading_word(value), b"null" | b"nil" | b"none" | b"None" | b"0" | b"false" | b"undefined")
}

#[cfg(test)]
mod tests;
