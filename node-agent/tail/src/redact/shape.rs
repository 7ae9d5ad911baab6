//! What has the shape of a secret, wherever it stands.

use std::ops::Range;

use memchr::memmem;

/// How far the password of an address may be from its scheme.
const ADDRESS: usize = 512;

/// The longest first part of a JSON Web Token that is looked at; it may hold certificates.
const JWT_HEAD: usize = 8 * 1024;

/// How far before its scheme the word `Authorization` may stand.
const HEADER: usize = 24;

/// Tokens that their issuers begin with a prefix, so that they are found.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) prefix: &'static str,
    /// Bytes that follow it, at least.
    rest: usize,
}

/// Prefixes of tokens, from their issuers' documentation. By its place in the order one shares a bucket of the
/// search with others; in this order ordinary words are seldom taken for one (`hack/instructions` shows it).
pub(super) const ISSUED: &[Issued] = &[
    Issued { prefix: "AKIA", rest: 16 },
    Issued { prefix: "ASIA", rest: 16 },
    Issued { prefix: "AIza", rest: 30 },
    Issued { prefix: "ghp_", rest: 30 },
    Issued { prefix: "gho_", rest: 30 },
    Issued { prefix: "ghu_", rest: 30 },
    Issued { prefix: "sk_live_", rest: 16 },
    Issued { prefix: "ghr_", rest: 30 },
    Issued { prefix: "github_pat_", rest: 30 },
    Issued { prefix: "glpat-", rest: 16 },
    Issued { prefix: "xoxa-", rest: 16 },
    Issued { prefix: "xoxb-", rest: 16 },
    Issued { prefix: "xoxp-", rest: 16 },
    Issued { prefix: "xoxr-", rest: 16 },
    Issued { prefix: "rk_live_", rest: 16 },
    Issued { prefix: "xoxs-", rest: 16 },
    Issued { prefix: "ghs_", rest: 30 },
    Issued { prefix: "sk-ant-", rest: 20 },
    Issued { prefix: "sk-proj-", rest: 20 },
    Issued { prefix: "npm_", rest: 30 },
    Issued { prefix: "dckr_pat_", rest: 20 },
    Issued { prefix: "hvs.", rest: 20 },
];

/// Letters, digits and what base64url and most issuers use beside them.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// How many bytes from `at` on are such.
fn run(bytes: &[u8], at: usize, is_such: impl Fn(u8) -> bool) -> usize {
    bytes[at.min(bytes.len())..].iter().take_while(|byte| is_such(**byte)).count()
}

/// Whether the byte before `at` would make what begins there the middle of a word.
fn is_within_word(bytes: &[u8], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(u8::is_ascii_alphanumeric)
}

pub(super) fn issued(text: &str, at: Range<usize>, issued: &Issued) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let rest = run(bytes, at.end, |byte| is_token(byte) || byte == b'.');
    (rest >= issued.rest && !is_within_word(bytes, at.start)).then(|| at.start..at.end + rest)
}

/// `eyJ…`, a dot, and two more parts of base64url (RFC 7519; JWE has five).
pub(super) fn jwt(text: &str, at: Range<usize>) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let begin = &bytes[at.start..bytes.len().min(at.start + JWT_HEAD)];
    let head = run(begin, 0, is_token);
    let is_one = (10..JWT_HEAD).contains(&head)
        && begin.get(head) == Some(&b'.')
        && run(bytes, at.start + head + 1, is_token) >= 4
        && !is_within_word(bytes, at.start);
    let length = || run(bytes, at.start, |byte| is_token(byte) || byte == b'.');
    is_one.then(|| at.start..at.start + length())
}

/// `scheme://user:password@host` (RFC 3986, 3.2.1); its colon is at `colon`.
pub(super) fn password_in_address(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let begin = colon + 3;
    let rest = &bytes[begin..bytes.len().min(begin + ADDRESS)];
    let is_part =
        |byte: u8| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'\\');
    let length = run(rest, 0, is_part);
    let authority = &rest[..length];
    // A password may hold a slash, although it should not; a path may hold an @.
    let host = match memchr::memchr(b'/', authority) {
        Some(slash) => memchr::memrchr(b'@', &authority[..slash]),
        None => memchr::memrchr(b'@', authority),
    }?;
    let colon = memchr::memchr(b':', &authority[..host])?;
    (colon + 1 < host).then(|| begin + colon + 1..begin + host)
}

/// What follows `Bearer ` or `Basic ` (RFC 7235, 2.1). Both are words of other sentences too.
pub(super) fn credentials(text: &str, at: Range<usize>) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let length = run(bytes, at.end, |byte| is_token(byte) || is_base64(byte) || matches!(byte, b'.' | b'~'));
    let value = &bytes[at.end..at.end + length];
    let before = &bytes[at.start.saturating_sub(HEADER)..at.start];
    let is_header =
        memmem::find(before, b"uthorization").is_some() || memmem::find(before, b"UTHORIZATION").is_some();
    let is_bearer = bytes[at.start..].starts_with(b"earer ") || bytes[at.start..].starts_with(b"EARER ");
    let is_long = is_bearer && length >= 16 && value.iter().any(u8::is_ascii_digit);
    ((is_header && length > 0) || is_long).then(|| at.end..at.end + length)
}

/// What follows `-----BEGIN … PRIVATE KEY-----` (RFC 7468), up to the end that the text has of it.
pub(super) fn private_key(text: &str, at: Range<usize>) -> Option<Range<usize>> {
    let rest = &text.as_bytes()[at.end..];
    let length = memmem::find(rest, b"-----END").unwrap_or(rest.len());
    (length > 0).then(|| at.end..at.end + length)
}

/// Whether the text is a line of a PEM file's inside: base64 of the length that such lines have
/// (RFC 7468, 3), or the 76 of MIME. A key that is written line by line comes as such lines.
pub(super) fn is_key_material(text: &str) -> bool {
    let line = text.trim_ascii().as_bytes();
    matches!(line.len(), 64 | 76)
        && line.iter().all(|byte| is_base64(*byte))
        // A digest in hexadecimal is as long.
        && !line.iter().all(u8::is_ascii_hexdigit)
}
