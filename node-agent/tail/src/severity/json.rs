//! The level in an object on one line.

use memchr::{memchr, memchr2};

use super::{Level, is_level_key, leading_word, number};

/// `{"level":"error",…}`: the first field that holds a level. A name counts in objects within the object
/// too, as in `{"log":{"level":"error"}}`; a number only in the outermost, because inside it may count anything.
pub(super) fn level(line: &[u8]) -> Option<Level> {
    let (mut depth, mut at) = (0_i32, 0);
    while let Some(quote) = memchr(b'"', &line[at..]) {
        for byte in &line[at..at + quote] {
            depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
        }
        let start = at + quote + 1;
        let end = end_of_string(line, start)?;
        at = end + 1;
        let [b':', value @ ..] = line[at..].trim_ascii_start() else { continue };
        let key = &line[start..end];
        let value = value.trim_ascii_start();
        let found = match value {
            _ if !is_level_key(key) => None,
            [b'"', name @ ..] => Level::named(leading_word(name)).or_else(|| {
                let name = leading_word(name);
                number(name).filter(|_| depth == 1).and_then(Level::numbered)
            }),
            digits if depth == 1 => number(leading_word(digits)).and_then(Level::numbered),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
        // A value that is a string is passed over, whatever is in it.
        at = line.len() - value.len();
        if value.first() == Some(&b'"') {
            at = end_of_string(line, at + 1)? + 1;
        }
    }
    None
}

/// Where the quote is that ends the string that begins at `at`.
fn end_of_string(line: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', line.get(at..)?)?;
        if line[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}
