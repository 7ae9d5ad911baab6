//! The value of what is named like a secret: `password=…`, `"api_key": "…"`, `Authorization: …`.

use std::ops::Range;

/// Ends of names, in small letters and without `_` and `-`; see also [`may_name_a_secret`].
const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "accountkey",
    "encryptionkey",
    "signingkey",
    "authkey",
    "credential",
    "credentials",
    "authorization",
    "cookie",
];

/// Names whose value goes on to the end of its text.
const WHOLE: &[&str] = &["authorization", "cookie"];

/// Names that are no ordinary words: what follows them after a colon is their value.
const PLAIN: &[&str] = &["password", "passwd", "pwd", "passphrase"];

/// The longest name that is looked at.
const LONGEST_NAME: usize = 64;

/// A value after a colon and without quotes is a secret from this length on, if it has a digit:
/// words that follow have none.
const LIKE_A_SECRET: usize = 8;

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Whether the letters before a sign can be the end of one of [`SECRETS`].
#[inline]
pub(super) fn may_name_a_secret(head: &[u8]) -> bool {
    head.last().is_some_and(|last| MAY_BE_LAST[usize::from(*last)]) && ends_like_a_secret(head)
}

/// What can stand before a sign if a secret's name does: the last letters of [`SECRETS`], and what may
/// lie between. Times and addresses, which have most of the signs, have none of it.
const MAY_BE_LAST: [bool; 256] = {
    let (mut table, mut at) = ([false; 256], 0);
    let bytes = b"detnylsDETNYLS \"'";
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
};

/// By the last letters, nearly all names can be told apart.
#[inline(never)] // so that what few signs need is not in the way of the others
fn ends_like_a_secret(head: &[u8]) -> bool {
    let name = match head {
        [name @ .., before, b'"' | b'\''] if !matches!(before, b'\\' | b' ') => &head[..=name.len()],
        [.., b' ' | b'"' | b'\''] => name_before(head).0,
        _ => head,
    };
    name.last_chunk().is_some_and(|last| {
        matches!(
            &last.map(|byte| byte | 0x20),
            b"ord" | b"swd" | b"pwd" | b"ase" | b"ret" | b"ken" | b"key" | b"ial" | b"als" | b"ion" | b"kie"
        )
    })
}

/// What stands before a sign, without spaces and the mark of a quoted name; that mark; whether
/// there are spaces.
fn name_before(head: &[u8]) -> (&[u8], Option<Quote>, bool) {
    let trimmed = trim_end(head, |byte| byte == b' ');
    let (name, quote) = Quote::before(trimmed);
    (name, quote, trimmed.len() < head.len())
}

/// The value that the sign `:` or `=` at `sign` gives to the name before it.
pub(super) fn value(text: &str, sign: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let (head, quote, is_spaced) = name_before(&bytes[..sign]);
    let name = secret_name(&head[head.len().saturating_sub(LONGEST_NAME)..])?;
    let rest = Rest { bytes, at: sign };
    let (rest, sign) = rest.sign()?;
    // `password= user=a` has no password.
    let (rest, open) = if is_spaced || sign == b':' { rest.spaces().quote() } else { rest.quote() };
    let start = if WHOLE.contains(&name) { rest.after_scheme() } else { rest.at };
    let is_certain =
        open.is_some() || sign == b'=' || quote.is_some() || PLAIN.contains(&name) || WHOLE.contains(&name);
    if !is_certain && !is_like_a_secret(&bytes[start..]) {
        return None;
    }
    let end = match open {
        Some(open) => open.end(bytes, start),
        None if WHOLE.contains(&name) => quote.map_or(bytes.len(), |quote| quote.end(bytes, start)),
        None => start + bytes[start..].iter().take_while(|byte| is_value(**byte)).count(),
    };
    says_something(&bytes[start..end]).then_some(start..end)
}

/// Whether what `bytes` begin with is no word. A look at its beginning is enough, and is all that is
/// taken: there may be a name in it again, and another in that one's value.
fn is_like_a_secret(bytes: &[u8]) -> bool {
    let begin = &bytes[..bytes.len().min(LONGEST_NAME)];
    let length = begin.iter().take_while(|byte| is_value(**byte)).count();
    length >= LIKE_A_SECRET && begin[..length].iter().any(u8::is_ascii_digit)
}

fn trim_end(bytes: &[u8], is_such: impl Fn(u8) -> bool) -> &[u8] {
    let length = bytes.iter().rposition(|byte| !is_such(*byte)).map_or(0, |last| last + 1);
    &bytes[..length]
}

/// The end of [`SECRETS`] that the name at the end of `head` has.
fn secret_name(head: &[u8]) -> Option<&'static str> {
    let mut letters =
        head.iter().rev().take_while(|byte| is_name(**byte)).filter(|byte| byte.is_ascii_alphanumeric());
    let mut name = [0; LONGEST_NAME];
    let mut begin = name.len();
    while begin > 0
        && let Some(letter) = letters.next()
    {
        begin -= 1;
        name[begin] = letter.to_ascii_lowercase();
    }
    SECRETS.iter().find(|secret| name[begin..].ends_with(secret.as_bytes())).copied()
}

/// A value without quotes ends before what separates it from the next.
fn is_value(byte: u8) -> bool {
    !byte.is_ascii_whitespace()
        && !matches!(byte, b'"' | b'\'' | b',' | b';' | b'&' | b')' | b'}' | b']' | b'>' | b'|' | b'\\')
}

/// Whether it is more than a word for nothing, and not hidden already.
fn says_something(value: &[u8]) -> bool {
    const NOTHING: [&[u8]; 8] =
        [b"null", b"nil", b"none", b"true", b"false", b"undefined", b"<nil>", b"redacted"];
    let inner = value.trim_ascii();
    let inner = inner.strip_prefix(b"[").unwrap_or(inner);
    let is_hidden =
        inner.iter().all(|byte| *byte == b'*') || (inner.len() > 2 && inner.iter().all(|byte| *byte == b'x'));
    !is_hidden
        && !NOTHING
            .iter()
            .any(|word| word.eq_ignore_ascii_case(inner) || inner.eq_ignore_ascii_case(b"redacted]"))
}

/// A quotation mark, with the backslashes that a text within a text puts before it.
#[derive(Clone, Copy)]
struct Quote {
    mark: u8,
    backslashes: usize,
}

impl Quote {
    /// What `bytes` are without the mark at their end, and that mark.
    fn before(bytes: &[u8]) -> (&[u8], Option<Self>) {
        match bytes.split_last() {
            Some((mark @ (b'"' | b'\''), head)) => {
                let name = trim_end(head, |byte| byte == b'\\');
                (name, Some(Self { mark: *mark, backslashes: head.len() - name.len() }))
            }
            _ => (bytes, None),
        }
    }

    /// Where the text ends that it opened before `from`.
    fn end(self, bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(found) = memchr::memchr(self.mark, &bytes[at..]) {
            let mark = at + found;
            let backslashes = bytes[from..mark].iter().rev().take_while(|byte| **byte == b'\\').count();
            if backslashes <= self.backslashes {
                return mark - backslashes;
            }
            at = mark + 1;
        }
        bytes.len()
    }
}

/// What is not read yet.
#[derive(Clone, Copy)]
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    fn peek(self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(self, count: usize) -> Self {
        Self { at: self.at + count, ..self }
    }

    fn count(self, is_such: impl Fn(u8) -> bool) -> usize {
        self.bytes[self.at..].iter().take_while(|byte| is_such(**byte)).count()
    }

    fn spaces(self) -> Self {
        self.skip(self.count(|byte| byte == b' '))
    }

    fn quote(self) -> (Self, Option<Quote>) {
        let backslashes = self.count(|byte| byte == b'\\');
        let after = self.skip(backslashes);
        match after.peek() {
            Some(mark @ (b'"' | b'\'')) => (after.skip(1), Some(Quote { mark, backslashes })),
            _ => (self, None),
        }
    }

    /// `:`, `=` or `=>`.
    fn sign(self) -> Option<(Self, u8)> {
        match (self.peek()?, self.skip(1).peek()) {
            (b'=', Some(b'>')) => Some((self.skip(2), b'=')),
            // `==` compares.
            (b'=', Some(b'=')) => None,
            (sign @ (b':' | b'='), _) => Some((self.skip(1), sign)),
            _ => None,
        }
    }

    /// Where the value of a header begins, behind the name of a scheme.
    fn after_scheme(self) -> usize {
        let word = self.count(|byte| byte.is_ascii_alphabetic());
        if word > 0 && self.skip(word).peek() == Some(b' ') { self.at + word + 1 } else { self.at }
    }
}
