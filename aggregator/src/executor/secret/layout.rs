//! How a text is laid out, as far as that says what belongs to a name: lines and brackets below it, and what stands beside it.

use std::ops::Range;

use super::run;

/// What is known at a place of a text from what stands before it.
#[derive(Default)]
pub(super) struct Layout {
    /// Where the line begins, behind a time, blanks and the dashes of lists, and in which column.
    begin: usize,
    column: usize,
    /// The last `name` was that of a secret: the `value` beside it is one.
    pub names_secret: bool,
    /// Lines behind this column are below the name of a secret …
    below: Option<usize>,
    /// … and so is all before this place, which is in its brackets.
    inside: usize,
    /// Up to here brackets are not closed.
    unclosed: usize,
}

/// What brackets behind the name of a secret hold.
pub(super) enum Brackets {
    /// Names, which are judged one by one, or what is in the next lines.
    Names,
    /// Nothing but values, here.
    Values(Range<usize>),
    /// They are none: the value only begins so.
    None,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The length of the time (RFC 3339) with which a line of a log begins, with the blank behind it.
pub(super) fn time_length(line: &[u8]) -> usize {
    let is_of_time =
        |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'-' | b':' | b'.' | b'+' | b'T' | b'Z');
    let length = line.iter().take(40).take_while(is_of_time).count();
    if length >= 20 && line.get(length) == Some(&b' ') { length + 1 } else { 0 }
}

impl Layout {
    /// A line begins at `from`; where it is, if it is a secret as a whole.
    pub(super) fn line(&mut self, bytes: &[u8], from: usize) -> Option<Range<usize>> {
        let margin = from + time_length(&bytes[from..]);
        let mut begin = margin + run(bytes, margin, is_blank);
        while bytes[begin..].starts_with(b"- ") {
            begin += 1 + run(bytes, begin + 1, is_blank);
        }
        if is_end(bytes, begin) {
            return None;
        }
        (self.begin, self.column) = (begin, begin - margin);
        if self.column <= self.below? {
            self.below = None;
            return None;
        }
        let line = begin..begin + run(bytes, begin, |byte| byte != b'\n');
        let is_value =
            !names(&bytes[line.clone()]) && bytes[line.clone()].iter().any(u8::is_ascii_alphanumeric);
        is_value.then_some(line)
    }

    /// Whether a place is below the name of a secret.
    pub(super) fn is_below(&self, at: usize) -> bool {
        self.below.is_some() || at < self.inside
    }

    /// The name of a secret at `begin` has its value in the next lines, if it begins its own.
    fn opens(&mut self, begin: usize) {
        // It may be quoted.
        if begin.saturating_sub(self.begin) <= 1 {
            self.below.get_or_insert(self.column);
        }
    }

    /// What is behind the name of a secret at `begin`, if it does not stand in its line as a value: nothing, or what is deeper in the
    /// next lines. `None` if it does.
    pub(super) fn lines(&mut self, bytes: &[u8], begin: usize, value: usize) -> Option<Range<usize>> {
        if is_end(bytes, value) {
            self.opens(begin);
            return Some(value..value);
        }
        let sign = value + usize::from(matches!(bytes[value], b'|' | b'>'));
        let end = sign + run(bytes, sign, |byte| matches!(byte, b'-' | b'+' | b'1'..=b'9' | b' '));
        (sign > value && is_end(bytes, end)).then(|| self.block(bytes, end))
    }

    /// The lines behind `from` that are deeper than this one.
    fn block(&self, bytes: &[u8], from: usize) -> Range<usize> {
        let mut found: Option<Range<usize>> = None;
        let mut at = from + 1;
        while at < bytes.len() {
            let margin = at + time_length(&bytes[at..]);
            let begin = margin + run(bytes, margin, is_blank);
            at = begin;
            if !is_end(bytes, begin) {
                if begin - margin <= self.column {
                    break;
                }
                at += run(bytes, begin, |byte| byte != b'\n');
                found = Some(found.map_or(begin, |found| found.start)..at);
            }
            at += 1;
        }
        found.unwrap_or(from..from)
    }

    /// What is in the brackets at `value`, behind the name of a secret at `begin`.
    pub(super) fn brackets(&mut self, bytes: &[u8], begin: usize, value: usize) -> Brackets {
        if !matches!(bytes.get(value), Some(b'{' | b'[')) || value < self.unclosed {
            return Brackets::None;
        }
        if is_end(bytes, value + 1 + run(bytes, value + 1, is_blank)) {
            self.opens(begin);
            return Brackets::Names;
        }
        if value < self.inside {
            return Brackets::Names;
        }
        let (length, is_closed) = closed(bytes, value);
        if !is_closed {
            (self.inside, self.unclosed) = (value + length, value + length);
            return Brackets::None;
        }
        let inner = value + 1..value + length - 1;
        if names(&bytes[inner.clone()]) {
            self.inside = value + length;
            return Brackets::Names;
        }
        Brackets::Values(inner)
    }
}

fn is_end(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), None | Some(b'\n'))
}

/// Whether something in it may be a name with a value behind it.
fn names(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, b':' | b'='))
}

/// The length of what is in the brackets at `from`, with them; or of the rest of the line, if it does not close them.
fn closed(bytes: &[u8], from: usize) -> (usize, bool) {
    let (mut depth, mut quote, mut before, mut is_closed) = (0_usize, None, 0, false);
    let length = run(bytes, from, |byte| {
        if is_closed || byte == b'\n' {
            return false;
        }
        match (quote, byte) {
            (Some(open), byte) if open == byte && before != b'\\' => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{' | b'[') => depth += 1,
            (None, b'}' | b']') => {
                depth -= 1;
                is_closed = depth == 0;
            }
            _ => {}
        }
        before = byte;
        true
    });
    (length, is_closed)
}
